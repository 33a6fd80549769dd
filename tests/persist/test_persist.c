/*
 * test_persist.c - the door of persistence, what is the embedded mode's own: transactions of many
 *                  records, the order of answers within one, and the replay at start-up.
 *
 * Method: real threads, rings and store; shards that sleep and are woken as in the server. Runs
 *         under ThreadSanitizer too. What every mode must keep is in test_contract.c.
 */
#include "persist/answer.h"
#include "tests/persist/persist_rig.h"

#include <errno.h>

static char directory[RIG_PATH_BYTES];
static struct config config;
static struct persist *persist;
static struct metrics metrics;
static struct rig_shard shards[1];
static struct persist_lane *lanes[1];

static void open_persist(void)
{
    char why[512] = "";

    config_defaults(&config);
    (void)snprintf(config.server_data, sizeof(config.server_data), "%s", directory);
    config.persist_ring_bytes = RIG_RING_BYTES;
    config.persist_cache_bytes = 1 << 20;
    config.persist_batch_records = 4096;
    CHECK(persist_open(&config, &persist, why, sizeof(why)) == 0);
}

static void start(uint32_t count, uint32_t replies_bytes)
{
    for (uint32_t i = 0; i < count; i++) {
        rig_shard_open(&shards[i], replies_bytes);
        lanes[i] = &shards[i].lane;
    }
    CHECK(persist_start(persist, lanes, count, &metrics) == 0);
}

static void begin_test(void)
{
    rig_make(directory);
    open_persist();
    start(1, RIG_RING_BYTES);
    rig_shard_enable(&shards[0], persist);
}

static void end_test(void)
{
    persist_close(persist);
    rig_shard_close(&shards[0]);
    rig_remove(directory);
}

static bool is(const char *shown, const char *expected)
{
    if (strcmp(shown, expected) != 0) {
        (void)fprintf(stderr, "shown \"%s\", expected \"%s\"\n", shown, expected);
    }
    return strcmp(shown, expected) == 0;
}

/* --- one lane --- */

static void records_in_bulk_all_reach_the_store(void)
{
    struct rig_shard *shard = &shards[0];

    metrics = (struct metrics){0};
    begin_test();
    rig_make_room(shard, "r");
    for (uint64_t seq = 1; seq <= 10000; seq++) { /* several batches and several laps of the ring */
        rig_send(shard, "r", RIG_EPOCH, seq);
        if (seq % 50 == 0) {
            rig_publish(shard);
        }
    }
    rig_wait_watermark(shard, shard->position);
    CHECK(metrics_get(&metrics.persist_records_total) == 10000);
    CHECK(metrics_get(&metrics.persist_batches_total) < 2000); /* in batches, that is */
    rig_ask_history(shard, "r", 9901, 20000, 1 << 20, false);
    CHECK(is(rig_history(shard, "r"), "9901-10000"));
    end_test();
}

/* --- questions --- */

static void every_question_gets_one_answer(void)
{
    struct rig_shard *shard = &shards[0];

    begin_test();
    rig_ask_load(shard, "r");
    CHECK(rig_status(shard, PERSIST_ROOM) == -ENOENT);
    rig_ask_history(shard, "r", 1, 9, 1 << 20, false);
    CHECK(rig_status(shard, PERSIST_HISTORY_PAGE) == -ENOENT);
    rig_make_room(shard, "r");
    rig_ask_create(shard, "r");
    CHECK(rig_status(shard, PERSIST_ROOM) == -EEXIST);
    rig_ask_create(shard, "no room id");
    CHECK(rig_status(shard, PERSIST_ROOM) == -EINVAL);
    rig_ask_user(shard, PERSIST_USER_GET, "u1", "", "", "");
    CHECK(rig_status(shard, PERSIST_USER) == -ENOENT);

    /* Both in one transaction: the second learns of the first before it is committed. */
    rig_ask_create(shard, "twice");
    rig_ask_create(shard, "twice");
    rig_publish(shard);
    uint32_t size;
    const struct persist_head *reply = rig_reply(shard, &size);
    CHECK(reply->status == 0 && reply->token == shard->token - 1);
    rig_next(shard);
    CHECK(rig_status(shard, PERSIST_ROOM) == -EEXIST);

    /* Nothing is shown of a room before its maker knows that it is stored. */
    rig_ask_create(shard, "new");
    rig_ask_load(shard, "new");
    rig_publish(shard);
    reply = rig_reply(shard, &size);
    CHECK(reply->op == PERSIST_ROOM && reply->token == shard->token - 1);
    rig_next(shard);
    CHECK(rig_status(shard, PERSIST_MEMBERS) == 0);
    CHECK(rig_status(shard, PERSIST_ROOM) == 0);
    end_test();
}

/* Publishes the question asked last; whether its answer is, byte by byte, the refusal with that
 * status. */
static bool is_refused(struct rig_shard *shard, enum persist_op op, int status)
{
    const struct persist_head question = {.op = (uint16_t)op, .token = shard->token};
    alignas(8) uint8_t refusal[ANSWER_REPLY_MAX];
    uint32_t size;

    memset(refusal, 0xff, sizeof(refusal));
    const uint32_t expected = answer_refusal(&question, status, refusal);
    rig_publish(shard);
    const void *reply = rig_reply(shard, &size);
    bool same = size == expected && memcmp(reply, refusal, size) == 0;
    memcpy(refusal, reply, sizeof(question)); /* of a reply's head too: the batch refuses so */
    if (op != PERSIST_HISTORY) {
        uint8_t again[ANSWER_REPLY_MAX];
        same = same && answer_refusal(refusal, status, again) == size &&
               memcmp(reply, again, size) == 0;
    }
    rig_next(shard);
    return same;
}

static void refusal_without_a_look_is_what_a_look_would_have_given(void)
{
    struct rig_shard *shard = &shards[0];
    struct persist_list list = {.head = {.op = PERSIST_ROOM_LIST, .token = 4711}};
    struct persist_head refusal[ANSWER_REPLY_MAX / sizeof(struct persist_head)];

    begin_test();
    rig_ask_load(shard, "r");
    CHECK(is_refused(shard, PERSIST_ROOM_LOAD, -ENOENT));
    rig_ask_create(shard, "no room id");
    CHECK(is_refused(shard, PERSIST_ROOM_CREATE, -EINVAL));
    rig_ask_history(shard, "r", 1, 9, 1 << 20, false);
    CHECK(is_refused(shard, PERSIST_HISTORY, -ENOENT));
    rig_ask_user(shard, PERSIST_REGISTER, "", "A", "secret", "");
    CHECK(is_refused(shard, PERSIST_REGISTER, -EINVAL));
    rig_ask_user(shard, PERSIST_LOGIN, "", "Ann", "", "");
    CHECK(is_refused(shard, PERSIST_LOGIN, -EINVAL));
    rig_ask_user(shard, PERSIST_USER_ENSURE, "", "Ann", "", "");
    CHECK(is_refused(shard, PERSIST_USER_ENSURE, -EINVAL));
    rig_ask_user(shard, PERSIST_USER_GET, "u1", "", "", "");
    CHECK(is_refused(shard, PERSIST_USER_GET, -ENOENT));

    memset(refusal, 0xff, sizeof(refusal)); /* nothing makes a list fail here */
    CHECK(answer_refusal(&list, -EAGAIN, refusal) == sizeof(refusal[0]));
    CHECK(refusal[0].op == PERSIST_ROOMS && refusal[0].status == -EAGAIN);
    CHECK(refusal[0].token == 4711 && refusal[0].count == 0);
    end_test();
}

static void send_member(struct rig_shard *shard, uint64_t seq)
{
    char body[64];
    char user_id[16];
    struct record record = rig_message(body, "r", RIG_EPOCH, seq);

    (void)snprintf(user_id, sizeof(user_id), "u%05lu", (unsigned long)seq);
    record.kind = RECORD_JOINED;
    record.role = ROLE_MEMBER;
    record.user_id = rig_slice(user_id);
    rig_key(&record, seq);
    rig_record(shard, &record);
}

/* Reads the pages of a room: members rise by user_id behind the owner, keys by seq. */
static void check_load(struct rig_shard *shard, uint32_t members, uint32_t keys)
{
    uint32_t pages = 0;
    uint32_t size;

    for (bool last = false; !last; pages++) {
        const struct persist_head *reply = rig_reply(shard, &size);
        const uint8_t *at = (const uint8_t *)(reply + 1);
        CHECK(reply->token == shard->token && reply->status == 0);
        CHECK(size <= shard->lane.replies.capacity / 4);
        for (uint32_t i = 0; reply->op == PERSIST_MEMBERS && i < reply->count; i++, members--) {
            CHECK(at[0] == (at[1] == 5 ? ROLE_OWNER : ROLE_MEMBER)); /* "owner", "u00001" */
            at += 3 + at[1] + at[2];
        }
        for (uint32_t i = 0; reply->op == PERSIST_KEYS && i < reply->count; i++, keys--) {
            const struct persist_key *key = (const void *)at;
            CHECK(members == 0 && key->seq == 5001 - keys);
            CHECK(key->content_digest == key->seq * 31 && key->at_ms == key->seq + 1000);
            at += sizeof(*key);
        }
        last = reply->op == PERSIST_ROOM;
        if (last) {
            const struct persist_room *room = (const void *)reply;
            CHECK(room->last_seq == 5000 && room->member_count == 5001);
            at += sizeof(*room) - sizeof(*reply) + room->room_bytes + room->name_bytes;
        }
        CHECK(at == (const uint8_t *)reply + size);
        rig_next(shard);
    }
    CHECK(members == 0 && keys == 0);
    CHECK(pages > 3);
}

static void room_is_loaded_in_pages_that_fit_the_ring(void)
{
    struct rig_shard *shard = &shards[0];

    rig_make(directory);
    open_persist();
    start(1, 16384); /* the least: pages of 4 KiB, and the thread waits for us to take them */
    rig_shard_enable(shard, persist);
    rig_make_room(shard, "r");
    for (uint64_t seq = 1; seq <= 5000; seq++) {
        send_member(shard, seq);
        if (seq % 64 == 0) {
            rig_publish(shard);
        }
    }
    rig_ask_load(shard, "r"); /* behind records that are not committed yet */
    rig_publish(shard);
    check_load(shard, 5001, 4096);
    rig_wait_watermark(shard, shard->position);
    end_test();
}

/* --- restarts --- */

static int replay(uint64_t epoch, uint64_t seq, bool salvage)
{
    char body[64];
    uint8_t bytes[RIG_RECORD_MAX];
    const struct record record = rig_message(body, "r", epoch, seq);

    record_encode(&record, bytes);
    return persist_replay(persist, bytes, record_size(&record), salvage);
}

static void make_room_and_stop(void)
{
    begin_test();
    rig_make_room(&shards[0], "r");
    rig_send(&shards[0], "r", RIG_EPOCH, 1);
    rig_publish(&shards[0]);
    rig_wait_watermark(&shards[0], shards[0].position);
    persist_close(persist);
    rig_shard_close(&shards[0]);
    open_persist();
}

static void replay_adds_what_the_store_has_not(void)
{
    make_room_and_stop();
    CHECK(!persist_replays_later(persist));
    CHECK(replay(RIG_EPOCH, 1, false) == 0); /* has it */
    CHECK(replay(RIG_EPOCH, 2, false) == 0);
    CHECK(replay(RIG_EPOCH, 3, false) == 0);
    CHECK(replay(RIG_EPOCH + 1, 4, false) == 0); /* of a log that is no more */
    CHECK(persist_replay(persist, "no record", 9, false) == -EBADMSG);
    CHECK(persist_replay_end(persist) == 0);
    start(1, RIG_RING_BYTES);
    rig_shard_enable(&shards[0], persist);
    rig_ask_history(&shards[0], "r", 1, 1000, 1 << 20, false);
    CHECK(is(rig_history(&shards[0], "r"), "1-3"));
    CHECK(rig_epoch(&shards[0], "r") == RIG_EPOCH);
    end_test();
}

static void replay_refuses_a_hole_unless_told_to_salvage(void)
{
    make_room_and_stop();
    CHECK(replay(RIG_EPOCH, 3, false) == -EBADMSG);
    persist_close(persist);
    open_persist();
    CHECK(replay(RIG_EPOCH, 3, true) == 0);
    CHECK(replay(RIG_EPOCH, 4, true) == 0);
    CHECK(persist_replay(persist, "no record", 9, true) == 0);
    CHECK(persist_replay_end(persist) == 0);
    start(1, RIG_RING_BYTES);
    rig_shard_enable(&shards[0], persist);
    rig_ask_history(&shards[0], "r", 3, 1000, 1 << 20, false);
    CHECK(is(rig_history(&shards[0], "r"), "3-4"));
    CHECK(rig_epoch(&shards[0], "r") != RIG_EPOCH);
    end_test();
}

static void plan_tells_memory_without_taking_it(void)
{
    struct mem_plan one;
    struct mem_plan four;

    config_defaults(&config);
    mem_init(&one, "one", MEM_COUNT);
    persist_plan(&config, 1, &one);
    CHECK(mem_seal(&one) == 0);
    CHECK(one.line_count > 5 && one.total > config.persist_cache_bytes);
    mem_init(&four, "four", MEM_COUNT);
    persist_plan(&config, 4, &four);
    CHECK(mem_seal(&four) == 0);
    CHECK(four.line_count == one.line_count && four.total > one.total);
    mem_end(&one);
    mem_end(&four);
}

int main(void)
{
    records_in_bulk_all_reach_the_store();
    every_question_gets_one_answer();
    refusal_without_a_look_is_what_a_look_would_have_given();
    room_is_loaded_in_pages_that_fit_the_ring();
    replay_adds_what_the_store_has_not();
    replay_refuses_a_hole_unless_told_to_salvage();
    plan_tells_memory_without_taking_it();
    puts("7 passed, 0 failed");
    return 0;
}
