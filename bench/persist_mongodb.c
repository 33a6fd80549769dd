/* persist_mongodb.c - see persist_mongodb.h. */
#include "bench/persist_mongodb.h"

#include "bench/micro/micro_mongo.h"
#include "bench/persist_load.h"
#include "bench/persist_stores.h"
#include "persist/store_mongo.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

enum { RUNS_MAX = 15, CONNECT_MS = 5000, SOCKET_MS = 60000, KEYS_MAX = 4096 };

static const uint64_t wait_ns = 120000000000;
static const double target_ratio = 0.9;

struct runs {
    const struct options *options;
    struct persist_figures *figures;
    struct persist_stores stores;
    struct persist_load load;
    double ours[RUNS_MAX], driver[RUNS_MAX]; /* messages a second */
    double resets;                           /* of Redis, in all runs: there must be none */
};

/* --- A: persistence --- */

static int feed(struct runs *runs, double *ret_per_s)
{
    struct persist_load *const load = &runs->load;
    const uint64_t begin_ns = os_now_ns();
    int result = persist_load_feed(load, runs->options->messages, begin_ns + wait_ns);

    while (result == 0 && !persist_load_hurry(load)) {
        result = persist_load_take(load, 1000000);
    }
    persist_load_publish(load);
    result = result == 0 ? persist_load_wait_stored(load, os_now_ns() + wait_ns) : result;
    *ret_per_s = (double)load->records * 1e9 / (double)(os_now_ns() - begin_ns);
    if (result == 0 && (metrics_get(&load->metrics.persist_quarantined_total) > 0 ||
                        metrics_get(&load->metrics.persist_resets_total) > 0)) {
        persist_figures_wrong(runs->figures, "MongoDB refused messages, or Redis was reset");
    }
    return result;
}

static int run_ours(struct runs *runs, double *ret_per_s)
{
    struct persist_load *const load = &runs->load;
    struct persist_space space;
    int result = persist_stores_space(&runs->stores, &space, runs->figures);

    if (result < 0) {
        return result;
    }
    persist_load_config(&load->config, runs->options, &runs->stores, &space);
    result = persist_load_begin(load, runs->options->rooms, runs->options->size, runs->figures);
    if (result == 0) {
        result = persist_load_make_rooms(load);
        result = result == 0 ? feed(runs, ret_per_s) : result;
        persist_load_end(load);
        persist_stores_drop(&space);
    }
    return result;
}

/* --- B: libmongoc --- */

/* Our collections with their validators and indexes. */
static int prepare(const char *uri, char why[MICRO_MONGO_WHY])
{
    struct mem_plan plan;
    struct mongo *mongo = NULL;
    struct store_mongo *store = NULL;

    mem_init(&plan, "prepare", MEM_MAP);
    const struct mongo_options options = {
        .uri = uri, .connect_ms = CONNECT_MS, .socket_ms = SOCKET_MS, .clients = 1, .plan = &plan};
    int result = mongo_open(&options, &mongo, why, MICRO_MONGO_WHY);
    result = result == 0 ? store_mongo_open(mongo, KEYS_MAX, &plan, &store) : result;
    result = result == 0 ? mem_seal(&plan) : result;
    result = result == 0 ? store_mongo_prepare(store) : result;
    if (result < 0 && store != NULL) {
        (void)snprintf(why, MICRO_MONGO_WHY, "%.400s", store_mongo_why(store));
    }
    store_mongo_close(store);
    mongo_close(mongo);
    mem_end(&plan);
    return result;
}

/* Record number of what the feed gives: room after room in turn. */
static uint32_t make_record(void *context, uint64_t number, uint8_t ret[MICRO_MONGO_RECORD_MAX])
{
    const struct persist_load *const load = context;

    return persist_load_record(load, (uint32_t)(number % load->rooms), number / load->rooms + 1,
                               ret);
}

_Static_assert((int)MICRO_MONGO_RECORD_MAX >= (int)PERSIST_LOAD_RECORD_MAX, "a record fits");

static int run_driver(struct runs *runs, double *ret_per_s)
{
    struct persist_space space;
    char why[MICRO_MONGO_WHY] = "";
    double seconds = 0;
    int result = persist_stores_space(&runs->stores, &space, runs->figures);

    if (result < 0) {
        return result;
    }
    result = prepare(space.mongodb_uri, why);
    result = result == 0 ? micro_mongo_insert(space.mongodb_uri, runs->options->messages,
                                              make_record, &runs->load, &seconds, why)
                         : result;
    *ret_per_s = runs->options->messages / seconds;
    persist_stores_drop(&space);
    return result < 0 ? persist_figures_say(runs->figures, result, "libmongoc alone: %s", why) : 0;
}

/* --- all of it --- */

static double spread(const double *ordered, uint32_t count)
{
    return count == 0 ? NAN : 100 * (ordered[count - 1] - ordered[0]) / ordered[count / 2];
}

static void put_figures(struct runs *runs, uint32_t count)
{
    struct persist_figures *const figures = runs->figures;
    const double ours = persist_figures_median(runs->ours, count); /* and puts them in order */
    const double driver = persist_figures_median(runs->driver, count);

    persist_figures_put(figures, ours, "/s", "messages_per_s");
    persist_figures_put(figures, spread(runs->ours, count), "%", "messages_spread_percent");
    persist_figures_put(figures, driver, "/s", "libmongoc_documents_per_s");
    persist_figures_put(figures, spread(runs->driver, count), "%", "libmongoc_spread_percent");
    persist_figures_put(figures, ours / driver, "", "ratio");
    persist_figures_put(figures, target_ratio, "", "target_ratio");
    persist_figures_put(figures, runs->options->messages, "", "messages");
    persist_figures_put(figures, count, "", "runs");
}

int persist_mongodb_run(const struct options *options, struct persist_figures *figures)
{
    static struct runs runs;
    const uint32_t count = options->runs < RUNS_MAX ? options->runs : RUNS_MAX;
    uint32_t done = 0;

    runs = (struct runs){.options = options, .figures = figures};
    int result = persist_stores_begin(&runs.stores, options, figures);
    while (result == 0 && done < count) {
        result = run_ours(&runs, &runs.ours[done]);
        result = result == 0 ? run_driver(&runs, &runs.driver[done]) : result;
        if (result == 0 && !options->json) {
            (void)printf("  run %u: persistence %.0f/s, libmongoc alone %.0f/s\n", done + 1,
                         runs.ours[done], runs.driver[done]);
            (void)fflush(stdout);
        }
        done += result == 0;
    }
    put_figures(&runs, done);
    persist_stores_end(&runs.stores);
    return result;
}
