/*
 * test_persist_parts.c - the parts of the persistence scenarios that need no server: URIs, what
 *                        scripts/servers and /metrics say, pages, lists, medians, and programs that
 *                        are started.
 *
 * Method: texts as those programs print them, and damaged ones; records as persist_load makes them,
 *         out of order, of another room, cut off; the shell for the programs.
 */
#include "bench/persist_child.h"
#include "bench/persist_figures.h"
#include "bench/persist_history.h"
#include "bench/persist_load.h"
#include "bench/persist_metrics.h"
#include "bench/persist_redis.h"
#include "bench/persist_stores.h"
#include "core/check.h"
#include "core/record.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- stores --- */

static const char *with_database(const char *uri)
{
    static char text[256];

    return persist_stores_uri(uri, "other", text, sizeof(text)) == 0 ? text : "refused";
}

static void database_of_a_uri_is_replaced_and_accounts_stay(void)
{
    CHECK(strcmp(with_database("mongodb://h:1"), "mongodb://h:1/other") == 0);
    CHECK(strcmp(with_database("mongodb://h:1/"), "mongodb://h:1/other") == 0);
    CHECK(strcmp(with_database("mongodb://h:1/db"), "mongodb://h:1/other") == 0);
    CHECK(strcmp(with_database("mongodb://h,g/db?w=1"), "mongodb://h,g/other?w=1") == 0);
    CHECK(strcmp(with_database("mongodb://h?w=1"), "mongodb://h/other?w=1") == 0);
    CHECK(strcmp(with_database("mongodb+srv://u:p@h/db"),
                 "mongodb+srv://u:p@h/other?authSource=db") == 0);
    CHECK(strcmp(with_database("mongodb://u:p@h"), "mongodb://u:p@h/other?authSource=admin") == 0);
    CHECK(strcmp(with_database("mongodb://u:p@h/db?w=1"),
                 "mongodb://u:p@h/other?w=1&authSource=db") == 0);
    CHECK(strcmp(with_database("mongodb://u:p@h/db?authsource=x"),
                 "mongodb://u:p@h/other?authsource=x") == 0);
    CHECK(strcmp(with_database("redis://h"), "refused") == 0);
    CHECK(strcmp(with_database("h:1/db"), "refused") == 0);
}

static void uri_that_does_not_fit_is_refused(void)
{
    char text[20];

    CHECK(persist_stores_uri("mongodb://h:1/db", "other", text, sizeof(text)) == 0);
    CHECK(persist_stores_uri("mongodb://ho:1/db", "other", text, sizeof(text)) == -ENAMETOOLONG);
}

static void cpu_times_are_found_by_server(void)
{
    static const char status[] =
        "{\"data\": \"d\", \"config\": \"\\\"redis\\\": 1\",\n"
        " \"servers\": {\"redis\": {\"running\": true, \"pids\": [1], \"cpu_seconds\": 1.25,"
        " \"port\": 5}, \"postgres\": {\"running\": false},\n"
        " \"mongodb\": {\"cpu_seconds\": 7.5}}}";

    CHECK(persist_stores_parse_cpu(status, "redis") == 1.25);
    CHECK(persist_stores_parse_cpu(status, "mongodb") == 7.5);
    CHECK(isnan(persist_stores_parse_cpu(status, "postgres"))); /* not the next one's */
    CHECK(isnan(persist_stores_parse_cpu(status, "other")));
    CHECK(isnan(persist_stores_parse_cpu("", "redis")));
}

/* --- metrics --- */

static const struct persist_metrics before = {"damso_first 1\n"
                                              "# HELP damso_acks_total Sends.\n"
                                              "damso_acks_total 10\n"
                                              "damso_errors_total{store=\"redis\"} 3\n"
                                              "damso_lag_seconds_bucket{le=\"0.001\"} 5\n"
                                              "damso_lag_seconds_bucket{le=\"2\"} 5\n"
                                              "damso_lag_seconds_bucket{le=\"+Inf\"} 5\n"
                                              "damso_lag_seconds_count 5\n"};
static const struct persist_metrics after = {"damso_first 2\n"
                                             "damso_acks_total 25\n"
                                             "damso_errors_total{store=\"redis\"} 4\n"
                                             "damso_lag_seconds_bucket{le=\"0.001\"} 5\n"
                                             "damso_lag_seconds_bucket{le=\"2\"} 14\n"
                                             "damso_lag_seconds_bucket{le=\"+Inf\"} 15\n"
                                             "damso_lag_seconds_count 15\n"};

static void counters_rise_by_name(void)
{
    CHECK(persist_metrics_value(&after, "first") == 2);
    CHECK(persist_metrics_rise(&before, &after, "acks_total") == 15);
    CHECK(persist_metrics_rise(&before, &after, "errors_total{store=\"redis\"}") == 1);
    CHECK(isnan(persist_metrics_value(&after, "acks"))); /* not a part of another name */
}

static void quantile_is_the_bound_of_its_bucket(void)
{
    static const struct persist_metrics empty = {""};

    CHECK(persist_metrics_quantile(&before, &after, "lag_seconds", 0.5) == 2);
    CHECK(persist_metrics_quantile(&before, &after, "lag_seconds", 0.9) == 2);
    CHECK(persist_metrics_quantile(&before, &after, "lag_seconds", 0.99) == INFINITY);
    CHECK(isnan(persist_metrics_quantile(&after, &after, "lag_seconds", 0.5)));
    CHECK(isnan(persist_metrics_quantile(&empty, &empty, "lag_seconds", 0.5)));
}

/* --- records and pages --- */

static struct persist_load load = {.room_name = "bench-room-", .rooms = 2, .size = 100};

static struct slice record_of(uint32_t room, uint64_t seq)
{
    static uint8_t bytes[PERSIST_LOAD_RECORD_MAX];

    return (struct slice){(const char *)bytes, persist_load_record(&load, room, seq, bytes)};
}

static void record_is_a_message_of_its_room_and_seq(void)
{
    const struct slice bytes = record_of(1, 7);
    struct record record;
    char name[32];

    CHECK(record_decode(bytes.data, bytes.size, &record) == 0);
    CHECK(slice_equal(record.room_id, persist_load_room(&load, 1, name)));
    CHECK(record.seq == 7 && record.epoch == PERSIST_LOAD_EPOCH);
    CHECK(bytes.size >= 300 && bytes.size <= 360); /* as a shard's with a text of 100 bytes */
}

static void list_must_be_whole_and_in_order(void)
{
    char name[32];
    struct persist_redis_found found = {.room_id = persist_load_room(&load, 1, name)};

    CHECK(persist_redis_take(&found, record_of(1, 1)) == 0);
    CHECK(persist_redis_take(&found, record_of(1, 2)) == 0);
    CHECK(found.last_seq == 2 && found.wrong == 0);
    (void)persist_redis_take(&found, record_of(1, 2)); /* twice */
    (void)persist_redis_take(&found, record_of(1, 4)); /* a gap */
    (void)persist_redis_take(&found, record_of(0, 3)); /* another room's */
    struct slice cut = record_of(1, 3);
    cut.size--;
    (void)persist_redis_take(&found, cut);
    CHECK(found.last_seq == 2 && found.wrong == 4);
    CHECK(persist_redis_take(&found, record_of(1, 3)) == 0);
    CHECK(found.last_seq == 3);
}

static struct {
    struct persist_head head;
    struct {
        struct persist_entry entry;
        char body[8];
    } entries[3];
} page;

static void make_page(void)
{
    page.head = (struct persist_head){.op = PERSIST_HISTORY_PAGE, .count = 3};
    for (uint32_t i = 0; i < 3; i++) {
        page.entries[i].entry = (struct persist_entry){.seq = 5 + i, .body_bytes = 6};
    }
}

static bool is_page(uint32_t size)
{
    return persist_history_is_page(&page.head, size, 5, 3);
}

static void page_must_be_whole_and_dense(void)
{
    make_page();
    CHECK(is_page(sizeof(page)));
    CHECK(!is_page(sizeof(page) - 8));  /* cut in the last body */
    CHECK(!is_page(sizeof(page) - 16)); /* in its head */
    CHECK(!persist_history_is_page(&page.head, sizeof(page), 6, 3));
    page.entries[1].entry.seq = 7;
    CHECK(!is_page(sizeof(page)));
    make_page();
    page.head.count = 2;
    CHECK(!is_page(sizeof(page)));
    make_page();
    page.head.status = -EIO;
    CHECK(!is_page(sizeof(page)));
    make_page();
    page.entries[2].entry.body_bytes = UINT32_MAX - 3;
    CHECK(!is_page(sizeof(page)));
}

/* --- figures --- */

static void median_is_that_of_the_middle(void)
{
    double odd[] = {9, 1, 5};
    double even[] = {8, 2, 4, 100};

    CHECK(persist_figures_median(odd, 3) == 5);
    CHECK(persist_figures_median(even, 4) == 6);
    CHECK(isnan(persist_figures_median(odd, 0)));
}

static void first_problem_stays_and_what_does_not_fit_is_left_out(void)
{
    static struct persist_figures figures;

    persist_figures_init(&figures, "test");
    CHECK(persist_figures_say(&figures, -EIO, "the %s", "first") == -EIO);
    persist_figures_wrong(&figures, "the second");
    CHECK(strcmp(figures.problem, "the first") == 0 && figures.errors == 1);
    for (int i = 0; i < PERSIST_FIGURES_MAX + 3; i++) {
        persist_figures_put(&figures, i, "", "figure_%d", i);
    }
    CHECK(figures.count == PERSIST_FIGURES_MAX);
    CHECK(strcmp(figures.all[PERSIST_FIGURES_MAX - 1].name, "figure_95") == 0);
}

/* --- programs --- */

static const char *const *shell(const char *text)
{
    static const char *words[4];

    words[0] = "sh";
    words[1] = "-c";
    words[2] = text;
    words[3] = NULL;
    return words;
}

static void program_runs_to_its_end_and_its_words_are_kept(void)
{
    char said[8];

    CHECK(persist_child_run(shell("echo abc; exit 3"), 10, said, sizeof(said)) == 3);
    CHECK(strcmp(said, "abc\n") == 0);
    CHECK(persist_child_run(shell("seq 100000"), 10, said, sizeof(said)) == 0); /* does not hang */
    CHECK(strcmp(said, "1\n2\n3\n4") == 0);
    CHECK(persist_child_run((const char *const[]){"/no/such", NULL}, 10, said, sizeof(said)) ==
          127);
    CHECK(persist_child_run(shell("exec sleep 60"), 0.05, said, sizeof(said)) == -ETIMEDOUT);
}

static void line_is_waited_for(void)
{
    struct persist_child child;
    char rest[16];

    CHECK(persist_child_start(&child, shell("echo no; echo 'ready at here'; exec sleep 60"),
                              NULL) == 0);
    CHECK(persist_child_line(&child, "ready at ", 10, rest, sizeof(rest)) == 0);
    CHECK(strcmp(rest, "here") == 0);
    CHECK(persist_child_line(&child, "more", 0.05, rest, sizeof(rest)) == -ETIMEDOUT);
    CHECK(persist_child_stop(&child, 10) == 128 + SIGTERM);
    CHECK(persist_child_stop(&child, 10) == -ECHILD);
    CHECK(persist_child_start(&child, shell("echo no"), NULL) == 0);
    CHECK(persist_child_line(&child, "ready", 10, rest, sizeof(rest)) == -ESRCH);
    CHECK(persist_child_stop(&child, 10) == 0);
}

static void program_that_does_not_want_to_end_is_killed(void)
{
    struct persist_child child;
    char rest[8];

    CHECK(persist_child_start(&child, shell("trap '' TERM; echo on; while :; do sleep 0.01; done"),
                              NULL) == 0);
    CHECK(persist_child_line(&child, "on", 10, rest, sizeof(rest)) == 0);
    CHECK(persist_child_stop(&child, 0.1) == 128 + SIGKILL);
}

/* The link leads to a directory of the test's own: whatever is wrong with the removal, nothing but
 * what the test made is in its way. */
static void directory_goes_with_all_that_is_in_it(void)
{
    char said[8];
    char made[] = "test_persist_parts.XXXXXX";
    char text[256];
    char kept[64];
    char path[64];

    CHECK(mkdtemp(made) != NULL);
    (void)snprintf(text, sizeof(text),
                   "cd %s && mkdir -p gone/a/b kept && : >gone/a/b/c && : >kept/file && "
                   "ln -s ../kept gone/link",
                   made);
    CHECK(persist_child_run(shell(text), 10, said, sizeof(said)) == 0);
    (void)snprintf(path, sizeof(path), "%s/gone", made);
    (void)snprintf(kept, sizeof(kept), "%s/kept/file", made);
    CHECK(persist_child_remove(path) == 0);
    CHECK(access(path, F_OK) < 0 && errno == ENOENT);
    CHECK(access(kept, F_OK) == 0); /* a link is not followed */
    CHECK(persist_child_remove(made) == 0);
}

int main(void)
{
    database_of_a_uri_is_replaced_and_accounts_stay();
    uri_that_does_not_fit_is_refused();
    cpu_times_are_found_by_server();
    counters_rise_by_name();
    quantile_is_the_bound_of_its_bucket();
    record_is_a_message_of_its_room_and_seq();
    list_must_be_whole_and_in_order();
    page_must_be_whole_and_dense();
    median_is_that_of_the_middle();
    first_problem_stays_and_what_does_not_fit_is_left_out();
    program_runs_to_its_end_and_its_words_are_kept();
    line_is_waited_for();
    program_that_does_not_want_to_end_is_killed();
    directory_goes_with_all_that_is_in_it();
    puts("14 passed, 0 failed");
    return 0;
}
