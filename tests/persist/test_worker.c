/*
 * test_worker.c - a worker answers everything, in order, and ends when it is told to.
 *
 * Method: a worker that echoes numbers, with small rings, so that full, empty and asleep are usual
 *         states. Meant to be run under ThreadSanitizer too.
 */
#include "core/os.h"
#include "persist/worker.h"
#include "tests/persist/job_rig.h"

#include <stdatomic.h>
#include <time.h>

enum { SMALL_RING = 1024, STREAM = 100000, ROUNDS = 300, TEND_ROUNDS = 8, MS = 1000 * 1000 };

enum { NOT_ARMED, ARMED, ABOUT_TO_SLEEP, RUNG };

struct echo {
    struct worker worker;
    struct mem_plan plan;
    _Atomic uint32_t taken;
    _Atomic uint32_t tended;
    _Atomic int step; /* of request_is_seen_beside_an_answer_of_tend */
    bool holds;       /* a request lasts until the worker is to stop */
};

static struct asker asker;
static struct echo echo;

static void echo_take(void *context, const void *request, uint32_t size)
{
    struct echo *self = context;

    CHECK(size == sizeof(uint64_t));
    atomic_fetch_add(&self->taken, 1);
    while (self->holds && !worker_is_stopping(&self->worker)) {
        CHECK(nanosleep(&(struct timespec){.tv_nsec = MS}, NULL) == 0);
    }
    worker_reply(&self->worker, request, size);
}

/* Armed, and about to sleep: answers once a request was given and its bell rung. */
static bool echo_tend(void *context)
{
    struct echo *self = context;
    const uint64_t extra = UINT64_MAX;

    atomic_fetch_add(&self->tended, 1);
    if (atomic_load(&self->step) == ARMED && atomic_load(&self->worker.bell.asleep)) {
        atomic_store(&self->step, ABOUT_TO_SLEEP);
        while (atomic_load(&self->step) != RUNG) {
            CHECK(nanosleep(&(struct timespec){.tv_nsec = MS}, NULL) == 0);
        }
        worker_reply(&self->worker, &extra, sizeof(extra));
    }
    return false;
}

static void start(bool tend)
{
    char why[256] = "";
    struct worker_options options = asker_worker(&asker, "echo");

    options.in_bytes = SMALL_RING;
    options.out_bytes = SMALL_RING;
    options.take = echo_take;
    options.tend = tend ? echo_tend : NULL;
    options.context = &echo;
    memset(&echo, 0, sizeof(echo));
    mem_init(&echo.plan, "test", MEM_MAP);
    CHECK(worker_open(&echo.worker, &options, &echo.plan, why, sizeof(why)) == 0);
    CHECK(mem_seal(&echo.plan) == 0);
}

static void stop(void)
{
    worker_stop(&echo.worker);
    mem_end(&echo.plan);
}

static bool give(uint64_t number)
{
    struct os_event events[8];
    void *space = worker_reserve(&echo.worker, sizeof(number));

    if (space == NULL) {
        return false;
    }
    memcpy(space, &number, sizeof(number));
    worker_ask(&echo.worker, sizeof(number), asker.ring);
    CHECK(os_turn(asker.ring, 0, events, 8) >= 0);
    return true;
}

static bool take(uint64_t *ret)
{
    uint32_t size = 0;
    const void *answer = worker_answer(&echo.worker, &size);

    if (answer == NULL) {
        return false;
    }
    CHECK(size == sizeof(*ret));
    memcpy(ret, answer, sizeof(*ret));
    worker_next(&echo.worker);
    return true;
}

static uint64_t wait_for_one(void)
{
    struct os_event events[8];
    uint64_t number = 0;
    bool got = take(&number);

    for (int waits = 0; !got; waits++) {
        CHECK(waits < JOB_RIG_WAITS);
        doorbell_prepare_sleep(&asker.bell);
        got = take(&number);
        if (!got) {
            CHECK(os_turn(asker.ring, JOB_RIG_WAIT_NS, events, 8) >= 0);
            got = take(&number);
        }
        doorbell_cancel_sleep(&asker.bell);
    }
    return number;
}

static void stream_is_answered_in_order(void)
{
    uint64_t given = 0;
    uint64_t taken = 0;
    uint64_t number = 0;

    start(false);
    CHECK(worker_start(&echo.worker) == 0);
    while (taken < STREAM) {
        while (given < STREAM && give(given)) {
            given++;
        }
        for (bool got = take(&number); got; got = take(&number)) {
            CHECK(number == taken++);
        }
        if (taken < given) {
            CHECK(wait_for_one() == taken++);
        }
    }
    stop();
}

/* K2: each round finds the worker asleep, or falling asleep; without its bell a round would take
 * WORKER_SLEEP_NS. */
static void sleeper_is_woken_every_time(void)
{
    start(true);
    CHECK(worker_start(&echo.worker) == 0);
    const uint64_t begun_ns = os_now_ns();
    for (uint64_t round = 0; round < ROUNDS; round++) {
        if (round % 3 == 0) {
            CHECK(nanosleep(&(struct timespec){.tv_nsec = MS * (long)(round % 7)}, NULL) == 0);
        }
        CHECK(give(round));
        CHECK(wait_for_one() == round);
    }
    CHECK(os_now_ns() - begun_ns < (uint64_t)ROUNDS * WORKER_SLEEP_NS / 4);
    CHECK(atomic_load(&echo.tended) > 0);
    stop();
}

/* What tend answers takes the bell of a request from the ring with its own: the request is seen all
 * the same, and not only after WORKER_SLEEP_NS. */
static void request_is_seen_beside_an_answer_of_tend(void)
{
    uint64_t took_ns = 0;

    start(true);
    CHECK(worker_start(&echo.worker) == 0);
    for (uint64_t round = 0; round < TEND_ROUNDS; round++) {
        atomic_store(&echo.step, ARMED);
        while (atomic_load(&echo.step) != ABOUT_TO_SLEEP) {
            CHECK(nanosleep(&(struct timespec){.tv_nsec = MS}, NULL) == 0);
        }
        CHECK(give(round));
        doorbell_prepare_sleep(&asker.bell); /* so that the answer of tend rings */
        const uint64_t begun_ns = os_now_ns();
        atomic_store(&echo.step, RUNG);
        CHECK(wait_for_one() == UINT64_MAX);
        CHECK(wait_for_one() == round);
        took_ns += os_now_ns() - begun_ns;
    }
    CHECK(took_ns < (uint64_t)TEND_ROUNDS * WORKER_SLEEP_NS / 2);
    stop();
}

static void full_ring_of_answers_is_waited_for(void)
{
    uint64_t given = 0;

    start(false);
    CHECK(worker_start(&echo.worker) == 0);
    /* More than both rings hold: the worker stands at a full ring, and so do we. */
    for (uint64_t idle = 0; idle < 200;) {
        if (give(given)) {
            given++;
            idle = 0;
        } else {
            idle++;
            CHECK(nanosleep(&(struct timespec){.tv_nsec = MS}, NULL) == 0);
        }
    }
    CHECK(given > 2 * SMALL_RING / 24 && given <= 2 * SMALL_RING / 16 + 2);
    for (uint64_t number = 0; number < given; number++) {
        CHECK(wait_for_one() == number); /* K1 */
    }
    stop();
}

static void stop_ends_a_worker_at_a_full_ring(void)
{
    start(false);
    CHECK(worker_start(&echo.worker) == 0);
    for (uint64_t number = 0; number < SMALL_RING / 16; number++) {
        (void)give(number);
    }
    CHECK(nanosleep(&(struct timespec){.tv_nsec = 20 * MS}, NULL) == 0);
    const uint64_t begun_ns = os_now_ns();
    stop();
    CHECK(os_now_ns() - begun_ns < 10 * (uint64_t)WORKER_SLEEP_NS);
}

static void stop_is_seen_in_the_middle_of_a_request(void)
{
    start(false);
    echo.holds = true;
    CHECK(worker_start(&echo.worker) == 0);
    CHECK(give(1));
    CHECK(give(2));
    while (atomic_load(&echo.taken) == 0) {
        CHECK(nanosleep(&(struct timespec){.tv_nsec = MS}, NULL) == 0);
    }
    worker_stop(&echo.worker);
    CHECK(atomic_load(&echo.taken) == 1); /* and not the next one */
    CHECK(wait_for_one() == 1);
    worker_stop(&echo.worker); /* once more is nothing */
    mem_end(&echo.plan);
}

static void worker_that_never_ran_is_closed(void)
{
    start(false);
    stop();
}

static void count_plan_opens_nothing(void)
{
    char why[256] = "";
    struct mem_plan count;
    struct worker_options options = asker_worker(&asker, "echo");

    options.take = echo_take;
    memset(&echo, 0, sizeof(echo));
    mem_init(&count, "test", MEM_COUNT);
    CHECK(worker_open(&echo.worker, &options, &count, why, sizeof(why)) == 0);
    CHECK(count.total == 2 * (size_t)JOB_RIG_RING && echo.worker.ring == NULL);
    worker_stop(&echo.worker);
    mem_end(&count);
}

static void plan_without_memory_is_an_error(void)
{
    char why[256] = "";
    struct mem_plan plan;
    struct worker_options options = asker_worker(&asker, "echo");

    options.take = echo_take;
    memset(&echo, 0, sizeof(echo));
    mem_init(&plan, "test", MEM_MAP);
    plan.error = -ENOMEM;
    CHECK(worker_open(&echo.worker, &options, &plan, why, sizeof(why)) == -ENOMEM);
    CHECK(why[0] != '\0' && echo.worker.ring == NULL);
    mem_end(&plan);
}

int main(void)
{
    asker_open(&asker);
    stream_is_answered_in_order();
    sleeper_is_woken_every_time();
    request_is_seen_beside_an_answer_of_tend();
    full_ring_of_answers_is_waited_for();
    stop_ends_a_worker_at_a_full_ring();
    stop_is_seen_in_the_middle_of_a_request();
    worker_that_never_ran_is_closed();
    count_plan_opens_nothing();
    plan_without_memory_is_an_error();
    asker_close(&asker);
    puts("9 passed, 0 failed");
    return 0;
}
