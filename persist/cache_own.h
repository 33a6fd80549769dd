/* cache_own.h - what the files of the cache share: cache.c (connection, scripts, writing) and
 * cache_read.c (reading, taking over). */
#pragma once

#include "persist/cache.h"
#include "persist/redis.h"

#include <errno.h>

enum {
    CACHE_WINDOW_COMMANDS = 1000,
    CACHE_SHA_BYTES = 40,
    CACHE_ROOM_BYTES_MAX = 64,
    CACHE_NUMBER_BYTES = 21,
    CACHE_KEY_BYTES = CACHE_PREFIX_BYTES_MAX + CACHE_ROOM_BYTES_MAX + 2 * CACHE_NUMBER_BYTES + 16,
    CACHE_HEAD_WORDS = 7, /* EVALSHA sha count owner log frozen number */
};

/* A result that is not there yet; of a command that met no script. */
enum { CACHE_UNKNOWN = 1, CACHE_LOST = -ENOEXEC };

enum cache_script {
    CACHE_APPEND,
    CACHE_FREEZE,
    CACHE_UNLINK,
    CACHE_CLAIM,
    CACHE_ORPHAN,
    CACHE_SCRIPTS
};

struct cache {
    struct redis *redis;
    uint64_t owner; /* 0: only reads */
    char owner_text[CACHE_NUMBER_BYTES];
    char prefix[CACHE_PREFIX_BYTES_MAX + 1];
    char run_id[CACHE_RUN_ID_BYTES];
    char sha[CACHE_SCRIPTS][CACHE_SHA_BYTES];
    uint64_t foreign_keys;

    char keys[3][CACHE_KEY_BYTES]; /* of the command that is being made */
    struct slice words[CACHE_HEAD_WORDS + CACHE_RECORDS_MAX];

    uint32_t queued; /* since the last cache_finish; the last of them are in flight */
    uint32_t in_flight;
    size_t in_flight_bytes;
    uint64_t
        position[CACHE_WINDOW_COMMANDS + 1]; /* in redis.c, of those in flight, and of their end */
    int16_t results[CACHE_COMMANDS_MAX];
};

/* Closes with words for cache_why; returns error (C3). */
int cache_give_up(struct cache *cache, int error, const char *what, struct slice text);

/* Errors after which nothing else will work either. */
bool cache_concerns_all(int error);

NODISCARD int cache_load_scripts(struct cache *cache);

/* Ends the window: nothing is in flight afterwards, its results are there. */
NODISCARD int cache_settle(struct cache *cache);

/* The key of the log (number 0), or of a frozen list, in keys[index]. */
struct slice cache_list_key(struct cache *cache, int index, struct slice room_id, uint64_t owner,
                            uint64_t number);

/* The first words of a script's command: the owner key (keys[0]), others, our number. How many. */
uint32_t cache_head(struct cache *cache, enum cache_script script, struct slice room_id,
                    const struct slice *others, uint32_t count);

/* What a script's reply means. */
int cache_result_of(struct cache *cache, const struct redis_reply *reply);

bool cache_is_room_char(char c);
