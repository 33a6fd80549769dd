/*
 * test_pipeline.c - persist.mode redis+mongodb behind its door: what comes back when Redis loses
 *                   what it was given, credit, full tables, and questions that share an answer.
 *
 * Method: through the door, as pipeline_rig.h says. Lists are emptied, spoiled and killed under the
 *         pipeline, by name and at random; meanwhile every read must be whole, or refused.
 */
#include "tests/persist/pipeline_rig.h"

enum { RANDOM_ROOMS = 6, RANDOM_ROUNDS = 600 };

/* The last records of a room that has some up to seq: true if they were shown, whole; false if it
 * was refused for now. Nothing else is right. */
static bool shows_up_to(const char *room, uint64_t seq)
{
    uint32_t size;

    rig_ask_history(shard, room, seq > 20 ? seq - 19 : 1, UINT64_MAX, 1 << 20, true);
    rig_publish(shard);
    const struct persist_head *reply = rig_reply(shard, &size);
    CHECK(reply->op == PERSIST_HISTORY_PAGE && reply->token == shard->token);
    CHECK(reply->status == 0 || reply->status == -EAGAIN);
    const bool shown = reply->status == 0;
    const uint8_t *at = (const uint8_t *)(reply + 1);
    CHECK(!shown || reply->count == (seq > 20 ? 20 : seq));
    for (uint32_t i = 0; i < reply->count; i++) {
        const struct persist_entry *entry = (const void *)at;
        CHECK(entry->seq == seq - i);
        at += sizeof(*entry) + ((entry->body_bytes + 7U) & ~7U);
    }
    rig_next(shard);
    return shown;
}

/* --- what Redis loses --- */

static void lists_that_are_gone_are_handed_over_again(void)
{
    const char *rooms[3] = {contract_name("a"), contract_name("b"), contract_name("c")};
    uint32_t refused = 0;

    begin_test(600);
    for (int i = 0; i < 3; i++) {
        rig_make_room(shard, rooms[i]);
        send_range(rooms[i], 1, 100);
    }
    wait_for(&contract.metrics.persist_pending_messages, 300);
    CHECK(shard->watermark == 0);
    (void)redis_client_say(&orders, "FLUSHALL");
    for (uint64_t end_ms = rig_now_ms() + CONTRACT_READY_MS;
         shard->watermark < shard->position && rig_now_ms() < end_ms;) {
        refused += !shows_up_to(rooms[refused % 3], 100);
        rig_take_news(shard);
        CHECK(usleep(2000) == 0);
    }
    rig_wait_watermark(shard, shard->position);
    CHECK(shard->rewinds == 1 && shard->rewind_to == 0);
    CHECK(refused > 0); /* the loss was seen, and not shown as a shorter history */
    CHECK(metrics_get(&contract.metrics.persist_resets_total) >= 1);
    look_into_mongodb();
    for (int i = 0; i < 3; i++) {
        CHECK(is(contract_all(shard, rooms[i]), "1-100"));
    }
    end_test();
}

static void only_what_is_not_stored_is_handed_over_again(void)
{
    const char *room = contract_name("r");

    begin_test(200);
    rig_make_room(shard, room);
    send_range(room, 1, 50);
    rig_wait_watermark(shard, shard->position);
    const uint64_t stored = shard->position;
    send_range(room, 51, 90);
    wait_for(&contract.metrics.persist_pending_messages, 40);
    (void)redis_client_say(&orders, "FLUSHALL");
    send_range(room, 91, 120); /* a list that begins in the middle */
    rig_wait_watermark(shard, shard->position);
    CHECK(shard->rewinds >= 1);
    CHECK(shard->rewind_to >= stored);
    look_into_mongodb();
    CHECK(is(contract_all(shard, room), "1-120"));
    end_test();
}

static void redis_that_was_started_anew_is_filled_again(void)
{
    const char *room = contract_name("r");

    begin_test(NEVER_MS);
    rig_make_room(shard, room);
    send_range(room, 1, 200); /* the 200th makes it due: so */
    rig_wait_watermark(shard, shard->position);
    send_range(room, 201, 330);
    wait_for(&contract.metrics.persist_pending_messages, 130);
    redis_rig_kill(&redis);
    send_range(room, 331, 340);
    /* Without Redis all goes straight into MongoDB. */
    rig_wait_watermark(shard, shard->position);
    CHECK(shard->rewinds >= 1);
    CHECK(metrics_get(&contract.metrics.redis_up) == 0);
    CHECK(shows_up_to(room, 340));
    redis_rig_start(&redis, "");
    redis_client_close(&orders);
    redis_client_open(&orders, redis.url, NULL);
    CHECK(redis_connect(orders.redis) == 0);
    wait_for(&contract.metrics.redis_up, 1);
    send_range(room, 341, 350);
    wait_for(&contract.metrics.persist_pending_messages, 10); /* in Redis again */
    CHECK(shows_up_to(room, 350));
    look_into_mongodb();
    CHECK(is(contract_all(shard, room), "1-350"));
    end_test();
}

static uint32_t random_below(uint32_t bound)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(random_state >> 33) % bound;
}

/* One thing that must not happen to Redis, and does. */
static void spoil(const char *const *rooms)
{
    char command[256];
    const char *room = rooms[random_below(RANDOM_ROOMS)];

    switch (random_below(6)) {
    case 0:
        (void)snprintf(command, sizeof(command), "FLUSHALL");
        break;
    case 1:
        (void)snprintf(command, sizeof(command), "DEL %s{%s}:log", contract.prefix, room);
        break;
    case 2:
        (void)snprintf(command, sizeof(command), "LTRIM %s{%s}:log 1 -1", contract.prefix, room);
        break;
    case 3:
        (void)snprintf(command, sizeof(command), "SET %s{%s}:log nonsense", contract.prefix, room);
        break;
    case 4:
        (void)snprintf(command, sizeof(command), "RPOP %s{%s}:log", contract.prefix, room);
        break;
    default:
        (void)snprintf(command, sizeof(command), "CLIENT KILL TYPE normal SKIPME yes");
        break;
    }
    const struct slice words[] = {SLICE("PING")};
    struct redis_reply reply;
    CHECK(redis_command(orders.redis, 1, words, &reply) == 0);
    /* LTRIM and RPOP may meet a key that an earlier one made a string: no matter. */
    struct slice parts[8];
    uint32_t count = 0;
    for (char *at = command; *at != '\0' && count < 8;) {
        const size_t size = strcspn(at, " ");
        parts[count++] = (struct slice){at, (uint32_t)size};
        at += size + (at[size] == ' ');
    }
    CHECK(redis_command(orders.redis, count, parts, &reply) == 0);
}

static void whatever_redis_loses_reads_are_whole_or_refused(void)
{
    const char *rooms[RANDOM_ROOMS];
    uint64_t seqs[RANDOM_ROOMS] = {0};
    uint32_t shown = 0;
    uint32_t spoiled = 0;
    char expected[32];

    begin_test(80);
    for (uint32_t i = 0; i < RANDOM_ROOMS; i++) {
        char name[8];
        (void)snprintf(name, sizeof(name), "x%u", i);
        rooms[i] = contract_name(name);
        rig_make_room(shard, rooms[i]);
    }
    for (uint32_t round = 0; round < RANDOM_ROUNDS; round++) {
        const uint32_t of = random_below(RANDOM_ROOMS);
        const uint32_t burst = 1 + random_below(12);
        send_range(rooms[of], seqs[of] + 1, seqs[of] + burst);
        seqs[of] += burst;
        if (random_below(20) == 0) {
            spoil(rooms);
            spoiled++;
        }
        const uint32_t look = random_below(RANDOM_ROOMS);
        shown += seqs[look] > 0 && shows_up_to(rooms[look], seqs[look]);
        CHECK(usleep(random_below(4000)) == 0);
    }
    rig_wait_watermark(shard, shard->position);
    CHECK(spoiled > 5 && shard->rewinds > 0);
    CHECK(shown > RANDOM_ROUNDS / 10); /* the cache is one all the same */
    (void)printf("spoiled %u times, rewound %u times, %u of %u reads shown\n", spoiled,
                 shard->rewinds, shown, RANDOM_ROUNDS);
    look_into_mongodb();
    for (uint32_t i = 0; i < RANDOM_ROOMS; i++) {
        (void)snprintf(expected, sizeof(expected), "1-%" PRIu64, seqs[i]);
        CHECK(is(contract_page(shard, rooms[i], 1, UINT64_MAX, 100000, 1 << 20, false), expected));
    }
    end_test();
}

/* --- credit, and tables that are full --- */

static void records_in_redis_do_not_count_against_the_shard(void)
{
    const char *room = contract_name("r");
    uint64_t sent = 0;
    uint64_t seq = 0;

    begin_test(NEVER_MS);
    contract_close();
    contract.mode = cached;
    contract.flush_interval_ms = NEVER_MS;
    open_shard();
    rig_make_room(shard, room);
    for (; seq < 190; seq++) { /* below flush_messages: nothing is flushed */
        char body[64];
        static char long_body[3000];
        struct record record = rig_message(body, room, RIG_EPOCH, seq + 1);
        memset(long_body, 'x', sizeof(long_body));
        record.body = (struct slice){long_body, sizeof(long_body)};
        rig_record(shard, &record);
        sent += record_size(&record);
        rig_publish(shard);
    }
    CHECK(sent > 2 * persist_unstored_max(contract.persist));
    for (int waits = 0; shard->taken < shard->position - 10 * 100 && waits < RIG_WAITS_MAX;) {
        rig_take_news(shard);
        rig_sleep(shard);
        waits++;
    }
    CHECK(shard->taken > 0 && shard->taken <= shard->position);
    /* What may be left untold is less than a part of the credit. */
    CHECK((shard->position - shard->taken) / 100 * 3100 <= persist_unstored_max(contract.persist));
    CHECK(shard->watermark == 0); /* held is not stored */
    contract_close();             /* the rings are ours: the last watermark is in them */
    uint32_t size;
    const struct persist_head *reply = spsc_peek(&shard->lane.replies, &size);
    for (; reply != NULL; reply = spsc_peek(&shard->lane.replies, &size)) {
        CHECK(rig_is_news(shard, reply));
        spsc_next(&shard->lane.replies);
    }
    CHECK(shard->watermark == shard->position); /* a clean stop stores all */
}

static void few_rooms_at_a_time(struct config *config)
{
    config->persist_pending_rooms = 64;
}

static void more_rooms_than_the_table_has_all_get_through(void)
{
    enum { ROOMS = 14000, MADE = 140 }; /* the table: 4 x (64 + 3 x JOB_APPEND_ROOMS) */
    char room[32];

    begin_test(NEVER_MS);
    contract_close();
    contract.adjust = few_rooms_at_a_time;
    open_shard();
    for (uint32_t i = 0; i < MADE; i++) {
        (void)snprintf(room, sizeof(room), "m%u-%u", contract.test, i);
        rig_make_room(shard, room);
    }
    for (uint32_t i = 0; i < ROOMS; i++) { /* the others are not there: they are passed over */
        (void)snprintf(room, sizeof(room), "m%u-%u", contract.test, i % 100 == 0 ? i / 100 : i);
        if (i % 100 == 0 || i >= MADE) {
            rig_send(shard, room, RIG_EPOCH, 1);
        }
        if (i % 64 == 0) {
            rig_publish(shard);
            rig_take_news(shard);
        }
    }
    rig_publish(shard);
    contract.adjust = NULL;
    look_into_mongodb(); /* which stops, and a stop stores all */
    for (uint32_t i = 0; i < MADE; i++) {
        (void)snprintf(room, sizeof(room), "m%u-%u", contract.test, i);
        CHECK(is(contract_all(shard, room), "1-1"));
    }
    end_test();
}

static void question_too_many_is_refused_for_now(void)
{
    enum { QUESTIONS = 3000, AT_A_TIME = 4096 };
    static uint8_t answers[QUESTIONS];
    uint32_t refused = 0;
    uint32_t size;

    begin_test(50);
    memset(answers, 0, sizeof(answers));
    const uint64_t first = shard->token + 1;
    for (uint32_t i = 0; i < QUESTIONS; i++) {
        rig_ask_user(shard, PERSIST_USER_GET, "nobody", "", "", "");
    }
    rig_publish(shard);
    for (uint32_t taken = 0; taken < QUESTIONS; taken++) {
        const struct persist_user *reply = rig_reply(shard, &size);
        CHECK(reply->head.op == PERSIST_USER && size == sizeof(*reply));
        CHECK(reply->head.status == -ENOENT || reply->head.status == -EAGAIN);
        CHECK(reply->head.token >= first && reply->head.token <= shard->token);
        CHECK(answers[reply->head.token - first]++ == 0);
        refused += reply->head.status == -EAGAIN;
        rig_next(shard);
    }
    CHECK(refused > 0 && refused < QUESTIONS);
    for (int i = 0; i < 100; i++) { /* all places are free again */
        rig_ask_user(shard, PERSIST_USER_GET, "nobody", "", "", "");
        CHECK(rig_status(shard, PERSIST_USER) == -ENOENT);
    }
    end_test();
}

static void askers_of_one_page_share_its_reading(void)
{
    enum { ASKERS = 200 };
    const char *room = contract_name("r");
    uint8_t answers[ASKERS] = {0};
    uint32_t size;

    begin_test(50);
    rig_make_room(shard, room);
    send_range(room, 1, 40);
    rig_wait_watermark(shard, shard->position);
    const uint64_t reads = metrics_get(&contract.metrics.persist_reads_total);
    const uint64_t first = shard->token + 1;
    for (uint32_t i = 0; i < ASKERS; i++) {
        rig_ask_history(shard, room, 1, i % 2 == 0 ? 40 : 39, 1 << 16, false);
    }
    rig_publish(shard);
    for (uint32_t taken = 0; taken < ASKERS; taken++) {
        const struct persist_head *reply = rig_reply(shard, &size);
        CHECK(reply->op == PERSIST_HISTORY_PAGE && reply->status == 0);
        CHECK(reply->token >= first && reply->token < first + ASKERS);
        CHECK(answers[reply->token - first]++ == 0);
        CHECK(reply->count == ((reply->token - first) % 2 == 0 ? 40 : 39)); /* its own page */
        rig_next(shard);
    }
    const uint64_t joined = metrics_get(&contract.metrics.persist_reads_joined_total);
    CHECK(joined > ASKERS / 4);
    CHECK(metrics_get(&contract.metrics.persist_reads_total) - reads + joined == ASKERS);
    send_range(room, 41, 41); /* a record in between: the older page is not for the newer asker */
    rig_ask_history(shard, room, 1, UINT64_MAX, 1 << 16, false);
    send_range(room, 42, 42);
    rig_ask_history(shard, room, 1, UINT64_MAX, 1 << 16, false);
    rig_publish(shard);
    for (int i = 0; i < 2; i++) {
        const struct persist_head *reply = rig_reply(shard, &size);
        CHECK(reply->status == 0 && reply->count == (reply->token == shard->token ? 42 : 41));
        rig_next(shard);
    }
    end_test();
}

static void one_by_one(struct config *config)
{
    config->persist_flush_mode = 1; /* sync */
}

static void sync_stores_each_record_by_itself(void)
{
    const char *room = contract_name("r");

    for (int with_redis = 0; with_redis < 2; with_redis++) {
        begin_test(NEVER_MS);
        contract_close();
        contract.mode = with_redis ? cached : uncached;
        contract.adjust = one_by_one;
        contract.metrics = (struct metrics){0};
        open_shard();
        if (!with_redis) {
            rig_make_room(shard, room);
        }
        const uint64_t from = with_redis ? 31 : 1;
        send_range(room, from, from + 29);
        rig_wait_watermark(shard, shard->position);
        CHECK(metrics_get(&contract.metrics.persist_batches_total) >= (with_redis ? 1 : 30));
        contract.adjust = NULL;
        look_into_mongodb();
        CHECK(is(contract_all(shard, room), with_redis ? "1-60" : "1-30"));
        end_test();
    }
}

static void (*const tests[])(void) = {
    lists_that_are_gone_are_handed_over_again,
    only_what_is_not_stored_is_handed_over_again,
    redis_that_was_started_anew_is_filled_again,
    whatever_redis_loses_reads_are_whole_or_refused,
    records_in_redis_do_not_count_against_the_shard,
    more_rooms_than_the_table_has_all_get_through,
    question_too_many_is_refused_for_now,
    askers_of_one_page_share_its_reading,
    sync_stores_each_record_by_itself,
};

int main(int count, char **words)
{
    return pipeline_run(tests, sizeof(tests) / sizeof(tests[0]), count, words);
}
