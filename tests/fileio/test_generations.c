/*
 * test_generations.c - a journal that the store could not take is kept, beside the next one.
 *
 * Method: the whole journal and recovery on the simulated disk with directories of os_tree.h. Each
 *         call of recovery_set_aside, recovery_drop and recovery_generations that changes the disk
 *         is made to fail, which is where a crash would have come, for power cuts that keep any
 *         subset of names, and for kills with a power cut later. Records are numbered through all
 *         runs, so a lost, doubled or misplaced one breaks the row.
 */
#include "tests/fileio/journal_rig.h"
#include "tests/fileio/os_tree.h"
#include "tests/sim/os_disk.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { SEGMENT = 16 * 4096, SEGMENTS = 5, BUFFER = 4 * 4096, DISK = 1 << 26, SIZE_MAX_SMALL = 700 };

static struct rig rig;
static uint64_t appended; /* index of the last record, all runs */
static uint64_t stored;   /* the store has all up to here */
static char why[1024];
static char seed_text[64];

static void begin(uint64_t seed)
{
    (void)snprintf(seed_text, sizeof(seed_text), "the seed was %" PRIu64 "\n", seed);
    disk_reset(seed, DISK);
    appended = stored = 0;
}

/* A run of the server with that many records, all on disk, that ends by a crash. */
static void live(uint32_t records, bool cut)
{
    rig.metrics = (struct metrics){0};
    rig.options = (struct journal_options){
        .directory = TREE_ROOT "/journal",
        .segment_bytes = SEGMENT,
        .bytes_max = (uint64_t)SEGMENTS * SEGMENT,
        .buffer_bytes = BUFFER,
        .first_segment = 1,
    };
    CHECK(rig_open(&rig) == 0);
    for (uint32_t i = 0; i < records; i++) {
        CHECK(rig_append(&rig, ++appended, SIZE_MAX_SMALL, DURABILITY_FSYNC) > 0);
        rig_turn(&rig, 0);
        rig_settle(&rig);
    }
    if (cut) {
        disk_power_cut();
    } else {
        disk_kill();
    }
    mem_end(&rig.plan);
}

/* What a start finds. */
struct start {
    uint32_t first, count;
    struct found found; /* in all generations, then in the journal */
    uint64_t newest;    /* records of the journal */
};

static int read_one(uint32_t generation, bool salvage, struct found *found)
{
    char path[SEGMENT_PATH_MAX];
    struct recovery_report report;
    CHECK(recovery_directory(TREE_ROOT, generation, path) == 0);
    return recovery_run(path, salvage, found_record, found, &report, why, sizeof(why));
}

static int start(struct start *start)
{
    *start = (struct start){.found = {.size_max = SIZE_MAX_SMALL}};
    int error =
        recovery_generations(TREE_ROOT, false, &start->first, &start->count, why, sizeof(why));
    for (uint32_t i = 0; i < start->count && error == 0; i++) {
        error = read_one(start->first + i, false, &start->found);
    }
    const uint64_t before = start->found.count;
    error = error < 0 ? error : read_one(0, false, &start->found);
    start->newest = start->found.count - before;
    return error;
}

/* Nothing that the store lacks is lost; found_record checked that the row is unbroken. */
static void start_and_judge(struct start *found)
{
    const int error = start(found);
    if (error < 0) {
        (void)fprintf(stderr, "%s\n", why);
    }
    CHECK(error == 0);
    CHECK(tree_count(TREE_ROOT "/journal.dropped") == 0);
    if (found->found.count == 0) {
        CHECK(stored == appended);
        return;
    }
    CHECK(found->found.first <= stored + 1);
    CHECK(found->found.last == appended);
}

static int set_aside(void)
{
    uint32_t generation = 0;
    return recovery_set_aside(TREE_ROOT, &generation, why, sizeof(why));
}

static int drop(uint32_t generation)
{
    return recovery_drop(TREE_ROOT, generation, why, sizeof(why));
}

static void first_start_makes_the_directory_durably(void)
{
    struct start found;
    begin(1);
    CHECK(start(&found) == 0);
    CHECK(found.count == 0 && found.found.count == 0);
    disk_power_cut();
    CHECK(os_directory_open(TREE_ROOT "/journal") >= 0);
    live(20, true);
    start_and_judge(&found);
    CHECK(found.found.count == 20 && found.newest == 20);
}

/* A `journal` that is seen may have been made by a process that was killed before its sync. */
static void directory_of_a_killed_start_is_made_durable_by_the_next(void)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct start found;
        begin(seed);
        CHECK(os_directory_make(TREE_ROOT "/journal") == 0);
        disk_kill();
        CHECK(start(&found) == 0);
        live(10, true);
        start_and_judge(&found);
        CHECK(found.found.count == 10);
    }
}

static void three_generations_come_back_in_order(void)
{
    struct start found;
    begin(2);
    CHECK(start(&found) == 0);
    for (uint32_t run = 1; run <= 3; run++) {
        uint32_t generation = 0;
        live(20 + run, run != 2);
        start_and_judge(&found);
        CHECK(found.count == run - 1 && found.newest == 20 + run);
        CHECK(recovery_set_aside(TREE_ROOT, &generation, why, sizeof(why)) == 0);
        CHECK(generation == run);
    }
    live(30, true); /* each run numbered its segments from 1 */
    start_and_judge(&found);
    CHECK(found.first == 1 && found.count == 3);
    CHECK(found.found.count == 21 + 22 + 23 + 30 && found.found.first == 1);
    stored = 21;
    CHECK(drop(1) == 0);
    start_and_judge(&found);
    CHECK(found.first == 2 && found.count == 2 && found.found.first == 22);
    CHECK(set_aside() == 0);
    start_and_judge(&found);
    CHECK(found.first == 2 && found.count == 3 && found.newest == 0);
    stored = appended;
    CHECK(drop(2) == 0 && drop(3) == 0 && drop(4) == 0);
    CHECK(drop(4) == 0); /* gone already */
    disk_power_cut();
    start_and_judge(&found);
    CHECK(found.count == 0 && found.found.count == 0);
    live(5, true);
    start_and_judge(&found);
    CHECK(found.found.count == 5);
}

/* The n-th call fails, and the power is cut there; or the process is killed, and the power is cut
 * at the m-th call of the next start. False: fewer calls than that. */
static bool crashed_at(uint64_t nth, bool (*work)(void))
{
    const bool kill = disk_random() % 2 == 0;
    disk_fail(nth, DISK_FAULT_EIO);
    const bool done = work();
    const bool failed = disk_failed();
    CHECK(failed || done);
    disk_fail(0, DISK_FAULT_EIO);
    if (kill) {
        uint32_t first = 0;
        uint32_t count = 0;
        disk_kill();
        disk_fail(1 + disk_random() % 12, DISK_FAULT_EIO);
        (void)!recovery_generations(TREE_ROOT, false, &first, &count, why, sizeof(why));
    }
    disk_power_cut();
    return failed;
}

static bool work_set_aside(void)
{
    return set_aside() == 0;
}

static void crash_in_set_aside_leaves_every_record_in_its_place(void)
{
    uint64_t crashes = 0;
    uint64_t aside = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        bool failed = true;
        for (uint64_t nth = 1; failed; nth++) {
            struct start found;
            begin(seed * 1000 + nth);
            CHECK(start(&found) == 0);
            live(20, true);
            if (seed % 2 == 0) { /* one is there already */
                start_and_judge(&found);
                CHECK(set_aside() == 0);
                live(16, true);
            }
            start_and_judge(&found);
            failed = crashed_at(nth, work_set_aside);
            crashes += failed;
            start_and_judge(&found);
            CHECK(failed || found.newest == 0); /* it said that it was done */
            CHECK(found.found.count == appended);
            aside += failed && found.newest == 0;
            if (found.newest > 0) {
                CHECK(set_aside() == 0);
            }
            live(7, true);
            start_and_judge(&found);
            CHECK(found.found.count == appended && found.newest == 7);
        }
    }
    CHECK(crashes >= UINT64_C(40) * 4);
    CHECK(aside > 10 && aside < crashes);
}

static bool work_drop(void)
{
    return drop(1) == 0;
}

static void crash_in_drop_leaves_a_whole_generation_or_none(void)
{
    uint64_t crashes = 0;
    uint64_t back = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        bool failed = true;
        for (uint64_t nth = 1; failed; nth++) {
            struct start found;
            begin(seed * 1000 + nth);
            CHECK(start(&found) == 0);
            live(50, true); /* four segments: a hole in them would be damage */
            CHECK(set_aside() == 0);
            if (seed % 2 == 0) { /* the place of what is dropped was used before */
                stored = appended;
                CHECK(drop(1) == 0);
                live(40, true);
                CHECK(set_aside() == 0);
            }
            live(20, true);
            CHECK(set_aside() == 0);
            live(9, true);
            start_and_judge(&found);
            stored = appended - 29;
            failed = crashed_at(nth, work_drop);
            crashes += failed;
            start_and_judge(&found);
            CHECK(failed || found.found.first == stored + 1); /* dropped is dropped */
            CHECK(found.found.first == stored + 1 || found.found.first == (seed % 2 == 0 ? 51 : 1));
            back += failed && found.found.first <= stored;
            CHECK(drop(1) == 0);
            start_and_judge(&found);
            CHECK(found.first == 2 && found.count == 1 && found.found.count == 29);
        }
    }
    CHECK(crashes >= UINT64_C(40) * 6);
    CHECK(back > 10 && back < crashes);
}

/* Two generations of 50 records and a journal with 20. */
static void put_three(void)
{
    struct start found;
    begin(3);
    CHECK(start(&found) == 0);
    live(50, true);
    CHECK(set_aside() == 0);
    live(50, true);
    CHECK(set_aside() == 0);
    live(20, true);
    start_and_judge(&found);
    CHECK(found.found.count == 120);
}

static void drop_goes_on_where_another_one_failed(void)
{
    struct start found;
    for (uint64_t nth = 1; nth <= 6; nth++) {
        put_three();
        disk_fail(nth, DISK_FAULT_EIO);
        CHECK(drop(1) < 0);
        CHECK(disk_failed());
        CHECK(strstr(why, nth == 2 ? "journal.000001: cannot be renamed"
                                   : "journal.dropped: cannot be emptied") != NULL);
        stored = 100;
        CHECK(drop(1) == 0);
        CHECK(drop(2) == 0);
        disk_power_cut();
        start_and_judge(&found);
        CHECK(found.count == 0 && found.newest == 20);

        put_three();
        disk_fail(nth, DISK_FAULT_EIO);
        CHECK(drop(1) < 0);
        CHECK(drop(2) == 0); /* its place is cleared first */
    }
}

/* Runs with a store that comes and goes, and crashes anywhere in between. */
static void lives_of_seed(uint64_t seed)
{
    struct start found;
    begin(seed);
    for (int run = 0; run < 12; run++) {
        start_and_judge(&found);
        if (disk_random() % 2 == 0) {
            disk_fail(1 + disk_random() % 16, DISK_FAULT_EIO);
        }
        int error = 0;
        const uint64_t drops = disk_random() % (found.count + 2);
        for (uint32_t i = 0; i < found.count && i < drops && error == 0; i++) {
            struct found generation = {.size_max = SIZE_MAX_SMALL};
            error = read_one(found.first + i, false, &generation);
            stored = generation.last > stored ? generation.last : stored;
            error = error < 0 ? error : drop(found.first + i);
        }
        if (error == 0 && drops <= found.count && found.newest > 0) {
            error = set_aside();
        } else if (error == 0) {
            stored = drops > found.count ? appended : stored;
            error = recovery_retire(TREE_ROOT "/journal");
        }
        disk_fail(0, DISK_FAULT_EIO);
        if (error < 0) {
            disk_power_cut();
            continue;
        }
        live((uint32_t)(disk_random() % 60), disk_random() % 2 == 0);
    }
    start_and_judge(&found);
}

static void runs_with_a_store_that_comes_and_goes_lose_nothing(void)
{
    for (uint64_t seed = 1; seed <= 300; seed++) {
        lives_of_seed(seed);
    }
}

static void damage_in_a_generation_names_its_file(void)
{
    static const char path[] = TREE_ROOT "/journal.000001/0-0000000000000001.seg";
    struct start found;
    put_three();
    disk_flip(path, 5 * 4096 + 64, 1);
    CHECK(start(&found) == -EBADMSG);
    CHECK(strstr(why, path) != NULL);
    CHECK(strstr(why, "damaged at offset") != NULL);
    struct found others = {.size_max = SIZE_MAX_SMALL};
    CHECK(read_one(2, false, &others) == 0); /* each by itself */
    CHECK(read_one(0, false, &others) == 0);
    CHECK(others.first == 51 && others.count == 70);
    disk_flip(path, 5 * 4096 + 64, 1);

    /* The end of a generation is a tail of its own. */
    disk_flip(TREE_ROOT "/journal.000002/0-0000000000000004.seg", 5 * 4096 + 70, 1);
    found.found = (struct found){.size_max = SIZE_MAX_SMALL};
    CHECK(read_one(1, false, &found.found) == 0);
    CHECK(read_one(2, false, &found.found) == 0);
    CHECK(found.found.count == 99);
}

static void missing_generation_is_refused_unless_salvaged(void)
{
    uint32_t first = 0;
    uint32_t count = 0;
    struct start found;
    put_three();
    CHECK(set_aside() == 0);
    CHECK(os_file_rename(TREE_ROOT "/journal.000002", TREE_ROOT "/elsewhere") == 0);
    CHECK(start(&found) == -EBADMSG);
    CHECK(strstr(why, TREE_ROOT "/journal.000002 is missing") != NULL);
    CHECK(strstr(why, "--salvage") != NULL);
    CHECK(recovery_generations(TREE_ROOT, true, &first, &count, why, sizeof(why)) == 0);
    CHECK(first == 1 && count == 3);
    struct found rest = {.size_max = SIZE_MAX_SMALL};
    CHECK(read_one(2, false, &rest) == 0);
    CHECK(rest.count == 0);
}

static int count_record(void *context, const void *record, uint32_t size)
{
    (void)record, (void)size;
    (*(uint64_t *)context)++;
    return 0;
}

/* Segments of two generations have the same numbers, so that only this could mix them. */
static void segment_carried_into_another_directory_is_refused(void)
{
    static const char old[] = TREE_ROOT "/journal.000001/0-0000000000000002.seg";
    struct recovery_report report;
    uint64_t count = 0;
    put_three();
    CHECK(os_file_rename(old, TREE_ROOT "/journal/0-0000000000000063.seg") == 0);
    CHECK(recovery_run(TREE_ROOT "/journal", false, count_record, &count, &report, why,
                       sizeof(why)) == -EBADMSG);
    CHECK(strstr(why, TREE_ROOT "/journal/0-00000000000000") != NULL);
    CHECK(rig_open(&rig) == -EEXIST);
    mem_end(&rig.plan);
    CHECK(recovery_run(TREE_ROOT "/journal.000001", false, count_record, &count, &report, why,
                       sizeof(why)) == -EBADMSG);
}

static void other_names_are_no_generations(void)
{
    static const char *const names[] = {"journal.1",      "journal.0000001", "journal.000000",
                                        "journal.00000a", "journal.00001",   "journal.000001.old",
                                        "journal-000001", "journal.",        "xjournal.000001"};
    struct start found;
    begin(4);
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "%s/%s", TREE_ROOT, names[i]);
        CHECK(os_directory_make(path) == 0);
    }
    CHECK(start(&found) == 0);
    CHECK(found.count == 0);
    CHECK(os_directory_make(TREE_ROOT "/journal.999999") == 0);
    CHECK(start(&found) == 0);
    CHECK(found.first == 999999 && found.count == 1);
    CHECK(set_aside() == -EOVERFLOW);
    CHECK(strstr(why, "cannot be set aside") != NULL);
}

static void tell_seed(int signal_number)
{
    (void)signal_number;
    (void)!write(STDERR_FILENO, seed_text, strlen(seed_text));
}

int main(int count, char **arguments)
{
    log_writer(rig_silence);
    (void)signal(SIGABRT, tell_seed);
    if (count > 1) {
        lives_of_seed(strtoull(arguments[1], NULL, 10));
        return 0;
    }
    first_start_makes_the_directory_durably();
    directory_of_a_killed_start_is_made_durable_by_the_next();
    three_generations_come_back_in_order();
    crash_in_set_aside_leaves_every_record_in_its_place();
    crash_in_drop_leaves_a_whole_generation_or_none();
    drop_goes_on_where_another_one_failed();
    runs_with_a_store_that_comes_and_goes_lose_nothing();
    damage_in_a_generation_names_its_file();
    missing_generation_is_refused_unless_salvaged();
    segment_carried_into_another_directory_is_refused();
    other_names_are_no_generations();
    puts("11 passed, 0 failed");
    return 0;
}
