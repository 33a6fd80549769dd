/*
 * worker.h - a thread that may block in a store, so that the persistence thread never does; and the
 *            two rings between them.
 *
 * Walk:       from persist/pipeline*.c (jobs); to append.c, flush.c and reader.c, whose turns run
 *             here; back by the ring out.
 * Threads:    in: the persistence thread fills, the worker empties; out: the other way.
 * worker_open, _start and _stop are main's. Ownership:  records in the rings are bytes; what they
 * point to belongs to whoever the record's comment says, and comes back with the answer.
 *
 * Invariants: (K1) an answer is never dropped: a full ring is waited for, unless main stops us.
 *             (K2) no wake-up is lost, either way (core/doorbell.h); a sleep ends by itself after
 *                  WORKER_SLEEP_NS all the same.
 */
#pragma once

#include "core/doorbell.h"
#include "core/mem.h"
#include "core/os.h"
#include "core/spsc.h"

#include <pthread.h>
#include <stdatomic.h>

enum { WORKER_SLEEP_NS = 200 * 1000 * 1000, WORKER_NAME_BYTES = 16 };

struct worker;

struct worker_options {
    const char *name;             /* of the thread, at most 15 characters */
    uint32_t in_bytes, out_bytes; /* powers of two */
    /* Takes one record from in: done before the next one is shown. */
    void (*take)(void *context, const void *request, uint32_t size);
    /* After the records that were there; true: there may be more to do at once. May be NULL. */
    bool (*tend)(void *context);
    void *context;
    struct doorbell *asker_bell; /* of the persistence thread */
    const struct os_ring *asker_ring;
    uint64_t asker_tag;
};

struct worker {
    struct doorbell bell; /* first: two cache lines to itself */
    struct spsc in, out;
    struct worker_options options;
    struct os_ring *ring;
    pthread_t thread;
    bool started;
    _Atomic bool stopping;
};

/* Reserves rings in the plan; makes the thread's os_ring. 0 or -errno with ret_why. */
NODISCARD int worker_open(struct worker *worker, const struct worker_options *options,
                          struct mem_plan *plan, char *ret_why, size_t why_size);

/* The plan is sealed. 0 or -errno. */
NODISCARD int worker_start(struct worker *worker);

/* Asks the thread to end; several at once, before worker_stop waits for each. */
void worker_end(struct worker *worker);

/* Ends the thread after the record in hand, and gives back the ring. */
void worker_stop(struct worker *worker);

/* The asker: space in the ring in, or NULL: it is full; then worker_ask shows it to the worker and
 * wakes it. ring: the asker's own. */
void *worker_reserve(struct worker *worker, uint32_t size);
void worker_ask(struct worker *worker, uint32_t size, struct os_ring *ring);

/* The asker: the next answer, or NULL; worker_next when it is done with it. */
const void *worker_answer(struct worker *worker, uint32_t *ret_size);
void worker_next(struct worker *worker);

/* The worker: answers, and wakes the asker at once. */
void worker_reply(struct worker *worker, const void *answer, uint32_t size);

/* The worker: main wants it to end; what takes long looks at it. */
bool worker_is_stopping(const struct worker *worker);
