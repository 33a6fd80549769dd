/* worker.c - see worker.h for K1 and K2. */
#include "persist/worker.h"

#include "core/check.h"
#include "core/log.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

enum { RING_ENTRIES = 16, EVENTS_MAX = 8, FULL_WAIT_NS = 1000 * 1000 };

static uint64_t wake_tag(void)
{
    return os_tag(1, 0, 0);
}

int worker_open(struct worker *worker, const struct worker_options *options, struct mem_plan *plan,
                char *ret_why, size_t why_size)
{
    const struct os_ring_options ring = {.entries = RING_ENTRIES};

    worker->options = *options;
    doorbell_init(&worker->bell);
    atomic_init(&worker->stopping, false);
    unsigned char *in = mem_reserve(plan, "worker requests", options->in_bytes, 1);
    unsigned char *out = mem_reserve(plan, "worker answers", options->out_bytes, 1);
    if (plan->mode == MEM_COUNT) {
        return 0;
    }
    if (plan->error != 0) {
        (void)snprintf(ret_why, why_size, "no memory for the rings of a thread (%s)",
                       options->name);
        return plan->error;
    }
    spsc_init(&worker->in, in, options->in_bytes);
    spsc_init(&worker->out, out, options->out_bytes);
    return os_ring_create(&ring, &worker->ring, ret_why, why_size);
}

bool worker_is_stopping(const struct worker *worker)
{
    /* Acquire pairs with the release in worker_stop. */
    return atomic_load_explicit(&worker->stopping, memory_order_acquire);
}

/* --- the thread --- */

static bool take_all(struct worker *worker)
{
    bool any = false;
    uint32_t size;

    for (const void *request = spsc_peek(&worker->in, &size);
         request != NULL && !worker_is_stopping(worker); request = spsc_peek(&worker->in, &size)) {
        worker->options.take(worker->options.context, request, size);
        spsc_next(&worker->in);
        spsc_release(&worker->in);
        any = true;
    }
    return any;
}

static bool turn(struct worker *worker)
{
    const bool any = take_all(worker);
    return (worker->options.tend != NULL && worker->options.tend(worker->options.context)) || any;
}

static bool has_request(struct worker *worker)
{
    uint32_t size;
    return spsc_peek(&worker->in, &size) != NULL;
}

static void wait_for_bell(struct worker *worker)
{
    struct os_event events[EVENTS_MAX];

    if (os_turn(worker->ring, WORKER_SLEEP_NS, events, EVENTS_MAX) < 0) {
        (void)nanosleep(&(struct timespec){.tv_nsec = FULL_WAIT_NS}, NULL);
    }
}

static void *thread_main(void *argument)
{
    struct worker *worker = argument;

    (void)prctl(PR_SET_NAME, worker->options.name);
    if (os_ring_enable(worker->ring) < 0) {
        log_error("a thread of persistence has no ring name=%s", worker->options.name);
        return NULL;
    }
    while (!worker_is_stopping(worker)) {
        if (turn(worker)) {
            continue;
        }
        doorbell_prepare_sleep(&worker->bell);
        /* The look after saying that we sleep (doorbell.h, S2); the second one, for a bell that a
         * reply of this turn took from the ring with its own. */
        if (!turn(worker) && !has_request(worker) && !worker_is_stopping(worker)) {
            wait_for_bell(worker);
        }
        doorbell_cancel_sleep(&worker->bell);
    }
    return NULL;
}

int worker_start(struct worker *worker)
{
    const int error = -pthread_create(&worker->thread, NULL, thread_main, worker);
    worker->started = error == 0;
    return error;
}

void worker_end(struct worker *worker)
{
    /* Release pairs with the acquire in worker_is_stopping. A sleeper wakes by itself (K2). */
    atomic_store_explicit(&worker->stopping, true, memory_order_release);
}

void worker_stop(struct worker *worker)
{
    worker_end(worker);
    if (worker->started) {
        (void)pthread_join(worker->thread, NULL);
        worker->started = false;
    }
    if (worker->ring != NULL) {
        os_ring_destroy(worker->ring);
        worker->ring = NULL;
    }
}

/* --- the asker's side --- */

void *worker_reserve(struct worker *worker, uint32_t size)
{
    return spsc_reserve(&worker->in, size);
}

void worker_ask(struct worker *worker, uint32_t size, struct os_ring *ring)
{
    spsc_commit(&worker->in, size);
    if (spsc_publish(&worker->in) && doorbell_should_ring(&worker->bell)) {
        os_doorbell(ring, worker->ring, wake_tag());
    }
}

const void *worker_answer(struct worker *worker, uint32_t *ret_size)
{
    return spsc_peek(&worker->out, ret_size);
}

void worker_next(struct worker *worker)
{
    spsc_next(&worker->out);
    spsc_release(&worker->out);
}

/* --- the worker's side --- */

/* Shows the asker what is in the ring, and wakes it. */
static void tell(struct worker *worker)
{
    struct os_event events[EVENTS_MAX];

    if (spsc_publish(&worker->out) && doorbell_should_ring(worker->options.asker_bell)) {
        os_doorbell(worker->ring, worker->options.asker_ring, worker->options.asker_tag);
        (void)!os_turn(worker->ring, 0, events, EVENTS_MAX);
    }
}

void worker_reply(struct worker *worker, const void *answer, uint32_t size)
{
    void *space = spsc_reserve(&worker->out, size);

    while (space == NULL && !worker_is_stopping(worker)) { /* K1 */
        tell(worker);
        (void)nanosleep(&(struct timespec){.tv_nsec = FULL_WAIT_NS}, NULL);
        space = spsc_reserve(&worker->out, size);
    }
    if (space != NULL) {
        memcpy(space, answer, size);
        spsc_commit(&worker->out, size);
        tell(worker);
    }
}
