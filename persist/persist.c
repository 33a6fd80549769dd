/*
 * persist.c - see persist.h for the invariants P1 to P4: opening, the replay, the thread and its
 * turns.
 *
 * One turn of the persistence thread. Each step feeds those below it; every step has a maximum.
 *  1 passwords   sign-ups whose hash is ready become part of this transaction
 *  2 lanes       requests of each shard in their order, some of each in turn, until the lanes are
 *                empty or the batch is full: records into the transaction, reads answered at once
 *  3 commit      one sync for all of it
 *  4 replies     watermarks, held replies, bells
 *  5 tend        a checkpoint if the store's log has grown
 *  6 wait        until a bell, or the time to try a refused commit again
 */
#include "persist/persist.h"

#include "core/check.h"
#include "core/log.h"
#include "persist/account.h"
#include "persist/answer.h"
#include "persist/batch.h"
#include "persist/lane.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

enum {
    RING_ENTRIES = 64,
    EVENTS_MAX = 16,
    REPLAY_BYTES = 64 * 1024 * 1024, /* of records in a transaction of the replay */
    LANE_SHARE = 64,                 /* requests of one lane before the next one has its turn */
    ROUNDS_MAX = 256,                /* of all lanes in one turn */
    IDLE_WAIT_NS = 1000000000,
    BOOT_ID_BYTES = 36,
};

/* The one tag of the thread's ring: something is to be looked at. */
static uint64_t wake_tag(void)
{
    return os_tag(1, 0, 0);
}

/* --- opening and replay --- */

/* This boot's id, as the kernel tells it. Where it does not, a random one: then a crash counts as
 * one of the machine, which is the careful side. */
static struct slice boot_id(char bytes[BOOT_ID_BYTES])
{
    const int file = os_file_open("/proc/sys/kernel/random/boot_id", 0);
    int64_t size = -1;

    if (file >= 0) {
        size = os_file_read(file, bytes, BOOT_ID_BYTES, 0);
        os_file_close(file);
    }
    if (size != BOOT_ID_BYTES) {
        static const char digits[] = "0123456789abcdef";
        uint8_t random[BOOT_ID_BYTES];
        os_random(random, sizeof(random));
        for (int i = 0; i < BOOT_ID_BYTES; i++) {
            bytes[i] = digits[random[i] % 16];
        }
    }
    return (struct slice){bytes, BOOT_ID_BYTES};
}

static void take_config(struct persist *persist, const struct config *config)
{
    persist->ring_bytes = (uint32_t)config->persist_ring_bytes;
    persist->batch_records = (uint32_t)config->persist_batch_records;
    persist->batch.interval_ns = config->persist_commit_interval * 1000000;
    persist->keys_max = (uint32_t)config->limits_idempotency_keys;
    persist->password_workers = (uint32_t)config->password_workers;
    persist->password_queue = (uint32_t)config->password_queue;
    atomic_init(&persist->well, true);
    atomic_init(&persist->stopping, false);
}

static struct store_options store_options(const struct config *config, struct mem_plan *plan)
{
    return (struct store_options){.directory = config->server_data,
                                  .cache_bytes = config->persist_cache_bytes,
                                  .keys_max = (uint32_t)config->limits_idempotency_keys,
                                  .plan = plan};
}

static int open_store(const struct config *config, struct mem_plan *plan, struct store **ret,
                      char *ret_why, size_t why_size)
{
    const struct store_options options = store_options(config, plan);
    int error = os_directory_make(config->server_data);

    if (error < 0 && error != -EEXIST) {
        (void)snprintf(ret_why, why_size,
                       "%s: %s; name a directory that can be made in server.data",
                       config->server_data, os_error(error));
        return error;
    }
    error = store_sqlite_open(&options, ret, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    error = mem_seal(plan);
    if (error < 0) {
        (void)snprintf(ret_why, why_size, "no memory for the store's tables");
        (*ret)->ops->close(*ret);
    }
    return error;
}

int persist_open(const struct config *config, struct persist **ret, char *ret_why, size_t why_size)
{
    struct mem_plan plan;
    struct store *store = NULL;

    mem_init(&plan, "persistence", MEM_MAP);
    struct persist *persist = mem_reserve(&plan, "persistence", sizeof(*persist), 1);
    const int error = open_store(config, &plan, &store, ret_why, why_size);
    if (error < 0) {
        mem_end(&plan);
        return error;
    }
    take_config(persist, config);
    persist->store = store;
    persist->plan = plan;
    *ret = persist;
    return 0;
}

static int replay_commit(struct persist *persist)
{
    const struct store_ops *ops = persist->store->ops;

    if (persist->replayed == 0) {
        return 0;
    }
    const int error = ops->commit(persist->store);
    if (error < 0) {
        ops->rollback(persist->store);
        return error;
    }
    persist->replayed = 0;
    ops->tend(persist->store, false);
    return 0;
}

/* Opens the transaction that the next record goes into. */
static int replay_begin(struct persist *persist)
{
    const struct store_ops *ops = persist->store->ops;
    int error = 0;

    if (!persist->replaying) {
        error = ops->replay_begin(persist->store);
        persist->replaying = error == 0;
    }
    return error == 0 && persist->replayed == 0 ? ops->begin(persist->store) : error;
}

int persist_replay(struct persist *persist, const void *record, uint32_t size, bool salvage)
{
    struct record decoded;
    int error = record_decode(record, size, &decoded);

    CHECK(!persist->run_begun);
    if (error < 0) {
        return salvage ? 0 : error;
    }
    error = replay_begin(persist);
    if (error < 0) {
        return error;
    }
    persist->replayed += size;
    const int result = persist->store->ops->append(persist->store, &decoded, salvage);
    if (result < 0 || result == STORE_HOLE) {
        return result < 0 ? result : -EBADMSG;
    }
    return persist->replayed >= REPLAY_BYTES ? replay_commit(persist) : 0;
}

int persist_replay_end(struct persist *persist)
{
    char id[BOOT_ID_BYTES];
    int error = replay_commit(persist);

    error = error == 0 ? persist->store->ops->run_begin(persist->store, boot_id(id)) : error;
    persist->run_begun = error == 0;
    return error;
}

/* --- the thread --- */

/* Takes the lane's next request. False: there is none, or it must wait for the batch. */
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
        answer_request(persist, index, request, size);
    } else {
        CHECK(size >= sizeof(*request) && size == sizeof(*request) + request->record_bytes);
        if (!batch_takes(persist, index, request->record_bytes)) {
            return false;
        }
        persist->batch.hurry |= request->head.count > 0;
        batch_add(persist, index, request->position, request + 1, request->record_bytes);
    }
    spsc_next(requests);
    return true;
}

static uint32_t take_share(struct persist *persist, uint32_t index)
{
    uint32_t taken = 0;

    while (taken < LANE_SHARE && !batch_is_full(persist) && take_one(persist, index)) {
        taken++;
    }
    if (taken > 0) {
        spsc_release(&persist->lanes[index].door->requests);
    }
    return taken;
}

/* Steps 2 of the turn. True: something was taken. */
static bool take_all(struct persist *persist)
{
    bool any = false;

    for (uint32_t round = 0; round < ROUNDS_MAX && !batch_is_full(persist); round++) {
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

static bool is_stopping(const struct persist *persist)
{
    /* Acquire pairs with the release in persist_close: what main did before it is seen. */
    return atomic_load_explicit(&persist->stopping, memory_order_acquire);
}

/* Steps 1 to 5. True: something was done, so there may be more. */
static bool turn(struct persist *persist)
{
    bool any = account_continue(persist);

    any = take_all(persist) || any;
    if (batch_is_due(persist) || is_stopping(persist)) {
        batch_commit(persist);
    }
    persist->watermark_due = lane_tell(persist);
    lane_flush(persist);
    persist->store->ops->tend(persist->store, !any);
    return any;
}

/* Step 6. The bell ends it; so does the time at which something is to be tried again. */
static void wait_for_bell(struct persist *persist)
{
    const struct batch *batch = &persist->batch;
    struct os_event events[EVENTS_MAX];
    int64_t wait_ns = IDLE_WAIT_NS;

    if (batch->open) {
        const uint64_t age_ns = os_now_ns() - batch->begun_ns;
        wait_ns = batch->interval_ns > age_ns + LANE_WAIT_NS
                      ? (int64_t)(batch->interval_ns - age_ns)
                      : LANE_WAIT_NS;
    }
    if (batch->refusing) {
        const int64_t due_ns = (int64_t)(batch->retry_at_ns - os_now_ns());
        wait_ns = due_ns > LANE_WAIT_NS ? due_ns : LANE_WAIT_NS;
    }
    if (persist->watermark_due) {
        wait_ns = LANE_WAIT_NS;
    }
    const int events_or_error = os_turn(persist->ring, wait_ns, events, EVENTS_MAX);
    if (events_or_error < 0) {
        log_error("the persistence thread's ring fails, it goes on by polling error=\"%s\"",
                  os_error(events_or_error));
        (void)nanosleep(&(struct timespec){.tv_nsec = LANE_WAIT_NS}, NULL);
    }
}

/* What is left in the lanes, and one more attempt at what was refused. No shard runs any more, so
 * the lanes only become emptier. */
static void drain(struct persist *persist)
{
    while (turn(persist)) {
    }
    persist->batch.retry_at_ns = 0;
    (void)turn(persist);
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
    while (!is_stopping(persist)) {
        if (turn(persist)) {
            continue;
        }
        doorbell_prepare_sleep(&persist->bell);
        /* The look at every lane after saying that we sleep (doorbell.h, S2) is one more turn. */
        if (!turn(persist) && !is_stopping(persist)) {
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
        CHECK(reply_max >= BATCH_REPLY_MAX); /* core/config.def bounds the ring far above it */
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
    batch_init(&persist->batch, plan, persist->lane_count, persist->ring_bytes,
               persist->batch_records);
    account_reserve(persist, plan);
}

void persist_plan(const struct config *config, uint32_t count, struct mem_plan *plan)
{
    const struct store_options options = store_options(config, plan);
    struct persist persist = {.lane_count = count};

    CHECK(plan->mode == MEM_COUNT); /* nothing of it is kept */
    take_config(&persist, config);
    persist.page_bytes = persist.ring_bytes / 4;
    store_sqlite_plan(&options);
    reserve(&persist, plan);
}

/* Rings and password pool; their memory is in the plan, which is sealed here. */
static int prepare(struct persist *persist, struct persist_lane *const *lanes, char *ret_why,
                   size_t why_size)
{
    const struct os_ring_options own = {.entries = RING_ENTRIES};
    const struct os_ring_options bell = {.entries = 4};
    struct mem_plan *plan = &persist->thread_plan;
    int error = os_ring_create(&own, &persist->ring, ret_why, why_size);

    if (error < 0 || (error = os_ring_create(&bell, &persist->stop_ring, ret_why, why_size)) < 0) {
        return error;
    }
    const struct password_options passwords = {
        .workers = persist->password_workers,
        .queue = persist->password_queue,
        .ring = persist->ring,
        .bell = &persist->bell,
        .tag = wake_tag(),
    };
    error = password_open(&passwords, plan, &persist->passwords, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    persist->page_bytes = largest_reply(lanes, persist->lane_count);
    reserve(persist, plan);
    return mem_seal(plan);
}

static int start_threads(struct persist *persist)
{
    int error = -pthread_create(&persist->thread, NULL, thread_main, persist);
    if (error < 0) {
        return error;
    }
    persist->started = true;
    /* A bell may ring only once the thread owns its ring. */
    while (sem_wait(&persist->enabled) < 0 && errno == EINTR) {
    }
    error = persist->enable_error;
    return error == 0 ? password_start(persist->passwords) : error;
}

/* Ends the threads, if they run, and gives back what prepare made. */
static void stop(struct persist *persist)
{
    struct os_event events[EVENTS_MAX];

    /* Release pairs with the acquire in is_stopping. */
    atomic_store_explicit(&persist->stopping, true, memory_order_release);
    if (persist->started) {
        /* If this bell fails, the thread sees the flag when its wait is over (IDLE_WAIT_NS). */
        if (doorbell_should_ring(&persist->bell) && os_ring_enable(persist->stop_ring) == 0) {
            os_doorbell(persist->stop_ring, persist->ring, wake_tag());
            (void)!os_turn(persist->stop_ring, 0, events, EVENTS_MAX);
        }
        (void)pthread_join(persist->thread, NULL);
        persist->started = false;
    }
    if (persist->passwords != NULL) {
        password_close(persist->passwords);
    }
    if (persist->stop_ring != NULL) {
        os_ring_destroy(persist->stop_ring);
    }
    if (persist->ring != NULL) {
        os_ring_destroy(persist->ring);
    }
    persist->passwords = NULL;
    persist->stop_ring = NULL;
    persist->ring = NULL;
    (void)sem_destroy(&persist->enabled);
    mem_end(&persist->thread_plan);
}

int persist_start(struct persist *persist, struct persist_lane *const *lanes, uint32_t count,
                  struct metrics *metrics)
{
    char why[256] = "no memory for its batch";

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
    error = prepare(persist, lanes, why, sizeof(why));
    if (error < 0) {
        log_error("the persistence thread cannot start reason=\"%s\"", why);
        stop(persist);
        return error;
    }
    init_lanes(persist, lanes);
    account_init(persist);
    error = start_threads(persist);
    if (error < 0) {
        stop(persist);
    }
    return error;
}

void persist_wake(struct persist *persist, struct os_ring *ring)
{
    if (doorbell_should_ring(&persist->bell)) {
        os_doorbell(ring, persist->ring, wake_tag());
    }
}

bool persist_is_well(const struct persist *persist)
{
    return atomic_load_explicit(&persist->well, memory_order_relaxed);
}

uint32_t persist_unstored_max(const struct persist *persist)
{
    return persist->ring_bytes / 2;
}

/* Whether everything that was handed over is in the store. */
static bool is_complete(const struct persist *persist)
{
    return persist_is_well(persist) && persist->batch.count == 0 && !persist->batch.refusing;
}

void persist_close(struct persist *persist)
{
    struct store *store = persist->store;
    struct mem_plan plan = persist->plan; /* it lies in what it gives back */

    if (persist->started) {
        stop(persist);
    }
    if (persist->run_begun && is_complete(persist)) {
        const int error = store->ops->run_end(store);
        if (error < 0) {
            log_error("the store could not be marked as stopped cleanly error=\"%s\"",
                      os_error(error));
        }
    }
    store->ops->close(store);
    mem_end(&plan);
}
