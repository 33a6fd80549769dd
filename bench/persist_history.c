/* persist_history.c - see persist_history.h. */
#include "bench/persist_history.h"

#include "bench/persist_load.h"
#include "bench/persist_stores.h"
#include "core/histogram.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GROUP_ROOMS = 20,     /* in MongoDB only, and as many in Redis */
    REDIS_MESSAGES = 150, /* of a room: fewer than persist.flush_messages (200) */
    MONGODB_MESSAGES = 200,
    PAGE = 50,
    ASKED_MAX = 1 << 20, /* pages of a stretch: seconds by the rate */
    PUTS_A_TURN_MAX = 1000,
};

static const uint64_t wait_ns = 60000000000;
static const uint64_t tail_ns = 10000000000; /* pages that have not come by then never will */
static const int64_t turn_wait_ns = 200000;

struct asked {
    uint64_t due_ns;
    uint64_t first_seq;
};

struct stretch {
    struct persist_load *load;
    const struct options *options;
    struct histogram latency;
    struct asked *asked; /* by token */
    uint64_t asked_count, answered, wrong, refused;
    uint64_t begin_ns, end_ns;
    uint64_t put;                  /* messages */
    uint32_t first_room, messages; /* of the group that is read */
};

bool persist_history_is_page(const struct persist_head *reply, uint32_t size, uint64_t first_seq,
                             uint32_t count)
{
    const uint8_t *at = (const uint8_t *)(reply + 1);
    const uint8_t *const end = (const uint8_t *)reply + size;

    if (reply->op != PERSIST_HISTORY_PAGE || reply->status != 0 || reply->count != count) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct persist_entry *const entry = (const void *)at;
        if ((size_t)(end - at) < sizeof(*entry) || entry->seq != first_seq + i) {
            return false;
        }
        const size_t whole = sizeof(*entry) + (((size_t)entry->body_bytes + 7) & ~(size_t)7);
        if ((size_t)(end - at) < whole) {
            return false;
        }
        at += whole;
    }
    return true;
}

static void take_page(void *context, const struct persist_head *reply, uint32_t size)
{
    struct stretch *const stretch = context;
    const struct asked *const asked = &stretch->asked[reply->token];

    stretch->answered++;
    if (reply->status == -EAGAIN) {
        stretch->refused++;
    } else if (!persist_history_is_page(reply, size, asked->first_seq, PAGE)) {
        stretch->wrong++;
    } else {
        histogram_record(&stretch->latency, os_now_ns() - asked->due_ns, 1);
    }
}

static uint64_t due_at(const struct stretch *stretch, uint64_t number, double rate)
{
    return stretch->begin_ns + (uint64_t)((double)number * 1e9 / rate);
}

/* Messages and questions that are due. */
static void pace(struct stretch *stretch, uint64_t now_ns)
{
    struct persist_load *const load = stretch->load;
    const uint32_t written = load->rooms - 2 * GROUP_ROOMS;

    for (int i = 0; i < PUTS_A_TURN_MAX && stretch->options->rate > 0; i++) {
        if (due_at(stretch, stretch->put, stretch->options->rate) > now_ns ||
            !persist_load_put(load, (uint32_t)(stretch->put % written))) {
            break;
        }
        stretch->put++;
    }
    for (int i = 0; i < PUTS_A_TURN_MAX && stretch->asked_count < ASKED_MAX; i++) {
        const uint64_t token = stretch->asked_count;
        const uint64_t due_ns = due_at(stretch, token, stretch->options->reads);
        const uint32_t room = stretch->first_room + (uint32_t)(token % GROUP_ROOMS);
        const uint64_t first_seq = 1 + token * 7 % (stretch->messages - PAGE + 1);
        stretch->asked[token] = (struct asked){due_ns, first_seq};
        if (due_ns > now_ns || due_ns >= stretch->end_ns ||
            !persist_load_ask(load, room, first_seq, PAGE, token)) {
            break;
        }
        stretch->asked_count++;
    }
    persist_load_publish(load);
}

static int run_stretch(struct stretch *stretch)
{
    struct persist_load *const load = stretch->load;
    const uint64_t duration_ns = (uint64_t)(stretch->options->duration_s * 1e9);
    int result = 0;

    stretch->begin_ns = os_now_ns();
    stretch->end_ns = stretch->begin_ns + duration_ns;
    load->reply = take_page;
    load->context = stretch;
    uint64_t now_ns = stretch->begin_ns;
    while (result == 0 && now_ns < stretch->end_ns + tail_ns &&
           (now_ns < stretch->end_ns || stretch->answered < stretch->asked_count)) {
        if (now_ns < stretch->end_ns) {
            pace(stretch, now_ns);
        }
        result = persist_figures_ending() ? -EINTR : persist_load_take(load, turn_wait_ns);
        now_ns = os_now_ns();
    }
    load->reply = NULL;
    return result;
}

/* --- what is there before --- */

static int fill(struct persist_load *load)
{
    const uint32_t written = load->rooms - 2 * GROUP_ROOMS;
    int result = 0;

    for (uint32_t i = 0; i < GROUP_ROOMS * MONGODB_MESSAGES && result == 0;) {
        i += persist_load_put(load, written + i % GROUP_ROOMS);
        persist_load_publish(load);
        result = persist_load_take(load, 0);
    }
    result = result == 0 ? persist_load_wait_stored(load, os_now_ns() + wait_ns) : result;
    for (uint32_t i = 0; i < GROUP_ROOMS * REDIS_MESSAGES && result == 0;) {
        i += persist_load_put(load, written + GROUP_ROOMS + i % GROUP_ROOMS);
        persist_load_publish(load);
        result = persist_load_take(load, 0);
    }
    return result == 0 ? persist_load_wait_pending(load, (uint64_t)GROUP_ROOMS * REDIS_MESSAGES,
                                                   os_now_ns() + wait_ns)
                       : result;
}

/* --- figures --- */

static uint64_t observed(const struct metrics_histogram *histogram)
{
    uint64_t count = 0;

    for (int i = 0; i <= METRICS_BOUNDS; i++) {
        count += metrics_get(&histogram->counts[i]);
    }
    return count;
}

/* Round trips to MongoDB that are not batches: those of readers, but for a few batches that are
 * counted in one and not yet in the other. */
static int64_t mongodb_reads(const struct persist_load *load)
{
    return (int64_t)(observed(&load->metrics.mongodb_round_trip_seconds) -
                     metrics_get(&load->metrics.persist_batches_total));
}

static int read_group(struct persist_load *load, const struct options *options, struct asked *asked,
                      bool redis)
{
    static struct stretch stretch;
    struct persist_figures *const figures = load->figures;
    const char *const name = redis ? "redis" : "mongodb";
    const uint32_t written = load->rooms - 2 * GROUP_ROOMS;

    stretch = (struct stretch){.load = load,
                               .options = options,
                               .asked = asked,
                               .first_room = written + (redis ? GROUP_ROOMS : 0),
                               .messages = redis ? REDIS_MESSAGES : MONGODB_MESSAGES};
    histogram_init(&stretch.latency);
    const int64_t before = mongodb_reads(load);
    const int64_t joined = (int64_t)metrics_get(&load->metrics.persist_reads_joined_total);
    const int result = run_stretch(&stretch);
    if (result < 0) {
        return persist_figures_say(figures, result, "pages: %s", strerrordesc_np(-result));
    }
    const int64_t from_mongodb = mongodb_reads(load) - before;
    const int64_t shared = (int64_t)metrics_get(&load->metrics.persist_reads_joined_total) - joined;
    const int64_t pages = (int64_t)stretch.latency.total;
    const int64_t slack = pages / 100;
    const bool proven = redis ? from_mongodb <= slack : from_mongodb + shared >= pages - slack;
    const double p50 = (double)histogram_quantile(&stretch.latency, 0.5) / 1e6;
    const double p99 = (double)histogram_quantile(&stretch.latency, 0.99) / 1e6;
    persist_figures_put(figures, proven && pages > 0 ? p50 : NAN, "ms", "%s_p50_ms", name);
    persist_figures_put(figures, proven && pages > 0 ? p99 : NAN, "ms", "%s_p99_ms", name);
    persist_figures_put(figures, redis ? 2 : 10, "ms", "%s_target_p99_ms", name);
    persist_figures_put(figures, (double)pages / options->duration_s, "/s", "%s_pages_per_s", name);
    persist_figures_put(figures, (double)stretch.put / options->duration_s, "/s",
                        "%s_written_per_s", name);
    persist_figures_put(figures, (double)from_mongodb, "", "%s_mongodb_reads", name);
    persist_figures_put(figures, (double)stretch.refused, "", "%s_refused", name);
    if (!proven) {
        persist_figures_wrong(figures,
                              "pages out of %s: unproven, the readers made %ld round trips to "
                              "MongoDB for %ld pages",
                              name, (long)from_mongodb, (long)pages);
    }
    if (stretch.refused > 0) {
        persist_figures_wrong(figures,
                              "%lu of %lu pages out of %s were refused: more than the "
                              "readers can do, and the latencies are without them",
                              (unsigned long)stretch.refused, (unsigned long)stretch.asked_count,
                              name);
    }
    if (stretch.wrong > 0 || stretch.answered < stretch.asked_count) {
        persist_figures_wrong(figures, "%lu pages of %s were wrong, %lu never came",
                              (unsigned long)stretch.wrong, name,
                              (unsigned long)(stretch.asked_count - stretch.answered));
    }
    return 0;
}

static int run(struct persist_load *load, const struct options *options)
{
    struct mem_plan plan;

    mem_init(&plan, "pages", MEM_MAP);
    struct asked *const asked = mem_reserve(&plan, "asked", sizeof(*asked), ASKED_MAX);
    int result = mem_seal(&plan);
    result = result == 0 ? persist_load_make_rooms(load) : result;
    result = result == 0 ? fill(load) : result;
    result = result == 0 ? read_group(load, options, asked, true) : result;
    result = result == 0 ? read_group(load, options, asked, false) : result;
    mem_end(&plan);
    return result;
}

int persist_history_run(const struct options *options, struct persist_figures *figures)
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
        load.config.persist_flush_interval = 3600000; /* those in Redis stay there */
        result =
            persist_load_begin(&load, options->rooms + 2 * GROUP_ROOMS, options->size, figures);
        if (result == 0) {
            result = run(&load, options);
            persist_load_end(&load);
            persist_stores_drop(&space);
        }
    }
    persist_stores_end(&stores);
    return result;
}
