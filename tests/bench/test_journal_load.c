/*
 * test_journal_load.c - the load on the journal alone counts what is on the disk, and leaves nothing
 *                       there.
 *
 * Method: a short load on the real file system, in a directory of the current one, which may not be
 *         in memory. Between its end and its count the segments are bent in one way, and the count
 *         must say so. What recovery hands over is bent record by record too.
 */
#include "bench/journal_load.h"
#include "bench/scenario.h"
#include "core/check.h"
#include "core/log.h"
#include "core/os.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIZE = 200, GROUP = 100, NUMBERS = 80, FILES_MAX = 64 };

static char parent[256];
static struct options options;
static struct journal_load load;
static struct report report;
static char problem[SCENARIO_PROBLEM_BYTES];

static bool silence(const char *line, uint32_t size)
{
    (void)line, (void)size;
    return true;
}

static void begin(void)
{
    report_init(&report, "journal");
    problem[0] = '\0';
    options = (struct options){.scenario = "journal",
                               .kind = SCENARIO_JOURNAL,
                               .data = parent,
                               .size = SIZE,
                               .group = GROUP,
                               .duration_s = 0.1};
}

static int count_entry(void *context, const char *name)
{
    (void)name;
    ++*(int *)context;
    return 0;
}

static int entries_of(const char *path)
{
    int entries = 0;

    CHECK(os_directory_list(path, count_entry, &entries) == 0);
    return entries;
}

/* --- a whole run --- */

static void every_record_is_found_again_and_the_directory_is_gone(void)
{
    begin();
    options.warmup_s = 0.02;
    CHECK(journal_load_run(&options, &report, problem) == 0);
    CHECK(report_clean(&report));
    CHECK(report.sent >= GROUP && report.sent % GROUP == 0);
    CHECK(report.expected == report.sent && report.delivered == report.sent);
    CHECK(report.messages_per_s > 0 && report.server_cpu_s > 0);
    CHECK(report.p50_ms > 0 && report.p50_ms <= report.p99_ms);
    CHECK(report.p99_ms <= report.p999_ms && report.p999_ms <= report.max_ms * 1.01);
    CHECK(problem[0] == '\0');
    CHECK(entries_of(parent) == 0);
}

/* 160 MiB a group: more than the buffer, and enough that segments are released and used again. */
static void groups_beyond_the_buffer_are_written_in_several_commits(void)
{
    begin();
    options.size = 16384;
    options.group = 10000;
    CHECK(journal_load_begin(&load, &options, problem) == 0);
    CHECK(journal_load_stretch(&load, 0, problem) == 0);
    CHECK(load.appended == options.group && load.handed.number == options.group);
    CHECK(load.released > 0 && load.released < load.appended);
    CHECK(load.latency.total == 1);
    journal_load_stop(&load);
    CHECK(journal_load_count(&load, &report, problem) == 0);
    CHECK(report_clean(&report));
    journal_load_end(&load);
    CHECK(entries_of(parent) == 0);
}

static void other_durabilities_are_found_again_too(void)
{
    static const char *const words[] = {"memory", "journal"};

    for (int i = 0; i < 2; i++) {
        begin();
        options.durability = words[i];
        CHECK(journal_load_run(&options, &report, problem) == 0);
        CHECK(report_clean(&report) && report.sent > 0);
    }
}

/* --- what is missing or wrong on the disk --- */

/* Runs a load and bends each of its segment files before the count. */
static void count_after(void (*bend)(const char *path))
{
    char names[FILES_MAX][JOURNAL_LOAD_PATH_BYTES + 256];
    struct name_list {
        char (*names)[JOURNAL_LOAD_PATH_BYTES + 256];
        int count;
    } list = {.names = names};

    begin();
    CHECK(journal_load_begin(&load, &options, problem) == 0);
    CHECK(journal_load_stretch(&load, 0.1, problem) == 0);
    journal_load_stop(&load);
    for (uint64_t number = 0; number < FILES_MAX; number++) {
        (void)snprintf(names[list.count], sizeof(names[0]), "%s/00-%010" PRIu64 ".seg",
                       load.directory, number);
        list.count += access(names[list.count], F_OK) == 0;
    }
    CHECK(list.count > 0);
    for (int i = 0; i < list.count; i++) {
        bend(names[i]);
    }
    CHECK(journal_load_count(&load, &report, problem) == 0);
    journal_load_end(&load);
    CHECK(entries_of(parent) == 0);
}
