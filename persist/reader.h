/*
 * reader.h - a thread that answers questions out of Redis and MongoDB, so that a read never waits
 *            behind a batch.
 *
 * Walk:       from persist/pipeline_read.c (a request of a shard, and where the room's newest
 *             records are); through persist/answer.c and persist/tail.c; back the same way.
 *
 * A request comes with a view of its room, made by the persistence thread at the same moment: the
 * lists in Redis that hold records, and copies of those that are on their way there. The view is
 * complete: every record that was handed over before the request is in it, or in MongoDB.
 */
#pragma once

#include "persist/answer.h"
#include "persist/cache.h"
#include "persist/mongo.h"
#include "persist/worker.h"

enum { READ_LISTS_MAX = 2, READ_OVERLAY_BYTES_MAX = 512 * 1024 };

/* A batch of the room: in the frozen key OWNER.number, or while open, in that or still in the log
 * (it may be frozen at any moment, and others may follow in the log then). */
struct read_list {
    uint64_t number;
    uint64_t first_seq;
    uint32_t count; /* records, one a seq */
    bool open;
    uint8_t zero[3];
};

/* Opens a question; behind it the shard's request, filled up to a multiple of 8, then the overlay:
 * records in the order of seq, each behind its size as uint64_t, filled up to a multiple of 8. */
struct read_head {
    uint32_t ticket; /* comes back */
    uint32_t request_bytes;
    uint32_t overlay_count, overlay_bytes;
    uint64_t owner;
    uint32_t list_count; /* in the order of seq */
    uint32_t zero;
    struct read_list lists[READ_LISTS_MAX];
};

/* Opens an answer; the reply for the shard behind it. A question has one final answer; before that
 * members and keys of a room may come. */
struct read_answer {
    uint32_t ticket;
    uint8_t final;
    uint8_t failed; /* enum job_where (persist/jobs.h): a store did not answer as it should */
    uint16_t zero;
    uint64_t redis_ns, mongodb_ns; /* of round trips on the way, 0: none */
};

struct reader;

struct reader_options {
    const struct cache_options *cache; /* NULL: persist.cache = none */
    struct mongo *mongo;
    uint32_t keys_max;
    uint32_t page_bytes;       /* of the largest reply */
    uint32_t password_workers; /* 0: accounts with passwords are another reader's */
    uint32_t password_queue;
};

/* As appender_open (persist/append.h). */
NODISCARD int reader_open(const struct reader_options *options, const struct worker_options *worker,
                          struct mem_plan *plan, struct reader **ret, char *ret_why,
                          size_t why_size);
struct worker *reader_worker(struct reader *reader);

/* Starts the worker and the password threads. */
NODISCARD int reader_start(struct reader *reader);

/* Ends the worker and the password threads. In place of worker_stop: a password thread may be about
 * to ring the worker's bell, so the worker's ring goes after it. */
void reader_stop(struct reader *reader);

/* After reader_stop. */
void reader_close(struct reader *reader);
