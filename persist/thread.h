/*
 * thread.h - what the persistence thread works with; the files of this room share it.
 *
 * Walk:       persist.c (turns, lanes) calls batch.c (records), answer.c (reads, rooms) and
 *             account.c (users); all reply through lane.c.
 * Threads:    the persistence thread's own, except stopping and well, and what main sets up
 *             before it starts and takes down after it ended.
 * Ownership:  struct persist lies in its own memory plan and goes with it.
 * Units:      sizes in bytes; _ns of the monotonic clock.
 */
#pragma once

#include "core/mem.h"
#include "persist/password.h"
#include "persist/persist.h"
#include "persist/store.h"

#include <pthread.h>
#include <semaphore.h>

/* The persistence thread's side of a shard's lane. */
struct lane {
    struct persist_lane *door;
    uint64_t taken;       /* position of the last record taken */
    uint64_t stored;      /* position up to which all of them are durable in the store */
    uint64_t told;        /* the last watermark sent */
    uint64_t stuck_after; /* stored rises no further than this if stuck */
    bool stuck;           /* a record could not be stored: P3 */
    uint32_t batch_bytes; /* its records in the batch */
    uint32_t reply_max;   /* size of a reply that its ring can always take when empty */
};

struct batch_entry {
    uint64_t position;
    uint64_t offset; /* of the record's bytes in the batch */
    uint32_t lane;
    uint32_t size;
};

enum { BATCH_ALARMS_MAX = 64, BATCH_HELD_BYTES = 256 * 1024 };

/* The open transaction: its records, kept until they are committed, and the replies that wait for
 * that. See batch.h. */
struct batch {
    struct batch_entry *entries;
    uint32_t count;
    uint32_t entries_max;
    uint32_t applied; /* of count, how many are in the store's open transaction */
    uint8_t *bytes;
    uint64_t used;
    uint32_t lane_bytes_max;
    uint32_t records; /* a batch is committed when it has that many */

    uint64_t interval_ns; /* how long a record may wait for its commit */
    bool hurry;           /* a shard's journal fills: commit soon */
    bool open;            /* the store has a transaction open */
    uint64_t begun_ns;
    bool refusing;       /* the last commit, or an append, failed */
    bool unreadable;     /* refusing, and even applying failed: reads would miss records */
    uint64_t backoff_ns; /* before the next attempt */
    uint64_t retry_at_ns;

    uint8_t *held; /* replies, each behind a struct batch_held */
    uint32_t held_used;
    uint32_t held_count;

    uint32_t alarm_count; /* rooms that an alarm was raised for, by hash_home */
    uint64_t alarms[BATCH_ALARMS_MAX];
};

struct account_job;

struct persist {
    struct doorbell bell; /* first: it keeps two cache lines to itself */
    struct mem_plan plan; /* of the store and this struct */
    struct mem_plan thread_plan;
    struct store *store;

    uint32_t ring_bytes;
    uint32_t batch_records;
    uint32_t keys_max;
    uint32_t password_workers;
    uint32_t password_queue;

    bool replaying;
    bool run_begun;
    uint64_t replayed; /* bytes of records in the open transaction of the replay */

    struct os_ring *ring;
    struct os_ring *stop_ring; /* main's, to ring the bell once */
    pthread_t thread;
    sem_t enabled; /* the thread owns its ring now */
    int enable_error;
    bool started;
    _Atomic bool stopping;
    _Atomic bool well;

    struct metrics *metrics;
    struct lane *lanes;
    uint32_t lane_count;
    struct batch batch;
    bool watermark_due; /* one did not fit its ring yet */
    uint8_t *page;      /* where an answer is composed, of page_bytes */
    uint32_t page_bytes;

    struct password_pool *passwords;
    struct account_job *jobs; /* free ones */
};
