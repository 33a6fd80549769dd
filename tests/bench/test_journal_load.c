/*
 * test_journal_load.c - the load on the journal alone counts what is on the disk, and leaves
 * nothing there.
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
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIZE = 200, GROUP = 100, LAST = 12 };

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

/* A group of 110 MiB: more than the buffer, and enough for the consumer to release some. */
static void groups_beyond_the_buffer_are_written_in_several_commits(void)
{
    begin();
    options.size = 16384;
    options.group = 7000;
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

enum { GROUPS = 5, RECORDS = GROUPS * GROUP, GROUP_BLOCKS_BYTES = 6 * 4096, FIRST_GROUP = 4096 };

static int bend_entry(void *context, const char *name)
{
    char path[JOURNAL_LOAD_PATH_BYTES + 256];
    void (*const *const bend)(const char *path) = context;

    (void)snprintf(path, sizeof(path), "%s/%s", load.directory, name);
    (*bend)(path);
    return 0;
}

/* Five groups, in one segment; every file is bent before the count. */
static void count_after(void (*bend)(const char *path))
{
    begin();
    CHECK(journal_load_begin(&load, &options, problem) == 0);
    for (int i = 0; i < GROUPS; i++) {
        CHECK(journal_load_stretch(&load, 0, problem) == 0);
    }
    CHECK(load.appended == RECORDS && load.released == 0);
    journal_load_stop(&load);
    CHECK(entries_of(load.directory) > 0);
    CHECK(os_directory_list(load.directory, bend_entry, (void *)&bend) == 0);
    CHECK(journal_load_count(&load, &report, problem) == 0);
    journal_load_end(&load);
    CHECK(entries_of(parent) == 0);
}

static void leave(const char *path)
{
    CHECK(access(path, R_OK) == 0);
}

static void lose(const char *path)
{
    CHECK(unlink(path) == 0);
}

static void write_at(const char *path, const void *bytes, size_t size, off_t offset)
{
    const int file = open(path, O_WRONLY | O_CLOEXEC);

    CHECK(file >= 0);
    CHECK(pwrite(file, bytes, size, offset) == (ssize_t)size);
    CHECK(close(file) == 0);
}

static void lose_last_group(const char *path)
{
    static const char zeros[GROUP_BLOCKS_BYTES];

    write_at(path, zeros, sizeof(zeros), FIRST_GROUP + (GROUPS - 1) * GROUP_BLOCKS_BYTES);
}

static void damage_first_group(const char *path)
{
    write_at(path, "damage", 6, FIRST_GROUP + 500);
}

/* As if all that was found were other records than those appended. */
static void expect_others(const char *path)
{
    CHECK(access(path, R_OK) == 0);
    load.size = SIZE + 1;
}

static void what_is_missing_on_the_disk_counts_as_lost(void)
{
    count_after(leave);
    CHECK(report_clean(&report));
    count_after(lose);
    CHECK(report.lost == RECORDS && report.errors == 0);
    count_after(lose_last_group); /* recovery takes it for a torn tail, and says nothing */
    CHECK(report.lost == GROUP && report.errors == 0);
    CHECK(report.duplicated == 0 && report.reordered == 0);
}

static void damage_is_an_error_and_says_where(void)
{
    count_after(damage_first_group);
    CHECK(report.lost > 0 && report.errors == 1);
    CHECK(strstr(problem, load.directory) != NULL);
    count_after(expect_others);
    CHECK(report.lost == RECORDS && report.errors == RECORDS);
}

/* --- what recovery hands over --- */

static void give(struct journal_load_found *found, uint64_t number)
{
    uint8_t record[SIZE];

    memset(record, (uint8_t)number, sizeof(record));
    memcpy(record, &number, sizeof(number));
    CHECK(journal_load_take(found, record, sizeof(record)) == 0);
}

static void each_record_is_judged_by_number_and_content(void)
{
    uint8_t seen[2] = {0};
    uint8_t record[SIZE + 1] = {0};
    struct journal_load_found found = {.size = SIZE, .last = LAST, .seen = seen};

    give(&found, 2);
    give(&found, 3);
    give(&found, 5);
    CHECK(found.duplicated == 0 && found.reordered == 0 && found.foreign == 0);
    give(&found, 4);
    CHECK(found.reordered == 1 && found.duplicated == 0);
    give(&found, 4);
    CHECK(found.reordered == 1 && found.duplicated == 1);
    give(&found, LAST);
    CHECK(found.foreign == 0);
    give(&found, LAST + 1);
    give(&found, 0);
    CHECK(found.foreign == 2);
    CHECK(journal_load_take(&found, record, SIZE + 1) == 0);
    CHECK(found.foreign == 3);
    record[0] = 6;
    memset(record + sizeof(uint64_t), 6, SIZE - sizeof(uint64_t));
    record[SIZE - 1] = 7;
    CHECK(journal_load_take(&found, record, SIZE) == 0);
    CHECK(found.foreign == 4);
    CHECK(seen[0] == 0x3c && seen[1] == 1U << (LAST - 8)); /* 2 to 5, and the last */
}

/* --- where it may not run, and how it ends early --- */

static bool in_memory(const char *path)
{
    struct statfs system;

    return statfs(path, &system) == 0 &&
           (system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC);
}

static void directory_must_be_there_and_on_a_disk(void)
{
    begin();
    options.data = "no-such-directory";
    CHECK(journal_load_run(&options, &report, problem) == -ENOENT);
    CHECK(strstr(problem, "no-such-directory") != NULL);
    if (in_memory("/dev/shm")) {
        begin();
        options.data = "/dev/shm";
        CHECK(journal_load_run(&options, &report, problem) == -EINVAL);
        CHECK(strstr(problem, "/dev/shm") != NULL);
    }
}

static void signal_ends_it_after_the_directory_is_gone(void)
{
    int status = 0;
    const pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        begin();
        options.duration_s = 60;
        _exit(journal_load_run(&options, &report, problem)); /* not reached: the signal is first */
    }
    for (int i = 0; i < 1000 && entries_of(parent) == 0; i++) {
        (void)usleep(10000);
    }
    CHECK(entries_of(parent) == 1);
    CHECK(kill(child, SIGTERM) == 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    CHECK(entries_of(parent) == 0);
}

int main(void)
{
    (void)snprintf(parent, sizeof(parent), "test-journal-load-XXXXXX");
    CHECK(mkdtemp(parent) != NULL);
    if (in_memory(parent)) {
        CHECK(rmdir(parent) == 0);
        puts("skip: the current directory is in memory, and this test wants a disk");
        return 77; /* as meson reads it: skipped */
    }
    log_writer(silence);
    every_record_is_found_again_and_the_directory_is_gone();
    groups_beyond_the_buffer_are_written_in_several_commits();
    other_durabilities_are_found_again_too();
    what_is_missing_on_the_disk_counts_as_lost();
    damage_is_an_error_and_says_where();
    each_record_is_judged_by_number_and_content();
    directory_must_be_there_and_on_a_disk();
    signal_ends_it_after_the_directory_is_gone();
    CHECK(rmdir(parent) == 0);
    puts("8 passed, 0 failed");
    return 0;
}
