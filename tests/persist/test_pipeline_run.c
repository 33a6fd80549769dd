/*
 * test_pipeline_run.c - persist.mode redis+mongodb behind its door: the records of the run before,
 *                       every way to stop, and a run that another one takes over.
 *
 * Method: through the door, as pipeline_rig.h says.
 */
#include "tests/persist/pipeline_rig.h"

enum { STOP_MS_MAX = 15000 /* of a stop without MongoDB, on a busy machine */ };

/* --- the run before --- */

/* Opens with a shard's lane, the first one, and one for the run before. */
static struct rig_shard *open_with_recovered(bool salvage)
{
    contract_open_store();
    for (uint32_t i = 0; i < 2; i++) {
        rig_shard_open(&contract.shards[i], RIG_RING_BYTES);
        contract.lanes[i] = &contract.shards[i].lane;
    }
    contract.shards[1].lane.recovered = true;
    contract.shards[1].lane.salvage = salvage;
    contract.shard_count = 2;
    CHECK(persist_replays_later(contract.persist));
    CHECK(persist_start(contract.persist, contract.lanes, 2, &contract.metrics) == 0);
    for (uint32_t i = 0; i < 2; i++) {
        rig_shard_enable(&contract.shards[i], contract.persist);
    }
    shard = &contract.shards[0];
    shard->journal = &journal;
    return &contract.shards[1];
}

static void send_by(struct rig_shard *by, const char *room, uint64_t from, uint64_t to)
{
    for (uint64_t seq = from; seq <= to; seq++) {
        rig_send(by, room, RIG_EPOCH, seq);
    }
    rig_publish(by);
}

static bool is_ready(void)
{
    return persist_state(contract.persist, NULL, 0) == PERSIST_READY;
}

static void shards_wait_behind_the_run_before(void)
{
    static struct rig_journal earlier;
    const char *room = contract_name("r");
    const char *other = contract_name("s");

    earlier = (struct rig_journal){.bytes = malloc(1 << 20), .capacity = 1 << 20};
    CHECK(earlier.bytes != NULL);
    begin_test(50);
    rig_make_room(shard, room);
    rig_make_room(shard, other);
    send_range(room, 1, 10);
    contract_close();

    journal.used = 0;
    struct rig_shard *recovered = open_with_recovered(false);
    recovered->journal = &earlier;
    send_by(shard, other, 1, 5);
    send_by(recovered, room, 6, 20);
    rig_wait_watermark(recovered, recovered->position);
    CHECK(usleep(QUIET_NS / 1000) == 0);
    rig_take_news(shard);
    CHECK(shard->watermark == 0); /* stored, but the lane did not say that it is all */
    CHECK(!is_ready());
    rig_ask_history(shard, room, 1, 100, 1 << 16, false);
    CHECK(rig_status(shard, PERSIST_HISTORY_PAGE) == -EAGAIN);
    rig_ask_load(shard, room);
    CHECK(rig_status(shard, PERSIST_ROOM) == -EAGAIN);
    send_by(recovered, room, 21, 30);
    rig_recovered(recovered);
    rig_wait_watermark(recovered, recovered->position);
    contract_wait_ready();
    rig_wait_watermark(shard, shard->position);
    CHECK(is(contract_all(shard, room), "1-30"));
    CHECK(is(contract_all(shard, other), "1-5"));
    send_by(shard, room, 31, 33); /* the room goes on in a shard's lane */
    CHECK(is(contract_all(shard, room), "1-33"));
    rig_wait_watermark(shard, shard->position);
    look_into_mongodb();
    CHECK(is(contract_all(shard, room), "1-33"));
    end_test();
    free(earlier.bytes);
}

static void run_before_is_handed_over_again_too(void)
{
    static struct rig_journal earlier;
    const char *room = contract_name("r");

    earlier = (struct rig_journal){.bytes = malloc(1 << 20), .capacity = 1 << 20};
    CHECK(earlier.bytes != NULL);
    begin_test(NEVER_MS);
    rig_make_room(shard, room);
    contract_close();

    journal.used = 0;
    struct rig_shard *recovered = open_with_recovered(false);
    recovered->journal = &earlier;
    send_by(recovered, room, 1, 60);
    wait_for(&contract.metrics.persist_pending_messages, 60);
    (void)redis_client_say(&orders, "FLUSHALL");
    send_by(recovered, room, 61, 80);
    rig_recovered(recovered); /* then all of it is to go, and the loss is seen */
    rig_wait_watermark(recovered, recovered->position);
    CHECK(recovered->rewinds >= 1);
    contract_wait_ready();
    CHECK(is(contract_all(shard, room), "1-80"));
    look_into_mongodb();
    CHECK(is(contract_all(shard, room), "1-80"));
    end_test();
    free(earlier.bytes);
}

static void salvage_goes_on_behind_a_hole(void)
{
    const char *room = contract_name("r");
    const char *other = contract_name("s");

    begin_test(50);
    rig_make_room(shard, room);
    rig_make_room(shard, other);
    contract_close();
    for (int lap = 0; lap < 2; lap++) { /* the same again: a stop came before it was dropped */
        struct rig_shard *recovered = open_with_recovered(true);
        send_by(recovered, room, 1, 3);
        send_by(recovered, room, 6, 8);
        send_by(recovered, other, 1, 4);
        rig_recovered(recovered);
        rig_wait_watermark(recovered, recovered->position);
        contract_wait_ready();
        CHECK(persist_is_well(contract.persist));
        CHECK(is(contract_page(shard, room, 1, 5, 100, 1 << 16, false), "1-3"));
        CHECK(is(contract_page(shard, room, 4, 100, 100, 1 << 16, false), "6-8"));
        CHECK(is(contract_all(shard, other), "1-4"));
        contract_close();
    }
    open_shard();
    CHECK(rig_epoch(shard, room) != RIG_EPOCH); /* whoever has its log must read it anew */
    CHECK(rig_epoch(shard, other) == RIG_EPOCH);
    CHECK(is(contract_page(shard, room, 4, 100, 100, 1 << 16, false), "6-8"));
    end_test();
}

static void room_with_a_salvaged_hole_has_a_new_epoch_before_it_is_shown(void)
{
    const char *room = contract_name("r");

    begin_test(50);
    rig_make_room(shard, room);
    contract_close();
    struct rig_shard *recovered = open_with_recovered(true);
    send_by(recovered, room, 1, 3);
    send_by(recovered, room, 6, 8);
    rig_recovered(recovered);
    rig_wait_watermark(recovered, recovered->position);
    contract_wait_ready();
    const uint64_t epoch = rig_epoch(shard, room);
    contract_close();
    CHECK(epoch != RIG_EPOCH); /* persist.h, persist_replay and struct persist_lane */
}

/* --- stops --- */

static uint32_t count_lists(void)
{
    char command[128];
    (void)snprintf(command, sizeof(command), "KEYS %s*:log", contract.prefix);
    uint32_t count = redis_client_say(&orders, command).count;
    (void)snprintf(command, sizeof(command), "KEYS %s*:flush:*", contract.prefix);
    return count + redis_client_say(&orders, command).count;
}

static void clean_stop_leaves_nothing_in_redis(void)
{
    const char *rooms[2] = {contract_name("a"), contract_name("b")};

    begin_test(NEVER_MS);
    for (int i = 0; i < 2; i++) {
        rig_make_room(shard, rooms[i]);
        send_range(rooms[i], 1, 120);
    }
    wait_for(&contract.metrics.persist_pending_messages, 240);
    CHECK(count_lists() == 2);
    CHECK(shard->watermark == 0);
    contract_close();
    CHECK(count_lists() == 0);
    contract.mode = uncached;
    open_shard();
    for (int i = 0; i < 2; i++) {
        CHECK(is(contract_all(shard, rooms[i]), "1-120"));
    }
    end_test();
}

/* A port on which nobody listens, for as long as the test has it. */
static int closed_port(uint32_t *ret_port)
{
    struct sockaddr_in address = rig_loopback(0);
    socklen_t size = sizeof(address);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    CHECK(bind(fd, (const struct sockaddr *)&address, size) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static uint32_t nobody_port;

static void nobody_is_there(struct config *config)
{
    (void)snprintf(config->persist_mongodb_uri, sizeof(config->persist_mongodb_uri),
                   "mongodb://127.0.0.1:%u/damso_test_nobody", nobody_port);
    config->persist_store_connect = 500;
}

static void stop_without_mongodb_ends_and_keeps_the_watermark(void)
{
    const int fd = closed_port(&nobody_port);
    const char *room = contract_name("r");
    char why[512] = "";

    contract.mode = cached;
    contract.flush_interval_ms = 50;
    contract.adjust = nobody_is_there;
    journal.used = 0;
    contract_open_store();
    contract_start(1, RIG_RING_BYTES);
    shard = &contract.shards[0];
    rig_shard_enable(shard, contract.persist);
    shard->journal = &journal;
    send_range(room, 1, 40);
    rig_ask_user(shard, PERSIST_USER_GET, "nobody", "", "", "");
    CHECK(rig_status(shard, PERSIST_USER) == -EAGAIN);
    rig_ask_history(shard, room, 1, 10, 1 << 16, false);
    CHECK(rig_status(shard, PERSIST_HISTORY_PAGE) == -EAGAIN);
    for (int waits = 0; persist_state(contract.persist, why, sizeof(why)) != PERSIST_DOWN;) {
        CHECK(++waits < 20000);
        CHECK(usleep(1000) == 0);
    }
    CHECK(strstr(why, "127.0.0.1") != NULL); /* who is not there */
    CHECK(!persist_is_well(contract.persist));
    const uint64_t begun_ms = rig_now_ms();
    contract_close();
    CHECK(rig_now_ms() - begun_ms < STOP_MS_MAX);
    CHECK(shard->watermark == 0);
    uint32_t size;
    const struct persist_head *reply = spsc_peek(&shard->lane.replies, &size);
    CHECK(reply == NULL); /* nor in the ring: nothing was stored */
    contract.adjust = NULL;
    CHECK(close(fd) == 0);
}

static void older_run_is_fenced_and_stores_nothing_more(void)
{
    const char *room = contract_name("r");
    static struct rig_shard newer;
    struct persist_lane *lanes[] = {&newer.lane};
    struct persist *second = NULL;
    static struct metrics metrics;
    char why[512] = "";
    char other[RIG_PATH_BYTES];

    begin_test(50);
    rig_make_room(shard, room);
    send_range(room, 1, 10);
    rig_wait_watermark(shard, shard->position);
    rig_make(other);
    struct config config = contract.config; /* another data directory, the same stores */
    (void)snprintf(config.server_data, sizeof(config.server_data), "%s", other);
    CHECK(persist_open(&config, &second, why, sizeof(why)) == 0);
    rig_shard_open(&newer, RIG_RING_BYTES);
    CHECK(persist_start(second, lanes, 1, &metrics) == 0);
    rig_shard_enable(&newer, second);
    for (int waits = 0; !persist_is_fenced(contract.persist); waits++) {
        CHECK(waits < 20000);
        CHECK(usleep(1000) == 0);
    }
    const uint64_t before = shard->position;
    send_range(room, 11, 15); /* of the older one: stays in its journal */
    for (int waits = 0; persist_state(second, why, sizeof(why)) != PERSIST_READY; waits++) {
        CHECK(waits < 20000);
        CHECK(usleep(1000) == 0);
    }
    CHECK(!persist_is_fenced(second));
    CHECK(is(contract_all(&newer, room), "1-10"));
    rig_take_news(shard);
    CHECK(shard->watermark == before);
    contract_close();
    CHECK(is(contract_all(&newer, room), "1-10"));
    persist_close(second);
    rig_shard_close(&newer);
    rig_remove(other);
}

static void (*const tests[])(void) = {
    shards_wait_behind_the_run_before,
    run_before_is_handed_over_again_too,
    salvage_goes_on_behind_a_hole,
    room_with_a_salvaged_hole_has_a_new_epoch_before_it_is_shown,
    clean_stop_leaves_nothing_in_redis,
    stop_without_mongodb_ends_and_keeps_the_watermark,
    older_run_is_fenced_and_stores_nothing_more,
};

int main(int count, char **words)
{
    return pipeline_run(tests, sizeof(tests) / sizeof(tests[0]), count, words);
}
