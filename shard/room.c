/* room.c - rooms in memory: table, members, subscribers, loading, leaving. See room.h. */
#include "shard/room.h"

#include "core/check.h"
#include "core/log.h"
#include "shard/egress.h"
#include "shard/room_home.h"
#include "shard/shard.h"

#include <errno.h>

enum { LOOK_MS_MAX = 20000, TRIM_MS = 30000 };

static void room_look(struct timer *timer);

/* When a room is looked at again: as often as it takes to leave within twice timeouts.room_idle. */
static uint64_t next_look_ms(const struct shard *shard)
{
    const uint64_t idle_ms = shard->config->timeouts_room_idle;
    return shard->now_ms + (idle_ms < LOOK_MS_MAX ? idle_ms : LOOK_MS_MAX);
}

void room_init(struct shard *shard)
{
    const struct config *config = shard->config;
    struct room_table *table = &shard->room_table;
    struct mem_plan *plan = &shard->plan;
    const uint32_t rooms = (uint32_t)config->limits_rooms;
    const uint32_t members = (uint32_t)config->limits_members;

    pool_init(&shard->rooms, plan, "rooms", sizeof(struct room), rooms);
    pool_init(&shard->subs, plan, "subscriptions", sizeof(struct sub),
              (uint32_t)config->limits_subscriptions);
    pool_init(&shard->members, plan, "members", sizeof(struct member), members);
    pool_init(&shard->followers, plan, "replicas elsewhere", sizeof(struct follower),
              shard->count > 1 ? rooms : 1);
    table->mask = pool_buckets(rooms) - 1;
    table->buckets = mem_reserve(plan, "room table", sizeof(uint32_t), table->mask + 1UL);
    table->member_mask = pool_buckets(members) - 1;
    table->member_buckets =
        mem_reserve(plan, "member table", sizeof(uint32_t), table->member_mask + 1UL);
    shard->pending.mask = pool_buckets(config->limits_requests * 4) - 1;
    shard->pending.entries =
        mem_reserve(plan, "not yet durable", sizeof(struct pending), shard->pending.mask + 1UL);
    chunk_pools_init(shard);
}

bool room_id_valid(struct slice id)
{
    for (uint32_t i = 0; i < id.size; i++) {
        const char c = id.data[i];
        const bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        if (!fine) {
            return false;
        }
    }
    return id.size >= 1 && id.size <= ROOM_ID_MAX;
}

uint32_t room_home(const struct shard *shard, struct slice id)
{
    return (uint32_t)(hash_home(id) % shard->count);
}

uint32_t room_index(const struct shard *shard, const struct room *room)
{
    return pool_index(&shard->rooms, room);
}

/* --- table; buckets hold index + 1 --- */

static uint32_t *room_bucket(struct shard *shard, struct slice id)
{
    const uint64_t hash = hash_bytes(&shard->hash_key, id.data, id.size);
    return &shard->room_table.buckets[hash & shard->room_table.mask];
}

struct room *room_find(struct shard *shard, struct slice id)
{
    for (uint32_t next = *room_bucket(shard, id); next != 0;) {
        struct room *room = pool_at(&shard->rooms, next - 1);
        if (slice_equal(room_id(room), id)) {
            return room;
        }
        next = room->hash_next;
    }
    return NULL;
}

static struct room *room_make(struct shard *shard, struct slice id, enum room_state state)
{
    struct room *room = pool_take(&shard->rooms);
    if (room == NULL) {
        shard_exhausted(&shard->metrics->pool_exhausted_total_rooms);
        return NULL;
    }
    memset(room, 0, offsetof(struct room, id));
    room->state = (uint8_t)state;
    room->members = POOL_NONE;
    room->used_ms = shard->now_ms;
    room->id_size = (uint8_t)id.size;
    memcpy(room->id, id.data, id.size);
    room_log_init(&room->log, 1);
    uint32_t *bucket = room_bucket(shard, id);
    room->hash_next = *bucket;
    *bucket = room_index(shard, room) + 1;
    timer_init(&room->timer, room_look);
    room->shard = shard;
    timer_arm(shard->wheel, &room->timer, next_look_ms(shard));
    metrics_add(&shard->metrics->rooms_loaded, 1);
    return room;
}

static void room_remove(struct shard *shard, struct room *room)
{
    uint32_t *link = room_bucket(shard, room_id(room));
    const uint32_t self = room_index(shard, room) + 1;

    CHECK(room->subs == NULL && room->followers == NULL && room->in_flight == 0);
    CHECK(room->parked_first == NULL && !room->in_fanout);
    while (*link != self) {
        link = &((struct room *)pool_at(&shard->rooms, *link - 1))->hash_next;
    }
    *link = room->hash_next;
    timer_cancel(shard->wheel, &room->timer);
    room_log_clear(shard, &room->log, 1);
    key_forget_all(shard, room);
    while (room->members != POOL_NONE) {
        member_remove(shard, room, pool_at(&shard->members, room->members));
    }
    metrics_subtract(&shard->metrics->rooms_loaded, 1);
    pool_give(&shard->rooms, room);
}

/* --- members --- */

static uint32_t *member_bucket(struct shard *shard, uint32_t room, uint32_t user)
{
    const uint64_t pair = ((uint64_t)room << 32 | user) * 0x9e3779b97f4a7c15U;
    return &shard->room_table.member_buckets[pair >> 32 & shard->room_table.member_mask];
}

struct member *member_find(struct shard *shard, const struct room *room, struct slice id)
{
    struct user *user = user_take(shard, id, SLICE(""));
    if (user == NULL) {
        return NULL;
    }
    const uint32_t room_number = room_index(shard, room);
    const uint32_t user_number = user_index(shard, user);
    user_give(shard, user);
    for (uint32_t next = *member_bucket(shard, room_number, user_number); next != 0;) {
        struct member *member = pool_at(&shard->members, next - 1);
        if (member->room == room_number && member->user == user_number) {
            return member;
        }
        next = member->hash_next;
    }
    return NULL;
}

struct member *member_add(struct shard *shard, struct room *room, struct slice id,
                          struct slice name, uint8_t role)
{
    struct member *member = pool_take(&shard->members);
    struct user *user = member != NULL ? user_take(shard, id, name) : NULL;
    if (member == NULL) {
        shard_exhausted(&shard->metrics->pool_exhausted_total_members);
    }
    if (user == NULL) {
        if (member != NULL) {
            pool_give(&shard->members, member);
        }
        return NULL;
    }
    const uint32_t self = pool_index(&shard->members, member);
    *member = (struct member){.room = room_index(shard, room),
                              .user = user_index(shard, user),
                              .role = role,
                              .room_next = room->members,
                              .room_previous = POOL_NONE};
    uint32_t *bucket = member_bucket(shard, member->room, member->user);
    member->hash_next = *bucket;
    *bucket = self + 1;
    if (room->members != POOL_NONE) {
        ((struct member *)pool_at(&shard->members, room->members))->room_previous = self;
    }
    room->members = self;
    return member;
}

void member_remove(struct shard *shard, struct room *room, struct member *member)
{
    uint32_t *link = member_bucket(shard, member->room, member->user);
    const uint32_t self = pool_index(&shard->members, member) + 1;
    while (*link != self) {
        link = &((struct member *)pool_at(&shard->members, *link - 1))->hash_next;
    }
    *link = member->hash_next;
    if (member->room_next != POOL_NONE) {
        ((struct member *)pool_at(&shard->members, member->room_next))->room_previous =
            member->room_previous;
    }
    if (member->room_previous != POOL_NONE) {
        ((struct member *)pool_at(&shard->members, member->room_previous))->room_next =
            member->room_next;
    } else {
        room->members = member->room_next;
    }
    user_give(shard, user_at(shard, member->user));
    pool_give(&shard->members, member);
}

/* --- subscribers --- */

struct sub *room_subscribe(struct shard *shard, struct room *room, struct conn *conn)
{
    struct sub *sub = pool_take(&shard->subs);
    if (sub == NULL) {
        shard_exhausted(&shard->metrics->pool_exhausted_total_subscriptions);
        return NULL;
    }
    *sub = (struct sub){.serial = ++shard->next_session,
                        .conn = conn,
                        .room = room,
                        .conn_next = conn->subs,
                        .room_next = room->subs};
    if (conn->subs != NULL) {
        conn->subs->conn_previous = sub;
    }
    if (room->subs != NULL) {
        room->subs->room_previous = sub;
    }
    conn->subs = sub;
    room->subs = sub;
    conn->sub_count++;
    room->sub_count++;
    return sub;
}

static void leave_pending(struct sub *sub)
{
    struct sub **link = &sub->conn->pending_subs;
    while (*link != sub) {
        link = &(*link)->pending_next;
    }
    *link = sub->pending_next;
}

void room_unsubscribe(struct shard *shard, struct sub *sub)
{
    struct conn *conn = sub->conn;
    struct room *room = sub->room;

    if (sub->pending) {
        leave_pending(sub);
    }
    *(sub->conn_previous != NULL ? &sub->conn_previous->conn_next : &conn->subs) = sub->conn_next;
    if (sub->conn_next != NULL) {
        sub->conn_next->conn_previous = sub->conn_previous;
    }
    *(sub->room_previous != NULL ? &sub->room_previous->room_next : &room->subs) = sub->room_next;
    if (sub->room_next != NULL) {
        sub->room_next->room_previous = sub->room_previous;
    }
    conn->sub_count--;
    room->sub_count--;
    room->used_ms = shard->now_ms;
    pool_give(&shard->subs, sub);
}

void room_expel(struct shard *shard, struct room *room, struct slice id)
{
    for (struct sub *sub = room->subs; sub != NULL;) {
        struct sub *next = sub->room_next;
        const struct user *user = user_at(shard, sub->conn->user);
        if (slice_equal(user_id(user), id)) { /* one that is still being sent what it missed too */
            room_unsubscribe(shard, sub);
        }
        sub = next;
    }
}

/* --- asking, loading --- */

void room_ask(struct shard *shard, const struct room_request *request)
{
    const uint32_t home = room_home(shard, request->room_id);
    if (home == shard->index) {
        room_handle(shard, request);
    } else if (!mesh_request(shard, home, request) && request->token != 0) {
        metrics_add(&shard->metrics->mesh_full_total, 1);
        room_refuse(shard, request, ERROR_UNAVAILABLE);
    }
}

static bool ask_store(struct shard *shard, struct room *room)
{
    const struct persist_head head = {.op = PERSIST_ROOM_LOAD};
    const struct slice id = room_id(room);
    return call_store(shard, os_tag(ROOM_LOAD_TOKEN, 0, room_index(shard, room)), &head,
                      sizeof(head), &id, 1);
}

static bool park(struct shard *shard, struct room *room, const struct room_request *request)
{
    const uint32_t size = room_request_bytes(request);
    const uint32_t total = size + (uint32_t)sizeof(struct parked);
    const bool large = total > sizeof(struct block);
    struct parked *parked =
        total <= shard->large_bytes ? pool_take(large ? &shard->large : &shard->blocks) : NULL;
    if (parked == NULL) {
        shard_exhausted(large ? &shard->metrics->pool_exhausted_total_large_buffers
                              : &shard->metrics->pool_exhausted_total_buffers);
        return false;
    }
    parked->next = NULL;
    parked->size = size;
    parked->large = large;
    room_request_pack(request, parked->bytes);
    *(room->parked_last != NULL ? &room->parked_last->next : &room->parked_first) = parked;
    room->parked_last = parked;
    return true;
}

/* Requests that came while the room was loading, in their order. */
static void unpark(struct shard *shard, struct room *room, enum error_code error)
{
    while (room->parked_first != NULL) {
        struct parked *parked = room->parked_first;
        struct room_request request;
        room->parked_first = parked->next;
        if (room->parked_first == NULL) {
            room->parked_last = NULL;
        }
        const int broken = room_request_unpack(parked->bytes, parked->size, &request);
        CHECK(broken == 0); /* we packed it */
        if (error != ERROR_NONE) {
            room_refuse(shard, &request, error);
        } else {
            room_home_handle(shard, room, &request);
        }
        pool_give(parked->large ? &shard->large : &shard->blocks, parked);
    }
}

void room_handle(struct shard *shard, const struct room_request *request)
{
    struct room *room = room_find(shard, request->room_id);
    if (room != NULL && room->state == ROOM_HOME) {
        room->used_ms = shard->now_ms;
        room_home_handle(shard, room, request);
        return;
    }
    if (room == NULL) {
        if (request->op == ROOM_UNFOLLOW || request->op == ROOM_TYPING) {
            return;
        }
        room = room_make(shard, request->room_id, ROOM_LOADING);
        if (room != NULL && !ask_store(shard, room)) {
            room_remove(shard, room);
            room = NULL;
        }
    }
    if (room == NULL || !park(shard, room, request)) {
        room_refuse(shard, request, ERROR_UNAVAILABLE);
    }
}

static void load_members(struct shard *shard, struct room *room, const struct persist_head *head)
{
    const uint8_t *at = (const uint8_t *)(head + 1);
    for (uint32_t i = 0; i < head->count; i++) {
        const struct slice id = {(const char *)at + 3, at[1]};
        const struct slice name = {id.data + id.size, at[2]};
        if (member_add(shard, room, id, name, at[0]) == NULL) {
            room->damaged = true; /* no place: the load fails below */
        }
        at += 3 + id.size + name.size;
    }
}

static void load_keys(struct shard *shard, struct room *room, const struct persist_head *head)
{
    const struct persist_key *keys = (const struct persist_key *)(const void *)(head + 1);
    for (uint32_t i = 0; i < head->count; i++) {
        struct hash128 digest;
        memcpy(digest.bytes, keys[i].key_digest, sizeof(digest.bytes));
        if (key_add(shard, room, digest, keys[i].content_digest, keys[i].seq, keys[i].at_ms) ==
            NULL) {
            room->damaged = true;
        }
    }
}

void room_loaded(struct shard *shard, struct room *room, enum error_code error)
{
    if (error == ERROR_NONE) {
        room->state = ROOM_HOME;
        unpark(shard, room, ERROR_NONE);
        return;
    }
    /* Answers may ask for this room again: nobody waits for this one by then. */
    struct room ghost = {.parked_first = room->parked_first, .parked_last = room->parked_last};
    room->parked_first = room->parked_last = NULL;
    if (room->in_flight == 0) {
        room_remove(shard, room);
    }
    unpark(shard, &ghost, error);
}

static void load_end(struct shard *shard, struct room *room, const struct persist_room *reply)
{
    const char *name =
        (const char *)(reply + 1) + reply->room_bytes + reply->user_bytes + reply->username_bytes;

    if (reply->head.status != 0 || room->damaged) {
        room_loaded(shard, room,
                    reply->head.status == -ENOENT ? ERROR_NOT_FOUND : ERROR_UNAVAILABLE);
        return;
    }
    room->epoch = reply->epoch;
    room->created_ms = reply->created_ms;
    room->visibility = reply->visibility;
    room->durability = reply->durability;
    room->member_count = reply->member_count;
    room->members_max = reply->members_max;
    room->name_size =
        (uint8_t)(reply->name_bytes < ROOM_NAME_MAX ? reply->name_bytes : ROOM_NAME_MAX);
    memcpy(room->name, name, room->name_size);
    room_log_init(&room->log, reply->last_seq + 1);
    if (reply->last_seq > 0) {
        room_loaded(shard, room, ERROR_NONE);
    } else if (!room_home_begin(shard, room)) { /* else loaded when that event is durable */
        room_loaded(shard, room, ERROR_UNAVAILABLE);
    }
}

void room_loading(struct shard *shard, const void *reply, uint32_t size)
{
    const struct persist_head *head = reply;
    struct room *room = pool_at(&shard->rooms, os_tag_index(head->token));

    CHECK(size >= sizeof(*head) && room->state == ROOM_LOADING);
    switch (head->op) {
    case PERSIST_MEMBERS:
        load_members(shard, room, head);
        break;
    case PERSIST_KEYS:
        load_keys(shard, room, head);
        break;
    default:
        load_end(shard, room, reply);
        break;
    }
}

/* --- replicas --- */

static bool is_replica(const struct room *room)
{
    return room->state == ROOM_JOINING || room->state == ROOM_REPLICA;
}

struct room *room_follow(struct shard *shard, struct slice id)
{
    struct room *room = room_find(shard, id);
    if (room == NULL && room_home(shard, id) != shard->index) {
        room = room_make(shard, id, ROOM_JOINING);
    }
    if (room != NULL && is_replica(room)) {
        room->joins++;
    }
    return room;
}

void room_abandon(struct shard *shard, struct slice id)
{
    struct room *room = room_find(shard, id);
    if (room == NULL || !is_replica(room)) {
        return;
    }
    CHECK(room->joins > 0);
    room->joins--;
    if (room->state == ROOM_JOINING && room->joins == 0) {
        room_remove(shard, room);
    }
}

void room_followed(struct shard *shard, struct room *room, uint64_t epoch, uint64_t seq)
{
    if (!is_replica(room)) {
        return;
    }
    CHECK(room->joins > 0);
    room->joins--;
    if (room->state == ROOM_REPLICA) {
        return;
    }
    room->state = ROOM_REPLICA;
    room->epoch = epoch;
    room_log_clear(shard, &room->log, seq + 1);
}

void room_replicate(struct shard *shard, uint32_t replica, uint64_t epoch, uint64_t first_seq,
                    uint32_t count, struct slice frames)
{
    struct room *room = pool_at(&shard->rooms, replica);
    if (!pool_taken(&shard->rooms, replica) || room->state != ROOM_REPLICA ||
        room->epoch != epoch) {
        return; /* sent before home heard that we left */
    }
    if (first_seq != room->log.next_seq) {
        CHECK(first_seq > room->log.next_seq); /* R3 */
        room_log_clear(shard, &room->log, first_seq);
    }
    char *at = frames.size > 0 ? room_log_reserve(shard, &room->log, frames.size) : NULL;
    if (at == NULL) {
        room_log_clear(shard, &room->log, first_seq + count); /* members are told of the gap */
    } else {
        memcpy(at, frames.data, frames.size);
        room_log_commit(&room->log, frames.size, count);
        room_log_set_durable(&room->log, room_log_end(&room->log));
    }
    room_fan_out_later(shard, room);
}

void room_replicate_later(struct shard *shard, struct room *room)
{
    if (!room->in_replicate && room->followers != NULL) {
        room->in_replicate = true;
        room->replicate_next = shard->replicate_first;
        shard->replicate_first = room;
    }
}

void rooms_replicate(struct shard *shard)
{
    struct room *room = shard->replicate_first;
    shard->replicate_first = NULL;
    while (room != NULL) {
        struct room *next = room->replicate_next;
        room->in_replicate = false;
        mesh_replicate_room(shard, room); /* a full ring puts it back on the list */
        room = next;
    }
}

/* --- leaving memory --- */

static bool may_leave(const struct shard *shard, const struct room *room)
{
    return room->subs == NULL && room->followers == NULL && room->in_flight == 0 &&
           room->joins == 0 && room->parked_first == NULL && !room->in_fanout &&
           !room->in_replicate && room->state != ROOM_LOADING &&
           shard->now_ms - room->used_ms >= shard->config->timeouts_room_idle;
}

/* Whether the store is certain to have it all when the room is loaded again: else its latest events
 * would be missing, and their seq given twice. After a failure nothing more becomes durable. */
static bool is_handed_over(const struct shard *shard, const struct room *room)
{
    return shard->handover.position >= room->position || handover_is_complete(shard);
}

static void room_look(struct timer *timer)
{
    struct room *room = TIMER_OWNER(timer, struct room, timer);
    struct shard *shard = room->shard;

    room_log_trim(shard, &room->log, shard->now_ms > TRIM_MS ? shard->now_ms - TRIM_MS : 0);
    if (!may_leave(shard, room)) {
        timer_arm(shard->wheel, timer, next_look_ms(shard));
        return;
    }
    if (room->state != ROOM_HOME) {
        const struct room_request request = {
            .op = ROOM_UNFOLLOW, .replica = room_index(shard, room), .room_id = room_id(room)};
        if (!mesh_request(shard, room_home(shard, room_id(room)), &request)) {
            timer_arm(shard->wheel, timer, next_look_ms(shard));
            return;
        }
    } else if (!is_handed_over(shard, room)) {
        timer_arm(shard->wheel, timer, next_look_ms(shard));
        return;
    }
    room_remove(shard, room);
}
