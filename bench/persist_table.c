/* persist_table.c - see persist_table.h. */
#include "bench/persist_table.h"

#include "bench/persist_server.h"
#include "bench/persist_stores.h"
#include "bench/procstat.h"
#include "bench/report.h"
#include "bench/scenario.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WAYS = 4,
    SEARCH_FROM = 125, /* messages a second */
    SEARCH_DOUBLINGS = 11,
    SEARCH_BISECTIONS = 2,
    ROOM_EVENTS = 2000, /* 600 kB: a room's log in memory has 128 KiB at least, and little more */
    READS = 200,
    READ_FIRST = 101, /* pages before seqs READ_FIRST .. READ_FIRST + READ_SPAN: old ones */
    READ_SPAN = 800,
    TEXT_BYTES = 100,
};

static const double search_step_s = 5;
static const double settle_limit_s = 60;
static const double flush_interval_s = 1;  /* as in load_config */
static const double settle_slack_s = 1.25; /* see persist_table.h */
static const double top_share = 0.8;

static const struct way {
    const char *name, *flush_mode, *cache;
} ways[WAYS] = {
    {"batch_redis", "batch", "redis"},
    {"batch_none", "batch", "none"},
    {"sync_redis", "sync", "redis"},
    {"sync_none", "sync", "none"},
};

enum row {
    ROW_SUSTAINED,
    ROW_RESETS,
    ROW_LAG_P50,
    ROW_LAG_P99,
    ROW_DAMSOD,
    ROW_REDIS,
    ROW_MONGODB,
    ROW_TOP_LAG_P50,
    ROW_TOP_LAG_P99,
    ROW_TOP_DAMSOD,
    ROW_TOP_REDIS,
    ROW_TOP_MONGODB,
    ROW_COLD_P50,
    ROW_COLD_P99,
    ROW_CACHE_P50,
    ROW_CACHE_P99,
    ROW_MEMORY_P50,
    ROW_MEMORY_P99,
    ROWS,
};

static const struct {
    const char *name, *title, *unit;
} rows[ROWS] = {
    {"messages_per_s", "highest rate sustained", "messages/s"},
    {"resets", "Redis had to be filled anew", "times"},
    {"lag_p50_s", "lag p50, at most", "s"},
    {"lag_p99_s", "lag p99, at most", "s"},
    {"damsod_cpu_s", "CPU of damsod", "s/million"},
    {"redis_cpu_s", "CPU of Redis", "s/million"},
    {"mongodb_cpu_s", "CPU of MongoDB", "s/million"},
    {"top_lag_p50_s", "lag p50, at 0.8 of highest", "s"},
    {"top_lag_p99_s", "lag p99, at 0.8 of highest", "s"},
    {"top_damsod_cpu_s", "CPU of damsod, there", "s/million"},
    {"top_redis_cpu_s", "CPU of Redis, there", "s/million"},
    {"top_mongodb_cpu_s", "CPU of MongoDB, there", "s/million"},
    {"cold_p50_ms", "history from MongoDB p50", "ms"},
    {"cold_p99_ms", "history from MongoDB p99", "ms"},
    {"cache_p50_ms", "history from Redis p50", "ms"},
    {"cache_p99_ms", "history from Redis p99", "ms"},
    {"memory_p50_ms", "history from memory p50", "ms"},
    {"memory_p99_ms", "history from memory p99", "ms"},
};

struct cell {
    double value;  /* NAN: none */
    bool unproven; /* the counters say that it was not measured where it should have been */
};

struct table {
    const struct options *options;
    struct persist_figures *figures;
    struct persist_stores stores;
    const struct way *way;
    struct cell *column; /* of this way */
    struct persist_space space;
    char directory[PERSIST_SERVER_PATH];
    bool used; /* the database: a damsod was there */
    struct persist_server server;
    struct persist_metrics before, after;
    char load_problem[SCENARIO_PROBLEM_BYTES]; /* of the last load */
    struct cell cells[WAYS][ROWS];
};

static void progress(const struct table *table, double rate, const struct report *report,
                     double seconds, bool good)
{
    if (!table->options->json) {
        (void)printf("  %s: at %.0f/s %.0f/s were sent, all stored %.1f s later: %s\n",
                     table->way->name, rate, report->messages_per_s, seconds,
                     good ? "sustained" : "too much");
        (void)fflush(stdout);
    }
}

/* --- a damsod --- */

static int start(struct table *table, bool reading)
{
    char config[2048];
    const int size = snprintf(
        config, sizeof(config),
        "[persist]\nmode = redis+mongodb\nrequire_stores = on\nredis_url = %s\nredis_prefix = %s\n"
        "mongodb_uri = %s\nflush_mode = %s\ncache = %s\nflush_interval = %s\n"
        "flush_messages = %s\n[rooms]\nlog_bytes = %s\n[journal]\nbytes_max = 1g\n",
        table->stores.redis_url, table->space.prefix, table->space.mongodb_uri,
        table->way->flush_mode, table->way->cache, reading ? "1h" : "1s",
        reading ? "100000" : "200", reading ? "128k" : "8m");

    if (size >= (int)sizeof(config)) {
        return -ENAMETOOLONG;
    }
    const int result = persist_server_start(&table->server, table->options, table->directory,
                                            config, table->figures);
    table->used = table->used || result == 0;
    return result;
}

static int make_directory(struct table *table)
{
    (void)snprintf(table->directory, sizeof(table->directory), "%.400s/damso-persist-XXXXXX",
                   table->options->data);
    if (mkdtemp(table->directory) == NULL) {
        const int error = -errno;
        table->directory[0] = '\0';
        return persist_figures_say(table->figures, error, "%s: %s", table->options->data,
                                   strerrordesc_np(-error));
    }
    return 0;
}

static void end_way(struct table *table)
{
    (void)persist_server_stop(&table->server);
    (void)persist_child_remove(table->directory);
    if (table->used) {
        persist_stores_drop(&table->space);
    }
    table->used = false;
}

/* --- load --- */

/* One load; fills the report. Returns the seconds until all was stored, or -errno. */
static double load(struct table *table, double rate, double duration_s, struct report *report)
{
    struct options options = table->server.options;
    char *const problem = table->load_problem;

    problem[0] = '\0';
    options.kind = SCENARIO_OPEN;
    options.rate = rate;
    options.duration_s = duration_s;
    options.json = true;
    report_init(report, "persist");
    const int result = scenario_run(&options, report, problem);
    if (result < 0) {
        return persist_figures_say(table->figures, result, "the load: %s",
                                   problem[0] != '\0' ? problem : strerrordesc_np(-result));
    }
    return persist_server_settle(&table->server, settle_limit_s, table->figures);
}

/* Load at a rate, with lag and CPU times. 0 or -errno. */
static int measure(struct table *table, double rate, const enum row first)
{
    struct persist_stores_cpu cpu_before, cpu_after;
    struct report report;
    int result = persist_server_metrics(&table->server, &table->before, table->figures);

    if (result < 0) {
        return result;
    }
    persist_stores_cpu(&table->stores, &cpu_before);
    const double own_s = procstat_cpu_s(table->server.child.pid);
    const double seconds = load(table, rate, table->options->duration_s, &report);
    const double own_after_s = procstat_cpu_s(table->server.child.pid);
    persist_stores_cpu(&table->stores, &cpu_after);
    if (seconds < 0) {
        return persist_figures_say(table->figures, (int)seconds,
                                   "at %.0f/s not all was stored after %.0f s", rate,
                                   settle_limit_s);
    }
    result = persist_server_metrics(&table->server, &table->after, table->figures);
    if (result < 0) {
        return result;
    }
    if (!report_clean(&report)) {
        persist_figures_wrong(table->figures, "at %.0f/s something was lost or wrong: %s", rate,
                              table->load_problem);
    }
    const double millions = persist_metrics_rise(&table->before, &table->after, "acks_total") / 1e6;
    struct cell *const cells = &table->column[first];
    cells[0].value =
        persist_metrics_quantile(&table->before, &table->after, "persist_lag_seconds", 0.5);
    cells[1].value =
        persist_metrics_quantile(&table->before, &table->after, "persist_lag_seconds", 0.99);
    cells[2].value = (own_after_s - own_s) / millions;
    cells[3].value = (cpu_after.redis_s - cpu_before.redis_s) / millions;
    cells[4].value = (cpu_after.mongodb_s - cpu_before.mongodb_s) / millions;
    return 0;
}

/* 1: sustained; 0: not; < 0: it could not be tried. */
static int try_rate(struct table *table, double rate)
{
    struct report report;

    if (persist_figures_ending()) {
        return -EINTR;
    }
    const double seconds = load(table, rate, search_step_s, &report);
    if (persist_figures_ending()) {
        return -EINTR;
    }
    if (seconds < 0 && seconds != -ETIMEDOUT) {
        return (int)seconds;
    }
    const bool good = report_clean(&report) && report.messages_per_s >= 0.95 * rate &&
                      seconds >= 0 && seconds <= flush_interval_s + settle_slack_s;
    progress(table, rate, &report, seconds, good);
    return seconds == -ETIMEDOUT ? -ETIMEDOUT : good;
}

/* Doubles until a rate is too much, then halves the distance. A backlog that does not go ends the
 * search with what was good before. */
static int search(struct table *table, double *ret_rate)
{
    double good = 0;
    double bad = 0;
    double rate = SEARCH_FROM;
    int result = 1;

    for (int i = 0; i < SEARCH_DOUBLINGS && bad == 0 && result >= 0; i++) {
        result = try_rate(table, rate);
        *(result > 0 ? &good : &bad) = rate;
        rate *= 2;
    }
    for (int i = 0; i < SEARCH_BISECTIONS && bad > 0 && good > 0 && result >= 0; i++) {
        rate = (good + bad) / 2;
        result = try_rate(table, rate);
        *(result > 0 ? &good : &bad) = rate;
    }
    *ret_rate = good;
    return result == -ETIMEDOUT && good > 0 ? 0 : result < 0 ? result : 0;
}

static int load_way(struct table *table)
{
    double rate = 0;
    int result = start(table, false);

    result = result == 0 ? measure(table, table->options->rate, ROW_LAG_P50) : result;
    result = result == 0 ? search(table, &rate) : result;
    if (result == 0 && rate > 0) {
        table->column[ROW_SUSTAINED].value = rate;
        result = measure(table, top_share * rate, ROW_TOP_LAG_P50);
    }
    if (result == 0) {
        result = persist_server_metrics(&table->server, &table->after, table->figures);
        table->column[ROW_RESETS].value =
            persist_metrics_value(&table->after, "persist_resets_total");
    }
    if (result == 0 && table->column[ROW_RESETS].value > 0) {
        persist_figures_wrong(table->figures, "Redis did not have what it was given");
    }
    (void)persist_server_stop(&table->server);
    return result;
}

/* --- reads --- */

/* What the counters must say of READS pages. */
enum place { PLACE_COLD, PLACE_CACHE, PLACE_MEMORY };

/* Reads of the store by the shard, and round trips of the readers. Redis is asked for its health
 * once a second, and nothing is written meanwhile. */
static bool is_proven(const struct table *table, enum place place, double seconds)
{
    const double reads = persist_metrics_rise(&table->before, &table->after, "persist_reads_total");
    const double redis =
        persist_metrics_rise(&table->before, &table->after, "redis_round_trip_seconds_count");
    const double mongodb =
        persist_metrics_rise(&table->before, &table->after, "mongodb_round_trip_seconds_count");
    const double pings = seconds + 2;

    if (!table->options->json) {
        (void)printf(
            "  %s: %s: %.0f questions to the store, round trips: Redis %.0f, MongoDB %.0f\n",
            table->way->name,
            place == PLACE_COLD    ? "from MongoDB"
            : place == PLACE_CACHE ? "from Redis"
                                   : "from memory",
            reads, redis, mongodb);
    }
    switch (place) {
    case PLACE_COLD:
        return mongodb >= READS && redis <= pings;
    case PLACE_CACHE:
        return redis >= READS && mongodb == 0;
    case PLACE_MEMORY:
        return !(reads > 0) && redis <= pings && mongodb == 0;
    }
    return false;
}

/* Reads READS pages of a room and puts two cells. 0 or -errno. */
static int read_pages(struct table *table, const char *room, enum place place, uint64_t last_seq)
{
    static double ms[READS];
    struct cell *const cells = &table->column[ROW_COLD_P50 + 2 * (int)place];
    double seconds = 0;
    int result = persist_server_page(&table->server, room, READ_FIRST, &ms[0], table->figures);

    result = result == 0 ? persist_server_metrics(&table->server, &table->before, table->figures)
                         : result;
    for (int i = 0; i < READS && result == 0; i++) {
        const uint64_t old = READ_FIRST + (uint64_t)i * READ_SPAN / READS;
        const uint64_t before = place == PLACE_MEMORY ? last_seq + 1 - (uint64_t)(i % 20) : old;
        result = persist_server_page(&table->server, room, before, &ms[i], table->figures);
        seconds += ms[i] / 1e3;
    }
    result = result == 0 ? persist_server_metrics(&table->server, &table->after, table->figures)
                         : result;
    if (result < 0) {
        return result;
    }
    cells[0].value = persist_figures_median(ms, READS); /* puts them in order */
    cells[1].value = ms[READS * 99 / 100 - 1];
    if (!is_proven(table, place, seconds)) {
        cells[0].unproven = true;
        cells[1].unproven = true;
        persist_figures_wrong(table->figures, "%s: by the counters it came from elsewhere",
                              rows[ROW_COLD_P50 + 2 * (int)place].title);
    }
    return 0;
}

static int read_way(struct table *table)
{
    const bool cached =
        strcmp(table->way->cache, "redis") == 0 && strcmp(table->way->flush_mode, "batch") == 0;
    int result = start(table, true);

    result = result == 0 ? persist_server_fill(&table->server, "cold", ROOM_EVENTS, TEXT_BYTES,
                                               table->figures)
                         : result;
    (void)persist_server_stop(&table->server); /* stores all of it */
    result = result == 0 ? start(table, true) : result;
    result = result == 0 ? read_pages(table, "cold", PLACE_COLD, 0) : result;
    result = result == 0 ? persist_server_fill(&table->server, "warm", ROOM_EVENTS, TEXT_BYTES,
                                               table->figures)
                         : result;
    if (result == 0 && !cached) {
        const double seconds =
            persist_server_settle(&table->server, settle_limit_s, table->figures);
        result = seconds < 0 ? (int)seconds : 0;
    }
    result = result == 0 && cached ? read_pages(table, "warm", PLACE_CACHE, 0) : result;
    result = result == 0 ? read_pages(table, "warm", PLACE_MEMORY, ROOM_EVENTS) : result;
    (void)persist_server_stop(&table->server);
    return result;
}

/* --- all of it --- */

static int run_way(struct table *table)
{
    int result = make_directory(table);

    if (result < 0) {
        return result;
    }
    result = persist_stores_space(&table->stores, &table->space, table->figures);
    result = result == 0 ? load_way(table) : result;
    result = result == 0 ? read_way(table) : result;
    end_way(table);
    return result;
}

/* One way; what went wrong in it is told, and does not keep the others from running. 0; 1: it gave
 * no figures, or not all; -EINTR. */
static int try_way(struct table *table, uint32_t index, struct persist_figures *figures)
{
    static struct persist_figures own;

    table->way = &ways[index];
    table->column = table->cells[index];
    table->figures = &own;
    persist_figures_init(&own, "persist");
    const int result = run_way(table);
    if (persist_figures_ending()) {
        return persist_figures_say(figures, -EINTR, "interrupted");
    }
    if (result < 0 || own.errors > 0) {
        persist_figures_wrong(figures, "%s: %s", table->way->name,
                              own.problem[0] != '\0' ? own.problem : strerrordesc_np(-result));
        (void)fprintf(stderr, "damso-bench: %s: %s\n", table->way->name, own.problem);
    }
    return result < 0 ? 1 : 0;
}

static void print(const struct table *table)
{
    (void)printf("\nall at %.0f messages/s of %u bytes, %u senders in %u rooms, but where it says "
                 "\"there\"\n%-28s",
                 table->options->rate, table->options->size, table->options->senders,
                 table->options->rooms, "flush_mode, cache");
    for (uint32_t i = 0; i < WAYS; i++) {
        (void)printf("%14s", ways[i].name);
    }
    for (uint32_t row = 0; row < ROWS; row++) {
        (void)printf("\n%-28s", rows[row].title);
        for (uint32_t i = 0; i < WAYS; i++) {
            const struct cell cell = table->cells[i][row];
            if (cell.unproven) {
                (void)printf("%14s", "unproven");
            } else if (isnan(cell.value)) {
                (void)printf("%14s", "-");
            } else {
                (void)printf("%14.*f", cell.value < 100 ? 3 : 0, cell.value);
            }
        }
        (void)printf("  %s", rows[row].unit);
    }
    (void)puts("");
}

int persist_table_run(const struct options *options, struct persist_figures *figures)
{
    static struct table table;

    table = (struct table){.options = options, .figures = figures};
    for (uint32_t i = 0; i < WAYS * ROWS; i++) {
        table.cells[i / ROWS][i % ROWS].value = NAN;
    }
    int result = persist_stores_begin(&table.stores, options, figures);
    if (result < 0) {
        return result;
    }
    int failed = 0;
    for (uint32_t i = 0; i < WAYS && result >= 0; i++) {
        result = try_way(&table, i, figures);
        failed += result > 0;
    }
    persist_stores_end(&table.stores);
    if (result < 0 || failed == WAYS) {
        return result < 0 ? result : -EIO;
    }
    if (!options->json) {
        print(&table);
    }
    for (uint32_t i = 0; i < WAYS * ROWS; i++) {
        const struct cell cell = table.cells[i / ROWS][i % ROWS];
        persist_figures_put(figures, cell.unproven ? NAN : cell.value, rows[i % ROWS].unit, "%s_%s",
                            ways[i / ROWS].name, rows[i % ROWS].name);
    }
    return 0;
}
