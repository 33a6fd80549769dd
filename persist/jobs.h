/*
 * jobs.h - what the persistence thread asks of the threads that talk to Redis and MongoDB, and what
 *          they answer.
 *
 * Walk:       from persist/pipeline*.c by a worker's rings (persist/worker.h); to append.c (one
 *             thread: records into Redis) and flush.c (some threads: batches into MongoDB).
 * Threads:    a job belongs to the persistence thread, and to the worker from the question to the
 *             answer. What it points to (records, room_ids) does not move or change meanwhile.
 * Units:      sizes in bytes, _ns of the monotonic clock.
 */
#pragma once

#include "core/slice.h"
#include "persist/mongo.h"
#include "persist/store_mongo.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    JOB_APPEND_ROOMS = 1000, /* commands in flight at most */
    JOB_APPEND_RECORDS = 8192,
    JOB_APPEND_BYTES =
        1024 * 1024, /* of records in one job; one record more than that is a job too */
    JOB_FLUSH_ROOMS = 256,
    JOB_FLUSH_RECORDS = MONGO_BULK_MAX,
    JOB_FLUSH_BYTES = 4 * 1024 * 1024,
    JOB_WHY_BYTES = MONGO_WHY_BYTES,
};

enum job_op {
    JOB_CONNECT = 1, /* append.c: connects to Redis, for owner */
    JOB_PROBE,       /* append.c: whether Redis takes writes */
    JOB_PING,        /* append.c: a round trip, while there is nothing else */
    JOB_APPEND,      /* append.c: struct append_job */
    JOB_FREEZE, /* append.c: struct freeze_job; behind the appends that were asked for before */
    JOB_START,  /* flush.c: prepares MongoDB, takes over, begins the run: number is the owner */
    JOB_DRAIN,  /* flush.c: whatever lies in Redis goes into MongoDB: taking over */
    JOB_FLUSH,  /* flush.c: struct flush_job, out of Redis */
    JOB_DIRECT, /* flush.c: struct flush_job, out of our memory */
    JOB_CHECK,  /* flush.c: whether we are still the owner */
    JOB_END,    /* flush.c: all is stored: marks a clean stop */
};

/* A question. */
struct job_head {
    uint32_t op;
    uint32_t
        connection;  /* of the appender with Redis, counted: a flusher's own is made anew with it */
    uint64_t number; /* the owner, but of START */
    void *job;       /* APPEND, FREEZE, FLUSH, DIRECT */
};

/* Where a failure lies. */
enum job_where { JOB_WHERE_NONE, JOB_WHERE_REDIS, JOB_WHERE_MONGODB };

/* An answer. status: 0; -ESTALE another damsod took over; -ENODATA Redis does not have what it was
 * given (a list is missing, short, or has a hole); -ENOSPC (APPEND) Redis is at maxmemory, part of
 * the job may be in; other -errno: of the store that where names, and why says it in words.
 * -EAGAIN: worth another attempt later. */
struct job_answer {
    uint32_t op;
    int32_t status;
    uint64_t number; /* START: the owner; DRAIN: records found */
    void *job;
    uint64_t ns;       /* it took */
    uint64_t redis_ns; /* of one round trip seen on the way, 0: none */
    uint64_t mongodb_ns;
    uint8_t where;  /* enum job_where */
    bool restarted; /* CONNECT: Redis has another run_id than at the last one. START: another
                       damsod, of another data directory, was at work and may still be */
    uint16_t why_bytes;
    uint32_t quarantined; /* FLUSH, DIRECT: records that MongoDB refused or had another one for */
    char why[JOB_WHY_BYTES];
};

/* Records of one room, next to each other in the job's records. */
struct append_room {
    struct slice room_id;
    uint32_t first, count; /* of records; at most CACHE_RECORDS_MAX */
    int32_t result;        /* as persist/cache.h: 0, -ESTALE, -ENOSPC, -EIO */
    void *room;            /* the asker's */
};

/* status 0: every result is 0. Otherwise results say which are in for certain; with a connection
 * lost none does. */
struct append_job {
    uint32_t room_count, record_count;
    struct append_room rooms[JOB_APPEND_ROOMS];
    struct slice records[JOB_APPEND_RECORDS];
};

/* A room's log that becomes a frozen key. */
struct freeze_room {
    struct slice room_id;
    uint64_t number;
    int32_t result; /* as persist/cache.h: 0, -ESTALE, -ENOENT, -EEXIST, -EIO */
    uint32_t zero;
    void *batch; /* the asker's */
};

/* status as for APPEND; -ENODATA: a log is not there, or its frozen key is already. */
struct freeze_job {
    uint32_t room_count;
    uint32_t zero;
    struct freeze_room rooms[JOB_FLUSH_ROOMS];
};

/* What became of a room's records. */
enum flush_result {
    FLUSH_STORED, /* all of them are in MongoDB (or quarantine) */
    FLUSH_PASSED, /* the room is not there: nothing was stored, nothing is to be */
    FLUSH_HOLE,   /* first_seq does not follow the last one in MongoDB: nothing was stored */
    FLUSH_STUCK,  /* stored but for some that must stay in the journal (conflict, unkept) */
    FLUSH_UNDONE, /* not done: status says why */
};

struct flush_room {
    struct slice room_id;
    uint64_t number;              /* FLUSH: of the frozen key */
    uint64_t first_seq, last_seq; /* all of them, without a hole */
    bool frozen;                  /* FLUSH: it is frozen already, by an earlier attempt; the worker
                                     sets it once that is known */
    bool check; /* nothing of this room was stored in this run: look whether the room is there, and
                   whether first_seq follows (or repeats) what MongoDB has */
    bool renew; /* DIRECT: a part of the room's log is lost (salvage): store_mongo_renew first, and
                   no check of first_seq */
    uint8_t result; /* enum flush_result */
    uint8_t zero[4];
    void *room; /* the asker's */
};

/* FLUSH: the records of all rooms are in Redis; a room may have more than JOB_FLUSH_RECORDS, then
 * it is alone. DIRECT: records holds them, in any order of rooms, each room's in the order of seq,
 * and record_room the index of each one's room. status 0: every result is final. */
struct flush_job {
    uint32_t room_count, record_count;
    struct flush_room rooms[JOB_FLUSH_RECORDS];
    struct slice records[JOB_FLUSH_RECORDS];
    uint16_t record_room[JOB_FLUSH_RECORDS];
};
