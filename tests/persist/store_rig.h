/* store_rig.h - a directory of a test's own, and records to store, for the tests of persist/. */
#pragma once

#include "core/check.h"
#include "core/os.h"
#include "core/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RIG_PATH_BYTES = 200, RIG_RECORD_MAX = 8192 };

/* A new directory beside the test, or where TMPDIR says. */
static inline void rig_make(char directory[RIG_PATH_BYTES])
{
    const char *parent = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): nobody sets it */
    const int size = snprintf(directory, RIG_PATH_BYTES, "%s/test_persist.XXXXXX",
                              parent != NULL ? parent : ".");
    CHECK(size > 0 && size < RIG_PATH_BYTES);
    CHECK(mkdtemp(directory) != NULL);
}

static inline int rig_remove_file(void *context, const char *name)
{
    char path[RIG_PATH_BYTES + 256];

    (void)snprintf(path, sizeof(path), "%s/%s", (const char *)context, name);
    return os_file_remove(path);
}

static inline void rig_remove(char directory[RIG_PATH_BYTES])
{
    CHECK(os_directory_list(directory, rig_remove_file, directory) == 0);
    CHECK(rmdir(directory) == 0);
}

static inline struct slice rig_slice(const char *text)
{
    return (struct slice){text, (uint32_t)strlen(text)};
}

/* A message whose body tells its room and seq. buffer holds the body. */
static inline struct record rig_message(char buffer[64], const char *room, uint64_t epoch,
                                        uint64_t seq)
{
    const int size = snprintf(buffer, 64, "%s/%lu", room, (unsigned long)seq);
    return (struct record){
        .kind = RECORD_MESSAGE,
        .epoch = epoch,
        .seq = seq,
        .at_ms = 1000 + seq,
        .room_id = rig_slice(room),
        .user_id = SLICE("u1"),
        .username = SLICE("Ann"),
        .body = {buffer, (uint32_t)size},
    };
}

/* Makes it a keyed one: digest and content follow from number. */
static inline void rig_key(struct record *record, uint64_t number)
{
    record->flags = RECORD_KEYED;
    memset(record->key_digest, 0xab, sizeof(record->key_digest));
    memcpy(record->key_digest, &number, sizeof(number));
    record->content_digest = number * 31;
}
