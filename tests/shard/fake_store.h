/*
 * fake_store.h - persistence played by a test: every function of persist/persist.h, and a store
 *                that answers the rings of one lane when it is told to.
 *
 * Walk:       a test links this instead of persist/; store_turn is called between turns of a shard.
 * Threads:    one struct fake_store belongs to one thread, that of its shard: both ends of the
 *             rings are turned by it.
 * Ownership:  the bodies of events are the store's; store_end gives them back.
 *
 * It keeps what persist.h promises: records of a room are taken dense by seq (P3), a watermark
 * comes after its records (P2), replies in the order of the requests (P1), each exactly once (P4).
 */
#pragma once

#include "core/check.h"
#include "persist/persist.h"

#include <errno.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STORE_ROOMS_MAX = 256,
    STORE_MEMBERS_MAX = 32,
    STORE_EVENTS_MAX = 8192,
    STORE_RING_BYTES = 1 << 20,
    STORE_UNSTORED_MAX = 1 << 26,
    STORE_NAME_MAX = 16,
};

struct stored_event {
    uint32_t size;
    bool keyed;
    struct persist_key key;
    char *body;
};

struct stored_room {
    char id[65];
    uint64_t epoch;
    uint64_t last_seq;
    uint32_t members_max;
    uint32_t member_count;
    uint32_t crowd; /* members beside the named ones, for loads only: "crowd0", "crowd1", ... */
    uint8_t visibility;
    uint8_t durability;
    bool ownerless;
    char members[STORE_MEMBERS_MAX][STORE_NAME_MAX]; /* the first one is the owner */
    struct stored_event events[STORE_EVENTS_MAX];    /* by seq - 1 */
};

struct fake_store {
    struct persist_lane lane;
    bool paused;     /* takes no request at all */
    int load_status; /* what loads are answered with, if not 0 */
    int page_status; /* likewise pages */
    uint64_t loads, records, pages;
    uint32_t room_count;
    struct stored_room *rooms[STORE_ROOMS_MAX];
    alignas(64) unsigned char requests[STORE_RING_BYTES];
    alignas(64) unsigned char replies[STORE_RING_BYTES];
};

/* --- the door, without anybody behind it --- */

int persist_open(const struct config *config, struct persist **ret, char *ret_why, size_t why_size)
{
    (void)config, (void)ret, (void)ret_why, (void)why_size;
    return -ENOSYS;
}

int persist_replay(struct persist *persist, const void *record, uint32_t size, bool salvage)
{
    (void)persist, (void)record, (void)size, (void)salvage;
    return -ENOSYS;
}

int persist_replay_end(struct persist *persist)
{
    (void)persist;
    return -ENOSYS;
}

int persist_start(struct persist *persist, struct persist_lane *const *lanes, uint32_t count,
                  struct metrics *metrics)
{
    (void)persist, (void)lanes, (void)count, (void)metrics;
    return -ENOSYS;
}

void persist_wake(struct persist *persist, struct os_ring *ring)
{
    (void)persist, (void)ring;
}

void persist_plan(const struct config *config, uint32_t count, struct mem_plan *plan)
{
    (void)config, (void)count, (void)plan;
}

uint32_t persist_unstored_max(const struct persist *persist)
{
    (void)persist;
    return STORE_UNSTORED_MAX;
}

bool persist_is_well(const struct persist *persist)
{
    (void)persist;
    return true;
}

bool persist_replays_later(const struct persist *persist)
{
    (void)persist;
    return false;
}

enum persist_state persist_state(struct persist *persist, char *ret_why, size_t why_size)
{
    (void)persist, (void)ret_why, (void)why_size;
    return PERSIST_READY;
}

bool persist_is_fenced(const struct persist *persist)
{
    (void)persist;
    return false;
}

void persist_close(struct persist *persist)
{
    (void)persist;
}

/* --- rooms --- */

static inline void store_begin(struct fake_store *store, struct doorbell *bell)
{
    memset(&store->lane, 0, sizeof(store->lane));
    spsc_init(&store->lane.requests, store->requests, STORE_RING_BYTES);
    spsc_init(&store->lane.replies, store->replies, STORE_RING_BYTES);
    store->lane.shard_bell = bell;
    store->paused = false;
    store->load_status = 0;
    store->page_status = 0;
    store->loads = store->records = store->pages = 0;
    store->room_count = 0;
}

static inline void store_end(struct fake_store *store)
{
    for (uint32_t i = 0; i < store->room_count; i++) {
        for (uint32_t seq = 0; seq < STORE_EVENTS_MAX; seq++) {
            free(store->rooms[i]->events[seq].body);
        }
        free(store->rooms[i]);
    }
    store->room_count = 0;
}

static inline struct stored_room *store_find(struct fake_store *store, struct slice id)
{
    for (uint32_t i = 0; i < store->room_count; i++) {
        struct stored_room *room = store->rooms[i];
        if (slice_equal((struct slice){room->id, (uint32_t)strlen(room->id)}, id)) {
            return room;
        }
    }
    return NULL;
}

static inline void store_add_member(struct stored_room *room, struct slice id)
{
    CHECK(room->member_count < STORE_MEMBERS_MAX && id.size < STORE_NAME_MAX);
    char *name = room->members[room->member_count++];
    memcpy(name, id.data, id.size);
    name[id.size] = '\0';
}

/* A public room with an owner, as POST /v1/rooms leaves it: no event yet. */
static inline struct stored_room *store_make(struct fake_store *store, const char *id,
                                             const char *owner)
{
    CHECK(store->room_count < STORE_ROOMS_MAX);
    struct stored_room *room = calloc(1, sizeof(*room));
    CHECK(room != NULL);
    CHECK(strlen(id) < sizeof(room->id));
    memcpy(room->id, id, strlen(id));
    room->epoch = 1000 + store->room_count;
    room->members_max = 1000;
    room->durability = CONFIG_DURABILITY_FSYNC;
    store_add_member(room, (struct slice){owner, (uint32_t)strlen(owner)});
    store->rooms[store->room_count++] = room;
    return room;
}

/* --- replies --- */

static inline void store_reply(struct fake_store *store, const void *head, uint32_t head_size,
                               const void *tail, uint32_t tail_size)
{
    char *space = spsc_reserve(&store->lane.replies, head_size + tail_size);
    CHECK(space != NULL);
    memcpy(space, head, head_size);
    if (tail_size > 0) {
        memcpy(space + head_size, tail, tail_size);
    }
    spsc_commit(&store->lane.replies, head_size + tail_size);
}

static inline uint32_t store_put_member(uint8_t *at, uint8_t role, const char *name)
{
    const uint8_t size = (uint8_t)strlen(name);
    at[0] = role;
    at[1] = at[2] = size;
    memcpy(at + 3, name, size);
    memcpy(at + 3 + size, name, size);
    return 3U + 2U * size;
}

static inline void store_reply_members(struct fake_store *store, const struct stored_room *room,
                                       uint64_t token)
{
    static _Thread_local uint8_t bytes[STORE_RING_BYTES / 8];
    struct persist_head head = {.op = PERSIST_MEMBERS, .token = token};
    uint32_t used = 0;

    for (uint32_t i = 0; i < room->member_count; i++, head.count++) {
        const bool owner = i == 0 && !room->ownerless;
        used += store_put_member(bytes + used, owner ? ROLE_OWNER : ROLE_MEMBER, room->members[i]);
    }
    for (uint32_t i = 0; i < room->crowd; i++, head.count++) {
        char name[STORE_NAME_MAX];
        (void)snprintf(name, sizeof(name), "crowd%u", i);
        used += store_put_member(bytes + used, ROLE_MEMBER, name);
    }
    store_reply(store, &head, sizeof(head), bytes, used);
}

static inline void store_reply_keys(struct fake_store *store, const struct stored_room *room,
                                    uint64_t token)
{
    struct persist_head head = {.op = PERSIST_KEYS, .count = 1, .token = token};
    for (uint64_t i = 0; i < room->last_seq; i++) {
        if (room->events[i].keyed) {
            store_reply(store, &head, sizeof(head), &room->events[i].key,
                        sizeof(struct persist_key));
        }
    }
}

static inline void store_load(struct fake_store *store, const struct persist_head *head,
                              struct slice id)
{
    const struct stored_room *room = store_find(store, id);
    struct persist_room reply = {.head = {.op = PERSIST_ROOM, .token = head->token}};

    store->loads++;
    if (store->load_status != 0 || room == NULL) {
        reply.head.status = (int16_t)(store->load_status != 0 ? store->load_status : -ENOENT);
        store_reply(store, &reply, sizeof(reply), NULL, 0);
        return;
    }
    store_reply_members(store, room, head->token);
    store_reply_keys(store, room, head->token);
    reply.epoch = room->epoch;
    reply.last_seq = room->last_seq;
    reply.created_ms = 1;
    reply.member_count = room->member_count + room->crowd;
    reply.members_max = room->members_max;
    reply.visibility = room->visibility;
    reply.durability = room->durability;
    reply.room_bytes = (uint8_t)id.size;
    reply.name_bytes = (uint16_t)id.size;
    char tail[130];
    memcpy(tail, id.data, id.size);
    memcpy(tail + id.size, id.data, id.size);
    store_reply(store, &reply, sizeof(reply), tail, 2 * id.size);
}

static inline void store_page(struct fake_store *store, const struct persist_page *page,
                              struct slice id)
{
    static _Thread_local char bytes[STORE_RING_BYTES / 4];
    const struct stored_room *room = store_find(store, id);
    struct persist_head head = {.op = PERSIST_HISTORY_PAGE, .token = page->head.token};
    const uint64_t last = room != NULL ? room->last_seq : 0;
    const uint64_t to = page->to_seq < last ? page->to_seq : last;
    uint32_t used = 0;

    store->pages++;
    head.status = (int16_t)(store->page_status != 0 ? store->page_status
                            : room == NULL          ? -ENOENT
                                                    : 0);
    for (uint64_t i = 0; head.status == 0 && page->from_seq + i <= to && head.count < page->limit;
         i++) {
        const uint64_t seq = page->descending ? to - i : page->from_seq + i;
        const struct stored_event *event = &room->events[seq - 1];
        const struct persist_entry entry = {.seq = seq, .body_bytes = event->size};
        const uint32_t size = ((uint32_t)sizeof(entry) + event->size + 7) & ~7U;
        if (used + size > page->bytes_max && head.count > 0) {
            break;
        }
        memcpy(bytes + used, &entry, sizeof(entry));
        memcpy(bytes + used + sizeof(entry), event->body, event->size);
        used += size;
        head.count++;
    }
    store_reply(store, &head, sizeof(head), bytes, used);
}

static inline void store_user(struct fake_store *store, const struct persist_user *user)
{
    struct persist_user reply = *user;
    reply.head = (struct persist_head){.op = PERSIST_USER, .token = user->head.token};
    reply.password_bytes = reply.display_bytes = 0;
    store_reply(store, &reply, sizeof(reply), user + 1,
                (uint32_t)user->user_bytes + user->username_bytes);
}

/* --- records --- */

static inline void store_forget_member(struct stored_room *room, struct slice id)
{
    for (uint32_t i = 0; i < room->member_count; i++) {
        if (slice_equal((struct slice){room->members[i], (uint32_t)strlen(room->members[i])}, id)) {
            memcpy(room->members[i], room->members[--room->member_count], STORE_NAME_MAX);
            return;
        }
    }
}

static inline bool store_has_member(const struct stored_room *room, struct slice id)
{
    for (uint32_t i = 0; i < room->member_count; i++) {
        if (slice_equal((struct slice){room->members[i], (uint32_t)strlen(room->members[i])}, id)) {
            return true;
        }
    }
    return false;
}

static inline void store_record(struct fake_store *store, const struct persist_record *request)
{
    struct record record;
    CHECK(record_decode(request + 1, request->record_bytes, &record) == 0);
    struct stored_room *room = store_find(store, record.room_id);
    CHECK(room != NULL && record.epoch == room->epoch);
    CHECK(record.seq == room->last_seq + 1); /* P3: dense, and each once */
    CHECK(record.seq <= STORE_EVENTS_MAX);
    struct stored_event *event = &room->events[room->last_seq++];
    event->size = record.body.size;
    event->body = malloc(record.body.size);
    CHECK(event->body != NULL);
    memcpy(event->body, record.body.data, record.body.size);
    event->keyed = (record.flags & RECORD_KEYED) != 0;
    memcpy(event->key.key_digest, record.key_digest, sizeof(record.key_digest));
    event->key.content_digest = record.content_digest;
    event->key.seq = record.seq;
    event->key.at_ms = record.at_ms;
    if (record.kind == RECORD_JOINED && !store_has_member(room, record.user_id)) {
        store_add_member(room, record.user_id);
    } else if (record.kind == RECORD_LEFT) {
        store_forget_member(room, record.user_id);
    }
    store->records++;
}

/* --- a turn --- */

static inline void store_take(struct fake_store *store, const void *request, uint32_t size)
{
    const struct persist_head *head = request;
    const char *tail = (const char *)request;
    switch (head->op) {
    case PERSIST_RECORD:
        store_record(store, request);
        break;
    case PERSIST_ROOM_LOAD:
        store_load(store, head,
                   (struct slice){tail + sizeof(*head), size - (uint32_t)sizeof(*head)});
        break;
    case PERSIST_HISTORY: {
        const struct persist_page *page = request;
        store_page(store, page, (struct slice){tail + sizeof(*page), page->room_bytes});
        break;
    }
    default:
        store_user(store, request);
        break;
    }
}

/* Takes and answers everything that has been published, but leaves room for the replies. */
static inline void store_turn(struct fake_store *store)
{
    uint64_t position = 0;
    uint32_t size;

    while (!store->paused && spsc_used(&store->lane.replies) < STORE_RING_BYTES / 4) {
        const void *request = spsc_peek(&store->lane.requests, &size);
        if (request == NULL) {
            break;
        }
        const struct persist_record *record = request;
        position = record->head.op == PERSIST_RECORD ? record->position : position;
        store_take(store, request, size);
        spsc_next(&store->lane.requests);
        (void)spsc_publish(&store->lane.replies);
    }
    spsc_release(&store->lane.requests);
    if (position > 0) {
        const struct persist_record mark = {.head = {.op = PERSIST_WATERMARK},
                                            .position = position};
        store_reply(store, &mark, sizeof(mark), NULL, 0);
        (void)spsc_publish(&store->lane.replies);
    }
}
