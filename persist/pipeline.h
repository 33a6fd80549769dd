/*
 * pipeline.h - persist.mode = redis+mongodb: durable records on their way through Redis into
 *              MongoDB; what the pipeline*.c files share.
 *
 *     lane --take--> stage --append job--> Redis: a batch a room --flush job--> MongoDB -->
 * watermark
 *                      \-----------------direct job (no Redis)----------------/
 *
 * The persistence thread only keeps the books: it never waits for a store. Threads of their own
 * talk to Redis (append.c), MongoDB (flush.c) and both (reader.c), by the rings of worker.h.
 *
 * What is above the watermark is in the journal. So there is one answer to whatever may happen to
 * Redis (it was restarted, a connection broke, a list is not what it should be): forget what was
 * given to it, have the shards hand over again from the watermark on, and go on without Redis until
 * it is back and what lies in it has been drained.
 *
 *                  START ok                 CONNECT ok             DRAIN ok
 *     OFFLINE ----------------> CONNECTING ------------> DRAINING ----------> CACHED
 *        |   (cache = none) \        | fails               ^  | fails           | Redis fails:
 *        v again after a while       v                     |  v                 | all is handed
 *     OFFLINE                     DIRECT -----CONNECT ok---+ DIRECT <-----------+ over again
 *
 * Walk:       pipeline_open.c (start and end), pipeline.c (turns, modes), pipeline_room.c (rooms
 * and batches), pipeline_stage.c (records taken, append and direct jobs), pipeline_flush.c (flush
 * jobs), pipeline_read.c (questions). Threads:    the persistence thread's. Units:      sizes in
 * bytes, _ns of the monotonic clock.
 *
 * Invariants: (Z1) a lane's watermark is below the first record of every batch of it, and below its
 *                  first staged record that is not done.
 *             (Z2) a room's records are staged in the order of seq without a hole; what does not
 *                  follow is an alarm, and the watermark stays before it.
 *             (Z3) a room has at most one open batch and one that is being flushed.
 *             (Z4) a question sees every record of its room that was handed over before it, or is
 *                  answered with -EAGAIN.
 */
#pragma once

#include "core/hash.h"
#include "persist/append.h"
#include "persist/embedded.h"
#include "persist/flush.h"
#include "persist/reader.h"
#include "persist/thread.h"

enum {
    PIPE_WORKERS_MAX = 16, /* flushers, and readers: as in core/config.def */
    PIPE_TICKETS = 1024,   /* questions at the readers */
    PIPE_WAITERS = 4096,   /* of shards, for all of them */
    PIPE_APPENDS = 2,      /* append jobs at a time: one in hand, the next one ready */
    PIPE_URL_BYTES = 4096,
    PIPE_BACKOFF_MIN_NS = 50 * 1000 * 1000, /* before the next attempt at a store; doubles */
};

enum pipe_mode { PIPE_OFFLINE, PIPE_CONNECTING, PIPE_DRAINING, PIPE_CACHED, PIPE_DIRECT };

struct pipe_batch;

/* A record in a stage. */
struct pipe_where {
    uint32_t lane;
    uint32_t index;
};

/* A room with records on their way, or that had some lately. */
struct pipe_room {
    struct pipe_room *chain;         /* of its bucket */
    struct pipe_room *newer, *older; /* idle ones, in the order of their last use */
    uint64_t hash;
    uint64_t taken_seq;  /* of the last record staged since the last reset; 0: none */
    uint64_t stored_seq; /* of the last one known to be in MongoDB by our own doing; 0: none */
    uint64_t dark_seq;   /* up to this one records were handed over, and are to be again: until then
                            questions are refused (Z4) */
    struct pipe_batch *open;
    struct pipe_batch *flushing;
    uint32_t staged;                             /* records in the stage that are not done */
    struct pipe_where first_staged, last_staged; /* of those, in the order of seq */
    uint32_t job_index;                          /* in the job being made, if job_stamp is its */
    uint64_t job_stamp;
    struct pipe_ticket *questions; /* about it, at the readers */
    uint32_t direct;               /* records in direct jobs */
    bool absent;                   /* MongoDB does not know the room: its records are passed over */
    bool renew;                    /* the next record follows a hole that salvage made */
    bool idle;                     /* in the list of those that may give way */
    bool blocked;                  /* its open batch is due, and goes once the other is through */
    uint8_t room_bytes;
    char room_id[64];
};

/* Records of one room in Redis: open (the log) or frozen. */
struct pipe_batch {
    struct pipe_batch *next; /* free, or due */
    struct pipe_batch *lane_newer, *lane_older;
    struct pipe_batch *open_newer, *open_older;
    struct pipe_room *room;
    uint32_t lane;
    uint32_t count;
    uint64_t number; /* of its frozen key */
    uint64_t before; /* position before its first record */
    uint64_t first_seq, last_seq;
    uint64_t bytes;
    uint64_t begun_ns;
    bool due; /* in the list of those to be frozen, or being frozen: not in that of the open ones */
};

enum staged_state { STAGED_WAITING, STAGED_IN_JOB, STAGED_DONE };

/* A record between its lane and the store. */
struct staged {
    uint64_t position;
    uint64_t before; /* position of the one before */
    uint64_t seq;
    uint64_t taken_ns;
    struct pipe_room *room; /* NULL: passed over */
    uint32_t offset, size;
    uint32_t counted;       /* against the shard's credit */
    struct pipe_where next; /* of the same room, if this is not its last */
    enum staged_state state;
};

/* A lane's: records first .. end; before scan none waits. Indices run freely. */
struct pipe_stage {
    struct staged *entries;
    uint8_t *bytes;
    uint32_t entries_max; /* a power of two */
    uint32_t bytes_max;
    uint32_t first, scan, end;
    uint32_t write_at;      /* in bytes, where the next one goes */
    uint64_t last_position; /* of the last one staged */
    uint64_t done_position; /* all up to here are done */
    uint64_t done_bytes;    /* of records done since the shard was last told (PERSIST_TAKEN) */
    bool rewinding;         /* PERSIST_REWIND was sent (or is to be): until PERSIST_REWOUND comes,
                               records are passed over */
    bool rewind_due;        /* it did not fit the ring yet */
    uint64_t dark_position; /* up to here records were passed over while rewinding, of rooms that no
                               place was left for: no room is shown before they came again */
    bool recovered;         /* PERSIST_RECOVERED came */
    struct pipe_batch *newest, *oldest; /* of this lane, by position */
};

struct pipe_append {
    struct append_job job;
    struct pipe_where where[JOB_APPEND_RECORDS];
    uint16_t group[JOB_APPEND_RECORDS]; /* of each one: index of its command */
};

struct pipe_flusher {
    struct flusher *flusher;
    uint32_t op; /* enum job_op in hand; 0: idle */
    uint64_t asked_ns;
    struct flush_job job;
    struct pipe_where where[JOB_FLUSH_RECORDS];  /* DIRECT */
    struct pipe_batch *batches[JOB_FLUSH_ROOMS]; /* FLUSH */
};

struct pipe_waiter {
    struct pipe_waiter *next;
    uint32_t lane;
    uint64_t token;
};

/* A question at a reader. Its final answer goes to all who wait for it. */
struct pipe_ticket {
    struct pipe_ticket *next; /* free, or of the same room */
    struct pipe_room *room;   /* NULL: about no room, or none that we know */
    uint64_t taken_seq;       /* of the room when it was asked: the view */
    struct persist_page page; /* HISTORY: what was asked; head.op 0: nobody may join */
    struct pipe_waiter *waiters;
};

struct pipe_list {
    struct pipe_batch *first, *last;
};

struct pipeline {
    enum pipe_mode mode;
    bool resetting; /* Redis is not to be trusted: as soon as no job is in flight, all is reset */
    bool served;    /* CACHED or DIRECT was reached once */
    bool fenced;    /* final */
    bool has_cache;
    bool sync;
    bool ending; /* shards are gone: flush all, at the latest by end_by_ns */
    bool end_asked, end_answered;
    uint64_t end_by_ns;
    uint64_t owner;
    uint64_t retry_at_ns; /* OFFLINE: of START; DIRECT: of CONNECT */
    uint64_t backoff_ns;
    uint64_t mongodb_retry_ns; /* no batch before then */
    uint64_t mongodb_backoff_ns;
    uint64_t mongodb_worked_ns; /* of the last answer that was good */
    uint64_t mongodb_failed_ns; /* what was asked before then says nothing */
    uint32_t connection;        /* with Redis, counted */
    uint64_t ping_at_ns;
    bool appended;    /* since CACHED was reached */
    uint64_t hold_ns; /* nobody is served before then: the damsod before us may still be at work,
                         and sees within that time that it is not the owner any more */
    uint64_t check_at_ns;             /* of the owner */
    uint64_t active_ns;               /* a record was taken last */
    bool redis_up, mongodb_up;        /* as last told to the log */
    int redis_status, mongodb_status; /* why not */
    bool redis_restarted;             /* its run_id was another one at the last connect */
    bool connecting;                  /* JOB_CONNECT is at the appender */
    bool pinging;
    uint64_t hurry_at_ns; /* a shard's journal fills: flush all that is older */

    /* configuration */
    uint64_t flush_messages, flush_interval_ns, flush_bytes;
    uint32_t flusher_count, reader_count;
    uint32_t batch_count, room_count;
    uint32_t bulk_max;

    struct mongo *mongo;
    struct cache_options cache;
    char server_id[EMBEDDED_BOOT_ID_BYTES]; /* of the data directory */
    char redis_url[PIPE_URL_BYTES];
    char mongodb_uri[PIPE_URL_BYTES];
    int open_error; /* of the workers; told by start */
    char open_why[256];

    struct appender appender;
    struct pipe_append *appends;         /* PIPE_APPENDS, used in turn */
    uint32_t append_first, append_count; /* jobs in flight, oldest first */
    uint32_t reserved_batches;           /* for the rooms in them */
    struct flusher *opened_flushers[PIPE_WORKERS_MAX];
    struct pipe_flusher *flushers;
    struct reader *readers[PIPE_WORKERS_MAX];

    struct pipe_stage *stages; /* one a lane */
    uint8_t *stage_bytes;      /* of all of them */
    struct staged *stage_entries;
    struct pipe_room **buckets;
    uint32_t bucket_mask;
    struct pipe_room *rooms; /* the table; free ones are chained */
    struct pipe_room *free_rooms;
    struct pipe_room *newest_idle, *oldest_idle;
    struct hash_key hash_key;
    uint64_t job_stamp;

    struct pipe_batch *batches;
    struct pipe_batch *free_batches;
    uint32_t free_batch_count;
    struct pipe_list due;   /* to be frozen */
    struct pipe_list ready; /* frozen, to be flushed */
    struct freeze_job freeze;
    bool freezing;                                /* it is at the appender */
    struct pipe_batch *newest_open, *oldest_open; /* open and not due */
    uint64_t open_bytes;                          /* of those */
    uint64_t number;                              /* of the last frozen key */
    uint64_t pending_messages, pending_bytes;

    struct pipe_ticket *tickets;
    struct pipe_ticket *free_tickets;
    struct pipe_waiter *waiters;
    struct pipe_waiter *free_waiters;
    uint32_t turns; /* lanes and readers take turns at being the first */
    bool asked;     /* a worker's bell is to go out with this turn */
};

static inline struct staged *staged_at(struct pipe_stage *stage, uint32_t index)
{
    return &stage->entries[index & (stage->entries_max - 1)];
}

static inline struct staged *staged_where(struct pipeline *pipeline, struct pipe_where where)
{
    return staged_at(&pipeline->stages[where.lane], where.index);
}

/* Shows a job to its worker; the bell goes out with the turn. */
void pipe_ask(struct persist *persist, struct worker *worker, const struct job_head *head);

/* --- pipeline_room.c --- */

void pipe_rooms_reserve(struct pipeline *pipeline, struct mem_plan *plan);
void pipe_rooms_init(struct pipeline *pipeline);

/* NULL: not there. */
struct pipe_room *pipe_room_find(struct pipeline *pipeline, struct slice room_id);

/* Makes it if need be, in place of the one idle for longest; NULL: none is idle. */
struct pipe_room *pipe_room_get(struct pipeline *pipeline, struct slice room_id);

/* After something of the room went away: it may be idle now. */
void pipe_room_release(struct pipeline *pipeline, struct pipe_room *room);

/* MongoDB does not know it: its records are passed over until a shard loads it. */
void pipe_room_is_absent(struct pipe_room *room);

struct slice pipe_room_id(const struct pipe_room *room);

/* One record more for the room's open batch, which is made if there is none: at most as many as
 * were reserved. */
void pipe_batch_add(struct persist *persist, uint32_t lane, const struct staged *entry);

/* To be frozen and flushed; once. */
void pipe_batch_set_due(struct pipeline *pipeline, struct pipe_batch *batch);

/* Is frozen: its room has no open batch any more. */
void pipe_batch_begin(struct pipeline *pipeline, struct pipe_batch *batch);

/* Is to be flushed (again). */
void pipe_batch_set_ready(struct pipeline *pipeline, struct pipe_batch *batch);

/* Is stored, or given up: gone. */
void pipe_batch_end(struct persist *persist, struct pipe_batch *batch);

/* All batches are given up; rooms are as if nothing above what is stored had been taken. */
void pipe_rooms_reset(struct persist *persist);

/* --- pipeline_stage.c --- */

void pipe_stages_reserve(struct persist *persist, struct mem_plan *plan);
void pipe_stages_init(struct persist *persist);
bool pipe_take(struct persist *persist, uint32_t lane, const struct persist_record *request);

/* Forms append jobs, or direct ones, from what waits. True: one was given. */
bool pipe_append_some(struct persist *persist);
bool pipe_direct_some(struct persist *persist);
void pipe_append_done(struct persist *persist, const struct job_answer *answer);
void pipe_direct_done(struct persist *persist, struct pipe_flusher *flusher,
                      const struct job_answer *answer);

/* Gives up what is staged; the lanes are to hand over again what is not stored. */
void pipe_stages_reset(struct persist *persist);

/* Watermarks, credit and rewinds for the shards. */
void pipe_stages_tell(struct persist *persist);

/* The watermark must never pass this position: what is behind it cannot be stored. */
void pipe_stuck(struct persist *persist, uint32_t lane, uint64_t before);

/* Records of shards wait for those of the run before. */
bool pipe_is_recovering(const struct persist *persist);

/* --- pipeline_flush.c --- */

/* Marks what is due and has it frozen; gives what is frozen to idle flushers. True: one was given.
 */
bool pipe_freeze_some(struct persist *persist);
void pipe_freeze_done(struct persist *persist, const struct job_answer *answer);
bool pipe_flush_some(struct persist *persist);
void pipe_flush_done(struct persist *persist, struct pipe_flusher *flusher,
                     const struct job_answer *answer);
uint64_t pipe_flush_due_ns(const struct persist *persist); /* UINT64_MAX: nothing waits */

/* --- pipeline_read.c --- */

void pipe_reads_reserve(struct pipeline *pipeline, struct mem_plan *plan);
void pipe_reads_init(struct pipeline *pipeline);
void pipe_request(struct persist *persist, uint32_t lane, const void *request, uint32_t size);

/* Passes on what readers answered. True: something was. */
bool pipe_reads_pass(struct persist *persist);

/* --- pipeline.c --- */

/* As struct persist_engine has them. */
bool pipe_turn(struct persist *persist);
int64_t pipe_wait_ns(const struct persist *persist);

/* START, DRAIN, CHECK or END, of the first flusher. */
void pipe_ask_flusher(struct persist *persist, enum job_op op);

/* What the others report. */

/* Redis cannot be trusted any more: reset as soon as no job is in flight. */
void pipe_distrust(struct persist *persist, const struct job_answer *answer);

/* MongoDB refused or did not answer: the next attempt is later. */
void pipe_mongodb_failed(struct persist *persist, uint64_t asked_ns,
                         const struct job_answer *answer);
void pipe_mongodb_worked(struct persist *persist, uint64_t asked_ns);

/* Another damsod took over: final. */
void pipe_fence(struct persist *persist, const struct job_answer *answer);

bool pipe_in_flight(const struct pipeline *pipeline); /* a job is, reads aside */
