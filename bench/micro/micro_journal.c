/*
 * micro_journal.c - records a second of the journal alone, by the size of its groups.
 *
 * Method: one thread, the real ring, one commit in flight; each turn appends the group's records of
 *         200 bytes, commits and waits for it, so a group is exactly that many. The consumer takes
 *         records at once and releases them, so segments are reused as in service. CPU is the
 *         thread's own; what the kernel does elsewhere is not in it.
 *
 *     micro_journal [DIRECTORY]        a directory of its own is made in it and removed
 */
#include "core/check.h"
#include "core/mem.h"
#include "core/metrics.h"
#include "core/os.h"
#include "fileio/journal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    RECORD_BYTES = 200,
    COMMITS_MAX = 5000,
    WARM_UP = 500,
    SEGMENT_BYTES = 16 << 20,
    EVENTS = 16,
    TAG_KIND = 1,
};

struct measure {
    struct os_ring *ring;
    struct journal *journal;
    uint64_t commit_ns[COMMITS_MAX];
    uint64_t cpu_ns;
    uint64_t wall_ns;
};

static char directory[256];

static int remove_entry(void *context, const char *name)
{
    char path[512];
    (void)context;
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    return os_file_remove(path);
}

static int compare(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left;
    const uint64_t b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static void take_all(struct journal *journal)
{
    uint64_t position = 0;
    uint64_t last = 0;
    uint32_t size = 0;
    while (journal_handover(journal, &size, &position) != NULL) {
        journal_handover_next(journal);
        last = position;
    }
    if (last > 0) {
        journal_release(journal, last);
    }
}

/* One group from its first append until its last record is durable. */
static uint64_t commit_group(struct measure *measure, uint32_t group)
{
    struct os_event events[EVENTS];
    uint64_t position = 0;
    const uint64_t start = os_now_ns();
    for (uint32_t i = 0; i < group; i++) {
        void *bytes = journal_append(measure->journal, RECORD_BYTES, DURABILITY_FSYNC, &position);
        CHECK(bytes != NULL);
        memset(bytes, (int)(i & 0xff), RECORD_BYTES);
    }
    journal_commit(measure->journal);
    while (journal_durable(measure->journal) < position) {
        const int count = os_turn(measure->ring, -1, events, EVENTS);
        CHECK(count >= 0);
        for (int i = 0; i < count; i++) {
            journal_done(measure->journal, &events[i]);
        }
        journal_commit(measure->journal); /* a group that met the end of a segment is two */
    }
    const uint64_t taken = os_now_ns() - start;
    take_all(measure->journal);
    return taken;
}

static void run(struct measure *measure, uint32_t group, uint32_t commits)
{
    for (uint32_t i = 0; i < WARM_UP; i++) {
        (void)commit_group(measure, group);
    }
    const uint64_t cpu = os_thread_cpu_ns();
    const uint64_t wall = os_now_ns();
    for (uint32_t i = 0; i < commits; i++) {
        measure->commit_ns[i] = commit_group(measure, group);
    }
    measure->cpu_ns = os_thread_cpu_ns() - cpu;
    measure->wall_ns = os_now_ns() - wall;
    const uint32_t middle = commits / 2;
    const uint32_t high = commits * 99 / 100;
    qsort(measure->commit_ns, commits, sizeof(measure->commit_ns[0]), compare);
    (void)printf("group %4" PRIu32 ": %9.0f records/s, commit p50 %4.0f us, p99 %5.0f us, "
                 "CPU %5.1f us a commit, %.3f us a record\n",
                 group, (double)commits * group * 1e9 / (double)measure->wall_ns,
                 (double)measure->commit_ns[middle] / 1e3, (double)measure->commit_ns[high] / 1e3,
                 (double)measure->cpu_ns / commits / 1e3,
                 (double)measure->cpu_ns / commits / group / 1e3);
}

int main(int count, char **arguments)
{
    static struct measure measure;
    static struct metrics metrics;
    static const uint32_t groups[] = {1, 10, 100, 1000};
    struct mem_plan plan;
    char why[512] = "";
    const struct os_ring_options ring_options = {.entries = 64};

    (void)snprintf(directory, sizeof(directory), "%s/micro-journal-XXXXXX",
                   count > 1 ? arguments[1] : "/tmp");
    CHECK(mkdtemp(directory) != NULL);
    mem_init(&plan, "micro", MEM_MAP);
    if (os_ring_create(&ring_options, &measure.ring, why, sizeof(why)) < 0 ||
        os_ring_enable(measure.ring) < 0) {
        (void)fprintf(stderr, "no ring: %s\n", why);
        return 1;
    }
    const struct journal_options options = {
        .ring = measure.ring,
        .directory = directory,
        .segment_bytes = SEGMENT_BYTES,
        .bytes_max = 8 * (uint64_t)SEGMENT_BYTES,
        .buffer_bytes = 4 << 20,
        .first_segment = 1,
        .tag_kind = TAG_KIND,
        .metrics = &metrics,
    };
    if (journal_open(&options, &plan, &measure.journal, why, sizeof(why)) < 0) {
        (void)fprintf(stderr, "%s\n", why);
        return 1;
    }
    for (size_t i = 0; i < sizeof(groups) / sizeof(*groups); i++) {
        run(&measure, groups[i], COMMITS_MAX);
    }
    os_ring_destroy(measure.ring);
    journal_close(measure.journal);
    mem_end(&plan);
    CHECK(os_directory_list(directory, remove_entry, NULL) == 0);
    return rmdir(directory) == 0 ? 0 : 1;
}
