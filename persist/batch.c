/* batch.c - see batch.h for the invariants B1 to B3 named below, persist.h for P1 to P3. */
#include "persist/batch.h"

#include "core/check.h"
#include "core/hash.h"
#include "core/log.h"
#include "persist/lane.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum {
    BACKOFF_MIN_NS = 50 * 1000 * 1000,
    BACKOFF_MAX_NS = 1000 * 1000 * 1000,
    RECORD_BYTES_MIN = RECORD_HEADER_BYTES + 2, /* a room_id and a user_id of one byte */
};

struct batch_held {
    uint32_t lane;
    uint32_t size;
};

void batch_init(struct batch *batch, struct mem_plan *plan, uint32_t lanes, uint32_t ring_bytes,
                uint32_t records)
{
    batch->lane_bytes_max = ring_bytes / 2;
    batch->records = records;
    batch->entries_max = batch->lane_bytes_max / RECORD_BYTES_MIN * lanes;
    batch->entries =
        mem_reserve(plan, "batch records", sizeof(*batch->entries), batch->entries_max);
    batch->bytes = mem_reserve(plan, "batch bytes", batch->lane_bytes_max, lanes);
    batch->held = mem_reserve(plan, "replies held", 1, BATCH_HELD_BYTES);
}

static void set_well(struct persist *persist, bool well)
{
    bool all = well;

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        all = all && !persist->lanes[i].stuck;
    }
    atomic_store_explicit(&persist->well, all,
                          memory_order_relaxed); /* a flag, nothing behind it */
}

/* --- held replies --- */

static void hold(struct batch *batch, uint32_t lane, const void *reply, uint32_t size)
{
    const struct batch_held held = {.lane = lane, .size = size};

    memcpy(batch->held + batch->held_used, &held, sizeof(held));
    memcpy(batch->held + batch->held_used + sizeof(held), reply, size);
    batch->held_used += (uint32_t)sizeof(held) + size;
    batch->held_count++;
}

static bool can_hold(const struct batch *batch)
{
    return BATCH_HELD_BYTES - batch->held_used >= sizeof(struct batch_held) + ANSWER_REPLY_MAX;
}

/* What is left of a held reply when its commit failed: that it did. */
static void reply_refused(struct persist *persist, uint32_t lane, const uint8_t *reply)
{
    struct persist_head head; /* the bytes held are not aligned */
    uint8_t refusal[ANSWER_REPLY_MAX];

    memcpy(&head, reply, sizeof(head));
    const uint32_t size = answer_refusal(&head, -EAGAIN, refusal);
    lane_reply(persist, lane, refusal, size);
}

static void release_held(struct persist *persist, bool committed)
{
    struct batch *batch = &persist->batch;

    for (uint32_t at = 0; at < batch->held_used;) {
        struct batch_held held;
        memcpy(&held, batch->held + at, sizeof(held));
        at += (uint32_t)sizeof(held);
        if (committed) {
            lane_reply(persist, held.lane, batch->held + at, held.size);
        } else {
            reply_refused(persist, held.lane, batch->held + at);
        }
        at += held.size;
    }
    batch->held_used = 0;
    batch->held_count = 0;
}

void batch_reply(struct persist *persist, uint32_t lane, const void *reply, uint32_t size)
{
    struct batch *batch = &persist->batch;

    CHECK(size <= ANSWER_REPLY_MAX);
    if (batch->held_count > 0 && !can_hold(batch)) {
        batch_commit(persist);
    }
    if (batch->held_count > 0) {
        hold(batch, lane, reply, size);
    } else {
        lane_reply(persist, lane, reply, size);
    }
}

/* --- records --- */

bool batch_takes(const struct persist *persist, uint32_t lane, uint32_t size)
{
    const struct batch *batch = &persist->batch;
    const uint32_t used = persist->lanes[lane].batch_bytes;

    return !batch_is_full(persist) && batch->count < batch->entries_max &&
           batch->lane_bytes_max - used >= size;
}

bool batch_is_full(const struct persist *persist)
{
    /* While the store refuses, what comes is kept up to the other bounds, for the reads behind it.
     */
    return persist->batch.count >= persist->batch.records && !persist->batch.refusing;
}

bool batch_is_due(const struct persist *persist)
{
    const struct batch *batch = &persist->batch;
    return batch->refusing || batch->hurry || batch->held_count > 0 || batch_is_full(persist) ||
           batch->used >= batch->lane_bytes_max / 2 ||
           os_now_ns() - batch->begun_ns >= batch->interval_ns;
}

/* The position of the lane's record before the one at index; without one in the batch, that of its
 * last one stored. */
static uint64_t position_before(const struct persist *persist, uint32_t index)
{
    const struct batch_entry *entries = persist->batch.entries;
    const uint32_t lane = entries[index].lane;

    for (uint32_t i = index; i > 0; i--) {
        if (entries[i - 1].lane == lane) {
            return entries[i - 1].position;
        }
    }
    return persist->lanes[lane].stored;
}

/* A record that can never be stored (P3). The lane's watermark stays before it, so the journal
 * keeps it; one line a room, for a room has as many of them as messages. */
static void raise_alarm(struct persist *persist, uint32_t index, struct slice room_id, uint64_t seq)
{
    struct batch *batch = &persist->batch;
    struct lane *lane = &persist->lanes[batch->entries[index].lane];
    const uint64_t hash = hash_home(room_id);
    bool known = batch->alarm_count == BATCH_ALARMS_MAX;

    for (uint32_t i = 0; i < batch->alarm_count; i++) {
        known = known || batch->alarms[i] == hash;
    }
    if (!known) {
        batch->alarms[batch->alarm_count++] = hash;
        log_error("a record does not follow the last one stored in its room; it stays in the "
                  "journal room_id=%.*s seq=%" PRIu64,
                  (int)room_id.size, room_id.data, seq);
    }
    if (!lane->stuck) {
        lane->stuck = true;
        lane->stuck_after = position_before(persist, index);
    }
    set_well(persist, false);
}

/* Gives one record to the open transaction: 0, or -errno of the store. */
static int apply(struct persist *persist, uint32_t index)
{
    const struct batch_entry *entry = &persist->batch.entries[index];
    struct record record;

    if (record_decode(persist->batch.bytes + entry->offset, entry->size, &record) < 0) {
        raise_alarm(persist, index, SLICE("(unreadable)"), 0); /* read back damaged, perhaps */
        return 0;
    }
    const int result = persist->store->ops->append(persist->store, &record, false);
    if (result == STORE_HOLE) {
        raise_alarm(persist, index, record.room_id, record.seq);
    }
    return result < 0 ? result : 0;
}

static int begin(struct persist *persist)
{
    struct batch *batch = &persist->batch;

    if (batch->open) {
        return 0;
    }
    const int error = persist->store->ops->begin(persist->store);
    batch->open = error == 0;
    batch->begun_ns = os_now_ns();
    return error;
}

/* Brings the open transaction up to the last record taken (B2): 0, or the store's error, and then
 * it refuses. */
static int apply_rest(struct persist *persist)
{
    struct batch *batch = &persist->batch;
    int error = begin(persist);

    while (error == 0 && batch->applied < batch->count) {
        error = apply(persist, batch->applied);
        batch->applied += error == 0;
    }
    batch->unreadable = error < 0;
    if (error < 0) {
        batch_refuse(persist, error);
    }
    return error;
}

void batch_add(struct persist *persist, uint32_t index, uint64_t position, const void *record,
               uint32_t size)
{
    struct batch *batch = &persist->batch;
    struct lane *lane = &persist->lanes[index];

    CHECK(batch->count < batch->entries_max);
    CHECK(position >= lane->taken); /* handed over in the journal's order (fileio/journal.h, J5) */
    batch->entries[batch->count++] = (struct batch_entry){
        .position = position, .offset = batch->used, .lane = index, .size = size};
    memcpy(batch->bytes + batch->used, record, size);
    batch->used += size;
    lane->batch_bytes += size;
    lane->taken = position;
    (void)batch_is_readable(persist); /* applies it, unless the store must be left alone for now */
}

bool batch_is_readable(struct persist *persist)
{
    const struct batch *batch = &persist->batch;

    if (batch->applied == batch->count) {
        return true;
    }
    if (batch->unreadable && os_now_ns() < batch->retry_at_ns) {
        return false;
    }
    return apply_rest(persist) == 0;
}

/* --- the transaction --- */

void batch_refuse(struct persist *persist, int error)
{
    struct batch *batch = &persist->batch;

    persist->store->ops->rollback(persist->store);
    batch->open = false;
    batch->applied = 0;
    if (!batch->refusing) {
        batch->refusing = true;
        batch->backoff_ns = BACKOFF_MIN_NS;
        log_error("the store refuses writes; what is not stored stays in the journal error=\"%s\"",
                  os_error(error));
    } else {
        batch->backoff_ns *= batch->backoff_ns < BACKOFF_MAX_NS ? 2 : 1;
    }
    batch->retry_at_ns = os_now_ns() + batch->backoff_ns;
    set_well(persist, false);
    release_held(persist, false);
}

int batch_write(struct persist *persist)
{
    struct batch *batch = &persist->batch;

    if (!can_hold(batch)) {
        batch_commit(persist);
    }
    if (batch->refusing || apply_rest(persist) < 0) {
        return -EAGAIN;
    }
    return 0;
}

void batch_written(struct persist *persist, uint32_t lane, const void *reply, uint32_t size)
{
    CHECK(persist->batch.open && can_hold(&persist->batch)); /* batch_write saw to it */
    CHECK(size <= ANSWER_REPLY_MAX);
    hold(&persist->batch, lane, reply, size);
}

void batch_settle(struct persist *persist)
{
    if (persist->batch.held_count > 0) {
        batch_commit(persist);
    }
}

/* After a commit: everything in the batch is durable, so watermarks may pass it (P2, B1). */
static void clear(struct persist *persist)
{
    struct batch *batch = &persist->batch;

    metrics_add(&persist->metrics->persist_batches_total, 1);
    metrics_add(&persist->metrics->persist_records_total, batch->count);
    metrics_observe(&persist->metrics->persist_batch_seconds, os_now_ns() - batch->begun_ns);
    for (uint32_t i = 0; i < persist->lane_count; i++) {
        struct lane *lane = &persist->lanes[i];
        lane->stored = lane->stuck ? lane->stuck_after : lane->taken;
        lane->batch_bytes = 0;
    }
    batch->open = false;
    batch->hurry = false;
    batch->count = 0;
    batch->applied = 0;
    batch->used = 0;
}

void batch_commit(struct persist *persist)
{
    struct batch *batch = &persist->batch;

    if (batch->refusing) {
        if (os_now_ns() < batch->retry_at_ns) {
            return;
        }
        metrics_add(&persist->metrics->persist_retries_total, 1);
        if (apply_rest(persist) < 0) {
            return;
        }
    }
    if (!batch->open) {
        return;
    }
    const int error = persist->store->ops->commit(persist->store);
    if (error < 0) {
        batch_refuse(persist, error);
        return;
    }
    clear(persist);
    if (batch->refusing) {
        batch->refusing = false;
        set_well(persist, true);
        log_notice("the store takes writes again");
    }
    release_held(persist, true);
}
