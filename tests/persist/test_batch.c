/*
 * test_batch.c - what happens when the store refuses: nothing is lost, nothing is told that is not
 *                stored, reads go on, and it mends itself.
 *
 * Method: the store's table of functions (persist/store.h) is exchanged for one whose begin, append
 *         and commit fail on demand; every test proves by a counter that they did. The last test
 *         fails the n-th call of all, for every n.
 */
#include "persist/thread.h"
#include "tests/persist/persist_rig.h"

#include <errno.h>

enum { NTH_MAX = 60, NEVER = -1 };

static char directory[RIG_PATH_BYTES];
static struct config config;
static struct persist *persist;
static struct metrics metrics;
static struct rig_shard shards[2];
static struct persist_lane *lanes[2];

/* --- failures on demand: written by the test, read by the persistence thread --- */

static const struct store_ops *real;
static struct store_ops faulty;
static _Atomic int begin_error;
static _Atomic int append_error;
static _Atomic int commit_error;
static _Atomic int fail_in; /* so many calls are still good, then one fails; NEVER: none does */
static _Atomic int failures;

static int failure(const _Atomic int *error)
{
    int result = atomic_load(error);

    if (atomic_load(&fail_in) != NEVER && atomic_fetch_sub(&fail_in, 1) == 0) {
        result = -EIO;
    }
    if (result < 0) {
        atomic_fetch_add(&failures, 1);
    }
    return result;
}

static int faulty_begin(struct store *store)
{
    const int error = failure(&begin_error);
    return error < 0 ? error : real->begin(store);
}

static int faulty_commit(struct store *store)
{
    const int error = failure(&commit_error);
    return error < 0 ? error : real->commit(store);
}

static int faulty_append(struct store *store, const struct record *record, bool holes_taken)
{
    const int error = failure(&append_error);
    return error < 0 ? error : real->append(store, record, holes_taken);
}

/* --- the persistence thread under test --- */

static void open_persist(void)
{
    char why[512] = "";

    config_defaults(&config);
    (void)snprintf(config.server_data, sizeof(config.server_data), "%s", directory);
    config.persist_ring_bytes = RIG_RING_BYTES;
    CHECK(persist_open(&config, &persist, why, sizeof(why)) == 0);
    CHECK(persist_replay_end(persist) == 0);
    real = persist->store->ops;
    faulty = *real;
    faulty.begin = faulty_begin;
    faulty.commit = faulty_commit;
    faulty.append = faulty_append;
    persist->store->ops = &faulty;
    for (int i = 0; i < 2; i++) {
        rig_shard_open(&shards[i], RIG_RING_BYTES);
        lanes[i] = &shards[i].lane;
    }
    metrics = (struct metrics){0};
    CHECK(persist_start(persist, lanes, 2, &metrics) == 0);
    for (int i = 0; i < 2; i++) {
        rig_shard_enable(&shards[i], persist); /* this thread is both shards */
    }
}

static void close_persist(void)
{
    persist_close(persist);
    for (int i = 0; i < 2; i++) {
        rig_shard_close(&shards[i]);
    }
}

static void mend(void)
{
    atomic_store(&begin_error, 0);
    atomic_store(&append_error, 0);
    atomic_store(&commit_error, 0);
}

static void begin_test(void)
{
    mend();
    atomic_store(&fail_in, NEVER);
    atomic_store(&failures, 0);
    rig_make(directory);
    open_persist();
    rig_make_room(&shards[0], "r");
}

static void end_test(void)
{
    CHECK(atomic_load(&failures) > 0); /* else nothing was proved */
    close_persist();
    rig_remove(directory);
}

static void wait_failures(int count)
{
    for (int waits = 0; atomic_load(&failures) < count && waits < 10000; waits++) {
        CHECK(usleep(1000) == 0);
    }
    CHECK(atomic_load(&failures) >= count);
}

static bool history_is(const char *room, const char *expected)
{
    rig_ask_history(&shards[0], room, 1, UINT64_MAX, 1 << 20, false);
    const char *shown = rig_history(&shards[0], room);
    if (strcmp(shown, expected) != 0) {
        (void)fprintf(stderr, "shown \"%s\", expected \"%s\"\n", shown, expected);
    }
    return strcmp(shown, expected) == 0;
}

static void reopen_and_expect(const char *room, const char *expected)
{
    close_persist();
    open_persist();
    CHECK(history_is(room, expected));
}

static void send_burst(uint64_t from, uint64_t to)
{
    for (uint64_t seq = from; seq <= to; seq++) {
        rig_send(&shards[0], "r", RIG_EPOCH, seq);
    }
    rig_publish(&shards[0]);
}

/* --- tests --- */

static void refused_commit_keeps_the_records_and_shows_them(void)
{
    begin_test();
    send_burst(1, 10);
    rig_wait_watermark(&shards[0], shards[0].position);
    atomic_store(&commit_error, -ENOSPC);
    const uint64_t before = shards[0].position;
    send_burst(11, 20);
    wait_failures(2); /* tried again by itself */
    CHECK(!persist_is_well(persist));
    CHECK(history_is("r", "1-20")); /* P1 holds though nothing can be committed */
    send_burst(21, 30);
    CHECK(history_is("r", "1-30"));
    CHECK(shards[0].watermark == before); /* P2 */
    mend();
    rig_wait_watermark(&shards[0], shards[0].position);
    CHECK(persist_is_well(persist));
    CHECK(metrics_get(&metrics.persist_retries_total) > 0);
    reopen_and_expect("r", "1-30");
    end_test();
}

static void what_was_shown_but_refused_is_not_stored(void)
{
    begin_test();
    send_burst(1, 5);
    rig_wait_watermark(&shards[0], shards[0].position);
    atomic_store(&commit_error, -EIO);
    send_burst(6, 9);
    wait_failures(1);
    CHECK(history_is("r", "1-9"));
    reopen_and_expect("r", "1-5"); /* the journal has the rest: no watermark passed it */
    mend();
    end_test();
}

static void store_that_takes_no_transaction_makes_reads_wait_their_turn(void)
{
    struct rig_shard *shard = &shards[0];

    begin_test();
    atomic_store(&begin_error, -EBUSY);
    send_burst(1, 5);
    wait_failures(1);
    /* A read that would miss records is not answered by a guess: a wrong last seq would be given to
     * two messages. */
    for (int i = 0; i < 20; i++) { /* during several attempts, and between them */
        rig_ask_load(shard, "r");
        CHECK(rig_status(shard, PERSIST_ROOM) == -EAGAIN);
        rig_ask_history(shard, "r", 1, 9, 1 << 20, false);
        CHECK(rig_status(shard, PERSIST_HISTORY_PAGE) == -EAGAIN);
        CHECK(usleep(10000) == 0);
    }
    mend();
    rig_wait_watermark(shard, shard->position);
    CHECK(history_is("r", "1-5"));
    end_test();
}

static void append_that_fails_is_done_again(void)
{
    begin_test();
    atomic_store(&append_error, -EIO);
    send_burst(1, 5);
    wait_failures(1);
    send_burst(6, 9);
    CHECK(shards[0].watermark == 0);
    mend();
    rig_wait_watermark(&shards[0], shards[0].position);
    reopen_and_expect("r", "1-9");
    end_test();
}

static void account_that_cannot_be_committed_is_refused_and_not_there(void)
{
    struct rig_shard *shard = &shards[0];

    begin_test();
    atomic_store(&commit_error, -ENOSPC);
    rig_ask_user(shard, PERSIST_USER_ENSURE, "u1", "Ann", "", "");
    CHECK(rig_status(shard, PERSIST_USER) == -EAGAIN); /* was held, and the commit failed */
    rig_ask_create(shard, "s");
    CHECK(rig_status(shard, PERSIST_ROOM) == -EAGAIN); /* is not even tried */
    mend();
    rig_ask_user(shard, PERSIST_USER_GET, "u1", "", "", "");
    CHECK(rig_status(shard, PERSIST_USER) == -ENOENT);
    for (int attempt = 0; attempt < 100; attempt++) { /* until the backoff is over */
        rig_ask_create(shard, "s");
        const int status = rig_status(shard, PERSIST_ROOM);
        CHECK(status == 0 || status == -EAGAIN);
        if (status == 0) {
            break;
        }
        CHECK(usleep(20000) == 0);
    }
    rig_ask_load(shard, "s");
    CHECK(rig_status(shard, PERSIST_MEMBERS) == 0);
    CHECK(rig_status(shard, PERSIST_ROOM) == 0);
    CHECK(persist_is_well(persist));
    end_test();
}

static void lane_within_its_bound_reads_on_whatever_another_does(void)
{
    uint64_t sent = 0;

    begin_test();
    rig_make_room(&shards[1], "q");
    atomic_store(&commit_error, -ENOSPC);
    /* One shard fills its ring to the brim: far beyond persist_unstored_max. */
    for (uint8_t *space = (uint8_t *)1; space != NULL;) {
        rig_send(&shards[1], "q", RIG_EPOCH, ++sent);
        rig_publish(&shards[1]);
        space = spsc_reserve(&shards[1].lane.requests, 4096);
        for (int waits = 0; space == NULL && waits < 50; waits++) {
            CHECK(usleep(1000) == 0);
            space = spsc_reserve(&shards[1].lane.requests, 4096);
        }
    }
    CHECK(sent * 60 > persist_unstored_max(persist));
    wait_failures(2);
    send_burst(1, 10);
    CHECK(history_is("r", "1-10")); /* the other one does not notice */
    mend();
    rig_wait_watermark(&shards[1], shards[1].position);
    rig_wait_watermark(&shards[0], shards[0].position);
    end_test();
}

static void closing_while_refusing_is_no_clean_stop(void)
{
    begin_test();
    rig_ask_create_as(&shards[0], "memory", CONFIG_DURABILITY_MEMORY);
    CHECK(rig_status(&shards[0], PERSIST_ROOM) == 0);
    close_persist();
    open_persist();
    CHECK(rig_epoch(&shards[0], "memory") == RIG_EPOCH); /* that was one */
    atomic_store(&commit_error, -EIO);
    send_burst(1, 3);
    wait_failures(1);
    close_persist();
    mend();
    open_persist();
    CHECK(rig_epoch(&shards[0], "memory") != RIG_EPOCH);
    CHECK(history_is("r", ""));
    send_burst(1, 3); /* what the journal would replay */
    rig_wait_watermark(&shards[0], shards[0].position);
    CHECK(history_is("r", "1-3"));
    end_test();
}

static void closing_tries_once_more_before_the_backoff_is_over(void)
{
    begin_test();
    rig_ask_create_as(&shards[0], "memory", CONFIG_DURABILITY_MEMORY);
    CHECK(rig_status(&shards[0], PERSIST_ROOM) == 0);
    atomic_store(&commit_error, -EIO);
    send_burst(1, 3);
    wait_failures(5); /* the next attempt would be 800 ms later */
    mend();
    close_persist();
    open_persist();
    CHECK(history_is("r", "1-3"));
    CHECK(rig_epoch(&shards[0], "memory") == RIG_EPOCH); /* a clean stop after all */
    end_test();
}

/* A little of everything, with the n-th call of the store failing. */
static void one_failure_among_all(int nth)
{
    struct rig_shard *shard = &shards[0];
    char expected[32];
    uint64_t seq = 0;

    begin_test();
    atomic_store(&fail_in, nth);
    for (int round = 0; round < 8; round++) {
        send_burst(seq + 1, seq + 5);
        seq += 5;
        rig_ask_user(shard, PERSIST_USER_ENSURE, "u1", "Ann", "", "");
        const int status = rig_status(shard, PERSIST_USER);
        CHECK(status == 0 || status == -EAGAIN);
        if (status == 0) {
            rig_ask_user(shard, PERSIST_USER_GET, "u1", "", "", "");
            CHECK(rig_status(shard, PERSIST_USER) == 0); /* told only when it was stored */
        }
    }
    rig_wait_watermark(shard, shard->position);
    CHECK(persist_is_well(persist));
    (void)snprintf(expected, sizeof(expected), "1-%lu", (unsigned long)seq);
    reopen_and_expect("r", expected);
    close_persist();
    rig_remove(directory);
}

static void any_one_failure_loses_nothing(void)
{
    int failed = 0;

    for (int nth = 0; nth < NTH_MAX; nth++) {
        one_failure_among_all(nth);
        failed += atomic_load(&failures);
    }
    CHECK(failed > NTH_MAX / 2); /* the last few lie behind the last call of a run */
}

int main(void)
{
    refused_commit_keeps_the_records_and_shows_them();
    what_was_shown_but_refused_is_not_stored();
    store_that_takes_no_transaction_makes_reads_wait_their_turn();
    append_that_fails_is_done_again();
    account_that_cannot_be_committed_is_refused_and_not_there();
    lane_within_its_bound_reads_on_whatever_another_does();
    closing_while_refusing_is_no_clean_stop();
    closing_tries_once_more_before_the_backoff_is_over();
    any_one_failure_loses_nothing();
    puts("9 passed, 0 failed");
    return 0;
}
