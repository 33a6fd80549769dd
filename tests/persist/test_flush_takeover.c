/*
 * test_flush_takeover.c - whatever lies in Redis gets into MongoDB when a damsod takes over: all of
 *                         it, in order, and nothing beyond a hole.
 *
 * Method: flush_rig.h. Lists that others left are made by hand, then DRAIN is given.
 */
#include "tests/persist/flush_rig.h"

static struct job_answer drain(void)
{
    return ask(JOB_DRAIN, owner, NULL);
}

/* A flusher that has drained nothing yet: what it finds may be of a journal that is lost. */
static void begin_new_run(void)
{
    flusher_end();
    flusher_begin(MONGO_BULK_MAX, true);
    take_over();
    begin();
}

static void leftovers_of_others_are_taken_over_in_their_order(void)
{
    begin_new_run();
    make_room("dr1");
    make_room("dr2");
    store_range("dr1", 1, 12); /* some were in, their lists were not removed yet */
    push_range(frozen_key("dr1", 2, 9), "dr1", 1, 10);
    push_range(frozen_key("dr1", 10, 3), "dr1", 11, 20);
    push_range(frozen_key("dr1", 10, 12), "dr1", 21, 30);
    push_range(log_key("dr1"), "dr1", 25, 33);
    push_range(log_key("dr2"), "dr2", 1, 1200);
    struct job_answer answer = drain();
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && answer.number == 33 + 1200);
    CHECK(stored("dr1", 1, 33) && stored("dr2", 1, 1200));
    CHECK(count_keys("*:log") == 0 && count_keys("*:flush:*") == 0);
    CHECK(count_keys("*:orphan:*") == 0 && told[0] == '\0');
    answer = drain();
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && answer.number == 0);
}

static void hole_in_leftovers_is_not_crossed(void)
{
    begin_new_run();
    make_room("dh1");
    make_room("dh2");
    store_range("dh1", 1, 3);
    push_range(frozen_key("dh1", 2, 1), "dh1", 4, 6);
    push_range(frozen_key("dh1", 2, 2), "dh1", 8, 9);
    push_range(log_key("dh1"), "dh1", 10, 11);
    push_range(log_key("dh2"), "dh2", 1, 2);
    make_room("dh3");
    push_range(frozen_key("dh3", 2, 1), "dh3", 1, 2);
    push_one(log_key("dh3"), record_rig_make("dh3", 3 + FLUSH_SEEN_MAX)); /* too far to be told */
    const struct job_answer answer = drain();
    CHECK(is(&answer, 0, JOB_WHERE_NONE));
    CHECK(stored("dh1", 1, 6) && stored("dh2", 1, 2)); /* F3 */
    CHECK(count_keys("t:{dh1}:*:orphan:*") == 2);      /* the lists with 8 to 11 */
    CHECK(stored("dh3", 1, 2) && count_keys("t:{dh3}:log:orphan:*") == 1);
    CHECK(count_keys("*:orphan:*") == 3);
    CHECK(count_keys("t:{dh1}:flush:2.1*") == 0);
    CHECK(strstr(told, "room_id=dh1 missing_seq=7 last_seq=11") != NULL);
    CHECK(strstr(told, "dh2") == NULL);
}

static void leftovers_of_an_unknown_room_are_kept(void)
{
    begin_new_run();
    push_range(log_key("dk1"), "dk1", 1, 3);
    const struct job_answer answer = drain();
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && answer.number == 0);
    CHECK(count_keys("t:{dk1}:log:orphan:*") == 1 && count_keys("*:log") == 0);
    CHECK(strstr(told, "room_id=dk1") != NULL);
}

static void damage_in_leftovers_is_kept_beside_what_is_whole(void)
{
    begin_new_run();
    make_room("dd1");
    push_range(log_key("dd1"), "dd1", 1, 3);
    push_one(log_key("dd1"), SLICE("hello"));
    push_one(log_key("dd1"), record_rig_body("dd1", 2, SLICE("another one")));
    push_range(log_key("dd1"), "dd1", 4, 5);
    const struct job_answer answer = drain();
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && stored("dd1", 1, 5));
    CHECK(count_keys("t:{dd1}:log:orphan:*") == 1);
    CHECK(strstr(told, "room_id=dd1 elements=2") != NULL);
}

/* After the first takeover what lies there is of this run: the journal has it. A foreign list is
 * kept all the same. */
static void later_takeover_of_a_run_leaves_nothing_of_its_own(void)
{
    begin_new_run();
    struct job_answer answer = drain();
    CHECK(is(&answer, 0, JOB_WHERE_NONE));
    make_room("dl1");
    make_room("dl2");
    push_range(frozen_key("dl1", owner, 5), "dl1", 1, 3);
    push_range(log_key("dl1"), "dl1", 5, 6);
    push_range(frozen_key("dl2", owner - 1, 5), "dl2", 2, 3);
    answer = drain();
    CHECK(is(&answer, 0, JOB_WHERE_NONE));
    CHECK(stored("dl1", 1, 3) && stored("dl2", 1, 0));
    CHECK(count_keys("*{dl1}*:orphan:*") == 0 && count_keys("*{dl2}*:orphan:*") == 1);
    CHECK(count_keys("*:log") == 0);
}

static void newer_owner_stops_a_takeover(void)
{
    begin_new_run();
    make_room("do1");
    push_range(log_key("do1"), "do1", 1, 3);
    (void)redis_client_say(&client, "SET t:{do1}:owner 99999");
    const struct job_answer answer = drain();
    CHECK(is(&answer, -ESTALE, JOB_WHERE_REDIS));
    CHECK(stored("do1", 1, 0) && has_length(log_key("do1"), "3"));
}

static void takeover_claims_the_rooms_it_finds(void)
{
    char number[32];

    begin_new_run();
    make_room("dc3");
    push_range(log_key("dc3"), "dc3", 1, 3);
    (void)redis_client_say(&client, "SET t:{dc3}:owner 1");
    const struct job_answer answer = drain();
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && stored("dc3", 1, 3));
    (void)snprintf(number, sizeof(number), "%" PRIu64, owner);
    CHECK(redis_client_gets(&client, "GET t:{dc3}:owner", number));
}

/* Stopped somewhere in 20,000 records, a takeover is completed by the next one. */
static void takeover_that_is_stopped_is_completed_by_the_next(void)
{
    char room[16];

    begin_new_run();
    for (uint32_t i = 0; i < 4; i++) {
        (void)snprintf(room, sizeof(room), "st%u", i);
        make_room(room);
        push_range(frozen_key(room, 1, 1), room, 1, 2500);
        push_range(log_key(room), room, 2501, 5000);
    }
    asker_give(&asker, flusher_worker(flusher), JOB_DRAIN, owner, NULL);
    uint64_t some = 0;
    for (int waits = 0; some == 0 && waits < 2000; waits++) {
        CHECK(usleep(5000) == 0);
        CHECK(store_mongo_last_seq(store, SLICE("st0"), &some) == 0);
    }
    const uint64_t begun_ns = os_now_ns();
    worker_stop(flusher_worker(flusher));
    CHECK(os_now_ns() - begun_ns < UINT64_C(15) * 1000 * 1000 * 1000);
    const struct job_answer answer = asker_take(&asker, flusher_worker(flusher));
    CHECK(answer.status == -EAGAIN && answer.where == JOB_WHERE_NONE);
    CHECK(count_keys("*:flush:*") + count_keys("*:log") > 0);
    flusher_end();
    flusher_begin(MONGO_BULK_MAX, true);
    take_over();
    const struct job_answer again = drain();
    CHECK(is(&again, 0, JOB_WHERE_NONE));
    for (uint32_t i = 0; i < 4; i++) {
        (void)snprintf(room, sizeof(room), "st%u", i);
        CHECK(stored(room, 1, 5000));
    }
    CHECK(count_keys("*:log") == 0 && count_keys("*:flush:*") == 0 &&
          count_keys("*:orphan:*") == 0);
}

int main(void)
{
    if (mongo_rig_server() == NULL) {
        return mongo_rig_skip(0);
    }
    rig_begin();
    leftovers_of_others_are_taken_over_in_their_order();
    hole_in_leftovers_is_not_crossed();
    leftovers_of_an_unknown_room_are_kept();
    damage_in_leftovers_is_kept_beside_what_is_whole();
    later_takeover_of_a_run_leaves_nothing_of_its_own();
    newer_owner_stops_a_takeover();
    takeover_claims_the_rooms_it_finds();
    takeover_that_is_stopped_is_completed_by_the_next();
    rig_end();
    puts("8 passed, 0 failed");
    return 0;
}
