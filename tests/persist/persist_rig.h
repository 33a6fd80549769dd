/*
 * persist_rig.h - a shard's end of a lane, for the tests of the persistence thread: it asks, sleeps
 *                 behind its own doorbell and takes replies, as a shard's loop does.
 */
#pragma once

#include "core/check.h"
#include "core/config.h"
#include "persist/persist.h"
#include "tests/persist/store_rig.h"

#include <stdalign.h>

enum {
    RIG_RING_BYTES = 1 << 18,
    RIG_PATIENCE_NS = 100 * 1000 * 1000, /* of one wait */
    RIG_WAITS_MAX = 300,                 /* a reply that has not come by then will never come */
    RIG_EPOCH = 77,
};

/* What a shard has in its journal: records as they were handed over, one behind the other. */
struct rig_journal {
    uint8_t *bytes; /* the test's; each a struct persist_record and the record */
    size_t used, capacity;
};

struct rig_shard {
    struct persist_lane lane;
    struct doorbell bell;
    struct os_ring *ring;
    struct persist *persist;
    struct rig_journal *journal; /* NULL: what is handed over is not asked for again */
    uint64_t watermark;
    uint64_t taken;     /* as PERSIST_TAKEN told last */
    uint64_t rewind_to; /* as PERSIST_REWIND told last */
    uint32_t rewinds;
    bool rewind_due;
    bool recovered;    /* PERSIST_RECOVERED was handed over: it is again behind a rewind */
    uint64_t position; /* of the last record handed over */
    uint64_t token;    /* of the last question */
    alignas(64) unsigned char requests[RIG_RING_BYTES];
    alignas(64) unsigned char replies[RIG_RING_BYTES];
};

/* A shard of the calling thread. replies_bytes: at most RIG_RING_BYTES, a power of two. */
static inline void rig_shard_open(struct rig_shard *shard, uint32_t replies_bytes)
{
    const struct os_ring_options options = {.entries = 64};
    char why[256] = "";

    memset(&shard->lane, 0, sizeof(shard->lane));
    spsc_init(&shard->lane.requests, shard->requests, RIG_RING_BYTES);
    spsc_init(&shard->lane.replies, shard->replies, replies_bytes);
    doorbell_init(&shard->bell);
    CHECK(os_ring_create(&options, &shard->ring, why, sizeof(why)) == 0);
    shard->lane.shard_bell = &shard->bell;
    shard->lane.shard_ring = shard->ring;
    shard->lane.shard_tag = os_tag(9, 0, 0);
    shard->journal = NULL;
    shard->watermark = 0;
    shard->taken = 0;
    shard->rewind_to = 0;
    shard->rewinds = 0;
    shard->rewind_due = false;
    shard->recovered = false;
    shard->position = 0;
    shard->token = 0;
}

/* In the thread that is the shard. */
static inline void rig_shard_enable(struct rig_shard *shard, struct persist *persist)
{
    CHECK(os_ring_enable(shard->ring) == 0);
    shard->persist = persist;
}

static inline void rig_shard_close(struct rig_shard *shard)
{
    os_ring_destroy(shard->ring);
}

static inline void rig_publish(struct rig_shard *shard)
{
    struct os_event events[8];

    if (spsc_publish(&shard->lane.requests)) {
        persist_wake(shard->persist, shard->ring);
        CHECK(os_turn(shard->ring, 0, events, 8) >= 0);
    }
}

/* Space for a request; the ring is emptied by the persistence thread. */
static inline void *rig_reserve(struct rig_shard *shard, uint32_t size)
{
    void *space = spsc_reserve(&shard->lane.requests, size);
    for (int waits = 0; space == NULL && waits < 100 * RIG_WAITS_MAX; waits++) {
        rig_publish(shard);
        CHECK(usleep(1000) == 0);
        space = spsc_reserve(&shard->lane.requests, size);
    }
    CHECK(space != NULL);
    return space;
}

/* Notes what comes unasked; true if the reply is that. */
static inline bool rig_is_news(struct rig_shard *shard, const struct persist_head *reply)
{
    if (reply->op != PERSIST_WATERMARK && reply->op != PERSIST_TAKEN &&
        reply->op != PERSIST_REWIND) {
        return false; /* and may be shorter than what follows looks at */
    }
    const uint64_t position = ((const struct persist_record *)reply)->position;
    switch (reply->op) {
    case PERSIST_WATERMARK:
        CHECK(position > shard->watermark); /* rises only */
        CHECK(position <= shard->position); /* never ahead of what was handed over */
        shard->watermark = position;
        return true;
    case PERSIST_TAKEN:
        CHECK(position > shard->taken || shard->rewinds > 0);
        CHECK(position <= shard->position);
        shard->taken = position;
        return true;
    default:
        CHECK(shard->journal != NULL); /* else there is no reason for a rewind */
        CHECK(position >= shard->watermark && position <= shard->position);
        shard->rewind_to = position;
        shard->rewinds++;
        shard->rewind_due = true;
        return true;
    }
}

/* PERSIST_REWOUND or PERSIST_RECOVERED. Not published yet. */
static inline void rig_put_head(struct rig_shard *shard, enum persist_op op)
{
    const struct persist_head head = {.op = (uint16_t)op};

    memcpy(rig_reserve(shard, sizeof(head)), &head, sizeof(head));
    spsc_commit(&shard->lane.requests, sizeof(head));
}

/* Hands over again what is above the rewound position, as a shard does (shard/handover.h). */
static inline void rig_rewind(struct rig_shard *shard)
{
    const struct rig_journal *journal = shard->journal;
    uint32_t count = 0;

    shard->rewind_due = false;
    rig_put_head(shard, PERSIST_REWOUND);
    for (size_t at = 0; at < journal->used;) {
        struct persist_record head;
        memcpy(&head, journal->bytes + at, sizeof(head));
        const uint32_t size = (uint32_t)sizeof(head) + head.record_bytes;
        if (head.position > shard->rewind_to) {
            memcpy(rig_reserve(shard, size), journal->bytes + at, size);
            spsc_commit(&shard->lane.requests, size);
            count++;
        }
        at += size;
        if (count % 64 == 63) {
            rig_publish(shard);
        }
    }
    if (shard->recovered) {
        rig_put_head(shard, PERSIST_RECOVERED);
    }
    rig_publish(shard);
}

static inline void rig_next(struct rig_shard *shard)
{
    spsc_next(&shard->lane.replies);
    spsc_release(&shard->lane.replies);
    if (shard->rewind_due) {
        rig_rewind(shard);
    }
}

/* Sleeps until something is in the reply ring, or a while has passed. */
static inline void rig_sleep(struct rig_shard *shard)
{
    struct os_event events[8];
    uint32_t size;

    doorbell_prepare_sleep(&shard->bell);
    const int64_t wait_ns = spsc_peek(&shard->lane.replies, &size) != NULL ? 0 : RIG_PATIENCE_NS;
    CHECK(os_turn(shard->ring, wait_ns, events, 8) >= 0);
    doorbell_cancel_sleep(&shard->bell);
}

/* Takes all news that are there now; what is no news stays. */
static inline void rig_take_news(struct rig_shard *shard)
{
    uint32_t size;
    const struct persist_head *reply = spsc_peek(&shard->lane.replies, &size);

    while (reply != NULL && rig_is_news(shard, reply)) {
        rig_next(shard);
        reply = spsc_peek(&shard->lane.replies, &size);
    }
}

/* The next reply that is an answer; good until rig_next. */
static inline const void *rig_reply(struct rig_shard *shard, uint32_t *ret_size)
{
    for (int waits = 0; waits < RIG_WAITS_MAX;) {
        const struct persist_head *reply = spsc_peek(&shard->lane.replies, ret_size);
        if (reply == NULL) {
            rig_sleep(shard);
            waits++;
        } else if (!rig_is_news(shard, reply)) {
            return reply;
        } else {
            rig_next(shard);
        }
    }
    check_failed(__FILE__, __LINE__, "the reply never came");
}

/* Takes watermarks until this one is reached; no reply may be due. */
static inline void rig_wait_watermark(struct rig_shard *shard, uint64_t position)
{
    uint32_t size;

    for (int waits = 0; shard->watermark < position && waits < RIG_WAITS_MAX;) {
        const struct persist_head *reply = spsc_peek(&shard->lane.replies, &size);
        if (reply == NULL) {
            rig_sleep(shard);
            waits++;
            continue;
        }
        CHECK(rig_is_news(shard, reply));
        rig_next(shard);
    }
    CHECK(shard->watermark >= position);
}

/* Puts a request into the ring: its struct, then the parts of its tail. Not published yet. */
static inline void rig_put(struct rig_shard *shard, const void *head, uint32_t head_size,
                           const struct slice *parts, uint32_t count)
{
    uint32_t size = head_size;

    for (uint32_t i = 0; i < count; i++) {
        size += parts[i].size;
    }
    uint8_t *at = rig_reserve(shard, size);
    memcpy(at, head, head_size);
    at += head_size;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(at, parts[i].size > 0 ? parts[i].data : "", parts[i].size);
        at += parts[i].size;
    }
    spsc_commit(&shard->lane.requests, size);
}

static inline struct persist_head rig_head(struct rig_shard *shard, enum persist_op op)
{
    return (struct persist_head){.op = (uint16_t)op, .token = ++shard->token};
}

/* --- what a shard asks --- */

static inline void rig_record(struct rig_shard *shard, const struct record *record)
{
    uint8_t bytes[RIG_RECORD_MAX];
    const struct slice encoded = {(const char *)bytes, record_size(record)};

    CHECK(encoded.size <= sizeof(bytes));
    record_encode(record, bytes);
    shard->position += 100;
    const struct persist_record request = {
        .head = {.op = PERSIST_RECORD}, .position = shard->position, .record_bytes = encoded.size};
    rig_put(shard, &request, sizeof(request), &encoded, 1);
    if (shard->journal != NULL) {
        struct rig_journal *journal = shard->journal;
        CHECK(journal->capacity - journal->used >= sizeof(request) + encoded.size);
        memcpy(journal->bytes + journal->used, &request, sizeof(request));
        memcpy(journal->bytes + journal->used + sizeof(request), bytes, encoded.size);
        journal->used += sizeof(request) + encoded.size;
    }
}

static inline void rig_send(struct rig_shard *shard, const char *room, uint64_t epoch, uint64_t seq)
{
    char body[64];
    const struct record record = rig_message(body, room, epoch, seq);
    rig_record(shard, &record);
}

/* From a recovered lane: there is no more. */
static inline void rig_recovered(struct rig_shard *shard)
{
    shard->recovered = true;
    rig_put_head(shard, PERSIST_RECOVERED);
    rig_publish(shard);
}

static inline void rig_ask_history(struct rig_shard *shard, const char *room, uint64_t from,
                                   uint64_t to, uint32_t bytes_max, bool descending)
{
    const struct slice tail = rig_slice(room);
    const struct persist_page request = {
        .head = rig_head(shard, PERSIST_HISTORY),
        .from_seq = from,
        .to_seq = to,
        .limit = 1000,
        .bytes_max = bytes_max,
        .descending = descending,
        .room_bytes = (uint8_t)tail.size,
    };
    rig_put(shard, &request, sizeof(request), &tail, 1);
}

static inline void rig_ask_load(struct rig_shard *shard, const char *room)
{
    const struct slice tail = rig_slice(room);
    const struct persist_head head = rig_head(shard, PERSIST_ROOM_LOAD);
    rig_put(shard, &head, sizeof(head), &tail, 1);
}

static inline void rig_ask_create_as(struct rig_shard *shard, const char *room, uint8_t durability)
{
    const struct slice tail[] = {rig_slice(room), SLICE("The Room"), SLICE("owner"), SLICE("Olga")};
    const struct persist_room request = {
        .head = rig_head(shard, PERSIST_ROOM_CREATE),
        .epoch = RIG_EPOCH,
        .members_max = 9,
        .durability = durability,
        .room_bytes = (uint8_t)tail[0].size,
        .name_bytes = (uint16_t)tail[1].size,
        .user_bytes = (uint8_t)tail[2].size,
        .username_bytes = (uint8_t)tail[3].size,
    };
    rig_put(shard, &request, sizeof(request), tail, 4);
}

static inline void rig_ask_create(struct rig_shard *shard, const char *room)
{
    rig_ask_create_as(shard, room, CONFIG_DURABILITY_FSYNC);
}

static inline void rig_ask_user(struct rig_shard *shard, enum persist_op op, const char *user_id,
                                const char *username, const char *password, const char *display)
{
    const struct slice tail[] = {rig_slice(user_id), rig_slice(username), rig_slice(password),
                                 rig_slice(display)};
    const struct persist_user request = {
        .head = rig_head(shard, op),
        .user_bytes = (uint16_t)tail[0].size,
        .username_bytes = (uint16_t)tail[1].size,
        .password_bytes = (uint16_t)tail[2].size,
        .display_bytes = (uint16_t)tail[3].size,
    };
    rig_put(shard, &request, sizeof(request), tail, 4);
}

/* The status of the reply to the last question, which must be of that op. */
static inline int rig_status(struct rig_shard *shard, enum persist_op op)
{
    uint32_t size;

    rig_publish(shard);
    const struct persist_head *reply = rig_reply(shard, &size);
    const int status = reply->status;
    CHECK(reply->op == op && reply->token == shard->token);
    rig_next(shard);
    return status;
}

static inline void rig_make_room(struct rig_shard *shard, const char *room)
{
    rig_ask_create(shard, room);
    CHECK(rig_status(shard, PERSIST_ROOM) == 0);
}

/* The epoch of a room that is there. */
static inline uint64_t rig_epoch(struct rig_shard *shard, const char *room_id)
{
    uint32_t size;

    rig_ask_load(shard, room_id);
    rig_publish(shard);
    const struct persist_room *room = rig_reply(shard, &size);
    while (room->head.op != PERSIST_ROOM) {
        rig_next(shard);
        room = rig_reply(shard, &size);
    }
    CHECK(room->head.status == 0 && room->head.token == shard->token);
    const uint64_t epoch = room->epoch;
    rig_next(shard);
    return epoch;
}

/* A page of history as "from-to" if its entries are dense, rising or falling, and have the bodies
 * that rig_message gave them; "" if there is none. Checks token and status. */
static inline const char *rig_history(struct rig_shard *shard, const char *room)
{
    static _Thread_local char text[64];
    uint64_t first = 0;
    uint64_t last = 0;
    uint32_t size;

    rig_publish(shard);
    const struct persist_head *reply = rig_reply(shard, &size);
    CHECK(reply->op == PERSIST_HISTORY_PAGE && reply->token == shard->token);
    CHECK(reply->status == 0);
    const uint8_t *at = (const uint8_t *)(reply + 1);
    for (uint32_t i = 0; i < reply->count; i++) {
        const struct persist_entry *entry = (const void *)at;
        char body[64];
        const struct record expected = rig_message(body, room, RIG_EPOCH, entry->seq);
        CHECK(i == 0 || entry->seq == last + 1 || entry->seq == last - 1);
        CHECK(slice_equal(expected.body,
                          (struct slice){(const char *)(entry + 1), entry->body_bytes}));
        first = i == 0 ? entry->seq : first;
        last = entry->seq;
        at += sizeof(*entry) + ((entry->body_bytes + 7U) & ~7U);
    }
    CHECK(at == (const uint8_t *)reply + size);
    text[0] = '\0';
    if (reply->count > 0) {
        (void)snprintf(text, sizeof(text), "%lu-%lu", (unsigned long)first, (unsigned long)last);
    }
    rig_next(shard);
    return text;
}
