/*
 * tail_model.h - Redis and MongoDB as small models, in place of persist/cache.c and
 *                persist/store_mongo*.c, for test_tail_model.c alone: it defines their functions.
 *
 * One room, whose log is 1 .. TOP; what a record is follows from its seq. The state moves on by
 * steps of a flush, at the moment that a test chose: between any two commands.
 */
#pragma once

#include "core/check.h"
#include "persist/jobs.h"
#include "persist/tail.h"
#include "tests/persist/store_rig.h"

#include <errno.h>

enum {
    TOP = 30,   /* the last seq handed over before the question */
    NEWER = 36, /* those behind it came after it */
    KEYS_MAX = 8,
    OWNER = 7,
    FROZEN = 1, /* numbers of the two batches */
    OPEN = 2,
    PIECE = 4, /* records of one LRANGE */
    RECORD_MAX = 512 * 1024,
    USERS = 3,
};

/* --- the model --- */

struct list {
    uint64_t seqs[NEWER];
    uint32_t count;
};

enum step {
    FREEZE_1,
    HALF_1, /* an unordered bulk is in by half */
    REST_1,
    MEMBERS_1,
    UNLINK_1,
    FREEZE_2,
    NEWER_LOG, /* the log has a newer generation */
    HALF_2,
    REST_2,
    MEMBERS_2,
    UNLINK_2,
    STEPS
};

static struct {
    struct list log, lists[3]; /* by number */
    bool stored[NEWER + 1];
    bool changed[NEWER + 1]; /* its member is as it says */
    bool room_is_there;
    int steps;   /* done */
    int moments; /* since the question */
    int move_at; /* at this one, */
    int move_by; /* so many steps are done */
    int lranges, finds, connects;
    int cache_errors; /* so many reads fail */
    int cache_error;
    int connect_error;
    int mongodb_error;
    bool open;
} world;

/* Of 1 .. 30: a in MongoDB, up to b frozen, up to c in the log, the rest in the overlay. */
struct split {
    uint64_t a, b, c;
};

static struct split split;
static uint32_t body_bytes; /* of every record; 0: its text alone */
static struct slice records[NEWER + 1];
static char record_bytes[NEWER + 1][RECORD_MAX];

static void user_name(uint64_t seq, char ret[16])
{
    (void)snprintf(ret, 16, "u%lu", (unsigned long)(seq % USERS));
}

static bool joins(uint64_t seq)
{
    return seq % 4 == 1;
}

static bool leaves(uint64_t seq)
{
    return seq % 7 == 2 && !joins(seq);
}

static bool is_keyed(uint64_t seq)
{
    return seq % 3 == 0;
}

static void make_records(uint32_t size)
{
    static char body[RECORD_MAX];

    body_bytes = size;
    memset(body, 'x', sizeof(body));
    for (uint64_t seq = 1; seq <= NEWER; seq++) {
        char text[64];
        char user[16];
        struct record record = rig_message(text, "r", 1, seq);
        user_name(seq, user);
        record.user_id = rig_slice(user);
        record.kind = joins(seq) ? RECORD_JOINED : leaves(seq) ? RECORD_LEFT : RECORD_MESSAGE;
        record.role = joins(seq) ? ROLE_MEMBER : ROLE_NONE;
        if (is_keyed(seq)) {
            rig_key(&record, seq);
        }
        if (size > 0) {
            memcpy(body, record.body.data, record.body.size);
            memset(body + record.body.size, 'x', 64 - record.body.size);
            record.body = (struct slice){body, size};
        }
        CHECK(record_size(&record) <= RECORD_MAX);
        record_encode(&record, record_bytes[seq]);
        records[seq] = (struct slice){record_bytes[seq], record_size(&record)};
    }
}

static void list_put(struct list *list, uint64_t first, uint64_t last)
{
    for (uint64_t seq = first; seq <= last; seq++) {
        list->seqs[list->count++] = seq;
    }
}

static void freeze(int number)
{
    world.lists[number] = world.log;
    world.log.count = 0;
}

/* MongoDB takes those with seq % 2 == part (2: all). */
static void insert(uint64_t first, uint64_t last, uint64_t part)
{
    for (uint64_t seq = first; seq <= last; seq++) {
        world.stored[seq] = world.stored[seq] || part == 2 || seq % 2 == part;
    }
}

static void change(uint64_t first, uint64_t last)
{
    for (uint64_t seq = first; seq <= last; seq++) {
        world.changed[seq] = true;
    }
}

static void step(enum step step)
{
    switch (step) {
    case FREEZE_1: /* done when the model begins: the batch is on its way */
        break;
    case HALF_1:
        insert(split.a + 1, split.b, 0);
        break;
    case REST_1:
        insert(split.a + 1, split.b, 1);
        break;
    case MEMBERS_1:
        change(split.a + 1, split.b);
        break;
    case UNLINK_1:
        world.lists[FROZEN].count = 0;
        break;
    case FREEZE_2:
        freeze(OPEN);
        break;
    case NEWER_LOG:
        list_put(&world.log, TOP + 1, NEWER);
        break;
    case HALF_2:
        insert(split.b + 1, split.c, 1);
        break;
    case REST_2:
        insert(split.b + 1, split.c, 0);
        break;
    case MEMBERS_2:
        change(split.b + 1, split.c);
        break;
    default:
        world.lists[OPEN].count = 0;
        break;
    }
}

static void move(int steps)
{
    for (; steps > 0 && world.steps < STEPS; steps--) {
        step((enum step)world.steps++);
    }
}

/* Between two commands. */
static void moment(void)
{
    if (world.moments++ == world.move_at) {
        move(world.move_by);
    }
}

/* --- in place of persist/cache.c --- */

struct cache {
    uint64_t owner;
};

static struct cache cache;

bool cache_is_open(const struct cache *self)
{
    CHECK(self == &cache);
    return world.open;
}

int cache_connect(struct cache *self, uint64_t owner)
{
    self->owner = owner;
    world.connects++;
    world.open = world.connect_error == 0;
    return world.connect_error;
}

void cache_disconnect(struct cache *self)
{
    CHECK(self == &cache);
    world.open = false;
}

const char *cache_why(const struct cache *self)
{
    CHECK(self == &cache);
    return "a test's";
}

static const struct list *find_list(const struct cache_range *range)
{
    return range->number == 0 ? &world.log : &world.lists[range->number];
}

int cache_read(struct cache *self, const struct cache_range *ranges, uint32_t count, cache_row row,
               void *context)
{
    CHECK(world.open && self->owner == OWNER);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(slice_equal(ranges[i].room_id, SLICE("r")) && ranges[i].first <= ranges[i].last);
        for (uint64_t at = ranges[i].first; at <= ranges[i].last; at += PIECE) {
            moment();
            world.lranges++;
            const struct list *list = find_list(&ranges[i]);
            for (uint64_t j = at; j < at + PIECE && j <= ranges[i].last && j < list->count; j++) {
                CHECK(row(context, i, records[list->seqs[j]]) == 0);
            }
            if (world.cache_errors > 0) {
                world.cache_errors--;
                world.open = false;
                return world.cache_error;
            }
        }
    }
    return 0;
}

/* --- in place of persist/store_mongo*.c --- */

const char *store_mongo_why(const struct store_mongo *store)
{
    (void)store;
    return "a test's";
}

static int find(void)
{
    moment();
    world.finds++;
    return world.mongodb_error < 0 ? world.mongodb_error : world.room_is_there ? 0 : -ENOENT;
}

int store_mongo_history_read(struct store_mongo *store, const struct store_range *range,
                             store_entry_row row, void *context)
{
    const uint64_t to = range->to_seq < NEWER ? range->to_seq : NEWER;
    uint32_t left = range->limit;
    int answer = find();

    (void)store;
    for (uint64_t i = range->from_seq; i <= to && left > 0 && answer == 0; i++) {
        const uint64_t seq = range->descending ? to - (i - range->from_seq) : i;
        struct record record;
        if (seq > 0 && world.stored[seq]) {
            CHECK(record_decode(records[seq].data, records[seq].size, &record) == 0);
            answer = row(context, seq, record.body);
            left--;
        }
    }
    return answer < 0 ? answer : 0;
}

int store_mongo_room_read(struct store_mongo *store, struct slice room_id, struct store_room *ret)
{
    (void)store;
    const int error = find();
    if (error == 0) {
        *ret = (struct store_room){.room_id = room_id, .member_count = 99};
        for (uint64_t seq = 1; seq <= NEWER; seq++) {
            ret->last_seq = world.stored[seq] ? seq : ret->last_seq;
        }
    }
    return error;
}

/* The seq that last changed the user, of those that so says; 0: none. */
static uint64_t last_change(const bool *so, uint64_t user, uint64_t top)
{
    uint64_t last = 0;
    for (uint64_t seq = 1; seq <= top; seq++) {
        last = seq % USERS == user && (joins(seq) || leaves(seq)) && so[seq] ? seq : last;
    }
    return last;
}

int store_mongo_members_read(struct store_mongo *store, struct slice room_id, bool with_left,
                             store_mongo_member_row row, void *context)
{
    int answer = find();

    (void)store;
    (void)room_id;
    for (uint64_t user = 0; user < USERS && answer == 0; user++) {
        char name[16];
        const uint64_t seq = last_change(world.changed, user, NEWER);
        user_name(user, name);
        const struct store_member member = {.role = joins(seq) ? ROLE_MEMBER : ROLE_NONE,
                                            .user_id = rig_slice(name),
                                            .username = SLICE("Ann")};
        if (seq > 0 && (joins(seq) || with_left)) {
            answer = row(context, &member, seq);
        }
    }
    return answer < 0 ? answer : 0;
}

int store_mongo_keys_read(struct store_mongo *store, struct slice room_id, uint32_t limit,
                          store_key_row row, void *context)
{
    uint64_t first = NEWER + 1;
    int answer = find();

    (void)store;
    (void)room_id;
    for (uint32_t left = limit; left > 0 && first > 1;) {
        first--;
        left -= world.stored[first] && is_keyed(first);
    }
    for (uint64_t seq = first; seq <= NEWER && answer == 0; seq++) {
        struct record record;
        if (world.stored[seq] && is_keyed(seq)) {
            CHECK(record_decode(records[seq].data, records[seq].size, &record) == 0);
            const struct store_key key = {.key_digest = record.key_digest,
                                          .content_digest = record.content_digest,
                                          .seq = seq,
                                          .at_ms = record.at_ms};
            answer = row(context, &key);
        }
    }
    return answer < 0 ? answer : 0;
}

int store_mongo_rooms_read(struct store_mongo *store, struct slice query, struct slice cursor,
                           uint32_t limit, store_room_row row, void *context)
{
    const struct store_room room = {.room_id = SLICE("r"), .last_seq = limit};
    const int error = find();

    (void)store;
    (void)query;
    (void)cursor;
    return error < 0 ? error : row(context, &room);
}

int store_mongo_room_create(struct store_mongo *store, const struct store_room *room,
                            struct slice user_id, struct slice username)
{
    (void)store;
    (void)room;
    (void)user_id;
    (void)username;
    return world.mongodb_error;
}

int store_mongo_user_create(struct store_mongo *store, const struct store_user *user)
{
    (void)store;
    (void)user;
    return world.mongodb_error;
}

int store_mongo_user_by_id(struct store_mongo *store, struct slice user_id, struct store_user *ret)
{
    (void)store;
    (void)user_id;
    (void)ret;
    return world.mongodb_error;
}

int store_mongo_user_by_name(struct store_mongo *store, struct slice folded, struct store_user *ret)
{
    (void)store;
    (void)folded;
    (void)ret;
    return world.mongodb_error;
}
