/*
 * tail_room.c - what a room's load asks for: members, keys and the room; see tail.h for T1 and T2.
 *
 * The tail is looked at once a question, list by list in the order of seq, before the first of the
 * three asks MongoDB; kept of it is who joined or left last, and the newest keys. A list is taken
 * as far as its seqs follow each other. Where it ends too early it has moved on: then MongoDB must
 * have the rest, and with it what its records changed.
 */
#include "core/check.h"
#include "core/os.h"
#include "persist/tail_own.h"

#include <errno.h>

/* --- what is kept of the tail --- */

static struct slice user_of(const struct tail_change *change)
{
    return (struct slice){change->user_id, change->user_bytes};
}

/* The bucket of the user's change, or the empty one where it would go: there always is one, for
 * half of them stay empty. */
static uint32_t find_bucket(const struct tail_room_memory *room, struct slice user_id)
{
    uint64_t at = hash_bytes(&room->hash_key, user_id.data, user_id.size) % TAIL_BUCKETS;

    while (room->buckets[at] != 0 &&
           !slice_equal(user_of(&room->changes[room->buckets[at] - 1]), user_id)) {
        at = (at + 1) % TAIL_BUCKETS;
    }
    return (uint32_t)at;
}

static struct tail_change *find_change(struct tail_room_memory *room, struct slice user_id)
{
    const uint32_t found = room->buckets[find_bucket(room, user_id)];
    return found > 0 ? &room->changes[found - 1] : NULL;
}

/* The newest of a user's wins: they come in the order of seq. False: there are too many users. */
static bool keep_change(struct tail_room_memory *room, const struct record *record)
{
    const uint32_t bucket = find_bucket(room, record->user_id);

    if (room->buckets[bucket] == 0) {
        if (room->change_count == TAIL_CHANGES) {
            return false;
        }
        room->buckets[bucket] = ++room->change_count;
    }
    struct tail_change *change = &room->changes[room->buckets[bucket] - 1];
    *change = (struct tail_change){
        .seq = record->seq,
        .bucket = bucket,
        .role = record->kind == RECORD_JOINED ? record->role : (uint8_t)ROLE_NONE,
        .user_bytes = (uint8_t)record->user_id.size,
        .name_bytes = (uint8_t)record->username.size,
    };
    memcpy(change->user_id, record->user_id.data, record->user_id.size);
    if (record->username.size > 0) {
        memcpy(change->username, record->username.data, record->username.size);
    }
    return true;
}

static void keep_key(struct tail *tail, const struct record *record)
{
    if (tail->keys_max == 0) {
        return;
    }
    struct tail_key *key = &tail_keys(tail)[tail->room.key_count++ % tail->keys_max];
    *key = (struct tail_key){
        .content_digest = record->content_digest, .seq = record->seq, .at_ms = record->at_ms};
    memcpy(key->key_digest, record->key_digest, sizeof(key->key_digest));
}

static void forget(struct tail_room_memory *room)
{
    for (uint32_t i = 0; i < room->change_count; i++) {
        room->buckets[room->changes[i].bucket] = 0;
    }
    room->change_count = 0;
    room->key_count = 0;
    room->looked = false;
    room->moved = false;
    room->counted = false;
}

/* --- the look at the tail --- */

struct look {
    struct tail *tail;
    struct slice room_id;
    uint64_t next, last; /* of the list in hand: next seq, and the last one that it should have */
    bool full;           /* more changes than can be kept */
};

static void take_record(struct look *look, const struct record *record)
{
    if ((record->kind == RECORD_JOINED || record->kind == RECORD_LEFT) &&
        !keep_change(&look->tail->room, record)) {
        look->full = true;
    }
    if ((record->flags & RECORD_KEYED) != 0) {
        keep_key(look->tail, record);
    }
}

static int take_element(void *context, uint32_t range, struct slice element)
{
    struct look *look = context;
    struct record record;

    (void)range;
    if (look->next <= look->last && tail_decode(element, look->room_id, &record) &&
        record.seq == look->next) {
        take_record(look, &record);
        look->next++;
    }
    return 0;
}

/* The list in hand: frozen, or in the log and then, in case it was frozen meanwhile, under its
 * frozen name. */
static int look_at_list(struct look *look, const struct read_list *list)
{
    const struct cache_range ranges[] = {
        {.room_id = look->room_id, .last = list->count - 1},
        {.room_id = look->room_id, .number = list->number, .last = list->count - 1},
    };
    int error = 0;

    if (list->open) {
        error = tail_cache_read(look->tail, &ranges[0], 1, take_element, look);
    }
    if (error == 0 && look->next <= look->last) {
        error = tail_cache_read(look->tail, &ranges[1], 1, take_element, look);
    }
    return error;
}

struct count {
    uint64_t rows;
};

static int count_row(void *context, uint64_t seq, struct slice body)
{
    struct count *count = context;

    (void)seq;
    (void)body;
    count->rows++;
    return 0;
}

/* Whether MongoDB has the rest of the list in hand: 0 or -EAGAIN. */
static int look_in_mongodb(struct look *look)
{
    struct tail *tail = look->tail;
    const uint64_t missing = look->last - look->next + 1;
    const struct store_range range = {.room_id = look->room_id,
                                      .from_seq = look->next,
                                      .to_seq = look->last,
                                      .limit = (uint32_t)missing};
    struct count count = {0};
    const uint64_t begun_ns = os_now_ns();

    tail->room.moved = true;
    /* The events are stored before what they change. A list that is gone without its server having
     * been was removed after both; of a server that may have been restarted that is not known. */
    if (tail->connected) {
        return tail_lost(tail, JOB_WHERE_REDIS, look->room_id, look->next);
    }
    const int error = tail_mongodb_done(
        tail, begun_ns, store_mongo_history_read(tail->mongo, &range, count_row, &count), 0);
    if (error == -ENOENT || (error == 0 && count.rows < missing)) {
        return tail_lost(tail, JOB_WHERE_REDIS, look->room_id, look->next);
    }
    return error;
}

static int look_at_lists(struct look *look)
{
    const struct read_head *head = look->tail->head;
    int error = 0;

    for (uint32_t i = 0; i < head->list_count && error == 0; i++) {
        const struct read_list *list = &head->lists[i];
        look->next = list->first_seq;
        look->last = list->first_seq + list->count - 1;
        if (look->tail->cache != NULL) {
            error = look_at_list(look, list);
        }
        if (error == 0 && look->next <= look->last) {
            error = look_in_mongodb(look);
        }
    }
    return error;
}

/* Looks at the tail, if this question has not yet: 0 or -EAGAIN. */
static int look_once(struct tail *tail, struct slice room_id)
{
    struct look look = {.tail = tail, .room_id = room_id};
    struct record record;

    if (tail->room.looked) {
        return 0;
    }
    forget(&tail->room);
    const int error = tail->last_seq > 0 ? look_at_lists(&look) : 0;
    if (error < 0) {
        return error;
    }
    for (uint32_t at = 0; tail_overlay_next(tail, &at, &record);) {
        take_record(&look, &record);
    }
    if (look.full) {
        return -EAGAIN; /* until a batch of them is in MongoDB */
    }
    tail->room.looked = true;
    return 0;
}

/* --- members --- */

struct members {
    struct tail *tail;
    store_member_row row;
    void *context;
    int row_error;
    bool over;
};

static int tell_member(struct members *members, const struct store_member *member)
{
    if (member->role == ROLE_NONE) {
        return 0;
    }
    const int answer = members->row(members->context, member);
    members->tail->room.member_count++;
    members->row_error = answer < 0 ? answer : 0;
    members->over = answer != 0;
    return answer;
}

static int tell_change(struct members *members, const struct tail_change *change)
{
    const struct store_member member = {.role = change->role,
                                        .user_id = user_of(change),
                                        .username = {change->username, change->name_bytes}};
    return tell_member(members, &member);
}

/* A member of MongoDB's, unless the tail says something newer. */
static int take_member(void *context, const struct store_member *row, uint64_t seq)
{
    struct members *members = context;
    struct tail_change *change = find_change(&members->tail->room, row->user_id);

    if (change != NULL) {
        change->told = true;
        if (change->seq > seq) {
            return tell_change(members, change);
        }
    }
    return tell_member(members, row);
}

int tail_members_read(struct store *store, struct slice room_id, store_member_row row,
                      void *context)
{
    struct tail *tail = (struct tail *)store; /* its first member */
    struct members members = {.tail = tail, .row = row, .context = context};
    int error = look_once(tail, room_id);

    if (error < 0) {
        return error;
    }
    tail->room.member_count = 0;
    for (uint32_t i = 0; i < tail->room.change_count; i++) {
        tail->room.changes[i].told = false;
    }
    const uint64_t begun_ns = os_now_ns();
    /* Who has left matters only against a change of the tail. */
    error = store_mongo_members_read(tail->mongo, room_id, tail->room.change_count > 0, take_member,
                                     &members);
    error = tail_mongodb_done(tail, begun_ns, error, members.row_error);
    for (uint32_t i = 0; i < tail->room.change_count && error == 0 && !members.over; i++) {
        if (!tail->room.changes[i].told) {
            error = tell_change(&members, &tail->room.changes[i]);
            error = error < 0 ? error : 0;
        }
    }
    tail->room.counted = error == 0 && !members.over;
    return error;
}

/* --- keys --- */

struct mongodb_keys {
    struct tail_key *keys;
    uint32_t count, count_max;
};

static int take_key(void *context, const struct store_key *row)
{
    struct mongodb_keys *taken = context;

    if (taken->count == taken->count_max) {
        return 1;
    }
    struct tail_key *key = &taken->keys[taken->count++];
    *key = (struct tail_key){
        .content_digest = row->content_digest, .seq = row->seq, .at_ms = row->at_ms};
    memcpy(key->key_digest, row->key_digest, sizeof(key->key_digest));
    return 0;
}

/* Two lists of keys, both in the order of seq, as one. */
struct merge {
    const struct tail *tail;
    const struct tail_key *keys, *mongodb_keys;
    uint64_t at, end; /* of the tail's, which go round */
    uint32_t mongodb_at, mongodb_end;
};

/* The next one: of two with the same seq one; NULL at the end. */
static const struct tail_key *next_key(struct merge *merge)
{
    const struct tail_key *ours =
        merge->at < merge->end ? &merge->keys[merge->at % merge->tail->keys_max] : NULL;
    const struct tail_key *theirs =
        merge->mongodb_at < merge->mongodb_end ? &merge->mongodb_keys[merge->mongodb_at] : NULL;
    const bool take_ours = ours != NULL && (theirs == NULL || ours->seq <= theirs->seq);

    merge->mongodb_at += theirs != NULL && (ours == NULL || theirs->seq <= ours->seq);
    merge->at += take_ours;
    return take_ours ? ours : theirs;
}

/* Tells the last limit of the merged keys. */
static int tell_keys(struct merge merge, uint32_t limit, store_key_row row, void *context)
{
    struct merge counting = merge;
    uint64_t count = 0;
    int answer = 0;

    while (next_key(&counting) != NULL) {
        count++;
    }
    for (const struct tail_key *key = next_key(&merge); key != NULL && answer == 0;
         key = next_key(&merge)) {
        const struct store_key shown = {.key_digest = key->key_digest,
                                        .content_digest = key->content_digest,
                                        .seq = key->seq,
                                        .at_ms = key->at_ms};
        answer = count-- <= limit ? row(context, &shown) : 0;
    }
    return answer < 0 ? answer : 0;
}

int tail_keys_read(struct store *store, struct slice room_id, uint32_t limit, store_key_row row,
                   void *context)
{
    struct tail *tail = (struct tail *)store; /* its first member */
    const uint32_t count_max = limit < tail->keys_max ? limit : tail->keys_max;
    struct mongodb_keys theirs = {.keys = tail_mongodb_keys(tail), .count_max = count_max};
    int error = look_once(tail, room_id);

    if (error == 0 && (tail->room.moved || tail->room.key_count < count_max)) {
        const uint64_t begun_ns = os_now_ns();
        error = store_mongo_keys_read(tail->mongo, room_id, count_max, take_key, &theirs);
        error = tail_mongodb_done(tail, begun_ns, error, 0);
    }
    if (error < 0) {
        return error;
    }
    const uint64_t end = tail->room.key_count;
    const struct merge merge = {.tail = tail,
                                .keys = tail_keys(tail),
                                .mongodb_keys = theirs.keys,
                                .at = end > tail->keys_max ? end - tail->keys_max : 0,
                                .end = end,
                                .mongodb_end = theirs.count};
    return tell_keys(merge, count_max, row, context);
}

/* --- the room --- */

int tail_room_read(struct store *store, struct slice room_id, struct store_room *ret)
{
    struct tail *tail = (struct tail *)store; /* its first member */
    const uint64_t begun_ns = os_now_ns();
    struct store_room room;
    int error = store_mongo_room_read(tail->mongo, room_id, &room);

    error = tail_mongodb_done(tail, begun_ns, error, 0);
    if (error < 0) {
        return error;
    }
    room.last_seq = room.last_seq > tail->last_seq ? room.last_seq : tail->last_seq;
    room.member_count = tail->room.counted ? tail->room.member_count : room.member_count;
    *ret = room;
    return 0;
}
