/*
 * test_metrics.c - the text of GET /metrics is what Prometheus expects, and the sums are right.
 *
 * Method: two threads' worth of counters, rendered and read line by line; a second thread counts
 *         while we render. docs: prometheus.io, "Exposition formats", text format 0.0.4.
 */
#include "core/check.h"
#include "core/metrics.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

enum { STREAM_LENGTH = 2000000 };

static struct metrics first;
static struct metrics second;
static struct metrics *const both[] = {&first, &second};
static char text[METRICS_TEXT_MAX + 1];

static void begin(void)
{
    memset(&first, 0, sizeof(first));
    memset(&second, 0, sizeof(second));
}

static int64_t render(void)
{
    const int64_t size = metrics_render(both, 2, text, METRICS_TEXT_MAX);

    CHECK(size > 0);
    text[size] = '\0';
    return size;
}

/* Whether the text has that line, whole. */
static bool has_line(const char *line)
{
    const size_t size = strlen(line);

    for (const char *at = strstr(text, line); at != NULL; at = strstr(at + 1, line)) {
        if ((at == text || at[-1] == '\n') && at[size] == '\n') {
            return true;
        }
    }
    return false;
}

static void values_of_all_threads_are_summed(void)
{
    begin();
    metrics_add(&first.acks_total, 40);
    metrics_add(&second.acks_total, 2);
    metrics_set(&first.connections, 10);
    metrics_subtract(&first.connections, 3);
    metrics_add(&second.connections, 5);
    metrics_add(&second.busy_seconds_total, 1500000001);
    metrics_add(&first.pool_exhausted_total_rooms, 9);
    (void)render();
    CHECK(has_line("# HELP damso_acks_total Sends acknowledged."));
    CHECK(has_line("# TYPE damso_acks_total counter"));
    CHECK(has_line("damso_acks_total 42"));
    CHECK(has_line("# TYPE damso_connections gauge"));
    CHECK(has_line("damso_connections 12"));
    CHECK(has_line("# TYPE damso_busy_seconds_total counter"));
    CHECK(has_line("damso_busy_seconds_total 1.500000001"));
    CHECK(has_line("damso_pool_exhausted_total{pool=\"rooms\"} 9"));
    CHECK(has_line("damso_pool_exhausted_total{pool=\"chunks\"} 0"));
}

static void a_gauge_raised_here_and_lowered_there_is_right(void)
{
    begin();
    metrics_add(&first.rooms_loaded, 1);
    metrics_subtract(&second.rooms_loaded, 1);
    (void)render();
    CHECK(has_line("damso_rooms_loaded 0"));
    metrics_subtract(&second.rooms_loaded, 2); /* ours is wrong, and shows as what it is */
    (void)render();
    CHECK(has_line("damso_rooms_loaded -2"));
}

static void buckets_are_cumulative_and_bounds_are_inclusive(void)
{
    begin();
    metrics_observe(&first.journal_commit_seconds, 0);
    metrics_observe(&first.journal_commit_seconds, 50000);  /* 50 us: still in the first */
    metrics_observe(&second.journal_commit_seconds, 50001); /* in the second */
    metrics_observe(&second.journal_commit_seconds, 7000000000);
    (void)render();
    CHECK(has_line("# TYPE damso_journal_commit_seconds histogram"));
    CHECK(has_line("damso_journal_commit_seconds_bucket{le=\"5e-05\"} 2"));
    CHECK(has_line("damso_journal_commit_seconds_bucket{le=\"0.0001\"} 3"));
    CHECK(has_line("damso_journal_commit_seconds_bucket{le=\"5\"} 3"));
    CHECK(has_line("damso_journal_commit_seconds_bucket{le=\"+Inf\"} 4"));
    CHECK(has_line("damso_journal_commit_seconds_count 4"));
    CHECK(has_line("damso_journal_commit_seconds_sum 7.000100001"));
}

/* name{label="value"} number, name starting with damso_. */
static void check_sample(const char *line, const char *end)
{
    const char *at = line;

    CHECK(strncmp(at, "damso_", 6) == 0);
    while (at < end && (islower((unsigned char)*at) || isdigit((unsigned char)*at) || *at == '_')) {
        at++;
    }
    if (*at == '{') {
        at = memchr(at, '}', (size_t)(end - at));
        CHECK(at != NULL && at[-1] == '"');
        at++;
    }
    CHECK(*at == ' ');
    at++;
    CHECK(at < end);
    for (; at < end; at++) {
        CHECK(isdigit((unsigned char)*at) || *at == '.' || *at == '-');
    }
}

static void every_line_is_well_formed_and_every_family_is_introduced_once(void)
{
    begin();
    const int64_t size = render();
    char family[128] = "";
    uint32_t families = 0;

    CHECK(text[size - 1] == '\n');
    for (const char *line = text; *line != '\0';) {
        const char *end = strchr(line, '\n');
        if (strncmp(line, "# HELP ", 7) == 0) {
            const size_t length = strcspn(line + 7, " ");
            char help[160];
            CHECK(length < sizeof(family));
            (void)snprintf(family, sizeof(family), "%.*s", (int)length, line + 7);
            (void)snprintf(help, sizeof(help), "# HELP %s ", family);
            CHECK(strstr(line + 1, help) == NULL); /* once */
            CHECK(end[-1] == '.');                 /* a sentence */
            families++;
        } else if (strncmp(line, "# TYPE ", 7) == 0) {
            CHECK(strncmp(line + 7, family, strlen(family)) == 0);
            const bool total = strstr(family, "_total") != NULL;
            const bool counter = strncmp(end - 7, "counter", 7) == 0;
            CHECK(total == counter); /* the naming rule */
        } else {
            CHECK(strncmp(line, family, strlen(family)) == 0);
            check_sample(line, end);
        }
        line = end + 1;
    }
    CHECK(families > 30);
}

static void too_little_room_is_told_at_every_size(void)
{
    begin();
    const int64_t size = render();

    for (int64_t room = 0; room <= size; room++) {
        /* Exactly the size is not enough: the last number is written with a zero behind it. */
        CHECK(metrics_render(both, 2, text, (size_t)room) == -ENOSPC);
    }
    CHECK(metrics_render(both, 2, text, (size_t)size + 1) == size);
}

static void the_largest_values_fit(void)
{
    memset(&first, 0x7f, sizeof(first)); /* 19 digits each */
    memset(&second, 0, sizeof(second));
    CHECK(render() < METRICS_TEXT_MAX / 2); /* room for rows to come */
}

static void *count_up(void *unused)
{
    for (uint32_t i = 0; i < STREAM_LENGTH; i++) {
        metrics_add(&first.turns_total, 1);
        metrics_observe(&first.persist_batch_seconds, 1000);
    }
    return unused;
}

static void a_reader_sees_rising_values_while_the_owner_counts(void)
{
    pthread_t owner;
    uint64_t seen = 0;

    begin();
    CHECK(pthread_create(&owner, NULL, count_up, NULL) == 0);
    while (seen < STREAM_LENGTH) {
        const uint64_t now = metrics_get(&first.turns_total);
        CHECK(now >= seen);
        seen = now;
        (void)render();
    }
    CHECK(pthread_join(owner, NULL) == 0);
    (void)render();
    CHECK(has_line("damso_turns_total 2000000"));
    CHECK(has_line("damso_persist_batch_seconds_count 2000000"));
}

int main(void)
{
    values_of_all_threads_are_summed();
    a_gauge_raised_here_and_lowered_there_is_right();
    buckets_are_cumulative_and_bounds_are_inclusive();
    every_line_is_well_formed_and_every_family_is_introduced_once();
    too_little_room_is_told_at_every_size();
    the_largest_values_fit();
    a_reader_sees_rising_values_while_the_owner_counts();
    puts("7 passed, 0 failed");
    return 0;
}
