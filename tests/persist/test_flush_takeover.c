/*
 * test_flush_takeover.c - whatever lies in Redis gets into MongoDB when a damsod takes over: all of
 *                         it, in order, and nothing beyond a hole.
 *
 * Method: flush_rig.h. Lists that others left are made by hand, then DRAIN is given.
 */
#include "persist/flush_takeover_many.h"
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

/* --- many rooms at once --- */

static const char *numbered(const char *kind, uint32_t number)
{
    static char names[4][32]; /* some may be in use at the same time */
    static uint32_t turn;
    char *name = names[turn++ % 4];

    (void)snprintf(name, sizeof(names[0]), "%s%u", kind, number);
    return name;
}

/* Makes the lists of a small room that can be taken over together with others: its last seq. */
static uint64_t make_small(const char *room, uint32_t kind)
{
    make_room(room);
    switch (kind) {
    case 0: /* goes on behind what MongoDB has */
        store_range(room, 1, 2);
        push_range(log_key(room), room, 3, 5);
        return 5;
    case 1: /* some of it is in MongoDB, some of it twice in Redis */
        store_range(room, 1, 2);
        push_range(frozen_key(room, 2, 9), room, 1, 3);
        push_range(frozen_key(room, 10, 3), room, 2, 6);
        push_range(log_key(room), room, 6, 7);
        return 7;
    case 2: /* of an appender that began again, and was heard late */
        push_range(log_key(room), room, 3, 4);
        push_range(log_key(room), room, 1, 3);
        return 4;
    default:
        push_range(log_key(room), room, 1, 3);
        return 3;
    }
}

/* More rooms than one look takes, and more records than one bulk. */
static void many_small_rooms_are_taken_over_together(void)
{
    enum { ROOMS = FLUSH_MANY_LISTS + 100 };
    static uint64_t last[ROOMS];
    uint64_t records = 0;

    begin_new_run();
    for (uint32_t i = 0; i < ROOMS; i++) {
        last[i] = make_small(numbered("ms", i), i % 20);
        records += i % 20 == 0 ? 3 : last[i]; /* 1 and 2 are in MongoDB only */
        record_rig_reset();
    }
    CHECK(records > MONGO_BULK_MAX);
    struct job_answer answer = drain();
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && answer.number == records);
    CHECK(count_keys("*:log*") == 0 && count_keys("*:flush:*") == 0 && told[0] == '\0');
    for (uint32_t i = 0; i < ROOMS; i++) {
        CHECK(stored(numbered("ms", i), 1, last[i]));
    }
    answer = drain();
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && answer.number == 0);
}

/* Rooms with something wrong, or large, with plain ones between them: pl1 to pl6. */
static void make_mixed(void)
{
    static const uint32_t sizes[] = {255, 256, 257, 700};

    for (uint32_t i = 1; i <= 6; i++) {
        (void)make_small(numbered("pl", i), i % 4);
        make_room(numbered("ph", i));
        make_room(numbered("pf", i));
    }
    push_range(log_key("ph1"), "ph1", 1, 2); /* holes: in a list, between two, before the first */
    push_range(log_key("ph1"), "ph1", 4, 5);
    push_range(frozen_key("ph2", 2, 1), "ph2", 1, 2);
    push_range(log_key("ph2"), "ph2", 5, 6);
    store_range("ph3", 1, 2);
    push_range(log_key("ph3"), "ph3", 4, 5);
    push_range(log_key("ph4"), "ph4", 2, 3);
    store_range("ph5", 1, 2); /* one in MongoDB is nobody's business here */
    store_range("ph5", 5, 5);
    push_range(log_key("ph5"), "ph5", 5, 7);
    push_range(log_key("pe1"), "pe1", 1, 3); /* MongoDB does not know them */
    push_range(frozen_key("pe2", 2, 1), "pe2", 1, 3);
    make_room("pd1");
    push_range(log_key("pd1"), "pd1", 1, 3);
    push_one(log_key("pd1"), SLICE("hello"));
    make_room("pd2");
    push_range(log_key("pd2"), "pd2", 1, 3);
    push_one(log_key("pd2"), record_rig_body("pd2", 2, SLICE("another one")));
    for (uint32_t i = 0; i < 4; i++) {
        push_range(log_key(numbered("pf", i + 1)), numbered("pf", i + 1), 1, sizes[i]);
    }
    for (uint64_t i = 0; i < 5; i++) { /* more than a bulk in short lists */
        push_range(frozen_key("pf5", 2, i + 1), "pf5", i * 240 + 1, i * 240 + 240);
    }
    for (uint64_t i = 0; i < FLUSH_MANY_LISTS + 1; i++) { /* more lists than go together */
        push_range(frozen_key("pf6", 2, i + 1), "pf6", i + 1, i + 1);
    }
}

static void rooms_of_all_kinds_get_what_each_would_alone(void)
{
    static const uint64_t small[] = {7, 4, 3, 5, 7, 4};
    static const uint64_t large[] = {255, 256, 257, 700, 1200, FLUSH_MANY_LISTS + 1};
    uint64_t last = 0;

    begin_new_run();
    make_mixed();
    const struct job_answer answer = drain();
    CHECK(is(&answer, 0, JOB_WHERE_NONE));
    for (uint32_t i = 0; i < 6; i++) {
        CHECK(stored(numbered("pl", i + 1), 1, small[i]));
        CHECK(stored(numbered("pf", i + 1), 1, large[i]));
    }
    CHECK(stored("ph1", 1, 2) && stored("ph2", 1, 2) && stored("ph3", 1, 2) && stored("ph4", 1, 0));
    CHECK(store_mongo_last_seq(store, SLICE("ph5"), &last) == 0 && last == 7);
    CHECK(count_keys("t:{ph[1-4]}:log:orphan:*") == 4 && count_keys("t:{ph2}:flush*") == 0);
    CHECK(count_keys("t:{pe1}:log:orphan:*") == 1 && count_keys("t:{pe2}:flush:2.1:orphan:*") == 1);
    CHECK(stored("pd1", 1, 3) && stored("pd2", 1, 3));
    CHECK(count_keys("t:{pd[12]}:log:orphan:*") == 2);
    CHECK(count_keys("*:orphan:*") == 8 && count_keys("*:log") == 0);
    CHECK(count_keys("*:flush:*") == 1);
    CHECK(strstr(told, "room_id=ph1 missing_seq=3 last_seq=5") != NULL);
    CHECK(strstr(told, "room_id=ph3 missing_seq=3 last_seq=5") != NULL);
    CHECK(strstr(told, "room_id=ph4 missing_seq=1 last_seq=3") != NULL);
    CHECK(strstr(told, "room_id=pl") == NULL && strstr(told, "room_id=pf") == NULL);
    CHECK(strstr(told, "room_id=ph5") == NULL);
}

/* Texts of 100 KiB: some rooms fill the buffer together, one alone. */
static void large_texts_are_taken_over_in_parts(void)
{
    static char text[100 * 1024];
    const uint64_t counts[] = {3, 15, 15, 15, 45, 3, 40, 2};
    uint64_t last = 0;

    begin_new_run();
    memset(text, 'x', sizeof(text));
    for (uint32_t i = 0; i < 8; i++) {
        const char *room = numbered("lt", i);
        make_room(room);
        for (uint64_t seq = 1; seq <= counts[i]; seq++) {
            push_one(log_key(room), record_rig_body(room, seq, (struct slice){text, sizeof(text)}));
        }
        record_rig_reset();
    }
    const struct job_answer answer = drain();
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && answer.number == 138);
    for (uint32_t i = 0; i < 8; i++) {
        CHECK(store_mongo_last_seq(store, rig_slice(numbered("lt", i)), &last) == 0);
        CHECK(last == counts[i]);
    }
    CHECK(count_keys("*:log*") == 0 && told[0] == '\0');
}

/* It dies after the insert: here Redis takes claims, and refuses what removes a list. */
static void takeover_that_dies_before_it_removes_is_repeated(void)
{
    enum { ROOMS = 60 };
    uint64_t last[ROOMS];
    uint64_t records = 0;

    begin_new_run();
    for (uint32_t i = 0; i < ROOMS; i++) {
        last[i] = make_small(numbered("cr", i), 2 + i % 5);
        records += last[i];
    }
    (void)redis_client_say(&client, "ACL SETUSER default resetkeys ~t:{*}:owner %R~*");
    const struct job_answer cut = drain();
    (void)redis_client_say(&client, "ACL SETUSER default allkeys");
    CHECK(is(&cut, -EACCES, JOB_WHERE_REDIS));
    CHECK(count_keys("*:log") == ROOMS); /* F1: in both */
    for (uint32_t i = 0; i < ROOMS; i++) {
        CHECK(stored(numbered("cr", i), 1, last[i]));
    }
    (void)redis_client_say(&client, "DEL t:{cr7}:log"); /* some were removed */
    flusher_end();
    flusher_begin(MONGO_BULK_MAX, true);
    take_over();
    const struct job_answer answer = drain();
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && answer.number == records - last[7]);
    CHECK(answer.quarantined == 0 && count_keys("*:log*") == 0 && told[0] == '\0');
    for (uint32_t i = 0; i < ROOMS; i++) {
        CHECK(stored(numbered("cr", i), 1, last[i]));
    }
}

static void newer_owner_of_one_room_stops_a_takeover_of_many(void)
{
    begin_new_run();
    for (uint32_t i = 0; i < 20; i++) {
        (void)make_small(numbered("no", i), 3);
    }
    (void)redis_client_say(&client, "SET t:{no7}:owner 99999");
    const struct job_answer answer = drain();
    CHECK(is(&answer, -ESTALE, JOB_WHERE_REDIS));
    CHECK(stored("no7", 1, 0) && has_length(log_key("no7"), "3"));
    CHECK(count_keys("*:log") == 20); /* nothing is removed of any */
}

/* Each record is a bulk of its own, so that it is stopped among them. */
static void takeover_of_many_that_is_stopped_is_completed_by_the_next(void)
{
    enum { ROOMS = 100 };
    uint64_t some = 0;

    flusher_end();
    flusher_begin(1, true);
    take_over();
    begin();
    for (uint32_t i = 0; i < ROOMS; i++) {
        (void)make_small(numbered("sm", i), 3);
    }
    asker_give(&asker, flusher_worker(flusher), JOB_DRAIN, owner, NULL);
    for (int waits = 0; some == 0 && waits < 5000; waits++) {
        CHECK(usleep(1000) == 0);
        CHECK(store_mongo_last_seq(store, SLICE("sm0"), &some) == 0);
    }
    worker_stop(flusher_worker(flusher));
    const struct job_answer answer = asker_take(&asker, flusher_worker(flusher));
    CHECK(answer.status == -EAGAIN && answer.where == JOB_WHERE_NONE);
    CHECK(count_keys("*:log") == ROOMS);
    flusher_end();
    flusher_begin(MONGO_BULK_MAX, true);
    take_over();
    const struct job_answer again = drain();
    CHECK(is(&again, 0, JOB_WHERE_NONE) && count_keys("*:log*") == 0);
    for (uint32_t i = 0; i < ROOMS; i++) {
        CHECK(stored(numbered("sm", i), 1, 3));
    }
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
    many_small_rooms_are_taken_over_together();
    rooms_of_all_kinds_get_what_each_would_alone();
    large_texts_are_taken_over_in_parts();
    takeover_that_dies_before_it_removes_is_repeated();
    newer_owner_of_one_room_stops_a_takeover_of_many();
    takeover_of_many_that_is_stopped_is_completed_by_the_next();
    rig_end();
    puts("14 passed, 0 failed");
    return 0;
}
