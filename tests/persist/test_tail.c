/*
 * test_tail.c - what is read through the real stores is one log, at each moment of a flush made by
 *               hand, and whatever else lies at our keys.
 *
 * Method: the real redis-server of redis_rig.h and the MongoDB of DAMSO_TEST_MONGODB_URI, a
 *         database of this run's own and rooms of each test's own. Lists are pushed and documents
 *         put as a flush leaves them at that moment. Every split and every moment is in
 *         test_tail_model.c; here is that the stores behave as that model says.
 */
#include "core/log.h"
#include "persist/jobs.h"
#include "persist/tail.h"
#include "tests/persist/job_rig.h"
/* The second one has globals with the names of the first one's parameters. */
/* clang-format off */
#include "tests/persist/redis_rig.h"
#include "tests/persist/mongo_documents.h"
/* clang-format on */

#include <inttypes.h>

enum { OWNER = 5, FROZEN = 11, OPEN = 12, TAIL_KEYS = 6, WORDS_MAX = 512, LONG = 2500 };

static struct redis_rig redis;
static struct redis_client orders;
static struct mem_plan plan;
static struct cache *cache;
static struct tail *tail;

/* --- lists --- */

static void push(const char *key, const struct slice *records, uint32_t count)
{
    struct slice words[WORDS_MAX + 2] = {SLICE("RPUSH"), rig_slice(key)};
    struct redis_reply reply;

    CHECK(count > 0 && count <= WORDS_MAX);
    memcpy(words + 2, records, count * sizeof(*records));
    CHECK(redis_command(orders.redis, count + 2, words, &reply) == 0);
    CHECK(reply.type == REDIS_INTEGER);
}

static const char *log_key(const char *room)
{
    static char key[128];
    (void)snprintf(key, sizeof(key), "t:{%s}:log", room);
    return key;
}

static const char *frozen_key(const char *room, int number)
{
    static char key[128];
    (void)snprintf(key, sizeof(key), "t:{%s}:flush:%d.%d", room, OWNER, number);
    return key;
}

static void push_range(const char *key, const char *room, uint64_t from, uint64_t to)
{
    struct slice records[WORDS_MAX];

    while (from <= to) {
        uint32_t count = 0;
        for (; from <= to && count < WORDS_MAX; from++) {
            records[count++] = record_rig_make(room, from);
        }
        push(key, records, count);
    }
}

static struct slice encode(const struct record *record)
{
    const uint32_t size = record_size(record);
    char *bytes = record_rig_bytes + record_rig_used;

    CHECK(record_rig_used + size <= sizeof(record_rig_bytes));
    record_encode(record, bytes);
    record_rig_used += size;
    return (struct slice){bytes, size};
}

static void say(const char *command, const char *key)
{
    char text[200];
    (void)snprintf(text, sizeof(text), "%s %s", command, key);
    (void)redis_client_say(&orders, text);
}

static void move_list(const char *from, const char *to)
{
    char text[300];
    (void)snprintf(text, sizeof(text), "RENAME %s %s", from, to);
    (void)redis_client_say(&orders, text);
}

/* --- the view --- */

static struct read_head head;
static uint64_t overlay[16384];

static void see_begin(void)
{
    memset(&head, 0, sizeof(head));
    head.owner = OWNER;
}

static void see_list(uint64_t number, uint64_t first, uint64_t last, bool open)
{
    head.lists[head.list_count++] = (struct read_list){
        .number = number, .first_seq = first, .count = (uint32_t)(last - first + 1), .open = open};
}

static void see_record(struct slice record)
{
    uint8_t *at = (uint8_t *)overlay + head.overlay_bytes;
    const uint64_t size = record.size;

    CHECK(head.overlay_bytes + 16 + record.size <= sizeof(overlay));
    memcpy(at, &size, sizeof(size));
    memcpy(at + 8, record.data, record.size);
    head.overlay_bytes += (uint32_t)(8 + ((size + 7) & ~UINT64_C(7)));
    head.overlay_count++;
}

/* 1-10 in MongoDB, 11-16 frozen, 17-22 in the log, 23-25 on their way. */
static void see_all(const char *room)
{
    see_begin();
    see_list(FROZEN, 11, 16, false);
    see_list(OPEN, 17, 22, true);
    for (uint64_t seq = 23; seq <= 25; seq++) {
        see_record(record_rig_make(room, seq));
    }
}

static void begin(void)
{
    record_rig_reset();
    (void)redis_client_say(&orders, "FLUSHALL");
}

/* --- asking --- */

static int show_entry(void *context, uint64_t seq, struct slice body)
{
    struct shown *shown = context;
    char text[64];

    const struct record expected = rig_message(text, shown->room_id, EPOCH, seq);
    CHECK(slice_equal(body, expected.body));
    (void)snprintf(text, sizeof(text), "%" PRIu64, seq);
    return show(shown, text);
}

static struct shown shown;

static int history(const char *room, uint64_t from, uint64_t to, uint32_t limit, bool descending)
{
    const struct store_range range = {.room_id = rig_slice(room),
                                      .from_seq = from,
                                      .to_seq = to,
                                      .limit = limit,
                                      .descending = descending};
    struct store *through = tail_store(tail);

    shown = (struct shown){.room_id = room};
    tail_see(tail, &head, overlay);
    return through->ops->history_read(through, &range, show_entry, &shown);
}

/* The log 1 .. 25 is what is read, in both orders, from every end. */
static void expect_whole(const char *room)
{
    CHECK(history(room, 1, 25, 100, false) == 0);
    CHECK(is(shown.text, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25"));
    CHECK(history(room, 1, 25, 100, true) == 0);
    CHECK(is(shown.text, "25 24 23 22 21 20 19 18 17 16 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1"));
    CHECK(history(room, 9, 25, 9, false) == 0);
    CHECK(is(shown.text, "9 10 11 12 13 14 15 16 17"));
    CHECK(history(room, 1, 18, 9, true) == 0);
    CHECK(is(shown.text, "18 17 16 15 14 13 12 11 10"));
    CHECK(history(room, 13, 20, 100, false) == 0);
    CHECK(is(shown.text, "13 14 15 16 17 18 19 20"));
    CHECK(tail_failed(tail) == JOB_WHERE_NONE);
}

static void expect_lost(const char *room, uint64_t from, uint64_t to)
{
    for (int order = 0; order < 2; order++) {
        CHECK(history(room, from, to, 100, order > 0) == -EAGAIN);
        CHECK(tail_failed(tail) == JOB_WHERE_REDIS);
    }
}

/* --- history --- */

static void log_is_whole_at_each_moment_of_a_flush(void)
{
    const char *room = "moments";

    begin();
    make_room(room);
    put_events(room, 1, 10);
    push_range(log_key(room), room, 11, 16);
    see_begin();
    see_list(FROZEN, 11, 16, true); /* before its freeze is known */
    for (uint64_t seq = 17; seq <= 25; seq++) {
        see_record(record_rig_make(room, seq));
    }
    expect_whole(room);
    move_list(log_key(room), frozen_key(room, FROZEN));
    expect_whole(room);
    see_all(room);
    push_range(log_key(room), room, 17, 22);
    expect_whole(room);
    push_range(log_key(room), room, 23, 25); /* what was on its way has come */
    expect_whole(room);
    put_event(room, 12); /* half a bulk */
    put_event(room, 15);
    expect_whole(room);
    put_event(room, 11);
    put_events(room, 13, 14);
    put_event(room, 16);
    expect_whole(room); /* inserted, not unlinked */
    say("UNLINK", frozen_key(room, FROZEN));
    expect_whole(room);
    move_list(log_key(room), frozen_key(room, OPEN));
    expect_whole(room);
    push_range(log_key(room), room, 26, 40); /* a newer generation */
    expect_whole(room);
    put_events(room, 17, 25);
    expect_whole(room);
    say("UNLINK", frozen_key(room, OPEN));
    expect_whole(room);
}

static void overlay_alone_is_read_without_redis(void)
{
    const char *room = "overlay";

    begin();
    make_room(room);
    put_events(room, 1, 22);
    see_begin();
    for (uint64_t seq = 23; seq <= 25; seq++) {
        see_record(record_rig_make(room, seq));
    }
    expect_whole(room);
    CHECK(tail_redis_ns(tail) == 0 && tail_mongodb_ns(tail) > 0);
    CHECK(history(room, 1, 25, 2, true) == 0);
    CHECK(tail_redis_ns(tail) == 0 && tail_mongodb_ns(tail) == 0);
}

static int count_entry(void *context, uint64_t seq, struct slice body)
{
    uint64_t *last = context;

    CHECK(body.size > 0 && (seq == *last + 1 || seq == *last - 1));
    *last = seq;
    return 0;
}

/* The seq of the last row of a long page, whose rows follow each other. */
static uint64_t end_of(const char *room, uint64_t from, uint64_t to, bool descending)
{
    const struct store_range range = {.room_id = rig_slice(room),
                                      .from_seq = from,
                                      .to_seq = to,
                                      .limit = (uint32_t)(to - from + 1),
                                      .descending = descending};
    struct store *through = tail_store(tail);
    uint64_t last = descending ? to + 1 : from - 1;

    tail_see(tail, &head, overlay);
    CHECK(through->ops->history_read(through, &range, count_entry, &last) == 0);
    return last;
}

/* More than one reply of Redis has (CACHE_READ_RECORDS_MAX), and than one page of a reader. */
static void long_lists_are_read_in_pieces(void)
{
    const char *room = "long";

    begin();
    make_room(room);
    put_events(room, 1, 3);
    push_range(frozen_key(room, FROZEN), room, 4, LONG);
    push_range(log_key(room), room, LONG + 1, 2 * LONG);
    see_begin();
    see_list(FROZEN, 4, LONG, false);
    see_list(OPEN, LONG + 1, 2 * LONG, true);
    CHECK(end_of(room, LONG - 400, LONG + 600, false) == LONG + 600);
    CHECK(end_of(room, LONG - 400, LONG + 600, true) == LONG - 400);
    CHECK(end_of(room, 1, 2 * LONG, false) == 4096); /* TAIL_PAGE_RECORDS */
    CHECK(end_of(room, 1, 2 * LONG, true) == 2 * LONG - 4095);
}

static void room_is_unknown_only_if_nobody_knows_it(void)
{
    begin();
    see_begin();
    CHECK(history("nobody", 1, 25, 10, false) == -ENOENT);
    CHECK(tail_failed(tail) == JOB_WHERE_NONE);
    make_room("empty");
    CHECK(history("empty", 1, 25, 10, true) == 0 && shown.count == 0);
}

static void missing_list_is_tried_again(void)
{
    const char *room = "missing";

    begin();
    make_room(room);
    put_events(room, 1, 10);
    see_all(room);
    expect_lost(room, 1, 25);
    push_range(log_key(room), room, 17, 22);
    expect_lost(room, 1, 25);
    CHECK(history(room, 17, 25, 100, true) == 0 && shown.count == 9);
    CHECK(history(room, 1, 10, 100, true) == 0 && shown.count == 10);
    push_range(frozen_key(room, FROZEN), room, 11, 15); /* one short */
    expect_lost(room, 1, 25);
    put_event(room, 16);
    expect_whole(room);
}

static void key_of_another_type_is_no_list(void)
{
    const char *room = "types";

    begin();
    make_room(room);
    put_events(room, 1, 10);
    see_all(room);
    push_range(log_key(room), room, 17, 22);
    say("SADD", "t:{types}:flush:5.11 member");
    expect_lost(room, 1, 25);
    put_events(room, 11, 16);
    expect_whole(room);
    say("DEL", log_key(room));
    say("SET", "t:{types}:log text");
    expect_lost(room, 1, 25);
    put_events(room, 17, 22);
    expect_whole(room);
}

/* What somebody else may have put into a list. */
static struct slice hostile(const char *room, uint64_t seq, int kind)
{
    struct slice record = record_rig_make(room, seq);
    static char bytes[512];

    memcpy(bytes, record.data, record.size);
    switch (kind) {
    case 0:
        return SLICE("");
    case 1:
        return SLICE("hello");
    case 2:
        return record_rig_make("another", seq);
    case 3:
        return record_rig_make(room, seq + 1000);
    case 4:
        return (struct slice){record.data, record.size - 1};
    case 5:
        return record_rig_body(room, seq, SLICE("\xff\xfe"));
    case 6:
        bytes[0] = 9; /* version */
        break;
    default:
        memset(bytes + 8, 0xff, 4); /* size of the body */
        break;
    }
    return (struct slice){bytes, record.size};
}

static void hostile_elements_are_no_records(void)
{
    begin();
    for (int kind = 0; kind < 8; kind++) {
        char room[32];
        (void)snprintf(room, sizeof(room), "hostile%d", kind);
        make_room(room);
        put_events(room, 1, 10);
        push_range(log_key(room), room, 17, 22);
        push_range(frozen_key(room, FROZEN), room, 11, 12);
        const struct slice element = hostile(room, 13, kind);
        push(frozen_key(room, FROZEN), &element, 1);
        push_range(frozen_key(room, FROZEN), room, 14, 16);
        see_all(room);
        expect_lost(room, 1, 25);
        CHECK(history(room, 14, 25, 100, true) == 0 && shown.count == 12);
        put_event(room, 13);
        expect_whole(room);
    }
}

static void damaged_document_is_tried_again(void)
{
    const char *room = "damaged";

    begin();
    make_room(room);
    put_events(room, 1, 10);
    push_range(frozen_key(room, FROZEN), room, 11, 16);
    push_range(log_key(room), room, 17, 22);
    bson_t filter = BSON_INITIALIZER;
    BCON_APPEND(&filter, "room_id", BCON_UTF8(room), "seq", BCON_INT64(4));
    spoil("events", &filter, BCON_NEW("body", BCON_INT32(4)));
    bson_destroy(&filter);
    see_all(room);
    CHECK(history(room, 1, 25, 100, true) == -EAGAIN);
    CHECK(tail_failed(tail) == JOB_WHERE_MONGODB);
    CHECK(history(room, 5, 25, 100, true) == 0);
}

/* --- a room's load --- */

static int take_member(void *context, const struct store_member *member)
{
    char text[256];

    (void)snprintf(text, sizeof(text), "%.*s=%.*s:%u", (int)member->user_id.size,
                   member->user_id.data, (int)member->username.size, member->username.data,
                   member->role);
    return show(context, text);
}

static int take_key(void *context, const struct store_key *key)
{
    char text[32];
    char body[64];
    struct record record = rig_message(body, "x", EPOCH, key->seq);

    rig_key(&record, key->seq);
    CHECK(memcmp(key->key_digest, record.key_digest, sizeof(record.key_digest)) == 0);
    CHECK(key->content_digest == record.content_digest && key->at_ms == record.at_ms);
    (void)snprintf(text, sizeof(text), "%" PRIu64, key->seq);
    return show(context, text);
}

static struct store_room loaded;

/* Members, then keys, of the last load. */
static struct shown members, keys;

static int load(const char *room)
{
    struct store *through = tail_store(tail);

    members = (struct shown){0};
    keys = (struct shown){0};
    tail_see(tail, &head, overlay);
    int error = through->ops->members_read(through, rig_slice(room), take_member, &members);
    error = error < 0
                ? error
                : through->ops->keys_read(through, rig_slice(room), TAIL_KEYS, take_key, &keys);
    return error < 0 ? error : through->ops->room_read(through, rig_slice(room), &loaded);
}

static struct slice change(const char *room, uint64_t seq, const char *user, uint8_t kind,
                           uint8_t role)
{
    char body[64];
    char name[80];
    struct record record = rig_message(body, room, EPOCH, seq);

    (void)snprintf(name, sizeof(name), "tail's %s", user);
    record.kind = kind;
    record.role = role;
    record.user_id = rig_slice(user);
    record.username = rig_slice(name);
    return encode(&record);
}

static struct slice keyed(const char *room, uint64_t seq)
{
    char body[64];
    struct record record = rig_message(body, room, EPOCH, seq);

    rig_key(&record, seq);
    return encode(&record);
}

static void newest_word_about_a_member_counts(void)
{
    const char *room = "members";

    begin();
    make_room(room);
    put_member(room, "stays", ROLE_MEMBER, 2);
    put_member(room, "goes", ROLE_MEMBER, 3);
    put_member(room, "back", ROLE_NONE, 4);
    put_member(room, "newer", ROLE_NONE, 13); /* its batch is stored, and in Redis still */
    put_member(room, "gone", ROLE_NONE, 5);
    put_events(room, 1, 10);
    const struct slice frozen[] = {
        change(room, 11, "goes", RECORD_LEFT, ROLE_NONE),
        change(room, 12, "newer", RECORD_JOINED, ROLE_MEMBER),
        change(room, 13, "newer", RECORD_LEFT, ROLE_NONE),
        change(room, 14, "new", RECORD_JOINED, ROLE_MEMBER),
    };
    push(frozen_key(room, FROZEN), frozen, 4);
    const struct slice logged[] = {
        change(room, 15, "back", RECORD_JOINED, ROLE_ADMIN),
        change(room, 16, "brief", RECORD_JOINED, ROLE_MEMBER),
    };
    push(log_key(room), logged, 2);
    see_begin();
    see_list(FROZEN, 11, 14, false);
    see_list(OPEN, 15, 16, true);
    see_record(change(room, 17, "brief", RECORD_LEFT, ROLE_NONE));
    see_record(change(room, 18, "last", RECORD_JOINED, ROLE_MEMBER));
    CHECK(load(room) == 0);
    CHECK(is(members.text, "back=tail's back:2 owner=Olga:3 stays=name of stays:1 "
                           "new=tail's new:1 last=tail's last:1"));
    CHECK(loaded.member_count == 5 && loaded.last_seq == 18);
    /* Without a tail, those who left are not asked for. */
    see_begin();
    CHECK(load(room) == 0);
    CHECK(is(members.text, "goes=name of goes:1 owner=Olga:3 stays=name of stays:1"));
    CHECK(loaded.member_count == 3 && loaded.last_seq == 10);
}

static void newest_keys_are_told_once_oldest_first(void)
{
    const char *room = "keys";

    begin();
    make_room(room);
    for (uint64_t seq = 1; seq <= 5; seq++) {
        put("events", make_event(room, seq, seq));
    }
    put("events", make_event(room, 7, 7)); /* half a bulk */
    struct slice frozen[] = {keyed(room, 6), keyed(room, 7), record_rig_make(room, 8)};
    push(frozen_key(room, FROZEN), frozen, 3);
    const struct slice logged = keyed(room, 9);
    push(log_key(room), &logged, 1);
    see_begin();
    see_list(FROZEN, 6, 8, false);
    see_list(OPEN, 9, 9, true);
    see_record(keyed(room, 10));
    CHECK(load(room) == 0);
    CHECK(is(keys.text, "4 5 6 7 9 10"));
    CHECK(loaded.last_seq == 10);
    put_event(room, 6);
    CHECK(load(room) == 0);
    CHECK(is(keys.text, "4 5 6 7 9 10")); /* upstream is believed */
    see_begin();
    CHECK(load(room) == 0);
    CHECK(is(keys.text, "1 2 3 4 5 7"));
}

static void load_needs_the_whole_tail(void)
{
    const char *room = "tails";

    begin();
    make_room(room);
    put_events(room, 1, 10);
    see_all(room);
    push_range(log_key(room), room, 17, 22);
    CHECK(load(room) == -EAGAIN && tail_failed(tail) == JOB_WHERE_REDIS);
    put_events(room, 11, 16);
    CHECK(load(room) == 0);
    CHECK(loaded.last_seq == 25 && loaded.member_count == 1);
    say("DEL", log_key(room));
    say("SET", "t:{tails}:log text");
    CHECK(load(room) == -EAGAIN);
    see_begin();
    CHECK(load("none") == -ENOENT && tail_failed(tail) == JOB_WHERE_NONE);
}

/* --- Redis that goes away --- */

static void what_needs_no_list_is_read_without_redis(void)
{
    const char *room = "away";

    begin();
    make_room(room);
    put_events(room, 1, 10);
    push_range(frozen_key(room, FROZEN), room, 11, 16);
    push_range(log_key(room), room, 17, 22);
    see_all(room);
    expect_whole(room);
    redis_rig_kill(&redis);
    expect_lost(room, 1, 25);
    CHECK(history(room, 1, 10, 100, true) == 0 && shown.count == 10);
    CHECK(history(room, 23, 25, 100, true) == 0 && shown.count == 3);
    CHECK(load(room) == -EAGAIN && tail_failed(tail) == JOB_WHERE_REDIS);
    redis_client_close(&orders);
    redis_rig_start(&redis, "");
    redis_client_open(&orders, redis.url, "");
    CHECK(redis_connect(orders.redis) == 0);
    CHECK(usleep(600 * 1000) == 0);
    expect_lost(room, 1, 25); /* it is back, and empty */
    push_range(frozen_key(room, FROZEN), room, 11, 16);
    push_range(log_key(room), room, 17, 22);
    expect_whole(room);
    CHECK(load(room) == 0);
}

static void connection_that_broke_is_made_anew(void)
{
    const char *room = "broken";

    begin();
    make_room(room);
    put_events(room, 1, 10);
    push_range(frozen_key(room, FROZEN), room, 11, 16);
    push_range(log_key(room), room, 17, 22);
    see_all(room);
    expect_whole(room);
    (void)redis_client_say(&orders, "CLIENT KILL TYPE normal SKIPME yes");
    expect_whole(room);
}

static void redis_that_stands_still_is_given_up_in_time(void)
{
    const char *room = "still";

    begin();
    make_room(room);
    put_events(room, 1, 10);
    see_all(room);
    push_range(frozen_key(room, FROZEN), room, 11, 16);
    push_range(log_key(room), room, 17, 22);
    expect_whole(room);
    CHECK(kill(redis.pid, SIGSTOP) == 0);
    const uint64_t begun_ms = rig_now_ms();
    expect_lost(room, 1, 25);
    CHECK(rig_now_ms() - begun_ms < 3000);
    CHECK(kill(redis.pid, SIGCONT) == 0);
    CHECK(usleep(600 * 1000) == 0);
    expect_whole(room);
}

/* --- */

static void open_all(void)
{
    char why[512] = "";

    redis_rig_open(&redis, "");
    redis_client_open(&orders, redis.url, "");
    CHECK(redis_connect(orders.redis) == 0);
    begin_test();
    mem_init(&plan, "test", MEM_MAP);
    const struct cache_options options = {.url = redis.url,
                                          .ca_file = "",
                                          .prefix = "t:",
                                          .connect_ms = 1000,
                                          .reply_ms = 1000,
                                          .plan = &plan};
    CHECK(cache_open(&options, &cache, why, sizeof(why)) == 0);
    CHECK(tail_open(store, cache, TAIL_KEYS, &plan, &tail) == 0);
    CHECK(mem_seal(&plan) == 0);
}

static void close_all(void)
{
    cache_close(cache);
    mem_end(&plan);
    end_test();
    redis_client_close(&orders);
    redis_rig_close(&redis);
}

int main(void)
{
    if (mongo_rig_server() == NULL) {
        return mongo_rig_skip(0);
    }
    open_all();
    log_is_whole_at_each_moment_of_a_flush();
    overlay_alone_is_read_without_redis();
    long_lists_are_read_in_pieces();
    room_is_unknown_only_if_nobody_knows_it();
    missing_list_is_tried_again();
    key_of_another_type_is_no_list();
    hostile_elements_are_no_records();
    damaged_document_is_tried_again();
    newest_word_about_a_member_counts();
    newest_keys_are_told_once_oldest_first();
    load_needs_the_whole_tail();
    connection_that_broke_is_made_anew();
    what_needs_no_list_is_read_without_redis();
    redis_that_stands_still_is_given_up_in_time();
    close_all();
    puts("14 passed, 0 failed");
    return 0;
}
