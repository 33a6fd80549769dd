/* web_files.h - the web client's files, read once at start and served from memory to every shard.
 */
#pragma once

#include "core/config.h"
#include "core/mem.h"
#include "core/os.h"
#include "core/slice.h"

#include <stddef.h>
#include <stdint.h>

enum { WEB_FILES_MAX = 64, WEB_NAME_MAX = 64, WEB_FILE_BYTES_MAX = 128 * 1024 };

struct web_file {
    char name[WEB_NAME_MAX + 2]; /* "/app.js"; "/" is index.html */
    struct slice type;
    struct slice content;
    char etag[24]; /* with its quotes */
};

struct web_files {
    uint32_t count;
    struct web_file files[WEB_FILES_MAX];
};

/* Reads server.web, or web beside or above the binary, or the installed place. A missing directory
 * is no error: there is no client then. 0 or -errno with a sentence for people (too many, too
 * large, unreadable). */
NODISCARD int web_files_open(struct web_files *web, const struct config *config,
                             struct mem_plan *plan, char *ret_why, size_t why_size);

/* The file with that path, or NULL. */
const struct web_file *web_files_find(const struct web_files *web, struct slice path);
