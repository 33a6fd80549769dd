/*
 * job_rig.h - the asker of a worker: gives jobs as the persistence thread does, and waits for their
 *             answers; and records of rooms, to put into jobs and lists.
 */
#pragma once

#include "core/check.h"
#include "core/os.h"
#include "core/record.h"
#include "persist/jobs.h"
#include "persist/worker.h"
#include "tests/persist/store_rig.h"

#include <stdio.h>

enum {
    JOB_RIG_RING = 64 * 1024,
    JOB_RIG_WAIT_NS = 50 * 1000 * 1000,
    JOB_RIG_WAITS = 2400, /* two minutes: a test that hangs ends by itself */
    JOB_RIG_ARENA = 64 * 1024 * 1024,
};

struct asker {
    struct doorbell bell;
    struct os_ring *ring;
};

static inline void asker_open(struct asker *asker)
{
    const struct os_ring_options options = {.entries = 16};
    char why[256] = "";

    doorbell_init(&asker->bell);
    CHECK(os_ring_create(&options, &asker->ring, why, sizeof(why)) == 0);
    CHECK(os_ring_enable(asker->ring) == 0);
}

static inline void asker_close(struct asker *asker)
{
    os_ring_destroy(asker->ring);
}

/* What worker_open wants from its asker. */
static inline struct worker_options asker_worker(struct asker *asker, const char *name)
{
    return (struct worker_options){.name = name,
                                   .in_bytes = JOB_RIG_RING,
                                   .out_bytes = JOB_RIG_RING,
                                   .asker_bell = &asker->bell,
                                   .asker_ring = asker->ring,
                                   .asker_tag = os_tag(1, 0, 0)};
}

static inline void asker_give(struct asker *asker, struct worker *worker, enum job_op op,
                              uint64_t number, void *job)
{
    const struct job_head head = {.op = (uint32_t)op, .number = number, .job = job};
    struct os_event events[8];
    void *space = worker_reserve(worker, sizeof(head));

    CHECK(space != NULL);
    memcpy(space, &head, sizeof(head));
    worker_ask(worker, sizeof(head), asker->ring);
    CHECK(os_turn(asker->ring, 0, events, 8) >= 0); /* the bell goes out */
}

/* Waits for the next answer. */
static inline struct job_answer asker_take(struct asker *asker, struct worker *worker)
{
    struct job_answer answer;
    struct os_event events[8];
    uint32_t size = 0;
    const void *bytes = worker_answer(worker, &size);

    for (int waits = 0; bytes == NULL; waits++) {
        CHECK(waits < JOB_RIG_WAITS);
        doorbell_prepare_sleep(&asker->bell);
        bytes = worker_answer(worker, &size);
        if (bytes == NULL) {
            CHECK(os_turn(asker->ring, JOB_RIG_WAIT_NS, events, 8) >= 0);
            bytes = worker_answer(worker, &size);
        }
        doorbell_cancel_sleep(&asker->bell);
    }
    CHECK(size == sizeof(answer));
    memcpy(&answer, bytes, sizeof(answer));
    worker_next(worker);
    CHECK(answer.why_bytes < JOB_WHY_BYTES && answer.why[answer.why_bytes] == '\0');
    CHECK((answer.status == 0) == (answer.where == JOB_WHERE_NONE) || answer.status == -EAGAIN);
    return answer;
}

static inline struct job_answer asker_ask(struct asker *asker, struct worker *worker,
                                          enum job_op op, uint64_t number, void *job)
{
    asker_give(asker, worker, op, number, job);
    const struct job_answer answer = asker_take(asker, worker);
    CHECK(answer.op == (uint32_t)op && answer.job == job);
    return answer;
}

/* --- records, good until record_rig_reset --- */

static char record_rig_bytes[JOB_RIG_ARENA];
static size_t record_rig_used;

static inline void record_rig_reset(void)
{
    record_rig_used = 0;
}

/* A record with that body. */
static inline struct slice record_rig_body(const char *room, uint64_t seq, struct slice body)
{
    char text[64];
    struct record record = rig_message(text, room, 1, seq);

    record.body = body;
    const uint32_t size = record_size(&record);
    CHECK(record_rig_used + size <= sizeof(record_rig_bytes));
    char *bytes = record_rig_bytes + record_rig_used;
    record_encode(&record, bytes);
    record_rig_used += size;
    return (struct slice){bytes, size};
}

/* The record whose body tells its room and seq. */
static inline struct slice record_rig_make(const char *room, uint64_t seq)
{
    char text[64];
    const struct record record = rig_message(text, room, 1, seq);
    return record_rig_body(room, seq, record.body);
}
