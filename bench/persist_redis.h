/*
 * persist_redis.h - persistence alone into Redis: how many messages a second, and whether all of
 *                   them are there.
 *
 * Walk:  from bench/damso_bench.c; by bench/persist_load.c to Redis, and read back by
 *        persist/cache.h.
 *
 * Flushing is held back, so nothing goes into MongoDB meanwhile; the clock stops when Redis has
 * everything. Then each room's list is read: every record, whole, in the order of seq, once.
 */
#pragma once

#include "bench/options.h"
#include "bench/persist_figures.h"
#include "core/slice.h"

/* 0 or -errno with the problem said. */
int persist_redis_run(const struct options *options, struct persist_figures *figures);

/* What was found of one room; for the test. */
struct persist_redis_found {
    struct slice room_id;
    uint64_t last_seq; /* in order so far */
    uint64_t wrong;    /* records out of order, of another room, or none at all */
};

/* Takes one record of a list; always 0. */
int persist_redis_take(struct persist_redis_found *found, struct slice record);
