/*
 * flush.h - a thread that brings batches into MongoDB, out of Redis or out of our memory.
 *
 *     freeze -> read -> check -> insert -> unlink          (the watermark is the asker's)
 *
 * Every step can be repeated: a batch that failed anywhere is given again, with frozen set if that
 * had happened, and what MongoDB has already is found by _id and mid.
 *
 * Walk:       from persist/pipeline.c (JOB_START, _DRAIN, _FLUSH, _DIRECT, _END of persist/jobs.h);
 *             to persist/cache.h (its own connection) and persist/store_mongo.h.
 *
 * Invariants: (F1) nothing is removed from Redis before MongoDB acknowledged it.
 *             (F2) before each batch the owner is checked in MongoDB, and by every script in Redis.
 *             (F3) a batch with a hole is not stored beyond the hole.
 */
#pragma once

#include "persist/cache.h"
#include "persist/jobs.h"
#include "persist/store_mongo.h"
#include "persist/worker.h"

enum { FLUSH_TAKEOVER_LISTS = 65536 /* found by one scan; more are found by the next one */ };

struct flusher;

struct flush_options {
    const struct cache_options *cache; /* NULL: persist.cache = none */
    struct mongo *mongo;
    uint32_t bulk_max; /* documents of a bulk; 1 with persist.flush_mode = sync */
    uint32_t keys_max;
    struct slice boot_id;   /* 36 bytes, copied */
    struct slice server_id; /* of the data directory, at most 36 bytes, copied */
};

/* As appender_open. struct worker is the first member of struct flusher. */
NODISCARD int flusher_open(const struct flush_options *options, const struct worker_options *worker,
                           struct mem_plan *plan, struct flusher **ret, char *ret_why,
                           size_t why_size);
struct worker *flusher_worker(struct flusher *flusher);

/* After worker_stop. */
void flusher_close(struct flusher *flusher);
