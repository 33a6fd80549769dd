/* replay.c - see replay.h for Y1. */
#include "shard/replay.h"

#include "core/log.h"
#include "fileio/recovery.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

enum {
    RING_BYTES = 4 * 1024 * 1024,
    RING_ENTRIES = 16,
    EVENTS_MAX = 8,
    STACK_BYTES = 4 * 1024 * 1024, /* recovery_run wants 2 MiB of it */
};

static const int64_t idle_wait_ns = 100000000;
static const int64_t full_wait_ns = 2000000;
static const int64_t again_ns = 5000000000; /* after a journal could not be read */

/* --- opening --- */

static int count_record(void *context, const void *record, uint32_t size)
{
    uint64_t *count = context;
    (void)record, (void)size;
    (*count)++;
    return 0;
}

/* Reads one directory to see that it is sound; generation 0 is `journal`. */
static int check(struct replay *replay, uint32_t generation, uint64_t *ret_records,
                 struct recovery_report *ret, char *ret_why, size_t why_size)
{
    char path[SEGMENT_PATH_MAX];
    int error = recovery_directory(replay->data, generation, path);

    if (error == 0) {
        *ret_records = 0;
        *ret = (struct recovery_report){0};
        error =
            recovery_run(path, replay->salvage, count_record, ret_records, ret, ret_why, why_size);
    }
    return error;
}

static void tell_what_was_found(const struct recovery_report *all)
{
    if (all->records > 0 || all->torn_bytes > 0) {
        log_notice("recovered records=%llu bytes=%llu torn_bytes=%llu",
                   (unsigned long long)all->records, (unsigned long long)all->bytes,
                   (unsigned long long)all->torn_bytes);
    }
    if (all->salvaged_gaps > 0) {
        log_warning("salvage passed over damage places=%llu",
                    (unsigned long long)all->salvaged_gaps);
    }
}

static void add(struct recovery_report *all, const struct recovery_report *one)
{
    all->records += one->records;
    all->bytes += one->bytes;
    all->torn_bytes += one->torn_bytes;
    all->salvaged_gaps += one->salvaged_gaps;
}

/* The last run's journal: set aside if it has records, else its files are free. */
static int take_last(struct replay *replay, struct recovery_report *all,
                     uint64_t *ret_first_segment, char *ret_why, size_t why_size)
{
    char path[SEGMENT_PATH_MAX];
    struct recovery_report report = {0};
    uint64_t records = 0;
    uint32_t generation = 0;
    int error = check(replay, 0, &records, &report, ret_why, why_size);

    if (error < 0) {
        return error;
    }
    add(all, &report);
    if (records == 0) {
        *ret_first_segment = report.first_segment;
        error = recovery_directory(replay->data, 0, path);
        return error < 0 ? error : recovery_retire(path);
    }
    error = recovery_set_aside(replay->data, &generation, ret_why, why_size);
    if (error == 0) {
        replay->first = replay->count == 0 ? generation : replay->first;
        replay->records[replay->count++] = records;
        *ret_first_segment = 1;
    }
    return error;
}

/* NOLINTNEXTLINE(readability-function-size): seven parameters, as the door of fileio has them. */
int replay_open(struct replay *replay, const char *data, bool salvage, struct mem_plan *plan,
                uint64_t *ret_first_segment, char *ret_why, size_t why_size)
{
    struct recovery_report all = {0};
    uint32_t count = 0;

    *replay = (struct replay){.data = data, .salvage = salvage};
    int error = recovery_generations(data, salvage, &replay->first, &count, ret_why, why_size);
    if (error == 0 && count >= REPLAY_GENERATIONS_MAX) {
        (void)snprintf(ret_why, why_size,
                       "%s holds the journals of %u runs that never reached their store; start "
                       "damsod once with the store available",
                       data, count);
        error = -EMFILE;
    }
    for (; error == 0 && replay->count < count; replay->count++) {
        struct recovery_report report = {0};
        error = check(replay, replay->first + replay->count, &replay->records[replay->count],
                      &report, ret_why, why_size);
        add(&all, &report);
    }
    error = error < 0 ? error : take_last(replay, &all, ret_first_segment, ret_why, why_size);
    if (error < 0 || replay->count == 0) {
        return error;
    }
    tell_what_was_found(&all);
    unsigned char *bytes = mem_reserve(plan, "replay rings", RING_BYTES, 2);
    spsc_init(&replay->lane.requests, bytes, RING_BYTES);
    spsc_init(&replay->lane.replies, bytes + RING_BYTES, RING_BYTES);
    replay->lane.recovered = true;
    replay->lane.salvage = salvage;
    replay->lane.shard_bell = &replay->bell;
    doorbell_init(&replay->bell);
    const struct os_ring_options ring = {.entries = RING_ENTRIES};
    error = os_ring_create(&ring, &replay->ring, ret_why, why_size);
    replay->lane.shard_ring = replay->ring;
    return error;
}

/* --- the thread --- */

static bool is_stopping(const struct replay *replay)
{
    /* Acquire pairs with the release in replay_stop. */
    return atomic_load_explicit(&replay->stopping, memory_order_acquire);
}

/* Y1. */
static void drop_stored(struct replay *replay)
{
    char why[256] = "";
    uint64_t end = 0;

    for (uint32_t i = 0; i < replay->count; i++) {
        end += replay->records[i];
        if (i < replay->dropped) {
            continue;
        }
        if (end > replay->watermark) {
            return;
        }
        if (recovery_drop(replay->data, replay->first + i, why, sizeof(why)) < 0) {
            log_error("a journal that is stored could not be removed reason=\"%s\"", why);
            return;
        }
        replay->dropped++;
    }
}

static void take_reply(struct replay *replay, const struct persist_record *reply)
{
    if (reply->head.op == PERSIST_WATERMARK) {
        replay->watermark = reply->position;
    } else if (reply->head.op == PERSIST_REWIND) {
        replay->rewinding = true;
        replay->rewind_to = reply->position;
    }
}

static void take_replies(struct replay *replay)
{
    struct spsc *replies = &replay->lane.replies;
    uint32_t size;

    for (const void *reply = spsc_peek(replies, &size); reply != NULL;
         reply = spsc_peek(replies, &size)) {
        take_reply(replay, reply);
        spsc_next(replies);
    }
    spsc_release(replies);
    drop_stored(replay);
}

/* Shows persistence what is in the ring, and sleeps until it has answered something. */
static void wait_for(struct replay *replay, int64_t wait_ns)
{
    struct os_event events[EVENTS_MAX];
    uint32_t size;

    (void)spsc_publish(&replay->lane.requests);
    persist_wake(replay->persist, replay->ring);
    doorbell_prepare_sleep(&replay->bell);
    const bool any = spsc_peek(&replay->lane.replies, &size) != NULL;
    (void)!os_turn(replay->ring, any ? 0 : wait_ns, events, EVENTS_MAX);
    doorbell_cancel_sleep(&replay->bell);
    take_replies(replay);
}

/* Space in the ring, or NULL: we are to end, or to begin again. */
static void *reserve(struct replay *replay, uint32_t size)
{
    void *space = spsc_reserve(&replay->lane.requests, size);

    while (space == NULL && !is_stopping(replay) && !replay->rewinding) {
        wait_for(replay, full_wait_ns);
        space = spsc_reserve(&replay->lane.requests, size);
    }
    return is_stopping(replay) || replay->rewinding ? NULL : space;
}

static int hand_over(void *context, const void *record, uint32_t size)
{
    struct replay *replay = context;
    const struct persist_record head = {
        .head = {.op = PERSIST_RECORD}, .position = ++replay->position, .record_bytes = size};

    if (head.position <= replay->rewind_to) {
        return 0;
    }
    char *space = reserve(replay, (uint32_t)sizeof(head) + size);
    if (space == NULL) {
        return 1;
    }
    memcpy(space, &head, sizeof(head));
    memcpy(space + sizeof(head), record, size);
    spsc_commit(&replay->lane.requests, (uint32_t)sizeof(head) + size);
    return 0;
}

static bool push_head(struct replay *replay, enum persist_op op)
{
    const struct persist_head head = {.op = (uint16_t)op};
    void *space = reserve(replay, sizeof(head));

    if (space != NULL) {
        memcpy(space, &head, sizeof(head));
        spsc_commit(&replay->lane.requests, sizeof(head));
    }
    return space != NULL;
}

/* All generations that the store may not have, once. False: ended before, to begin again. */
static bool hand_over_all(struct replay *replay)
{
    char path[SEGMENT_PATH_MAX];
    char why[512] = "";
    struct recovery_report report;
    bool whole = true;

    replay->position = 0;
    for (uint32_t i = 0; whole && i < replay->count; i++) {
        if (i < replay->dropped || replay->position + replay->records[i] <= replay->rewind_to) {
            replay->position += replay->records[i];
            continue;
        }
        int error = recovery_directory(replay->data, replay->first + i, path);
        error = error < 0 ? error
                          : recovery_run(path, replay->salvage, hand_over, replay, &report, why,
                                         sizeof(why));
        if (error < 0) {
            log_error("the journal of an earlier run cannot be read any more; it is tried again "
                      "reason=\"%s\"",
                      why);
            wait_for(replay, again_ns);
        }
        whole = error == 0 && !report.stopped;
    }
    return whole && push_head(replay, PERSIST_RECOVERED);
}

static void *thread_main(void *argument)
{
    struct replay *replay = argument;
    bool whole = false;
    bool rewound_due = false;

    (void)prctl(PR_SET_NAME, "damso-replay");
    if (os_ring_enable(replay->ring) < 0) {
        log_error("the journals of earlier runs cannot be handed over: no ring");
        return NULL;
    }
    while (!is_stopping(replay)) {
        if (replay->rewinding) {
            replay->rewinding = false;
            rewound_due = true;
            whole = false;
        }
        if (rewound_due) {
            rewound_due = !push_head(replay, PERSIST_REWOUND);
        } else if (!whole) {
            whole = hand_over_all(replay);
        } else {
            wait_for(replay, idle_wait_ns);
        }
    }
    return NULL;
}

int replay_start(struct replay *replay, struct persist *persist)
{
    pthread_attr_t attributes;

    if (replay->count == 0) {
        return 0;
    }
    replay->persist = persist;
    int error = -pthread_attr_init(&attributes);
    if (error == 0) {
        (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
        error = -pthread_create(&replay->thread, &attributes, thread_main, replay);
        (void)pthread_attr_destroy(&attributes);
    }
    replay->started = error == 0;
    return error;
}

void replay_stop(struct replay *replay)
{
    /* Release pairs with the acquire in is_stopping; it looks after idle_wait_ns at the latest, or
     * again_ns if a journal cannot be read. */
    atomic_store_explicit(&replay->stopping, true, memory_order_release);
    if (replay->started) {
        (void)pthread_join(replay->thread, NULL);
        replay->started = false;
    }
    if (replay->ring != NULL) {
        os_ring_destroy(replay->ring);
        replay->ring = NULL;
    }
}
