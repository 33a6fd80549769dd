/*
 * persist_stores.h - the Redis and the MongoDB that a persistence scenario runs against.
 *
 * Walk:       from the persistence scenarios; to scripts/servers, if no servers are named.
 * Threads:    one.
 * Ownership:  what it starts it stops, and those end with this process too (--until). In servers
 *             that were named, every run has a key prefix and a database of its own, and the
 *             database is dropped after it. Rooms' owner keys stay in Redis until they expire.
 * Units:      seconds.
 */
#pragma once

#include "bench/options.h"
#include "bench/persist_figures.h"
#include "core/check.h"

#include <stddef.h>

/* As long as configuration values may be (core/config.h). */
enum { PERSIST_STORES_URL = 256, PERSIST_STORES_PATH = 512, PERSIST_STORES_NAME = 64 };

struct persist_stores {
    char redis_url[PERSIST_STORES_URL];
    char mongodb_uri[PERSIST_STORES_URL]; /* as it was given */
    char program[PERSIST_STORES_PATH];    /* scripts/servers */
    char directory[PERSIST_STORES_PATH];  /* of its --data; empty: theirs, CPU times unknown */
    char made[PERSIST_STORES_PATH];       /* the directory above that, ours; empty: not started */
    uint32_t names;
    double started_s; /* it took */
};

/* What one run has for itself. */
struct persist_space {
    char prefix[PERSIST_STORES_NAME];
    char database[PERSIST_STORES_NAME];
    char mongodb_uri[PERSIST_STORES_URL];
};

struct persist_stores_cpu {
    double redis_s, mongodb_s; /* NAN: not known */
};

/* Takes the servers that the options name, or starts a pair. 0, or -errno with the problem said. */
NODISCARD int persist_stores_begin(struct persist_stores *stores, const struct options *options,
                                   struct persist_figures *figures);
void persist_stores_end(struct persist_stores *stores);

/* A prefix and a database that nobody has. 0, or -errno with the problem said: the URI is none. */
NODISCARD int persist_stores_space(struct persist_stores *stores, struct persist_space *ret,
                                   struct persist_figures *figures);

/* Drops the database. */
void persist_stores_drop(const struct persist_space *space);

/* CPU times of the servers so far; MongoDB's are those of all its processes. */
void persist_stores_cpu(const struct persist_stores *stores, struct persist_stores_cpu *ret);

/* --- parts, for their test --- */

/* The URI with another database in its path. The accounts stay where they were: their database is
 * the one in the path, unless authSource names it, and admin if there is none. 0; -EINVAL: it is no
 * mongodb URI; -ENAMETOOLONG. */
NODISCARD int persist_stores_uri(const char *uri, const char *database, char *dst, size_t capacity);

/* cpu_seconds of a server in what `scripts/servers status --json` prints; NAN: not in there. */
double persist_stores_parse_cpu(const char *status, const char *name);
