/*
 * test_journal_real.c - the journal on the real ring and file system, from open to recovery.
 *
 * Method: a directory of its own in $TMPDIR or /tmp, removed at the end; the same once more in
 *         /dev/shm, where O_DIRECT may be missing. Times are printed, not checked: a test machine
 *         is busy with other tests.
 */
#include "tests/fileio/journal_rig.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

enum { SIZE_MAX_SMALL = 400, SEGMENT = 1 << 20, BIG_SEGMENT = 16 << 20 };

static char directory[128];
static char path_of_journal[SEGMENT_PATH_MAX];
static struct rig rig;

static void options_set(uint32_t segment_bytes, uint64_t bytes_max, uint32_t buffer_bytes,
                        uint64_t first_segment)
{
    rig.options = (struct journal_options){
        .directory = directory,
        .shard = 1,
        .segment_bytes = segment_bytes,
        .bytes_max = bytes_max,
        .buffer_bytes = buffer_bytes,
        .first_segment = first_segment,
    };
}

static int remove_entry(void *context, const char *name)
{
    char path[512];
    (void)context;
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    return os_file_remove(path);
}

static void directory_begin(const char *base)
{
    (void)snprintf(directory, sizeof(directory), "%s/damso-journal-XXXXXX", base);
    CHECK(mkdtemp(directory) != NULL);
}

static void directory_end(void)
{
    CHECK(os_directory_list(directory, remove_entry, NULL) == 0);
    CHECK(rmdir(directory) == 0);
}

static int recover(struct found *found, struct recovery_report *report)
{
    char why[1024] = "";
    *found = (struct found){.size_max = SIZE_MAX_SMALL};
    const int error = recovery_run(directory, false, found_record, found, report, why, sizeof(why));
    if (error < 0) {
        (void)fprintf(stderr, "%s\n", why);
    }
    return error;
}

/* Takes what is handed over, in order, at most maximum. Returns the last position, or 0. */
static uint64_t consume(uint64_t *handed, uint32_t maximum)
{
    uint64_t position = 0;
    uint32_t size = 0;
    uint64_t last = 0;
    for (uint32_t i = 0; i < maximum; i++) {
        const void *record = journal_handover(rig.journal, &size, &position);
        if (record == NULL) {
            break;
        }
        CHECK(rig_index(record, size, SIZE_MAX_SMALL) == *handed + 1);
        journal_handover_next(rig.journal);
        (*handed)++;
        last = position;
    }
    return last;
}

/* Appends count records in groups of up to burst, with a consumer that lags and a store that
 * releases. */
static void run(uint64_t first, uint64_t count, uint32_t burst, bool release)
{
    uint64_t appended = first - 1;
    uint64_t handed = first - 1;
    for (uint64_t turn = 0; handed < first - 1 + count; turn++) {
        for (uint32_t i = 0; i < burst && appended < first - 1 + count; i++) {
            if (rig_append(&rig, appended + 1, SIZE_MAX_SMALL, DURABILITY_FSYNC) == 0) {
                break;
            }
            appended++;
        }
        rig_turn(&rig, 1000000);
        CHECK(journal_state(rig.journal) != JOURNAL_FAILED);
        CHECK(turn < 1000000);
        /* Stops for 60 turns of 100, so that some of it is read back. */
        const uint64_t last =
            turn % 100 < 60 && appended < first - 1 + count ? 0 : consume(&handed, burst * 4);
        if (release && last > 0) {
            journal_release(rig.journal, last);
        }
    }
    rig_settle(&rig);
}

static void everything_comes_back_in_order_through_reused_segments(void)
{
    struct found found;
    struct recovery_report report;

    options_set(SEGMENT, 4 * (uint64_t)SEGMENT, 256 * 1024, 1);
    CHECK(rig_open(&rig) == 0);
    run(1, 60000, 200, true);
    CHECK(rig.reads > 0);
    rig_close(&rig);
    CHECK(recover(&found, &report) == 0);
    CHECK(found.count == 0 && report.segments == 0); /* a clean stop */
    options_set(SEGMENT, 4 * (uint64_t)SEGMENT, 256 * 1024, report.first_segment);
    CHECK(rig_open(&rig) == 0);
    run(1, 5000, 50, false);
    os_ring_destroy(rig.ring); /* the process dies: nothing is closed */
    mem_end(&rig.plan);
    CHECK(recover(&found, &report) == 0);
    CHECK(found.first == 1 && found.last == 5000);
    CHECK(report.torn_bytes == 0);
    CHECK(recovery_retire(directory) == 0);
}

static void generations_are_set_aside_and_dropped(void)
{
    const char *data = directory;
    char why[512] = "";
    struct found found = {.size_max = SIZE_MAX_SMALL};
    struct recovery_report report;
    uint32_t generation = 0;
    uint32_t first = 0;
    uint32_t count = 0;

    CHECK(recovery_generations(data, false, &first, &count, why, sizeof(why)) == 0);
    CHECK(count == 0);
    CHECK(recovery_directory(data, 0, path_of_journal) == 0);
    for (uint32_t run_number = 1; run_number <= 3; run_number++) {
        options_set(SEGMENT, 4 * (uint64_t)SEGMENT, 256 * 1024, 1);
        rig.options.directory = path_of_journal;
        CHECK(rig_open(&rig) == 0);
        run(run_number * 1000 + 1, 1000, 50, false);
        os_ring_destroy(rig.ring);
        mem_end(&rig.plan);
        CHECK(recovery_set_aside(data, &generation, why, sizeof(why)) == 0);
        CHECK(generation == run_number);
    }
    for (uint32_t i = 1; i <= 3; i++) {
        char path[SEGMENT_PATH_MAX];
        CHECK(recovery_generations(data, false, &first, &count, why, sizeof(why)) == 0);
        CHECK(first == i && count == 4 - i);
        CHECK(recovery_directory(data, i, path) == 0);
        found.count = 0;
        CHECK(recovery_run(path, false, found_record, &found, &report, why, sizeof(why)) == 0);
        CHECK(found.count == 1000 && found.first == i * 1000 + 1);
        CHECK(recovery_drop(data, i, why, sizeof(why)) == 0);
        CHECK(os_directory_open(path) == -ENOENT);
    }
    CHECK(recovery_generations(data, false, &first, &count, why, sizeof(why)) == 0);
    CHECK(count == 0);
    CHECK(rmdir(path_of_journal) == 0); /* empty, both */
    (void)snprintf(path_of_journal, sizeof(path_of_journal), "%s/journal.dropped", data);
    CHECK(rmdir(path_of_journal) == 0);
}

static double since_ms(uint64_t start_ns)
{
    return (double)(os_now_ns() - start_ns) / 1e6;
}

static void sixty_four_mib_are_recovered(void)
{
    struct found found;
    struct recovery_report report;

    options_set(BIG_SEGMENT, 8 * (uint64_t)BIG_SEGMENT, 4 << 20, 100);
    uint64_t start = os_now_ns();
    CHECK(rig_open(&rig) == 0);
    const double open_ms = since_ms(start);
    run(1, 300000, 3000, false);
    os_ring_destroy(rig.ring);
    mem_end(&rig.plan);
    start = os_now_ns();
    CHECK(recover(&found, &report) == 0);
    const double read_ms = since_ms(start);
    CHECK(found.count == 300000);
    start = os_now_ns();
    CHECK(recovery_retire(directory) == 0);
    const double retire_ms = since_ms(start);
    options_set(BIG_SEGMENT, 8 * (uint64_t)BIG_SEGMENT, 4 << 20, report.first_segment);
    start = os_now_ns();
    CHECK(rig_open(&rig) == 0);
    (void)printf("%s: %" PRIu64 " MiB in %" PRIu64 " records read in %.0f ms, retired in %.1f ms; "
                 "first open %.1f ms, open with retired files %.1f ms\n",
                 directory, report.bytes >> 20, report.records, read_ms, retire_ms, open_ms,
                 since_ms(start));
    rig_close(&rig);
}

static bool silence(const char *line, uint32_t size)
{
    (void)line, (void)size;
    return true;
}

int main(void)
{
    const char *base = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): one thread */
    const char *const bases[] = {base != NULL ? base : "/tmp", "/dev/shm"};
    int passed = 0;

    log_writer(silence);
    for (int i = 0; i < 2; i++) {
        directory_begin(bases[i]);
        generations_are_set_aside_and_dropped();
        everything_comes_back_in_order_through_reused_segments();
        sixty_four_mib_are_recovered();
        directory_end();
        passed += 3;
    }
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
