/*
 * persist.c - see persist.h for the invariants P1 to P4: the door. It chooses the engine, and has
 * the thread, its lanes and its turns; what becomes of records and requests is the engine's
 * (struct persist_engine in thread.h).
 *
 * One turn of the persistence thread. Each step feeds those below it; every step has a maximum.
 *  1 lanes       requests of each lane in their order, some of each in turn, until the lanes are
 *                empty or the engine is full; in embedded.c: records into the transaction, reads
 *                answered at once
 *  2 engine      what it has to do beside the lanes; in embedded.c: passwords (sign-ups whose hash
 *                is ready become part of this transaction), then commit (one sync for all of it)
 *  3 replies     watermarks, bells
 *  4 tend        the engine's housekeeping; in embedded.c: a checkpoint of a log that has grown
 *  5 wait        until a bell, or the time that the engine names
 */
#include "persist/persist.h"

#include "core/check.h"
#include "core/log.h"
#include "persist/embedded.h"
#include "persist/lane.h"
#include "persist/thread.h"

#include <errno.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>

enum {
    RING_ENTRIES = 64,
    EVENTS_MAX = 16,
    LANE_SHARE = 64,   /* requests of one lane before the next one has its turn */
    ROUNDS_MAX = 256,  /* of all lanes in one turn */
    MODE_EMBEDDED = 0, /* of persist.mode, in the order of its names */
};

/* --- opening and replay --- */

static const struct persist_engine *choose_engine(const struct config *config)
{
    return config->persist_mode == MODE_EMBEDDED ? &embedded_engine : &pipeline_engine;
}

static void take_config(struct persist *persist, const struct config *config)
{
    persist->engine = choose_engine(config);
    persist->config = config;
    persist->ring_bytes = (uint32_t)config->persist_ring_bytes;
    persist->batch_records = (uint32_t)config->persist_batch_records;
    persist->keys_max = (uint32_t)config->limits_idempotency_keys;
    persist->password_workers = (uint32_t)config->password_workers;
    persist->password_queue = (uint32_t)config->password_queue;
    atomic_init(&persist->well, true);
    atomic_init(&persist->fenced, false);
    atomic_init(&persist->state, PERSIST_STARTING);
    (void)pthread_mutex_init(&persist->why_lock, NULL);
    atomic_init(&persist->stopping, false);
}

/* Opens the engine's stores and seals their plan. */
static int open_engine(struct persist *persist, char *ret_why, size_t why_size)
{
    int error = persist->engine->open(persist, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    error = mem_seal(&persist->plan);
    if (error < 0) {
        (void)snprintf(ret_why, why_size, "no memory for the store's tables");
        persist->engine->close(persist);
    }
    return error;
}

static void free_plans(struct persist *persist)
{
    struct mem_plan own = persist->own_plan; /* it lies in what it gives back */

    mem_end(&persist->plan);
    mem_end(&own);
}

int persist_open(const struct config *config, struct persist **ret, char *ret_why, size_t why_size)
{
    struct mem_plan own;

    mem_init(&own, "persistence", MEM_MAP);
    struct persist *persist = mem_reserve(&own, "persistence", sizeof(*persist), 1);
    int error = mem_seal(&own);
    if (error < 0) {
        (void)snprintf(ret_why, why_size, "no memory for persistence");
        mem_end(&own);
        return error;
    }
    persist->own_plan = own;
    mem_init(&persist->plan, "stores", MEM_MAP);
    take_config(persist, config);
    error = open_engine(persist, ret_why, why_size);
    if (error < 0) {
        free_plans(persist);
        return error;
    }
    *ret = persist;
    return 0;
}

bool persist_replays_later(const struct persist *persist)
{
    return persist->engine->replay == NULL;
}

int persist_replay(struct persist *persist, const void *record, uint32_t size, bool salvage)
{
    CHECK(!persist->run_begun);
    CHECK(!persist_replays_later(persist));
    return persist->engine->replay(persist, record, size, salvage);
}

int persist_replay_end(struct persist *persist)
{
    const struct persist_engine *engine = persist->engine;
    const int error = engine->replay_end != NULL ? engine->replay_end(persist) : 0;

    persist->run_begun = error == 0;
    return error;
}

/* --- the thread --- */

/* Takes the lane's next request. False: there is none, or it must wait for the engine. */
static bool take_one(struct persist *persist, uint32_t index)
{
    struct spsc *requests = &persist->lanes[index].door->requests;
    uint32_t size;
    const struct persist_record *request = spsc_peek(requests, &size);

    if (request == NULL) {
        return false;
    }
    CHECK(size >= sizeof(request->head));
    if (request->head.op != PERSIST_RECORD) {
        persist->engine->request(persist, index, request, size);
    } else {
        CHECK(size >= sizeof(*request) && size == sizeof(*request) + request->record_bytes);
        if (!persist->engine->take(persist, index, request)) {
            return false;
        }
    }
    spsc_next(requests);
    return true;
}

static uint32_t take_share(struct persist *persist, uint32_t index)
{
    uint32_t taken = 0;

    while (taken < LANE_SHARE && !persist->engine->is_full(persist) && take_one(persist, index)) {
        taken++;
    }
    if (taken > 0) {
        spsc_release(&persist->lanes[index].door->requests);
    }
    return taken;
}

/* Step 1 of the turn. True: something was taken. */
static bool take_all(struct persist *persist)
{
    bool any = false;

    for (uint32_t round = 0; round < ROUNDS_MAX && !persist->engine->is_full(persist); round++) {
        uint32_t taken = 0;
        for (uint32_t i = 0; i < persist->lane_count; i++) {
            taken += take_share(persist, i);
        }
        if (taken == 0) {
            break;
        }
        any = true;
    }
    return any;
}

/* Steps 1 to 4. True: something was done, so there may be more. */
static bool turn(struct persist *persist)
{
    const struct persist_engine *engine = persist->engine;
    bool any = take_all(persist);

    any = engine->turn(persist) || any;
    persist->watermark_due = lane_tell(persist);
    lane_flush(persist);
    if (engine->tend != NULL) {
        engine->tend(persist, !any);
    }
    return any;
}

/* Step 5. The bell ends it; so does the time at which something is to be tried again. */
static void wait_for_bell(struct persist *persist)
{
    struct os_event events[EVENTS_MAX];
    const int64_t wait_ns =
        persist->watermark_due ? LANE_WAIT_NS : persist->engine->wait_ns(persist);
    const int events_or_error = os_turn(persist->ring, wait_ns, events, EVENTS_MAX);

    if (events_or_error < 0) {
        log_error("the persistence thread's ring fails, it goes on by polling error=\"%s\"",
                  os_error(events_or_error));
        (void)nanosleep(&(struct timespec){.tv_nsec = LANE_WAIT_NS}, NULL);
    }
}

/* What is left in the lanes, and then in the engine. No shard runs any more, so the lanes only
 * become emptier. */
static void drain(struct persist *persist)
{
    while (turn(persist)) {
    }
    bool again = true;
    while (again) {
        again = persist->engine->drain(persist);
        (void)turn(persist);
    }
}

static void *thread_main(void *argument)
{
    struct persist *persist = argument;

    (void)prctl(PR_SET_NAME, "damso-persist");
    persist->enable_error = os_ring_enable(persist->ring);
    (void)sem_post(&persist->enabled);
    if (persist->enable_error < 0) {
        return NULL;
    }
    while (!thread_is_stopping(persist)) {
        if (turn(persist)) {
            continue;
        }
        doorbell_prepare_sleep(&persist->bell);
        /* The look at every lane after saying that we sleep (doorbell.h, S2) is one more turn. */
        if (!turn(persist) && !thread_is_stopping(persist)) {
            wait_for_bell(persist);
        }
        doorbell_cancel_sleep(&persist->bell);
    }
    drain(persist);
    return NULL;
}

/* --- start and stop --- */

static uint32_t largest_reply(struct persist_lane *const *lanes, uint32_t count)
{
    uint32_t largest = 0;

    for (uint32_t i = 0; i < count; i++) {
        const uint32_t reply_max = lanes[i]->replies.capacity / 4;
        CHECK(reply_max >= ANSWER_REPLY_MAX); /* core/config.def bounds the ring far above it */
        largest = reply_max > largest ? reply_max : largest;
    }
    return largest;
}

static void init_lanes(struct persist *persist, struct persist_lane *const *lanes)
{
    for (uint32_t i = 0; i < persist->lane_count; i++) {
        persist->lanes[i] =
            (struct lane){.door = lanes[i], .reply_max = lanes[i]->replies.capacity / 4};
    }
}

/* What the thread works with, by its configuration, lane_count and page_bytes. */
static void reserve(struct persist *persist, struct mem_plan *plan)
{
    persist->lanes = mem_reserve(plan, "lanes", sizeof(*persist->lanes), persist->lane_count);
    persist->page = mem_reserve(plan, "reply page", persist->page_bytes, 1);
    persist->engine->reserve(persist, plan);
}

void persist_plan(const struct config *config, uint32_t count, struct mem_plan *plan)
{
    struct persist persist = {.lane_count = count};

    CHECK(plan->mode == MEM_COUNT); /* nothing of it is kept */
    take_config(&persist, config);
    persist.page_bytes = persist.ring_bytes / 4;
    reserve(&persist, plan);
}

static int open_rings(struct persist *persist, char *ret_why, size_t why_size)
{
    const struct os_ring_options own = {.entries = RING_ENTRIES};
    const struct os_ring_options bell = {.entries = 4};
    const int error = os_ring_create(&own, &persist->ring, ret_why, why_size);

    return error < 0 ? error : os_ring_create(&bell, &persist->stop_ring, ret_why, why_size);
}

/* Gives back what the thread worked with; it ended, or never ran. */
static void release(struct persist *persist)
{
    if (persist->stop_ring != NULL) {
        os_ring_destroy(persist->stop_ring);
    }
    if (persist->ring != NULL) {
        os_ring_destroy(persist->ring);
    }
    persist->stop_ring = NULL;
    persist->ring = NULL;
    (void)sem_destroy(&persist->enabled);
    mem_end(&persist->thread_plan);
}

static int start_thread(struct persist *persist)
{
    const int error = -pthread_create(&persist->thread, NULL, thread_main, persist);
    if (error < 0) {
        return error;
    }
    persist->started = true;
    /* A bell may ring only once the thread owns its ring. */
    while (sem_wait(&persist->enabled) < 0 && errno == EINTR) {
    }
    return persist->enable_error;
}

/* Ends the thread, if it runs, then what the engine started, and gives back all of it. */
static void stop(struct persist *persist)
{
    struct os_event events[EVENTS_MAX];

    /* Release pairs with the acquire in thread_is_stopping. */
    atomic_store_explicit(&persist->stopping, true, memory_order_release);
    if (persist->started) {
        /* If this bell fails, the thread sees the flag when its wait is over (IDLE_WAIT_NS). */
        if (doorbell_should_ring(&persist->bell) && os_ring_enable(persist->stop_ring) == 0) {
            os_doorbell(persist->stop_ring, persist->ring, thread_wake_tag());
            (void)!os_turn(persist->stop_ring, 0, events, EVENTS_MAX);
        }
        (void)pthread_join(persist->thread, NULL);
        persist->started = false;
    }
    persist->engine->stop(persist);
    release(persist);
}

/* Everything behind the rings. */
static int start(struct persist *persist, struct persist_lane *const *lanes)
{
    persist->page_bytes = largest_reply(lanes, persist->lane_count);
    reserve(persist, &persist->thread_plan);
    int error = mem_seal(&persist->thread_plan);
    if (error < 0) {
        log_error("the persistence thread cannot start reason=\"no memory for its batch\"");
        return error;
    }
    init_lanes(persist, lanes);
    error = persist->engine->start(persist);
    return error < 0 ? error : start_thread(persist);
}

int persist_start(struct persist *persist, struct persist_lane *const *lanes, uint32_t count,
                  struct metrics *metrics)
{
    char why[256] = "";

    CHECK(count >= 1 && !persist->started);
    int error = persist->run_begun ? 0 : persist_replay_end(persist);
    if (error < 0) {
        return error;
    }
    mem_init(&persist->thread_plan, "persistence thread", MEM_MAP);
    doorbell_init(&persist->bell);
    (void)sem_init(&persist->enabled, 0, 0);
    persist->metrics = metrics;
    persist->lane_count = count;
    error = open_rings(persist, why, sizeof(why));
    if (error < 0) {
        log_error("the persistence thread cannot start reason=\"%s\"", why);
        release(persist);
        return error;
    }
    error = start(persist, lanes);
    if (error < 0) {
        stop(persist);
    }
    return error;
}

void persist_wake(struct persist *persist, struct os_ring *ring)
{
    if (doorbell_should_ring(&persist->bell)) {
        os_doorbell(ring, persist->ring, thread_wake_tag());
    }
}

bool persist_is_well(const struct persist *persist)
{
    return atomic_load_explicit(&persist->well, memory_order_relaxed);
}

bool persist_is_fenced(const struct persist *persist)
{
    /* A flag, nothing behind it. */
    return atomic_load_explicit(&persist->fenced, memory_order_relaxed);
}

enum persist_state persist_state(struct persist *persist, char *ret_why, size_t why_size)
{
    const int state = atomic_load_explicit(&persist->state, memory_order_acquire);

    (void)pthread_mutex_lock(&persist->why_lock);
    if (persist->why[0] != '\0') {
        (void)snprintf(ret_why, why_size, "%s", persist->why);
    }
    (void)pthread_mutex_unlock(&persist->why_lock);
    return (enum persist_state)state;
}

uint32_t persist_unstored_max(const struct persist *persist)
{
    return persist->ring_bytes / 2;
}

void persist_close(struct persist *persist)
{
    if (persist->started) {
        stop(persist);
    }
    persist->engine->close(persist);
    free_plans(persist);
}
