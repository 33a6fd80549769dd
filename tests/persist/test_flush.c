/*
 * test_flush.c - batches get into MongoDB exactly once, whatever happened between two steps, and
 *                nothing leaves Redis before.
 *
 * Method: flush_rig.h. A state that a crash or a lost reply leaves is made by hand, then the job is
 *         given.
 */
#include "tests/persist/flush_rig.h"

/* --- seqs that were seen --- */

static void seqs_are_told_apart_over_any_length(void)
{
    static struct flush_seen_slot slots[FLUSH_SEEN_MAX];
    struct flush_seen seen = {.slots = slots};
    const struct slice a = SLICE("a");
    const struct slice b = SLICE("b");

    for (int pass = 0; pass < 2; pass++) { /* the second one finds the first one's slots empty */
        flush_seen_begin(&seen, 100);
        CHECK(flush_seen_look(&seen, 101, a) == FLUSH_SIGHT_NEW && seen.next == 100);
        CHECK(flush_seen_look(&seen, 101, a) == FLUSH_SIGHT_AGAIN);
        CHECK(flush_seen_look(&seen, 101, b) == FLUSH_SIGHT_OTHER);
        CHECK(flush_seen_look(&seen, 100, b) == FLUSH_SIGHT_NEW && seen.next == 102);
        CHECK(flush_seen_look(&seen, 102 + FLUSH_SEEN_MAX, b) == FLUSH_SIGHT_FAR);
        CHECK(seen.next == 102 && seen.top == 102 + FLUSH_SEEN_MAX);
        for (uint64_t seq = 102; seq < 100 + 3 * FLUSH_SEEN_MAX; seq++) {
            CHECK(flush_seen_look(&seen, seq, a) == FLUSH_SIGHT_NEW);
        }
        CHECK(seen.next == 100 + 3 * FLUSH_SEEN_MAX);
        CHECK(flush_seen_look(&seen, seen.next - 1, a) == FLUSH_SIGHT_AGAIN);
        CHECK(flush_seen_look(&seen, 100, b) == FLUSH_SIGHT_NEW); /* forgotten: MongoDB knows */
        CHECK(flush_seen_look(&seen, 100 + 2 * FLUSH_SEEN_MAX, a) == FLUSH_SIGHT_AGAIN);
        CHECK(seen.next == 100 + 3 * FLUSH_SEEN_MAX);
    }
}

/* --- FLUSH --- */

static void batches_get_into_mongodb_and_leave_redis(void)
{
    begin();
    make_room("go1");
    make_room("go2");
    make_room("go3");
    push_range(log_key("go1"), "go1", 1, 200);
    push_range(log_key("go2"), "go2", 1, 1);
    push_range(log_key("go3"), "go3", 1, 30);
    add("go1", 1, 1, 200)->check = true;
    add("go2", 2, 1, 1)->check = true;
    add("go3", 3, 1, 30);
    struct job_answer answer = flush();
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && answer.mongodb_ns > 0 && answer.redis_ns > 0);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK(job.rooms[i].result == FLUSH_STORED && job.rooms[i].frozen);
    }
    CHECK(stored("go1", 1, 200) && stored("go2", 1, 1) && stored("go3", 1, 30));
    CHECK(count_keys("*:log") == 0 && count_keys("*:flush:*") == 0);

    /* The same job again: Redis has nothing of it, and says so. */
    answer = flush();
    CHECK(is(&answer, -ENODATA, JOB_WHERE_REDIS));
    CHECK(job.rooms[0].result == FLUSH_UNDONE && job.rooms[2].result == FLUSH_UNDONE);
    CHECK(stored("go1", 1, 200));
}

static void lost_reply_of_a_freeze_is_made_good(void)
{
    begin();
    make_room("fr1");
    make_room("fr2");
    make_room("fr3");
    push_range(frozen_key("fr1", owner, 11), "fr1", 1, 20); /* frozen, and nothing came since */
    push_range(frozen_key("fr2", owner, 12), "fr2", 1, 20); /* frozen, and more came since */
    push_range(log_key("fr2"), "fr2", 21, 22);
    push_range(frozen_key("fr3", owner, 13), "fr3", 1, 20); /* known to be frozen */
    push_range(log_key("fr3"), "fr3", 21, 23);
    add("fr1", 11, 1, 20);
    add("fr2", 12, 1, 20);
    add("fr3", 13, 1, 20)->frozen = true;
    const struct job_answer answer = flush();
    CHECK(is(&answer, 0, JOB_WHERE_NONE));
    CHECK(job.rooms[0].frozen && job.rooms[1].frozen);
    CHECK(stored("fr1", 1, 20) && stored("fr2", 1, 20) && stored("fr3", 1, 20));
    CHECK(count_keys("*:flush:*") == 0);
    CHECK(has_length(log_key("fr2"), "2") && has_length(log_key("fr3"), "3"));
}

static void missing_list_stops_only_its_room(void)
{
    begin();
    make_room("mi1");
    make_room("mi2");
    push_range(log_key("mi2"), "mi2", 1, 5);
    add("mi1", 21, 1, 5);
    add("mi2", 22, 1, 5);
    const struct job_answer answer = flush();
    CHECK(is(&answer, -ENODATA, JOB_WHERE_REDIS) && strstr(answer.why, "mi1") != NULL);
    CHECK(job.rooms[0].result == FLUSH_UNDONE && !job.rooms[0].frozen);
    CHECK(job.rooms[1].result == FLUSH_STORED && stored("mi2", 1, 5));
    CHECK(stored("mi1", 1, 0));
    CHECK(count_keys("*:flush:*") == 0);
}

/* F3: nothing of the room is stored, and its list stays. */
static void hole_in_a_list_stops_its_room(void)
{
    begin();
    make_room("ho1");
    make_room("ho2");
    make_room("ho3");
    make_room("ho4");
    push_range(log_key("ho1"), "ho1", 1, 4);
    push_range(log_key("ho1"), "ho1", 6, 10);
    push_range(log_key("ho2"), "ho2", 3, 10); /* it begins too late */
    push_range(log_key("ho3"), "ho3", 1, 9);  /* it ends too soon */
    push_range(log_key("ho4"), "ho4", 1, 10);
    make_room("ho5");
    push_range(log_key("ho5"), "ho5", 1, 10); /* it is another batch's */
    add("ho1", 31, 1, 10);
    add("ho2", 32, 1, 10);
    add("ho3", 33, 1, 10);
    add("ho4", 34, 1, 10);
    add("ho5", 35, 2, 11);
    const struct job_answer answer = flush();
    CHECK(is(&answer, -ENODATA, JOB_WHERE_REDIS) && strstr(answer.why, "seq 5") != NULL);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK(job.rooms[i].result == FLUSH_UNDONE && job.rooms[i].frozen);
    }
    CHECK(stored("ho1", 1, 0) && stored("ho2", 1, 0) && stored("ho3", 1, 0));
    CHECK(job.rooms[3].result == FLUSH_STORED && stored("ho4", 1, 10));
    CHECK(job.rooms[4].result == FLUSH_UNDONE && stored("ho5", 1, 0));
    CHECK(has_length(frozen_key("ho1", owner, 31), "9"));
    CHECK(has_length(frozen_key("ho2", owner, 32), "8"));
    CHECK(has_length(frozen_key("ho3", owner, 33), "9"));
}

/* What appends leave that were sent again: twice, in another order, and more than was asked for. */
static void repeated_records_are_stored_once(void)
{
    begin();
    make_room("re1");
    store_range("re1", 1, 20);
    push_range(log_key("re1"), "re1", 31, 40);
    push_range(log_key("re1"), "re1", 15, 35);
    push_range(log_key("re1"), "re1", 21, 45);
    push_range(log_key("re1"), "re1", 40, 41);
    add("re1", 41, 21, 40)->check = true;
    const struct job_answer answer = flush();
    CHECK(is(&answer, 0, JOB_WHERE_NONE));
    CHECK(job.rooms[0].result == FLUSH_STORED && stored("re1", 1, 40));
    CHECK(count_keys("*:flush:*") == 0);
}

static void what_is_no_record_of_the_room_stops_it(void)
{
    begin();
    make_room("no1");
    make_room("no2");
    make_room("no3");
    push_range(log_key("no1"), "no1", 1, 3);
    push_one(log_key("no1"), SLICE("hello"));
    push_range(log_key("no2"), "no2", 1, 2);
    push_one(log_key("no2"), record_rig_make("no1", 3));
    push_range(log_key("no3"), "no3", 1, 3);
    push_one(log_key("no3"), record_rig_body("no3", 2, SLICE("another one")));
    add("no1", 51, 1, 3);
    add("no2", 52, 1, 3);
    add("no3", 53, 1, 3);
    const struct job_answer answer = flush();
    CHECK(is(&answer, -ENODATA, JOB_WHERE_REDIS));
    for (uint32_t i = 0; i < 3; i++) {
        CHECK(job.rooms[i].result == FLUSH_UNDONE && job.rooms[i].frozen);
    }
    CHECK(stored("no1", 1, 0) && stored("no2", 1, 0) && stored("no3", 1, 0));
    CHECK(count_keys("*:flush:*") == 3);
}

static void key_that_is_no_list_is_missing(void)
{
    begin();
    make_room("ty1");
    make_room("ty2");
    char command[200];
    (void)redis_client_say(&client, "SET t:{ty1}:log hello");
    (void)snprintf(command, sizeof(command), "SET %s hello", frozen_key("ty2", owner, 62));
    (void)redis_client_say(&client, command);
    add("ty1", 61, 1, 3);
    add("ty2", 62, 1, 3)->frozen = true;
    const struct job_answer answer = flush();
    CHECK(is(&answer, -ENODATA, JOB_WHERE_REDIS));
    CHECK(job.rooms[0].result == FLUSH_UNDONE && job.rooms[1].result == FLUSH_UNDONE);
}

static void bulk_that_was_applied_in_part_is_completed(void)
{
    begin();
    make_room("pa1");
    store_range("pa1", 3, 5);
    store_range("pa1", 9, 9);
    push_range(log_key("pa1"), "pa1", 1, 10);
    add("pa1", 71, 1, 10);
    const struct job_answer answer = flush();
    CHECK(is(&answer, 0, JOB_WHERE_NONE));
    CHECK(job.rooms[0].result == FLUSH_STORED && stored("pa1", 1, 10));
}

static void foreign_message_in_our_place_is_told_and_ours_is_kept(void)
{
    uint8_t result = 77;

    begin();
    make_room("co1");
    const struct slice foreign = record_rig_body("co1", 2, SLICE("{\"of\":\"another one\"}"));
    CHECK(store_mongo_insert(store, &foreign, 1, &result) == 0 && result == STORE_MONGO_STORED);
    push_range(log_key("co1"), "co1", 1, 3);
    add("co1", 81, 1, 3);
    const struct job_answer answer = flush();
    CHECK(is(&answer, 0, JOB_WHERE_NONE));
    CHECK(job.rooms[0].result == FLUSH_STUCK);
    CHECK(count_keys("*:flush:*") == 0); /* quarantine and the journal have it */
}

static void room_is_checked_before_its_first_batch(void)
{
    begin();
    make_room("ch1");
    make_room("ch2");
    store_range("ch1", 1, 3);
    store_range("ch2", 1, 3);
    push_range(log_key("ch1"), "ch1", 5, 9); /* 4 is missing */
    push_range(log_key("ch2"), "ch2", 2, 9); /* repeats what is there */
    push_range(log_key("ch3"), "ch3", 1, 9); /* no such room */
    add("ch1", 91, 5, 9)->check = true;
    add("ch2", 92, 2, 9)->check = true;
    add("ch3", 93, 1, 9)->check = true;
    const struct job_answer answer = flush();
    CHECK(is(&answer, 0, JOB_WHERE_NONE));
    CHECK(job.rooms[0].result == FLUSH_HOLE && stored("ch1", 1, 3));
    CHECK(has_length(frozen_key("ch1", owner, 91), "5"));
    CHECK(job.rooms[1].result == FLUSH_STORED && stored("ch2", 1, 9));
    CHECK(job.rooms[2].result == FLUSH_PASSED);
    CHECK(count_keys("*:flush:*") == 1 && count_keys("*:log") == 0);
}

static void newer_owner_in_redis_fences_us(void)
{
    begin();
    make_room("fe1");
    push_range(log_key("fe1"), "fe1", 1, 3);
    (void)redis_client_say(&client, "SET t:{fe1}:owner 99999");
    add("fe1", 101, 1, 3);
    const struct job_answer answer = flush();
    CHECK(is(&answer, -ESTALE, JOB_WHERE_REDIS));
    CHECK(job.rooms[0].result == FLUSH_UNDONE && stored("fe1", 1, 0));
    CHECK(has_length(log_key("fe1"), "3"));
}

/* F2: Redis is not even looked at. */
static void newer_owner_in_mongodb_fences_us(void)
{
    uint64_t newer = 0;

    begin();
    make_room("fe2");
    push_range(log_key("fe2"), "fe2", 1, 3);
    CHECK(store_mongo_claim(store, &newer) == 0 && newer > owner);
    add("fe2", 111, 1, 3);
    struct job_answer answer = flush();
    CHECK(is(&answer, -ESTALE, JOB_WHERE_MONGODB));
    CHECK(stored("fe2", 1, 0) && has_length(log_key("fe2"), "3"));
    add_record(0, record_rig_make("fe2", 1));
    answer = direct();
    CHECK(is(&answer, -ESTALE, JOB_WHERE_MONGODB) && stored("fe2", 1, 0));
    answer = ask(JOB_DRAIN, owner, NULL);
    CHECK(is(&answer, -ESTALE, JOB_WHERE_MONGODB) && has_length(log_key("fe2"), "3"));
    answer = ask(JOB_END, 0, NULL);
    CHECK(is(&answer, -ESTALE, JOB_WHERE_MONGODB));
    take_over();
}

/* A list of thousands, with repeats, and one of large records: two looks each. */
static void large_lists_are_stored_piece_by_piece(void)
{
    static char body[8000];
    const struct slice text = {body, sizeof(body)};

    begin();
    make_room("la1");
    make_room("la2");
    make_room("la3");
    push_range(log_key("la1"), "la1", 301, 700);
    push_range(log_key("la1"), "la1", 1, 2500);
    add("la1", 121, 1, 2500);
    struct job_answer answer = flush();
    CHECK(is(&answer, 0, JOB_WHERE_NONE));
    CHECK(job.rooms[0].result == FLUSH_STORED && stored("la1", 1, 2500));

    begin();
    memset(body, 'x', sizeof(body));
    push_range(log_key("la3"), "la3", 1, 2);
    for (uint64_t seq = 1; seq <= 600; seq++) {
        push_one(log_key("la2"), record_rig_body("la2", seq, text));
    }
    add("la2", 122, 1, 600);
    add("la3", 123, 1, 2);
    answer = flush();
    CHECK(is(&answer, 0, JOB_WHERE_NONE));
    CHECK(job.rooms[0].result == FLUSH_STORED && job.rooms[1].result == FLUSH_STORED);
    uint64_t last = 0;
    CHECK(store_mongo_last_seq(store, SLICE("la2"), &last) == 0 && last == 600);
    CHECK(stored("la3", 1, 2) && count_keys("*:flush:*") == 0);
}

static void hole_in_a_large_list_is_seen_before_anything_is_stored(void)
{
    begin();
    make_room("lh1");
    make_room("lh2");
    push_range(log_key("lh1"), "lh1", 1, 1900);
    push_range(log_key("lh1"), "lh1", 1902, 2000);
    add("lh1", 131, 1, 2000);
    struct job_answer answer = flush();
    CHECK(is(&answer, -ENODATA, JOB_WHERE_REDIS) && strstr(answer.why, "1901") != NULL);
    CHECK(job.rooms[0].result == FLUSH_UNDONE && stored("lh1", 1, 0));
    CHECK(has_length(frozen_key("lh1", owner, 131), "1999"));

    begin();
    push_range(log_key("lh2"), "lh2", 1, 1500);
    push_one(log_key("lh2"), SLICE("hello"));
    add("lh2", 132, 1, 1500);
    answer = flush();
    CHECK(is(&answer, -ENODATA, JOB_WHERE_REDIS) && stored("lh2", 1, 0));
}

static void redis_that_went_is_connected_again(void)
{
    begin();
    make_room("rc1");
    redis_rig_kill(&redis);
    add("rc1", 141, 1, 3);
    struct job_answer answer = flush();
    CHECK(is(&answer, -EAGAIN, JOB_WHERE_REDIS));
    CHECK(job.rooms[0].result == FLUSH_UNDONE && !job.rooms[0].frozen);
    answer = flush();
    CHECK(is(&answer, -EAGAIN, JOB_WHERE_REDIS));
    redis_rig_start(&redis, "");
    CHECK(redis_connect(client.redis) == 0);
    answer = flush();
    CHECK(is(&answer, -ENODATA, JOB_WHERE_REDIS)); /* it came back empty */
    push_range(log_key("rc1"), "rc1", 1, 3);
    answer = flush();
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && stored("rc1", 1, 3));
}

/* The list of a stored batch that could not be unlinked goes with the next job. */
static void unlink_that_failed_is_made_up_for(void)
{
    begin();
    make_room("un1");
    make_room("un2");
    push_range(log_key("un1"), "un1", 1, 3);
    (void)redis_client_say(&client, "ACL SETUSER default -unlink");
    add("un1", 151, 1, 3);
    struct job_answer answer = flush();
    CHECK(answer.status < 0 && answer.where == JOB_WHERE_REDIS);
    CHECK(job.rooms[0].result == FLUSH_STORED && stored("un1", 1, 3));
    CHECK(has_length(frozen_key("un1", owner, 151), "3"));
    (void)redis_client_say(&client, "ACL SETUSER default +unlink");
    job.room_count = 0;
    push_range(log_key("un2"), "un2", 1, 3);
    add("un2", 152, 1, 3);
    answer = flush();
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && stored("un2", 1, 3));
    CHECK(count_keys("*:flush:*") == 0);
}

/* --- DIRECT --- */

static void direct_records_get_into_mongodb(void)
{
    begin();
    make_room("di1");
    make_room("di2");
    make_room("di3");
    store_range("di2", 1, 1);
    add("di1", 0, 1, 3)->check = true;
    add("di2", 0, 3, 4)->check = true;
    add("di0", 0, 1, 1)->check = true;
    add("di3", 0, 5, 5);
    add_record(0, record_rig_make("di1", 1));
    add_record(1, record_rig_make("di2", 3));
    add_record(0, record_rig_make("di1", 2));
    add_record(2, record_rig_make("di0", 1));
    add_record(3, record_rig_make("di3", 5));
    add_record(0, record_rig_make("di1", 3));
    add_record(1, record_rig_make("di2", 4));
    struct job_answer answer = direct();
    CHECK(is(&answer, 0, JOB_WHERE_NONE));
    CHECK(job.rooms[0].result == FLUSH_STORED && stored("di1", 1, 3));
    CHECK(job.rooms[1].result == FLUSH_HOLE && stored("di2", 1, 1));
    CHECK(job.rooms[2].result == FLUSH_PASSED);
    CHECK(job.rooms[3].result == FLUSH_STORED && stored("di3", 5, 5));

    answer = direct(); /* again: a reply was lost */
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && job.rooms[0].result == FLUSH_STORED);
    CHECK(stored("di1", 1, 3));
    job.rooms[1].renew = true; /* salvage lost what was between */
    answer = direct();
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && job.rooms[1].result == FLUSH_STORED);
}

static void conflict_of_direct_records_sticks(void)
{
    begin();
    make_room("dc1");
    make_room("dc2");
    store_range("dc1", 1, 2);
    add("dc1", 0, 2, 2);
    add("dc2", 0, 1, 1);
    add_record(0, record_rig_body("dc1", 2, SLICE("{\"of\":\"another one\"}")));
    add_record(1, record_rig_make("dc2", 1));
    const struct job_answer answer = direct();
    CHECK(is(&answer, 0, JOB_WHERE_NONE));
    CHECK(job.rooms[0].result == FLUSH_STUCK && job.rooms[1].result == FLUSH_STORED);
    CHECK(stored("dc1", 1, 2));
}

/* persist.flush_mode = sync and persist.cache = none. */
static void bulks_of_one_without_redis_work_too(void)
{
    begin();
    flusher_end();
    flusher_begin(1, false);
    take_over();
    make_room("on1");
    add("on1", 0, 1, 20)->check = true;
    for (uint64_t seq = 1; seq <= 20; seq++) {
        add_record(0, record_rig_make("on1", seq));
    }
    struct job_answer answer = direct();
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && job.rooms[0].result == FLUSH_STORED);
    CHECK(stored("on1", 1, 20));
    answer = ask(JOB_DRAIN, owner, NULL);
    CHECK(is(&answer, 0, JOB_WHERE_NONE) && answer.number == 0);
    answer = ask(JOB_END, 0, NULL);
    CHECK(is(&answer, 0, JOB_WHERE_NONE));
    flusher_end();
    flusher_begin(MONGO_BULK_MAX, true);
    take_over();
}

/* --- start, end, opening --- */

static void unreachable_mongodb_is_told_in_time(void)
{
    char uri[64];
    struct mongo *nowhere = NULL;

    begin();
    flusher_end();
    (void)snprintf(uri, sizeof(uri), "mongodb://127.0.0.1:%u/damso", rig_free_port());
    CHECK(open_with(uri, MONGO_BULK_MAX, true, &nowhere) == 0);
    struct job_answer answer = ask(JOB_START, 0, NULL);
    CHECK(is(&answer, -EAGAIN, JOB_WHERE_MONGODB));
    CHECK(answer.ns < UINT64_C(8) * 1000 * 1000 * 1000);
    push_range(log_key("aa1"), "aa1", 1, 3);
    add("aa1", 1, 1, 3);
    answer = flush();
    CHECK(is(&answer, -EAGAIN, JOB_WHERE_MONGODB) && job.rooms[0].result == FLUSH_UNDONE);
    CHECK(has_length(log_key("aa1"), "3"));
    worker_stop(flusher_worker(flusher));
    flusher_close(flusher);
    mongo_close(nowhere);
    mem_end(&plan);
    flusher_begin(MONGO_BULK_MAX, true);
    take_over();
}

static void wrong_options_leave_nothing_open(void)
{
    char why[512] = "";
    struct mem_plan count;
    struct flusher *none = NULL;
    const struct worker_options worker = asker_worker(&asker, "flush");
    struct cache_options cache = cache_options();
    struct mongo *pool = NULL;

    mem_init(&count, "test", MEM_MAP);
    const struct mongo_options mongo_options = {
        .uri = mongo.uri, .connect_ms = 3000, .socket_ms = 30000, .clients = 1, .plan = &count};
    CHECK(mongo_open(&mongo_options, &pool, why, sizeof(why)) == 0);
    struct flush_options options = {.cache = &cache,
                                    .mongo = pool,
                                    .bulk_max = 1,
                                    .keys_max = KEYS_MAX,
                                    .boot_id = SLICE("0123")};
    cache.url = "redis:/nonsense";
    CHECK(flusher_open(&options, &worker, &count, &none, why, sizeof(why)) == -EINVAL);
    CHECK(none == NULL && why[0] != '\0');
    mongo_close(pool);
    mem_end(&count);

    mem_init(&count, "test", MEM_COUNT);
    options.mongo = NULL;
    CHECK(flusher_open(&options, &worker, &count, &none, why, sizeof(why)) == 0);
    CHECK(none == NULL && count.total > JOB_FLUSH_BYTES);
    mem_end(&count);
}

static void run_flush_tests(void)
{
    batches_get_into_mongodb_and_leave_redis();
    lost_reply_of_a_freeze_is_made_good();
    missing_list_stops_only_its_room();
    hole_in_a_list_stops_its_room();
    repeated_records_are_stored_once();
    what_is_no_record_of_the_room_stops_it();
    key_that_is_no_list_is_missing();
    bulk_that_was_applied_in_part_is_completed();
    foreign_message_in_our_place_is_told_and_ours_is_kept();
    room_is_checked_before_its_first_batch();
    newer_owner_in_redis_fences_us();
    newer_owner_in_mongodb_fences_us();
    large_lists_are_stored_piece_by_piece();
    hole_in_a_large_list_is_seen_before_anything_is_stored();
    redis_that_went_is_connected_again();
    unlink_that_failed_is_made_up_for();
}

int main(void)
{
    seqs_are_told_apart_over_any_length();
    if (mongo_rig_server() == NULL) {
        return mongo_rig_skip(1);
    }
    rig_begin();
    run_flush_tests();
    direct_records_get_into_mongodb();
    conflict_of_direct_records_sticks();
    bulks_of_one_without_redis_work_too();
    unreachable_mongodb_is_told_in_time();
    wrong_options_leave_nothing_open();
    rig_end();
    puts("22 passed, 0 failed");
    return 0;
}
