/*
 * test_journal.c - what the journal calls durable is there after any crash, and nothing else is.
 *
 * Method: the whole journal and recovery on the simulated disk of tests/sim/os_disk.h, with small
 *         segments and buffers, so that a full ring, a full segment and a reused one are the usual
 *         states. Thousands of power cuts from a seed; the n-th call fails for every n. A failing
 *         seed is printed; run the program with it as argument to repeat it alone.
 */
#include "tests/fileio/journal_rig.h"
#include "tests/sim/os_disk.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    SEGMENT = 16 * 4096,
    SEGMENTS = 5,
    BUFFER = 4 * 4096,
    DISK = 1 << 24,
    HISTORY = 1 << 16,
};

static const char directory[] = "journal";

static struct rig rig;
static uint64_t last_handed;        /* position */
static uint32_t size_max = 700;     /* of records; 8: all alike, so that what an earlier life left
                                       behind has its records at the same places */
static uint32_t release_one_in = 8; /* records */
static char seed_text[64];          /* told when a check fails */

static void fresh_rig(uint64_t first_segment)
{
    rig.metrics = (struct metrics){0};
    rig.options = (struct journal_options){
        .directory = directory,
        .segment_bytes = SEGMENT,
        .bytes_max = (uint64_t)SEGMENTS * SEGMENT,
        .buffer_bytes = BUFFER,
        .first_segment = first_segment,
    };
}

static int recover(struct found *found, struct recovery_report *report)
{
    char why[1024] = "";
    *found = (struct found){.size_max = size_max};
    const int error = recovery_run(directory, false, found_record, found, report, why, sizeof(why));
    if (error < 0) {
        (void)fprintf(stderr, "%s\n", why);
    }
    return error;
}

static void record_is_durable_after_its_commit_and_not_before(void)
{
    struct found found;
    struct recovery_report report;

    disk_reset(1, DISK);
    fresh_rig(1);
    CHECK(rig_open(&rig) == 0);
    const uint64_t first = rig_append(&rig, 1, size_max, DURABILITY_FSYNC);
    const uint64_t second = rig_append(&rig, 2, size_max, DURABILITY_FSYNC);
    CHECK(first > 0 && second > first);
    CHECK(journal_durable(rig.journal) == 0);
    journal_commit(rig.journal);
    CHECK(journal_durable(rig.journal) == 0);
    CHECK(!journal_is_idle(rig.journal));
    const uint64_t third = rig_append(&rig, 3, size_max, DURABILITY_FSYNC);
    while (journal_durable(rig.journal) == 0) {
        rig_turn(&rig, 0);
    }
    CHECK(journal_durable(rig.journal) == second); /* not the third, which came during the commit */
    CHECK(third > second);
    disk_power_cut();
    CHECK(recover(&found, &report) == 0);
    CHECK(found.count >= 2 && found.first == 1);
    mem_end(&rig.plan);
}

static void what_was_asked_for_decides_about_the_sync(void)
{
    struct found found;
    struct recovery_report report;

    disk_reset(2, DISK);
    fresh_rig(1);
    CHECK(rig_open(&rig) == 0);
    CHECK(rig_append(&rig, 1, size_max, DURABILITY_FSYNC) > 0);
    rig_turn(&rig, 0);
    rig_settle(&rig); /* the spare is prepared too, with a sync of its own */
    const uint64_t before = disk_syncs();
    CHECK(rig_append(&rig, 2, size_max, DURABILITY_JOURNAL) > 0);
    rig_turn(&rig, 0);
    rig_settle(&rig);
    CHECK(rig_append(&rig, 3, size_max, DURABILITY_MEMORY) > 0);
    rig_turn(&rig, 0);
    rig_settle(&rig);
    CHECK(disk_syncs() == before);
    /* A group that a promise rests on pays for those before it: one sync, and its own. */
    CHECK(rig_append(&rig, 4, size_max, DURABILITY_MEMORY) > 0);
    CHECK(rig_append(&rig, 5, size_max, DURABILITY_FSYNC) > 0);
    rig_turn(&rig, 0);
    rig_settle(&rig);
    CHECK(disk_syncs() == before + 2);
    CHECK(rig_append(&rig, 6, size_max, DURABILITY_FSYNC) > 0);
    rig_turn(&rig, 0);
    rig_settle(&rig);
    CHECK(disk_syncs() == before + 3);
    disk_kill();
    CHECK(recover(&found, &report) == 0);
    CHECK(found.count == 6);
    mem_end(&rig.plan);
}

static void choose_sizes(void)
{
    static const uint32_t sizes[] = {8, 700, 9000};
    size_max = sizes[disk_random() % 3];
    release_one_in = size_max > 1000 || disk_random() % 2 == 0 ? 8 : 200;
}

static void usual_sizes(void)
{
    size_max = 700;
    release_one_in = 8;
}

/* Gives out what there is, and tells the journal now and then that the store has it; always when
 * the journal is full and waits for nothing else. */
static void consume(uint64_t *handed, uint64_t *released, uint32_t maximum)
{
    bool store_is_done = false;

    for (uint32_t i = 0; i < maximum; i++) {
        uint64_t position = 0;
        uint32_t size = 0;
        const void *record = journal_handover(rig.journal, &size, &position);
        if (record == NULL) {
            store_is_done = journal_state(rig.journal) == JOURNAL_FULL;
            break;
        }
        CHECK(position <= journal_durable(rig.journal)); /* J1 */
        CHECK(rig_index(record, size, size_max) == *handed + 1);
        CHECK(journal_handover(rig.journal, &size, &position) == record);
        journal_handover_next(rig.journal);
        (*handed)++;
        last_handed = position;
        store_is_done = disk_random() % release_one_in == 0;
        if (store_is_done) {
            journal_release(rig.journal, last_handed);
            *released = *handed;
        }
    }
    if (store_is_done && *handed > *released) {
        journal_release(rig.journal, last_handed);
        *released = *handed;
    }
}

static void every_record_is_handed_over_once_whatever_the_pace(void)
{
    uint64_t reads = 0;

    for (uint64_t seed = 1; seed <= 300; seed++) {
        uint64_t appended = 0;
        uint64_t handed = 0;
        uint64_t released = 0;

        (void)snprintf(seed_text, sizeof(seed_text), "the seed was %" PRIu64 "\n", seed);
        disk_reset(seed, DISK);
        choose_sizes();
        fresh_rig(1);
        CHECK(rig_open(&rig) == 0);
        for (int step = 0; step < 1500; step++) {
            const uint32_t burst = (uint32_t)(disk_random() % (seed % 2 == 0 ? 4 : 40));
            for (uint32_t i = 0; i < burst; i++) {
                appended += rig_append(&rig, appended + 1, size_max,
                                       (enum journal_durability)(disk_random() % 3)) > 0;
            }
            rig_turn(&rig, 0);
            if (step / 100 % 3 != 0) { /* a consumer that stops for a while, then catches up */
                consume(&handed, &released, (uint32_t)(disk_random() % 60));
            }
        }
        for (int turn = 0; turn < 20000 && handed < appended; turn++) {
            rig_turn(&rig, 0);
            consume(&handed, &released, 100);
        }
        CHECK(handed == appended);
        CHECK(appended > 300);
        CHECK(released <= handed);
        CHECK(journal_state(rig.journal) != JOURNAL_FAILED);
        reads += rig.reads;
        rig_settle(&rig);
        rig_close(&rig);
    }
    CHECK(reads > 1000); /* it did fall back to reading */
    usual_sizes();
}

static void bound_refuses_and_release_lets_in_again(void)
{
    uint64_t appended = 0;
    uint64_t handed = 0;
    uint64_t position = 0;
    uint32_t size = 0;

    disk_reset(4, DISK);
    fresh_rig(1);
    CHECK(rig_open(&rig) == 0);
    for (int turn = 0; turn < 5000; turn++) {
        appended += rig_append(&rig, appended + 1, size_max, DURABILITY_FSYNC) > 0;
        rig_turn(&rig, 1000000);
    }
    CHECK(journal_state(rig.journal) == JOURNAL_FULL);
    CHECK(journal_backlog_bytes(rig.journal) > (uint64_t)(SEGMENTS - 1) * SEGMENT);
    CHECK(journal_backlog_bytes(rig.journal) <= (uint64_t)SEGMENTS * SEGMENT);
    rig_settle(&rig);
    while (handed < appended) {
        const void *record = journal_handover(rig.journal, &size, &position);
        if (record != NULL) {
            CHECK(rig_index(record, size, size_max) == ++handed);
            journal_handover_next(rig.journal);
        }
        rig_turn(&rig, 0);
    }
    CHECK(journal_state(rig.journal) == JOURNAL_FULL); /* handed over is not stored */
    journal_release(rig.journal, position);
    CHECK(journal_backlog_bytes(rig.journal) == 0);
    rig_turn(&rig, 0);
    rig_settle(&rig);
    CHECK(journal_state(rig.journal) == JOURNAL_OK);
    CHECK(rig_append(&rig, appended + 1, size_max, DURABILITY_FSYNC) > 0);
    rig_close(&rig);
}

static void full_disk_refuses_until_there_is_room(void)
{
    struct found found;
    struct recovery_report report;
    uint64_t appended = 0;

    disk_reset(5, 2 * SEGMENT + SEGMENT / 2); /* the third segment does not fit */
    fresh_rig(1);
    CHECK(rig_open(&rig) == 0);
    for (int turn = 0; turn < 3000; turn++) {
        appended += rig_append(&rig, appended + 1, size_max, DURABILITY_FSYNC) > 0;
        rig_turn(&rig, 1000000);
    }
    CHECK(journal_state(rig.journal) == JOURNAL_FULL);
    const uint64_t calls = disk_calls();
    for (int turn = 0; turn < 1000; turn++) {
        rig_turn(&rig, 0);
    }
    CHECK(disk_calls() - calls < 10); /* 50 ms: no storm of tries */
    disk_capacity_set(DISK);
    CHECK(journal_state(rig.journal) == JOURNAL_FULL);
    disk_clock_advance(1100000000);
    rig_turn(&rig, 0);
    rig_settle(&rig);
    CHECK(journal_state(rig.journal) == JOURNAL_OK);
    const uint64_t position = rig_append(&rig, appended + 1, size_max, DURABILITY_FSYNC);
    CHECK(position > 0);
    rig_turn(&rig, 0);
    rig_settle(&rig);
    CHECK(journal_durable(rig.journal) == position);
    disk_power_cut();
    CHECK(recover(&found, &report) == 0);
    CHECK(found.first == 1 && found.last == appended + 1);
    mem_end(&rig.plan);
}

/* --- crashes --- */

/* What the test knows of a run: which records were called durable, and how far the store is. */
struct history {
    uint64_t appended;
    uint64_t synced; /* last record that asked for a sync and was called durable */
    uint64_t released;
    uint64_t handed;
    struct {
        uint64_t position;
        bool sync;
    } records[HISTORY];
    uint64_t looked; /* records up to here were compared with journal_durable */
};

static struct history history;

static void note_durable(void)
{
    while (history.looked < history.appended &&
           history.records[history.looked + 1].position <= journal_durable(rig.journal)) {
        history.looked++;
        if (history.records[history.looked].sync) {
            history.synced = history.looked;
        }
    }
}

static void append_some(uint32_t count, uint32_t mode)
{
    for (uint32_t i = 0; i < count && history.appended + 1 < HISTORY; i++) {
        const enum journal_durability durability =
            mode == 0 ? DURABILITY_FSYNC : (enum journal_durability)(disk_random() % 3);
        const uint64_t position = rig_append(&rig, history.appended + 1, size_max, durability);
        if (position == 0) {
            return;
        }
        history.appended++;
        history.records[history.appended].position = position;
        history.records[history.appended].sync = durability == DURABILITY_FSYNC;
    }
}

/* A life of the server up to some moment. */
static void live(uint32_t steps)
{
    const uint32_t mode = (uint32_t)(disk_random() % 2);
    const uint32_t burst = 1 + (uint32_t)(disk_random() % 30);
    for (uint32_t step = 0; step < steps; step++) {
        append_some((uint32_t)(disk_random() % burst), mode);
        rig_turn(&rig, 0);
        note_durable();
        consume(&history.handed, &history.released, (uint32_t)(disk_random() % 40));
    }
}

/* Checks what a recovery found against the history, and begins the next run's. */
static void judge(const struct found *found, bool power_was_cut)
{
    CHECK(found->count == 0 || found->first <= history.released + 1);
    const uint64_t needed = power_was_cut ? history.synced : history.looked;
    CHECK(needed <= history.released || (found->count > 0 && found->last >= needed));
    CHECK(found->count == 0 || found->last <= history.appended);
    /* The store now has what was found: the next run goes on behind it. */
    history.appended =
        found->count > 0 && found->last > history.released ? found->last : history.released;
    history.synced = history.looked = history.handed = history.released = history.appended;
}

static void crash(bool cut)
{
    if (cut) {
        disk_power_cut();
    } else {
        disk_kill();
    }
    mem_end(&rig.plan);
}

/* Several lives on one disk, each ended by a crash; also crashes in the middle of a retirement. */
static void crashes_of_seed(uint64_t seed)
{
    struct found found;
    struct recovery_report report = {.first_segment = 1};

    disk_reset(seed, DISK);
    choose_sizes();
    history.appended = history.synced = history.released = history.handed = history.looked = 0;
    for (int life = 0; life < 4; life++) {
        fresh_rig(report.first_segment);
        CHECK(rig_open(&rig) == 0);
        live((uint32_t)(disk_random() % 400));
        const bool cut = disk_random() % 4 != 0;
        if (disk_random() % 8 == 0) {
            rig_settle(&rig);
            note_durable();
            rig_close(&rig);
            disk_power_cut();
        } else {
            crash(cut);
        }
        CHECK(recover(&found, &report) == 0);
        judge(&found, cut);
        if (disk_random() % 4 == 0) {
            disk_fail(1 + disk_random() % 20, DISK_FAULT_EIO);
            (void)!recovery_retire(directory);
            disk_power_cut();
            CHECK(recover(&found, &report) == 0); /* what is left is still an unbroken row */
            CHECK(found.count == 0 || found.last <= history.appended);
        }
        CHECK(recovery_retire(directory) == 0);
        CHECK(recover(&found, &report) == 0);
        CHECK(found.count == 0);
    }
}

static void tell_seed(int signal_number)
{
    (void)signal_number;
    (void)!write(STDERR_FILENO, seed_text, strlen(seed_text));
}

static void power_cuts_take_nothing_that_was_durable(uint64_t only)
{
    for (uint64_t seed = only > 0 ? only : 1; seed <= (only > 0 ? only : 750); seed++) {
        (void)snprintf(seed_text, sizeof(seed_text), "the seed was %" PRIu64 "\n", seed);
        crashes_of_seed(seed);
    }
    usual_sizes();
}

/* The same life with the n-th call failing. True: the call happened. */
static bool life_with_fault(uint64_t nth, enum disk_fault fault)
{
    struct found found;
    struct recovery_report report;

    disk_reset(99, DISK);
    history.appended = history.synced = history.released = history.handed = history.looked = 0;
    fresh_rig(1);
    CHECK(rig_open(&rig) == 0);
    disk_fail(nth, fault);
    uint64_t calls_at_failure = 0;
    for (int step = 0; step < 120; step++) {
        append_some(12, 1);
        rig_turn(&rig, 1000000);
        note_durable();
        if (calls_at_failure == 0 && journal_state(rig.journal) == JOURNAL_FAILED) {
            calls_at_failure = disk_calls();
        }
        consume(&history.handed, &history.released, 20);
        if (disk_random() % 64 == 0) {
            disk_clock_advance(1000000000);
        }
    }
    if (journal_state(rig.journal) == JOURNAL_FAILED) {
        CHECK(disk_failed());
        rig_settle(&rig);
        const uint64_t durable = journal_durable(rig.journal);
        CHECK(rig_append(&rig, history.appended + 1, size_max, DURABILITY_MEMORY) == 0);
        for (int turn = 0; turn < 50; turn++) {
            rig_turn(&rig, 0);
        }
        CHECK(disk_calls() == calls_at_failure); /* J2: what was in flight ends, nothing begins */
        CHECK(journal_durable(rig.journal) == durable);
    }
    const bool happened = disk_failed();
    const bool failed = journal_state(rig.journal) == JOURNAL_FAILED;
    CHECK(disk_calls_on_failed_file() == 0);
    CHECK(failed || history.appended > 200); /* a failed preparation stops nothing for long */
    crash(true);
    CHECK(recover(&found, &report) == 0);
    judge(&found, true);
    return happened;
}

static void after_a_failed_call_nothing_becomes_durable(void)
{
    static const enum disk_fault faults[] = {DISK_FAULT_EIO, DISK_FAULT_ENOSPC, DISK_FAULT_SHORT};
    for (int i = 0; i < 3; i++) {
        uint64_t nth = 1;
        while (life_with_fault(nth, faults[i])) {
            nth++;
        }
        CHECK(nth > 100);
    }
}

/* That groups really say what was on disk when they were written. */
static void damage_in_what_the_journal_wrote_is_refused(void)
{
    static const uint64_t places[] = {4096, 4096 + 70, 5 * 4096 + 64, 15 * 4096 + 80};
    struct found found;
    struct recovery_report report;

    for (int i = 0; i < 4; i++) {
        char why[1024] = "";
        disk_reset(11, DISK);
        fresh_rig(1);
        CHECK(rig_open(&rig) == 0);
        for (uint64_t record = 1; record <= 40; record++) { /* a group each: over three segments */
            CHECK(rig_append(&rig, record, size_max, DURABILITY_FSYNC) > 0);
            rig_turn(&rig, 0);
            rig_settle(&rig);
        }
        crash(true);
        CHECK(recover(&found, &report) == 0);
        CHECK(found.count == 40);
        disk_flip("journal/0-0000000000000001.seg", places[i], 1);
        found = (struct found){.size_max = size_max};
        CHECK(recovery_run(directory, false, found_record, &found, &report, why, sizeof(why)) ==
              -EBADMSG);
        CHECK(strstr(why, "journal/0-0000000000000001.seg: damaged at offset") != NULL);
    }
}

/* S1. Groups and records have the same places in every life here, so only the id tells them apart.
 */
static void torn_group_in_a_reused_segment_brings_nothing_back(void)
{
    uint64_t partly = 0;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct found found;
        struct recovery_report report;
        uint64_t appended = 0;
        uint64_t handed = 0;
        uint64_t released = 0;

        disk_reset(seed, DISK);
        size_max = 8;
        release_one_in = 1;
        fresh_rig(1);
        CHECK(rig_open(&rig) == 0);
        for (int group = 0; group < 100; group++) { /* 15 a segment, 5 segments */
            for (int i = 0; i < 200; i++) {
                appended += rig_append(&rig, appended + 1, size_max, DURABILITY_FSYNC) > 0;
            }
            journal_commit(rig.journal);
            if (group < 99) {
                rig_settle(&rig);
                consume(&handed, &released, 1000);
            }
        }
        CHECK(appended == UINT64_C(100) * 200);
        crash(true);
        CHECK(recover(&found, &report) == 0); /* found_record checks that the row has no gap */
        CHECK(found.last <= appended && found.last >= appended - 200);
        partly += found.last > appended - 200 && found.last < appended;
    }
    CHECK(partly > 10);
    usual_sizes();
}

static void unreadable_segment_stops_the_handover_and_says_so(void)
{
    uint64_t appended = 0;
    uint64_t position = 0;
    uint32_t size = 0;

    disk_reset(6, DISK);
    fresh_rig(1);
    CHECK(rig_open(&rig) == 0);
    for (int turn = 0; turn < 200; turn++) {
        appended += rig_append(&rig, appended + 1, size_max, DURABILITY_FSYNC) > 0;
        rig_turn(&rig, 1000000);
    }
    disk_fail_read(1);
    for (int turn = 0; turn < 20; turn++) {
        CHECK(journal_handover(rig.journal, &size, &position) == NULL);
        rig_turn(&rig, 1000000);
    }
    CHECK(disk_failed());
    CHECK(journal_state(rig.journal) == JOURNAL_FAILED);
    rig_settle(&rig);
    rig_close(&rig);
}

static void clean_stop_leaves_nothing_to_read(void)
{
    struct found found;
    struct recovery_report report;

    disk_reset(7, DISK);
    history.appended = history.synced = history.released = history.handed = history.looked = 0;
    fresh_rig(1);
    CHECK(rig_open(&rig) == 0);
    live(300);
    rig_settle(&rig);
    uint64_t position = 0;
    uint32_t size = 0;
    uint64_t last = 0;
    while (history.handed < history.appended) {
        if (journal_handover(rig.journal, &size, &position) != NULL) {
            journal_handover_next(rig.journal);
            history.handed++;
            last = position;
        }
        rig_turn(&rig, 0);
    }
    journal_release(rig.journal, last > 0 ? last : 0);
    rig_settle(&rig);
    rig_close(&rig);
    disk_power_cut();
    CHECK(recover(&found, &report) == 0);
    CHECK(report.segments == 0 && found.count == 0);
    CHECK(report.first_segment > 2);

    /* The files are taken over: no new one is written with zeros. */
    const uint64_t calls = disk_calls();
    fresh_rig(report.first_segment);
    CHECK(rig_open(&rig) == 0);
    CHECK(disk_calls() - calls == 2); /* a header and its sync */
    CHECK(rig_append(&rig, 1, size_max, DURABILITY_FSYNC) > 0);
    rig_turn(&rig, 0);
    rig_settle(&rig);
    CHECK(disk_calls() - calls == 4); /* the group, and the next segment's header */
    rig_close(&rig);
}

static void journal_is_not_opened_over_records_that_were_not_recovered(void)
{
    struct found found;
    struct recovery_report report;

    disk_reset(8, DISK);
    fresh_rig(1);
    CHECK(rig_open(&rig) == 0);
    CHECK(rig_append(&rig, 1, size_max, DURABILITY_FSYNC) > 0);
    rig_turn(&rig, 0);
    rig_settle(&rig);
    crash(false);
    fresh_rig(9);
    CHECK(rig_open(&rig) == -EEXIST);
    mem_end(&rig.plan);
    CHECK(recover(&found, &report) == 0);
    CHECK(found.count == 1);
    CHECK(recovery_retire(directory) == 0);
    CHECK(rig_open(&rig) == 0);
    rig_close(&rig);
}

int main(int count, char **arguments)
{
    const uint64_t only = count > 1 ? strtoull(arguments[1], NULL, 10) : 0;
    log_writer(rig_silence);
    (void)signal(SIGABRT, tell_seed);
    if (only > 0) {
        power_cuts_take_nothing_that_was_durable(only);
        return 0;
    }
    record_is_durable_after_its_commit_and_not_before();
    what_was_asked_for_decides_about_the_sync();
    every_record_is_handed_over_once_whatever_the_pace();
    bound_refuses_and_release_lets_in_again();
    full_disk_refuses_until_there_is_room();
    damage_in_what_the_journal_wrote_is_refused();
    torn_group_in_a_reused_segment_brings_nothing_back();
    unreadable_segment_stops_the_handover_and_says_so();
    clean_stop_leaves_nothing_to_read();
    journal_is_not_opened_over_records_that_were_not_recovered();
    after_a_failed_call_nothing_becomes_durable();
    power_cuts_take_nothing_that_was_durable(0);
    puts("12 passed, 0 failed");
    return 0;
}
