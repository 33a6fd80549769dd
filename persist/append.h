/*
 * append.h - the thread that puts durable records into Redis.
 *
 * Walk:       from persist/pipeline.c (JOB_CONNECT, _PROBE, _PING, _APPEND, _FREEZE of
 * persist/jobs.h); to persist/cache.h.
 */
#pragma once

#include "persist/cache.h"
#include "persist/jobs.h"
#include "persist/worker.h"

struct appender {
    struct worker worker; /* first */
    struct cache *cache;
    bool connected_before;
    char run_id[CACHE_RUN_ID_BYTES]; /* of the last connection */
    struct append_job *job;          /* in hand */
    struct freeze_job *freeze;       /* the same */
};

/* Reserves and opens; worker: as worker_open wants it, with name, rings and asker set by the caller
 * and the rest by us. In a MEM_COUNT plan only counts. 0 or -errno with a sentence. */
NODISCARD int appender_open(struct appender *appender, const struct cache_options *cache,
                            const struct worker_options *worker, struct mem_plan *plan,
                            char *ret_why, size_t why_size);

/* After worker_stop. */
void appender_close(struct appender *appender);
