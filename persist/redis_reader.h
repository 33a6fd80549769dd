/*
 * redis_reader.h - bytes of a server in, replies out, in memory that is bounded whatever it says.
 *
 * hiredis' reader parses; with functions of ours, which put every object into one block that is
 * emptied for the next reply: nothing is allocated or freed for an element.
 *
 * Walk:       from persist/redis.c; the only file that names hiredis.
 * Ownership:  the arena is the caller's, REDIS_ARENA_BYTES. A reply is good until the next take.
 *
 * Invariants: R3 of redis.h: (a) at most REDIS_REPLY_BYTES_MAX are fed between two replies, (b) the
 *             arena bounds what they become, (c) an array says at most REDIS_ELEMENTS_MAX, and
 *             hiredis refuses more than eight in each other, (d) a line ends after 64 KiB.
 */
#pragma once

#include "persist/redis.h"

enum { REDIS_ARENA_BYTES = REDIS_REPLY_BYTES_MAX + 4 * 1024 * 1024 };

struct redisReader;

struct redis_reader {
    struct redisReader *reader; /* NULL: not begun */
    uint64_t fed;               /* bytes since the last whole reply */
    char *arena;
    size_t used;
    size_t touched; /* used at most since memory was given back */
};

/* Forgets what was fed, and begins with a new connection. 0 or -ENOMEM. */
NODISCARD int redis_reader_begin(struct redis_reader *reader);
void redis_reader_end(struct redis_reader *reader);

/* Takes a copy of bytes: 0, -EMSGSIZE (R3), -ENOMEM. */
NODISCARD int redis_reader_feed(struct redis_reader *reader, const char *bytes, size_t size);

/* The next whole reply: 1, 0 there is none yet, -EPROTO this is not RESP2, -EMSGSIZE (R3). After an
 * error it has ended. */
NODISCARD int redis_reader_take(struct redis_reader *reader, struct redis_reply *ret);
