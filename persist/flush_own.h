/*
 * flush_own.h - what the files of the flusher share; nobody else includes it.
 *
 * Walk:       flush.c (opening, jobs, START, END, bulks) to flush_batch.c (FLUSH, DIRECT) and
 *             flush_takeover.c (DRAIN).
 * Threads:    the flusher's own.
 *
 * A function that fails returns what flush_failed* returned: the answer then says where and why,
 * and nobody above says it again.
 *
 * What is read from Redis is never taken for what it should be. A list may hold records twice,
 * since an append whose reply was lost is sent again; more than was asked for, since one that was
 * given up may have been taken all the same; and these in another order, since Redis may have stood
 * still and then taken what an old connection had sent. So records outside of a batch's seqs are
 * passed over, and the ones inside are told apart by seq and digest.
 */
#pragma once

#include "core/record.h"
#include "persist/flush.h"
#include "persist/store_mongo_ends.h"

enum {
    FLUSH_SEEN_MAX = 65536, /* seqs that are told apart; further ahead counts as a hole */
    FLUSH_RAW_MAX = 2 * JOB_FLUSH_RECORDS, /* one more of each room than it should have */
    FLUSH_RANGE = 256, /* elements of one reply: below 64 MiB with the largest records */
    FLUSH_OWED_MAX = 1024,
    FLUSH_BOOT_ID_MAX = 64,
    FLUSH_ROOM_ID_MAX = 64,
};

/* --- seqs of a room that were seen, in one pass over its lists --- */

struct flush_seen_slot {
    uint64_t seq; /* 0: none */
    uint64_t digest;
};

struct flush_seen {
    struct flush_seen_slot
        *slots;    /* FLUSH_SEEN_MAX; a seq's is its distance from first, in a ring */
    uint32_t used; /* of slots, to be emptied for the next pass */
    uint64_t first;
    uint64_t next; /* the lowest one from first on that was not seen */
    uint64_t top;  /* the highest one that was; 0: none */
};

enum flush_sight {
    FLUSH_SIGHT_NEW,   /* or seen so long ago that it is not known any more */
    FLUSH_SIGHT_AGAIN, /* the same bytes */
    FLUSH_SIGHT_OTHER, /* other bytes under the same seq */
    FLUSH_SIGHT_FAR,   /* too far ahead of next */
};

void flush_seen_begin(struct flush_seen *seen, uint64_t first);

/* seq is at least first. */
enum flush_sight flush_seen_look(struct flush_seen *seen, uint64_t seq, struct slice record);

/* --- the flusher --- */

/* What is known of one room of the job in hand. In a takeover only mark 0 is used. */
struct flush_mark {
    uint32_t left; /* records still to be stored; 0: its result is final */
    uint32_t raw_first, raw_count;
    bool out;  /* has its result without being stored (passed, a hole), or Redis lacks it */
    bool slow; /* too large for one look, see flush_batch.c */
    bool stuck, unkept;
};

/* Documents of one insert. */
struct flush_bulk {
    uint32_t count;
    uint32_t bytes;
    struct slice records[MONGO_BULK_MAX];
    uint16_t rooms[MONGO_BULK_MAX]; /* index of the mark */
    uint8_t results[MONGO_BULK_MAX];
};

/* A list of Redis that is stored and could not be removed yet. */
struct flush_owed {
    uint64_t number;
    uint8_t room_bytes;
    char room_id[FLUSH_ROOM_ID_MAX];
};

/* A list found by a takeover. */
struct flush_list {
    uint64_t owner, number; /* number 0: a log */
    bool keep;              /* holds what is not in MongoDB */
    uint8_t room_bytes;
    char room_id[FLUSH_ROOM_ID_MAX];
};

struct flusher {
    struct worker worker; /* first */
    struct store_mongo *store;
    struct cache *cache;  /* NULL: persist.cache = none */
    uint64_t cache_owner; /* that it is connected for */
    uint32_t connection;  /* of the appender's, since when this one is */
    uint64_t owner;       /* of the job in hand, or the last one */
    uint64_t checked_ns;  /* of the last look at the owner; 0: not yet in this job */
    uint64_t
        drained_owner; /* for whom DRAIN was done: what lies in Redis since then is this run's */
    uint32_t bulk_max;
    uint32_t boot_id_bytes;
    char boot_id[FLUSH_BOOT_ID_MAX];
    uint32_t server_id_bytes;
    char server_id[FLUSH_BOOT_ID_MAX];
    struct job_answer answer; /* being made */
    struct flush_job *job;    /* in hand: FLUSH and DIRECT */
    int row_error;            /* of a row callback; told by it already */
    uint8_t *buffer;          /* JOB_FLUSH_BYTES of records out of Redis */
    uint32_t buffer_used;
    struct flush_bulk bulk;
    struct flush_seen seen;
    struct flush_mark marks[JOB_FLUSH_RECORDS];
    struct slice raw[FLUSH_RAW_MAX];
    uint32_t raw_count;
    struct cache_range ranges[FLUSH_RAW_MAX];
    uint16_t range_rooms[FLUSH_RAW_MAX];
    uint16_t queued[JOB_FLUSH_RECORDS]; /* rooms of queued commands, and of ends */
    struct store_mongo_end ends[JOB_FLUSH_RECORDS];
    int queued_result; /* the worst of them */
    struct flush_owed owed[FLUSH_OWED_MAX];
    uint32_t owed_count;
    struct flush_list *lists; /* FLUSH_TAKEOVER_LISTS */
    uint32_t list_count;
};

/* --- flush.c --- */

/* Says in the answer what failed; returns the status. What Redis may get over by itself becomes
 * -EAGAIN. */
int flush_failed_redis(struct flusher *flusher, int error);
int flush_failed_mongodb(struct flusher *flusher, int error);
__attribute__((format(printf, 4, 5))) int flush_failed(struct flusher *flusher,
                                                       enum job_where where, int status,
                                                       const char *format, ...);

/* -EAGAIN once main wants the thread to end; else 0. */
int flush_go_on(struct flusher *flusher);

/* F2; at most once a second within a job. */
int flush_check_owner(struct flusher *flusher);

/* Connects to Redis for the owner if it is not. */
int flush_connect(struct flusher *flusher);

/* One record more for the bulk, which is stored first if it is full. copy: the record does not
 * outlive the call. */
int flush_bulk_add(struct flusher *flusher, struct slice record, uint32_t room, bool copy);

/* Stores what is in the bulk, and enters into marks (and the job's results) what became of it. */
int flush_bulk_store(struct flusher *flusher);

/* One record of the room less to be stored; with the last one its result is final. */
void flush_settle(struct flusher *flusher, uint32_t room);

/* 0, or -EBADMSG: it is no record of the room. */
int flush_decode(struct slice record, struct slice room_id, struct record *ret);

/* --- flush_batch.c --- */

int flush_job_run(struct flusher *flusher, struct flush_job *job);
int flush_direct_run(struct flusher *flusher, struct flush_job *job);

/* --- flush_takeover.c --- */

int flush_drain_run(struct flusher *flusher);
