/* persist_redis.c - see persist_redis.h. */
#include "bench/persist_redis.h"

#include "bench/persist_load.h"
#include "bench/persist_stores.h"
#include "bench/procstat.h"
#include "core/log.h"
#include "core/record.h"
#include "persist/cache.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

enum {
    CHUNK = 10000, /* records between two looks at the clock */
    FLUSH_MESSAGES_MAX = 100000,
    CONNECT_MS = 2000,
    REPLY_MS = 10000,
};

static const uint64_t wait_ns = 60000000000;
static const double target_per_s = 300000;

/* --- the check --- */

int persist_redis_take(struct persist_redis_found *found, struct slice record)
{
    struct record decoded;

    if (record_decode(record.data, record.size, &decoded) < 0 ||
        !slice_equal(decoded.room_id, found->room_id) || decoded.seq != found->last_seq + 1) {
        found->wrong++;
    } else {
        found->last_seq++;
    }
    return 0;
}

static int take_row(void *context, uint32_t range, struct slice record)
{
    (void)range;
    return persist_redis_take(context, record);
}

/* Reads every room's list, and removes it: nothing of it is to be flushed. */
static int check_rooms(const struct persist_load *load, struct cache *cache, uint64_t *ret_lost,
                       uint64_t *ret_wrong)
{
    int result = 0;

    for (uint32_t room = 0; room < load->rooms && result == 0; room++) {
        char name[32];
        struct persist_redis_found found = {.room_id = persist_load_room(load, room, name)};
        const struct cache_range all = {.room_id = found.room_id, .last = UINT32_MAX};
        result = cache_read(cache, &all, 1, take_row, &found);
        *ret_lost += load->seq[room] - found.last_seq;
        *ret_wrong += found.wrong;
        if (result == 0) {
            result = cache_remove_found(cache, found.room_id, 0, 0, false);
        }
    }
    return result;
}

static int check(const struct persist_load *load, uint64_t *ret_lost, uint64_t *ret_wrong)
{
    struct mem_plan plan;
    struct cache *cache = NULL;
    char why[512] = "";

    mem_init(&plan, "check", MEM_MAP);
    const struct cache_options options = {.url = load->config.persist_redis_url,
                                          .ca_file = load->config.persist_redis_ca_file,
                                          .prefix = load->config.persist_redis_prefix,
                                          .connect_ms = CONNECT_MS,
                                          .reply_ms = REPLY_MS,
                                          .plan = &plan};
    int result = cache_open(&options, &cache, why, sizeof(why));
    result = result == 0 ? mem_seal(&plan) : result;
    if (result == 0) {
        /* The highest owner there is: persistence must not touch these rooms any more. */
        result = cache_connect(cache, CACHE_OWNER_MAX);
        result = result == 0 ? check_rooms(load, cache, ret_lost, ret_wrong) : result;
        (void)snprintf(why, sizeof(why), "%s", result < 0 ? cache_why(cache) : "");
    }
    cache_close(cache);
    mem_end(&plan);
    return result < 0 ? persist_figures_say(load->figures, result, "the check in Redis: %s", why)
                      : 0;
}

/* --- the load --- */

static double thread_cpu_s(void)
{
    struct rusage usage;

    (void)getrusage(RUSAGE_THREAD, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static int feed_for(struct persist_load *load, double seconds)
{
    const uint64_t begin_ns = os_now_ns();
    const uint64_t records_max = (uint64_t)load->rooms * (FLUSH_MESSAGES_MAX - CHUNK);
    int result = 0;

    while (result == 0 && load->records < records_max &&
           (double)(os_now_ns() - begin_ns) < seconds * 1e9) {
        result = persist_load_feed(load, CHUNK, begin_ns + wait_ns);
    }
    return result == 0 ? persist_load_wait_pending(load, load->records, os_now_ns() + wait_ns)
                       : result;
}

static int measure(struct persist_load *load, const struct persist_stores *stores,
                   const struct options *options, struct persist_figures *figures)
{
    struct persist_stores_cpu before, after;

    persist_stores_cpu(stores, &before);
    const double own_s = procstat_own_cpu_s() - thread_cpu_s();
    const double feeder_s = thread_cpu_s();
    const uint64_t begin_ns = os_now_ns();
    int result = feed_for(load, options->duration_s);
    const double seconds = (double)(os_now_ns() - begin_ns) / 1e9;
    if (result < 0) {
        return result;
    }
    const double fed_s = thread_cpu_s() - feeder_s;
    const double threads_s = procstat_own_cpu_s() - thread_cpu_s() - own_s;
    persist_stores_cpu(stores, &after);
    const double millions = (double)load->records / 1e6;
    uint64_t lost = 0;
    uint64_t wrong = 0;
    result = check(load, &lost, &wrong);
    persist_figures_put(figures, (double)load->records / seconds, "/s", "messages_per_s");
    persist_figures_put(figures, target_per_s, "/s", "target_messages_per_s");
    persist_figures_put(figures, (double)load->records, "", "messages");
    persist_figures_put(figures, (double)load->bytes / (double)load->records, "bytes",
                        "bytes_per_record");
    persist_figures_put(figures, threads_s / millions, "s/million", "persistence_cpu_s");
    persist_figures_put(figures, fed_s / millions, "s/million", "feeder_cpu_s");
    persist_figures_put(figures, (after.redis_s - before.redis_s) / millions, "s/million",
                        "redis_cpu_s");
    persist_figures_put(figures, (double)lost, "", "lost");
    persist_figures_put(figures, (double)wrong, "", "wrong");
    if (result == 0 && (lost > 0 || wrong > 0)) {
        persist_figures_wrong(figures,
                              "%" PRIu64 " messages are not in Redis, %" PRIu64 " are wrong there",
                              lost, wrong);
    }
    return result;
}

static bool silence(const char *line, uint32_t size)
{
    (void)line, (void)size;
    return true;
}

int persist_redis_run(const struct options *options, struct persist_figures *figures)
{
    static struct persist_load load;
    struct persist_stores stores;
    struct persist_space space;
    int result = persist_stores_begin(&stores, options, figures);

    if (result < 0) {
        return result;
    }
    result = persist_stores_space(&stores, &space, figures);
    if (result == 0) {
        persist_load_config(&load.config, options, &stores, &space);
        load.config.persist_flush_messages = FLUSH_MESSAGES_MAX;
        load.config.persist_flush_interval = 3600000;
        load.config.persist_flush_bytes = UINT64_C(64) << 30;
        result = persist_load_begin(&load, options->rooms, options->size, figures);
        if (result == 0) {
            result = measure(&load, &stores, options, figures);
            log_writer(silence); /* the check has taken the rooms away, and it complains */
            persist_load_end(&load);
            log_writer(NULL);
            persist_stores_drop(&space);
        }
    }
    persist_stores_end(&stores);
    return result;
}
