/*
 * test_contract.c - what persist/persist.h promises at its door, in every mode.
 *
 * Method: each test knows only the door and runs against each mode of contract_rig.h: SQLite, and,
 *         where DAMSO_TEST_MONGODB_URI and DAMSO_TEST_REDIS_URL are set, MongoDB with and without
 *         Redis before it. Real threads, rings and stores. Rooms, history and users are in
 *         test_contract_rooms.c, what is one mode's own in test_persist.c and test_pipeline.c.
 *
 * Where the modes differ, a test says so by name (contract.mode->stores):
 *   epoch    with redis+mongodb the epoch of a record is not compared: a log that was given up is
 *            told by its seqs, which go on in the new epoch (record_of_another_epoch);
 *   order    answers of different readers may overtake each other: an asker who needs an order
 *            waits for the first answer. Records and the questions behind them keep P1 in both.
 */
#include "tests/persist/contract_rig.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

enum { BULK = 4000, STREAM_RECORDS = 1500, STREAM_ROOMS = 5, STREAM_BURST = 37 };

static struct rig_shard *shard;

static bool is(const char *shown, const char *expected)
{
    return contract_is(shown, expected);
}

/* --- records (P1 to P3) --- */

static void read_sees_what_was_handed_over_before_it(void)
{
    const char *room = contract_name("r");
    char expected[32];

    rig_make_room(shard, room);
    for (uint64_t seq = 1; seq <= 200; seq++) {
        rig_send(shard, room, RIG_EPOCH, seq);
        (void)snprintf(expected, sizeof(expected), "1-%" PRIu64, seq);
        CHECK(is(contract_all(shard, room), expected));
    }
    rig_wait_watermark(shard, shard->position);
    CHECK(persist_is_well(contract.persist));
    CHECK(is(contract_all(shard, room), "1-200"));
    shard = contract_restart();
    CHECK(is(contract_page(shard, room, 1, 1000, 1000, 1 << 20, true), "200-1"));
}

static void records_in_bulk_all_reach_the_store(void)
{
    const char *room = contract_name("r");
    const uint64_t stored = metrics_get(&contract.metrics.persist_records_total) +
                            metrics_get(&contract.metrics.persist_flushed_total);

    rig_make_room(shard, room);
    for (uint64_t seq = 1; seq <= BULK; seq++) { /* several batches and several laps of the ring */
        rig_send(shard, room, RIG_EPOCH, seq);
        if (seq % 50 == 0) {
            rig_publish(shard);
            rig_take_news(shard);
        }
    }
    rig_publish(shard);
    rig_wait_watermark(shard, shard->position);
    CHECK(metrics_get(&contract.metrics.persist_records_total) +
              metrics_get(&contract.metrics.persist_flushed_total) ==
          stored + BULK);
    CHECK(is(contract_page(shard, room, BULK - 99, BULK + 99, 1000, 1 << 20, false), "3901-4000"));
    CHECK(is(contract_page(shard, room, 1, 100, 1000, 1 << 20, false), "1-100"));
}

static void watermark_stays_within_what_is_stored(void)
{
    const char *room = contract_name("r");

    rig_make_room(shard, room);
    for (uint64_t seq = 1; seq <= 300; seq++) { /* rig_is_news checks that it only rises */
        rig_send(shard, room, RIG_EPOCH, seq);
        rig_publish(shard);
        rig_take_news(shard);
    }
    rig_wait_watermark(shard, shard->position);
    CHECK(shard->watermark == shard->position);
}

static void record_that_is_there_is_passed_over(void)
{
    const char *room = contract_name("r");

    rig_make_room(shard, room);
    for (int lap = 0; lap < 2; lap++) { /* before and after it reached the store */
        for (uint64_t seq = 1; seq <= 20; seq++) {
            rig_send(shard, room, RIG_EPOCH, seq);
            rig_send(shard, room, RIG_EPOCH, (seq + 1) / 2);
        }
        rig_publish(shard);
        rig_wait_watermark(shard, shard->position);
    }
    CHECK(is(contract_all(shard, room), "1-20"));
    shard = contract_restart(); /* a run that knows nothing of the room yet */
    for (uint64_t seq = 5; seq <= 22; seq++) {
        rig_send(shard, room, RIG_EPOCH, seq);
    }
    rig_publish(shard);
    rig_wait_watermark(shard, shard->position);
    CHECK(is(contract_all(shard, room), "1-22"));
    CHECK(persist_is_well(contract.persist));
}

static void records_of_a_room_that_is_not_there_move_the_watermark(void)
{
    const char *room = contract_name("r");
    const char *deleted = contract_name("deleted");

    rig_make_room(shard, room);
    rig_send(shard, deleted, RIG_EPOCH, 1);
    rig_send(shard, room, RIG_EPOCH, 1);
    rig_send(shard, deleted, RIG_EPOCH, 2);
    rig_publish(shard);
    rig_wait_watermark(shard, shard->position);
    CHECK(is(contract_all(shard, room), "1-1"));
    rig_ask_history(shard, deleted, 1, 10, 1 << 20, false);
    CHECK(contract_refuses_page(shard, -ENOENT));
    CHECK(persist_is_well(contract.persist));
}

/* Embedded: not stored. redis+mongodb: stored as the next one of its room. In both the watermark
 * goes on, and what follows is stored. */
static void record_of_another_epoch(void)
{
    const char *room = contract_name("r");

    rig_make_room(shard, room);
    rig_send(shard, room, RIG_EPOCH, 1);
    rig_send(shard, room, RIG_EPOCH + 1, 2);
    rig_publish(shard);
    rig_wait_watermark(shard, shard->position);
    CHECK(is(contract_all(shard, room), contract.mode->stores ? "1-2" : "1-1"));
    rig_send(shard, room, RIG_EPOCH, contract.mode->stores ? 3 : 2);
    rig_publish(shard);
    rig_wait_watermark(shard, shard->position);
    CHECK(is(contract_all(shard, room), contract.mode->stores ? "1-3" : "1-2"));
    CHECK(persist_is_well(contract.persist));
}

/* Waits until persistence says that it is not well. */
static void wait_for_alarm(void)
{
    const uint64_t end_ms = rig_now_ms() + CONTRACT_READY_MS;

    while (persist_is_well(contract.persist)) {
        CHECK(rig_now_ms() < end_ms);
        CHECK(usleep(1000) == 0);
    }
}

static void hole_stops_the_watermark_and_nothing_else(void)
{
    const char *room = contract_name("r");
    const char *other = contract_name("s");

    rig_make_room(shard, room);
    rig_make_room(shard, other);
    rig_send(shard, room, RIG_EPOCH, 1);
    rig_send(shard, other, RIG_EPOCH, 1);
    const uint64_t before = shard->position;
    rig_send(shard, room, RIG_EPOCH, 3);
    rig_send(shard, other, RIG_EPOCH, 2);
    rig_publish(shard);
    rig_wait_watermark(shard, before);
    wait_for_alarm();
    CHECK(is(contract_all(shard, other), "1-2"));
    rig_send(shard, other, RIG_EPOCH, 3);
    CHECK(is(contract_all(shard, other), "1-3"));
    CHECK(usleep(300000) == 0); /* time enough to be wrong in */
    rig_take_news(shard);
    CHECK(shard->watermark == before);
    CHECK(!persist_is_well(contract.persist));
    shard = contract_restart();
    CHECK(is(contract_all(shard, room), "1-1")); /* P3: the hole is never stored */
    CHECK(is(contract_all(shard, other), "1-3"));
    rig_send(shard, room, RIG_EPOCH, 2); /* and the journal brings what was missing */
    rig_send(shard, room, RIG_EPOCH, 3);
    rig_publish(shard);
    rig_wait_watermark(shard, shard->position);
    CHECK(is(contract_all(shard, room), "1-3"));
}

static void hole_behind_what_is_stored_is_one_too(void)
{
    const char *room = contract_name("r");

    rig_make_room(shard, room);
    rig_send(shard, room, RIG_EPOCH, 1);
    rig_publish(shard);
    rig_wait_watermark(shard, shard->position); /* nothing of the room is under way any more */
    const uint64_t before = shard->position;
    rig_send(shard, room, RIG_EPOCH, 3);
    rig_publish(shard);
    wait_for_alarm();
    rig_take_news(shard);
    CHECK(shard->watermark == before);
    shard = contract_restart();
    CHECK(is(contract_all(shard, room), "1-1"));
}

static void *run_shard(void *argument)
{
    struct rig_shard *own = argument;
    uint64_t seqs[STREAM_ROOMS] = {0};
    char rooms[STREAM_ROOMS][CONTRACT_NAME_BYTES];
    char expected[32];

    rig_shard_enable(own, contract.persist);
    for (uint32_t i = 0; i < STREAM_ROOMS; i++) {
        char name[24];
        (void)snprintf(name, sizeof(name), "s%u-%u", (unsigned)(own - contract.shards), i);
        (void)snprintf(rooms[i], sizeof(rooms[i]), "%s", contract_name(name));
        rig_make_room(own, rooms[i]);
    }
    for (uint32_t sent = 0; sent < STREAM_RECORDS;) {
        uint32_t of = 0;
        for (uint32_t i = 0; i < STREAM_BURST && sent < STREAM_RECORDS; i++, sent++) {
            of = (sent * 7 + sent / 11) % STREAM_ROOMS;
            rig_send(own, rooms[of], RIG_EPOCH, ++seqs[of]);
        }
        rig_ask_history(own, rooms[of], seqs[of], UINT64_MAX, 1000, true);
        (void)snprintf(expected, sizeof(expected), "%" PRIu64 "-%" PRIu64, seqs[of], seqs[of]);
        CHECK(is(rig_history(own, rooms[of]), expected));
    }
    rig_wait_watermark(own, own->position);
    return NULL;
}

static void shards_do_not_disturb_each_other(void)
{
    pthread_t threads[CONTRACT_SHARDS];

    contract_close();
    contract_open_store();
    contract_start(CONTRACT_SHARDS, RIG_RING_BYTES);
    contract_wait_ready();
    for (int i = 0; i < CONTRACT_SHARDS; i++) {
        CHECK(pthread_create(&threads[i], NULL, run_shard, &contract.shards[i]) == 0);
    }
    for (int i = 0; i < CONTRACT_SHARDS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    shard = contract_restart();
}

/* --- every question gets one final answer (P4) --- */

static bool is_final(const struct persist_head *reply)
{
    return reply->op != PERSIST_MEMBERS && reply->op != PERSIST_KEYS;
}

static void every_question_gets_one_answer(void)
{
    enum { ROUNDS = 30, KINDS = 5 };
    const char *room = contract_name("r");
    const char *none = contract_name("none");
    uint8_t answers[ROUNDS * KINDS + 1] = {0};
    uint32_t size;

    rig_make_room(shard, room);
    const uint64_t first = shard->token + 1;
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        rig_send(shard, room, RIG_EPOCH, i);
        rig_ask_history(shard, room, 1, i, 1 << 20, i % 2 == 0);
        rig_ask_load(shard, room);
        rig_ask_history(shard, none, 1, 9, 1 << 20, false);
        rig_ask_load(shard, none);
        rig_ask_user(shard, PERSIST_USER_GET, "nobody", "", "", "");
    }
    CHECK(shard->token == first + sizeof(answers) - 2);
    rig_publish(shard);
    for (uint32_t taken = 0; taken < ROUNDS * KINDS;) {
        const struct persist_head *reply = rig_reply(shard, &size);
        CHECK(reply->token >= first && reply->token <= shard->token);
        const uint64_t kind = (reply->token - first) % KINDS;
        CHECK(kind < 2 ? reply->status == 0 : reply->status == -ENOENT);
        CHECK(answers[reply->token - first] == 0); /* none behind the final one */
        if (is_final(reply)) {
            answers[reply->token - first] = 1;
            taken++;
        }
        rig_next(shard);
    }
    CHECK(usleep(50000) == 0);
    rig_take_news(shard);
    CHECK(spsc_peek(&shard->lane.replies, &size) == NULL);
}

static void refusal_is_its_struct_and_no_more(void)
{
    const char *none = contract_name("none");

    rig_ask_load(shard, none);
    CHECK(contract_refuses_room(shard, -ENOENT));
    rig_ask_history(shard, none, 1, 9, 1 << 20, false);
    CHECK(contract_refuses_page(shard, -ENOENT));
    rig_ask_create(shard, "no room id");
    CHECK(contract_refuses_room(shard, -EINVAL));
    rig_ask_user(shard, PERSIST_REGISTER, "", "A", "secret", "");
    CHECK(contract_refuses_user(shard, -EINVAL));
    rig_ask_user(shard, PERSIST_LOGIN, "", "Ann", "", "");
    CHECK(contract_refuses_user(shard, -EINVAL));
    rig_ask_user(shard, PERSIST_USER_ENSURE, "", "Ann", "", "");
    CHECK(contract_refuses_user(shard, -EINVAL));
    rig_ask_user(shard, PERSIST_USER_GET, "u1", "", "", "");
    CHECK(contract_refuses_user(shard, -ENOENT));
}

static void closing_takes_what_is_left_in_the_lanes(void)
{
    const char *room = contract_name("r");

    contract.batch_records = 16; /* so that it takes many turns */
    shard = contract_restart();
    rig_make_room(shard, room);
    for (uint64_t seq = 1; seq <= 500; seq++) {
        rig_send(shard, room, RIG_EPOCH, seq);
        rig_ask_history(shard, room, 1, 10, 1 << 20, false); /* nobody takes the answers */
    }
    CHECK(spsc_publish(&shard->lane.requests) || true); /* and nobody rings the bell */
    contract.batch_records = 4096;
    shard = contract_restart();
    CHECK(is(contract_all(shard, room), "1-500"));
}

/* --- what a stop and a crash leave --- */

/* Runs work in a process of its own and kills that when work is done; persistence is closed
 * before and open again after. */
static void run_and_kill(void (*work)(void))
{
    int ends[2];
    int status = 0;
    char byte = 0;

    contract_close();
    CHECK(pipe(ends) == 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
        shard = contract_open();
        work();
        CHECK(write(ends[1], "1", 1) == 1);
        (void)pause();
        _exit(7);
    }
    CHECK(close(ends[1]) == 0);
    CHECK(read(ends[0], &byte, 1) == 1); /* else the child failed, and said why */
    CHECK(close(ends[0]) == 0);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void send_until_the_watermark(void)
{
    const char *room = contract_name("r");

    rig_make_room(shard, room);
    for (uint64_t seq = 1; seq <= 300; seq++) {
        rig_send(shard, room, RIG_EPOCH, seq);
    }
    rig_publish(shard);
    rig_wait_watermark(shard, shard->position);
}

static void watermark_means_stored_even_if_the_process_dies(void)
{
    run_and_kill(send_until_the_watermark);
    if (contract.mode->cached) {
        contract_forget_redis(); /* stored is stored in MongoDB (P2) */
    }
    shard = contract_open();
    CHECK(is(contract_all(shard, contract_name("r")), "1-300"));
    CHECK(rig_epoch(shard, contract_name("r")) == RIG_EPOCH); /* fsync: nothing can be lost */
}

static const char *const room_ends[] = {"memory", "journal", "fsync"}; /* as they are numbered */

static void make_one_of_each_durability(void)
{
    for (uint8_t i = 0; i < 3; i++) {
        rig_ask_create_as(shard, contract_name(room_ends[i]), i);
        CHECK(rig_status(shard, PERSIST_ROOM) == 0);
    }
}

static void load_one(void)
{
    CHECK(rig_epoch(shard, contract_name(room_ends[0])) == RIG_EPOCH);
}

static void only_a_crash_begins_rooms_anew_that_may_have_lost_their_tail(void)
{
    make_one_of_each_durability();
    shard = contract_restart();
    for (int i = 0; i < 3; i++) {
        CHECK(rig_epoch(shard, contract_name(room_ends[i])) == RIG_EPOCH);
    }
    run_and_kill(load_one); /* not a clean stop, though the machine runs on */
    shard = contract_open();
    const uint64_t renewed = rig_epoch(shard, contract_name(room_ends[0]));
    CHECK(renewed != RIG_EPOCH && renewed != 0);
    CHECK(rig_epoch(shard, contract_name(room_ends[1])) == RIG_EPOCH);
    CHECK(rig_epoch(shard, contract_name(room_ends[2])) == RIG_EPOCH);
    shard = contract_restart(); /* and once is enough */
    CHECK(rig_epoch(shard, contract_name(room_ends[0])) == renewed);
}

static void (*const tests[])(void) = {
    watermark_means_stored_even_if_the_process_dies,
    only_a_crash_begins_rooms_anew_that_may_have_lost_their_tail,
    read_sees_what_was_handed_over_before_it,
    records_in_bulk_all_reach_the_store,
    watermark_stays_within_what_is_stored,
    record_that_is_there_is_passed_over,
    records_of_a_room_that_is_not_there_move_the_watermark,
    record_of_another_epoch,
    hole_stops_the_watermark_and_nothing_else,
    hole_behind_what_is_stored_is_one_too,
    shards_do_not_disturb_each_other,
    every_question_gets_one_answer,
    refusal_is_its_struct_and_no_more,
    closing_takes_what_is_left_in_the_lanes,
};

int main(void)
{
    return contract_run(tests, sizeof(tests) / sizeof(tests[0]), &shard);
}
