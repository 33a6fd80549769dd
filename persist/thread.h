/*
 * thread.h - what the persistence thread works with; the door, both engines and what replies share
 *            it.
 *
 * Walk:       persist.c (the door: turns, lanes) calls an engine: embedded.c, which has batch.c
 *             (records), answer.c (reads, rooms) and account.c (users), or pipeline.c; all reply
 *             through lane.c.
 * Threads:    the persistence thread's own, except stopping and well, and what main sets up
 *             before it starts and takes down after it ended.
 * Ownership:  struct persist lies in its own memory plan and goes with it.
 * Units:      sizes in bytes; _ns of the monotonic clock.
 */
#pragma once

#include "core/mem.h"
#include "persist/answer.h"
#include "persist/persist.h"
#include "persist/store.h"

#include <pthread.h>
#include <semaphore.h>

enum { IDLE_WAIT_NS = 1000000000 }; /* of the thread without anything to do */

/* The persistence thread's side of a lane: a shard's, or the recovered one. */
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

struct persist;
struct pipeline;

/* What stands behind the door: SQLite (embedded.c), or Redis and MongoDB (pipeline.c). Called by
 * the persistence thread, but those said to be main's. */
struct persist_engine {
    /* main: opens stores by persist->config; persist->plan is not sealed yet. 0, or -errno with a
     * sentence for people, and then nothing is open. */
    int (*open)(struct persist *persist, char *ret_why, size_t why_size);
    /* main: as persist_replay and persist_replay_end; NULL: records come by a recovered lane. */
    int (*replay)(struct persist *persist, const void *record, uint32_t size, bool salvage);
    int (*replay_end)(struct persist *persist);
    /* main: what the thread works with, into the plan (also to count, for damsod --plan), by
     * configuration, lane_count and page_bytes. */
    void (*reserve)(struct persist *persist, struct mem_plan *plan);
    /* main: once the plan is sealed, before the persistence thread runs; starts threads of its own.
     * 0 or -errno; stop follows either way. */
    int (*start)(struct persist *persist);
    /* Takes a record from a lane, its bytes behind the request, or says that it must wait (false).
     */
    bool (*take)(struct persist *persist, uint32_t lane, const struct persist_record *request);
    /* Whether records and requests are taken at all for now. */
    bool (*is_full)(const struct persist *persist);
    /* Any other request, at least struct persist_head; answers it now or later. */
    void (*request)(struct persist *persist, uint32_t lane, const void *request, uint32_t size);
    /* The rest of a turn, after the lanes, before replies go out: true: something was done. */
    bool (*turn)(struct persist *persist);
    /* Housekeeping that may take long, so after the replies; NULL: there is none. idle: nothing was
     * done in this turn. */
    void (*tend)(struct persist *persist, bool idle);
    /* How long the thread may sleep for what the engine waits for, in ns; at most IDLE_WAIT_NS. */
    int64_t (*wait_ns)(const struct persist *persist);
    /* Shards are gone, the lanes empty: one more attempt at what is left, here or in the turn that
     * follows each call; waits itself, with a bound, for what it needs to. True: call it again. */
    bool (*drain)(struct persist *persist);
    /* main: the thread has ended, or never ran; ends threads of its own, and gives back what is not
     * the plan's. After each reserve in a MEM_MAP plan, whatever start did. */
    void (*stop)(struct persist *persist);
    /* main: marks a clean stop if everything is stored, and closes the stores. */
    void (*close)(struct persist *persist);
};

/* Redis before MongoDB; the other one is in persist/embedded.h. */
extern const struct persist_engine pipeline_engine;

/* What is marked E is the embedded engine's only. */
struct persist {
    struct doorbell bell;     /* first: it keeps two cache lines to itself */
    struct mem_plan own_plan; /* of this struct */
    struct mem_plan plan;     /* of the engine's stores */
    struct mem_plan thread_plan;
    const struct persist_engine *engine;
    const struct config *config; /* the caller's, until persist_close */
    struct pipeline *pipeline;   /* of that engine */
    struct store *store;         /* E */

    uint32_t ring_bytes;
    uint32_t batch_records; /* E */
    uint32_t keys_max;
    uint32_t password_workers;
    uint32_t password_queue;

    bool replaying;    /* E */
    bool run_begun;    /* persist_replay_end was there */
    uint64_t replayed; /* E: bytes of records in the open transaction of the replay */
    int reserve_error; /* E: of what reserve could not do; told by start */

    struct os_ring *ring;
    struct os_ring *stop_ring; /* main's, to ring the bell once */
    pthread_t thread;
    sem_t enabled; /* the thread owns its ring now */
    int enable_error;
    bool started;
    _Atomic bool stopping;
    _Atomic bool well;
    _Atomic bool fenced;
    _Atomic int state;        /* enum persist_state */
    pthread_mutex_t why_lock; /* of why */
    char why[384];            /* why a store is away */

    struct metrics *metrics;
    struct lane *lanes;
    uint32_t lane_count;
    bool watermark_due;  /* one did not fit its ring yet */
    uint8_t *page;       /* where an answer is composed, of page_bytes */
    uint32_t page_bytes; /* of the largest reply that a lane's ring can always take */

    struct batch batch;       /* E */
    struct answerer answerer; /* E */
};

/* The one tag of the thread's ring: something is to be looked at. */
static inline uint64_t thread_wake_tag(void)
{
    return os_tag(1, 0, 0);
}

/* Main wants the thread to end; no shard runs any more. */
static inline bool thread_is_stopping(const struct persist *persist)
{
    /* Acquire pairs with the release in persist_close: what main did before it is seen. */
    return atomic_load_explicit(&persist->stopping, memory_order_acquire);
}
