/*
 * pipeline.c - see pipeline.h: opening, the turn, and the modes.
 *
 * One turn of the persistence thread in this mode, after the lanes:
 *  1 answers   of the thread at Redis, of the flushers, of the readers
 *  2 mode      a reset if Redis is not to be trusted; the next step towards CACHED
 *  3 records   what is staged goes into Redis, or straight into MongoDB
 *  4 batches   those that are due go to the flushers
 *  5 tell      watermarks, credit and rewinds to the shards; metrics
 */
#include "persist/pipeline.h"

#include "core/check.h"
#include "core/log.h"
#include "persist/embedded.h"
#include "persist/lane.h"
#include "persist/secret.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    BACKOFF_MIN_NS = 50 * 1000 * 1000,
    PING_NS = 1000 * 1000 * 1000,
    WAIT_NS = 1000 * 1000 * 1000,
    END_STEP_NS = 2 * 1000 * 1000,
    EVENTS_MAX = 16,
    WORKER_IN_BYTES = 4096, /* jobs are pointers */
    WORKER_OUT_BYTES = 16384,
    READER_RING_BYTES = 4 * 1024 * 1024,
    BOOT_ID_BYTES = 36,
};

static const uint64_t BACKOFF_MAX_NS = 5000000000;
static const uint64_t END_NS = 20000000000; /* for what is left when the server stops */

_Static_assert(READER_RING_BYTES / 4 >= READ_OVERLAY_BYTES_MAX * 2, "a question fits its ring");

/* --- opening --- */

static void take_config(struct pipeline *pipeline, const struct config *config)
{
    pipeline->has_cache = config->persist_cache == 0;
    pipeline->sync = config->persist_flush_mode == 1;
    pipeline->flush_messages = pipeline->sync ? 1 : config->persist_flush_messages;
    pipeline->flush_interval_ns = config->persist_flush_interval * 1000000;
    pipeline->flush_bytes = config->persist_flush_bytes;
    pipeline->flusher_count = (uint32_t)config->persist_flushers;
    pipeline->reader_count = (uint32_t)config->persist_readers;
    pipeline->bulk_max = pipeline->sync ? 1 : MONGO_BULK_MAX;
    /* A job takes as many as it has commands; the rest is for rooms. */
    pipeline->batch_count =
        (uint32_t)config->persist_pending_rooms + (PIPE_APPENDS + 1) * JOB_APPEND_ROOMS;
    pipeline->room_count = 4 * pipeline->batch_count;
}

static int resolve(struct pipeline *pipeline, const struct config *config, char *ret_why,
                   size_t why_size)
{
    int error =
        secret_resolve("[persist] mongodb_uri", config->persist_mongodb_uri, pipeline->mongodb_uri,
                       sizeof(pipeline->mongodb_uri), ret_why, why_size);
    if (error == 0 && pipeline->has_cache) {
        error = secret_resolve("[persist] redis_url", config->persist_redis_url,
                               pipeline->redis_url, sizeof(pipeline->redis_url), ret_why, why_size);
    }
    pipeline->cache = (struct cache_options){
        .url = pipeline->redis_url,
        .ca_file = config->persist_redis_ca_file,
        .prefix = config->persist_redis_prefix,
        .connect_ms = (uint32_t)config->persist_store_connect,
        .reply_ms = (uint32_t)config->persist_redis_timeout,
    };
    return error;
}

static int pipeline_open(struct persist *persist, char *ret_why, size_t why_size)
{
    const struct config *config = persist->config;
    struct pipeline *pipeline = mem_alloc(&persist->plan, "pipeline", sizeof(*pipeline));

    if (pipeline == NULL) {
        (void)snprintf(ret_why, why_size, "no memory for the pipeline");
        return -ENOMEM;
    }
    persist->pipeline = pipeline;
    take_config(pipeline, config);
    const int error = resolve(pipeline, config, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    const struct mongo_options options = {
        .uri = pipeline->mongodb_uri,
        .connect_ms = (uint32_t)config->persist_store_connect,
        .socket_ms = (uint32_t)config->persist_store_timeout,
        .clients = pipeline->flusher_count + pipeline->reader_count,
        .plan = &persist->plan,
    };
    return mongo_open(&options, &pipeline->mongo, ret_why, why_size);
}

static struct worker_options worker_options(struct persist *persist, const char *name,
                                            uint32_t in_bytes, uint32_t out_bytes)
{
    return (struct worker_options){
        .name = name,
        .in_bytes = in_bytes,
        .out_bytes = out_bytes,
        .asker_bell = &persist->bell,
        .asker_ring = persist->ring,
        .asker_tag = os_tag(1, 0, 0),
    };
}

static struct slice boot_id(char bytes[BOOT_ID_BYTES])
{
    embedded_boot_id(bytes);
    return (struct slice){bytes, BOOT_ID_BYTES};
}

static int open_flushers(struct persist *persist, struct mem_plan *plan, char *why, size_t size)
{
    struct pipeline *pipeline = persist->pipeline;
    char id[BOOT_ID_BYTES];
    const struct flush_options options = {
        .cache = pipeline->has_cache ? &pipeline->cache : NULL,
        .mongo = pipeline->mongo,
        .bulk_max = pipeline->bulk_max,
        .keys_max = persist->keys_max,
        .boot_id = boot_id(id),
    };
    const struct worker_options worker =
        worker_options(persist, "damso-flush", WORKER_IN_BYTES, WORKER_OUT_BYTES);
    int error = 0;

    for (uint32_t i = 0; error == 0 && i < pipeline->flusher_count; i++) {
        struct flusher *flusher = NULL;
        error = flusher_open(&options, &worker, plan, &flusher, why, size);
        if (plan->mode == MEM_MAP && error == 0) {
            pipeline->opened_flushers[i] = flusher;
        }
    }
    return error;
}

static int open_readers(struct persist *persist, struct mem_plan *plan, char *why, size_t size)
{
    struct pipeline *pipeline = persist->pipeline;
    struct reader_options options = {
        .cache = pipeline->has_cache ? &pipeline->cache : NULL,
        .mongo = pipeline->mongo,
        .keys_max = persist->keys_max,
        .page_bytes = persist->page_bytes,
        .password_workers = persist->password_workers,
        .password_queue = persist->password_queue,
    };
    const struct worker_options worker = worker_options(
        persist, "damso-read", READER_RING_BYTES,
        persist->page_bytes > READER_RING_BYTES / 8 ? 8 * persist->page_bytes : READER_RING_BYTES);
    int error = 0;

    for (uint32_t i = 0; error == 0 && i < pipeline->reader_count; i++) {
        error = reader_open(&options, &worker, plan, &pipeline->readers[i], why, size);
        options.password_workers = 0; /* the first one has them all */
    }
    return error;
}

static void pipeline_reserve(struct persist *persist, struct mem_plan *plan)
{
    static struct pipeline counted; /* for damsod --plan */
    const bool counts = plan->mode == MEM_COUNT;

    if (counts) {
        counted = (struct pipeline){.cache.url = ""};
        persist->pipeline = &counted;
        take_config(&counted, persist->config);
    }
    struct pipeline *pipeline = persist->pipeline;
    pipe_rooms_reserve(pipeline, plan);
    pipe_stages_reserve(persist, plan);
    pipe_reads_reserve(pipeline, plan);
    pipeline->flushers =
        mem_reserve(plan, "flushers", sizeof(struct pipe_flusher), pipeline->flusher_count);
    const struct worker_options worker =
        worker_options(persist, "damso-append", WORKER_IN_BYTES, WORKER_OUT_BYTES);
    int error = appender_open(&pipeline->appender, &pipeline->cache, &worker, plan,
                              pipeline->open_why, sizeof(pipeline->open_why));
    error = error == 0
                ? open_flushers(persist, plan, pipeline->open_why, sizeof(pipeline->open_why))
                : error;
    pipeline->open_error =
        error == 0 ? open_readers(persist, plan, pipeline->open_why, sizeof(pipeline->open_why))
                   : error;
}

static int start_workers(struct pipeline *pipeline)
{
    int error = worker_start(&pipeline->appender.worker);

    for (uint32_t i = 0; error == 0 && i < pipeline->flusher_count; i++) {
        pipeline->flushers[i].flusher = pipeline->opened_flushers[i];
        error = worker_start(flusher_worker(pipeline->flushers[i].flusher));
    }
    for (uint32_t i = 0; error == 0 && i < pipeline->reader_count; i++) {
        error = reader_start(pipeline->readers[i]);
    }
    return error;
}

static int pipeline_start(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;

    if (pipeline->open_error < 0) {
        log_error("persistence cannot start reason=\"%s\"", pipeline->open_why);
        return pipeline->open_error;
    }
    pipe_rooms_init(pipeline);
    pipe_stages_init(persist);
    pipe_reads_init(pipeline);
    pipeline->backoff_ns = BACKOFF_MIN_NS;
    pipeline->mongodb_backoff_ns = BACKOFF_MIN_NS;
    return start_workers(pipeline);
}

/* --- what is told to people, once each --- */

static void set_well(struct persist *persist)
{
    const struct pipeline *pipeline = persist->pipeline;
    bool well =
        pipeline->mongodb_up && (pipeline->redis_up || !pipeline->has_cache) && !pipeline->fenced;

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        well = well && !persist->lanes[i].stuck;
    }
    /* A flag, nothing behind it. */
    atomic_store_explicit(&persist->well, well, memory_order_relaxed);
    metrics_set(&persist->metrics->redis_up, pipeline->redis_up);
    metrics_set(&persist->metrics->mongodb_up, pipeline->mongodb_up);
}

static void set_state(struct persist *persist, enum persist_state state,
                      const struct job_answer *answer)
{
    if (answer != NULL) {
        (void)pthread_mutex_lock(&persist->why_lock);
        (void)snprintf(persist->why, sizeof(persist->why), "%.*s", (int)answer->why_bytes,
                       answer->why);
        (void)pthread_mutex_unlock(&persist->why_lock);
    }
    atomic_store_explicit(&persist->state, state, memory_order_release);
}

/* A line when it goes, or does not come for another reason than before; and one when it comes. */
static void redis_is(struct persist *persist, bool up, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    if (!up && (pipeline->redis_up || pipeline->redis_status != answer->status)) {
        log_error("Redis is away; messages go from the journal straight into MongoDB "
                  "reason=\"%.*s\"",
                  (int)answer->why_bytes, answer->why);
    }
    if (up && !pipeline->redis_up) {
        log_notice("Redis is there prefix=%s", pipeline->cache.prefix);
    }
    pipeline->redis_up = up;
    pipeline->redis_status = up ? 0 : answer->status;
    set_well(persist);
}

static void mongodb_is(struct persist *persist, bool up, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    if (!up && (pipeline->mongodb_up || pipeline->mongodb_status != answer->status)) {
        log_error("MongoDB is away; what it does not have stays in the journal reason=\"%.*s\"",
                  (int)answer->why_bytes, answer->why);
    }
    if (up && !pipeline->mongodb_up) {
        log_notice("MongoDB is there database=%s", mongo_database(pipeline->mongo));
    }
    pipeline->mongodb_up = up;
    pipeline->mongodb_status = up ? 0 : answer->status;
    set_well(persist);
}

void pipe_mongodb_failed(struct persist *persist, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    metrics_add(&persist->metrics->persist_retries_total, 1);
    metrics_add(&persist->metrics->persist_store_errors_total_mongodb, 1);
    pipeline->mongodb_retry_ns = os_now_ns() + pipeline->mongodb_backoff_ns;
    pipeline->mongodb_backoff_ns = pipeline->mongodb_backoff_ns * 2 < BACKOFF_MAX_NS / 2
                                       ? pipeline->mongodb_backoff_ns * 2
                                       : BACKOFF_MAX_NS / 2;
    mongodb_is(persist, false, answer);
}

void pipe_mongodb_worked(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;

    pipeline->mongodb_retry_ns = 0;
    pipeline->mongodb_backoff_ns = BACKOFF_MIN_NS;
    mongodb_is(persist, true, NULL);
}

void pipe_fence(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;

    if (pipeline->fenced) {
        return;
    }
    pipeline->fenced = true;
    atomic_store_explicit(&persist->fenced, true, memory_order_release);
    log_error(
        "another damsod has taken over these stores: nothing more is written or acknowledged "
        "here; what MongoDB does not have stays in this journal. Stop one of the two, or give "
        "them different databases and redis_prefix");
    set_well(persist);
}

void pipe_distrust(struct persist *persist, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    if (pipeline->resetting || pipeline->fenced) {
        return;
    }
    metrics_add(&persist->metrics->persist_resets_total, 1);
    metrics_add(&persist->metrics->persist_store_errors_total_redis, 1);
    if (answer->status == -ENODATA) {
        log_warning("Redis does not have what it was given; the journal hands it over again "
                    "reason=\"%.*s\"",
                    (int)answer->why_bytes, answer->why);
    }
    pipeline->resetting = true;
    /* A full Redis is left alone for a while; another one is asked again at once. */
    pipeline->retry_at_ns = answer->status == -ENOSPC ? os_now_ns() + pipeline->backoff_ns : 0;
    if (answer->status != -ENODATA) {
        redis_is(persist, false, answer);
    }
}

/* --- jobs --- */

void pipe_ask(struct persist *persist, struct worker *worker, const struct job_head *head)
{
    void *space = worker_reserve(worker, sizeof(*head));

    CHECK(space != NULL); /* there are few jobs at a time, and the ring holds many */
    memcpy(space, head, sizeof(*head));
    worker_ask(worker, sizeof(*head), persist->ring);
    persist->pipeline->asked = true;
}

bool pipe_in_flight(const struct pipeline *pipeline)
{
    bool any = pipeline->append_count > 0 || pipeline->connecting || pipeline->pinging;

    for (uint32_t i = 0; i < pipeline->flusher_count; i++) {
        any = any || pipeline->flushers[i].op != 0;
    }
    return any;
}

static void ask_flusher(struct persist *persist, enum job_op op)
{
    struct pipe_flusher *flusher = &persist->pipeline->flushers[0];
    const struct job_head head = {.op = op, .number = persist->pipeline->owner};

    flusher->op = op;
    pipe_ask(persist, flusher_worker(flusher->flusher), &head);
}

static void ask_redis(struct persist *persist, enum job_op op)
{
    struct pipeline *pipeline = persist->pipeline;
    const struct job_head head = {.op = op, .number = pipeline->owner};

    *(op == JOB_PING ? &pipeline->pinging : &pipeline->connecting) = true;
    pipe_ask(persist, &pipeline->appender.worker, &head);
}

static void later(struct pipeline *pipeline)
{
    pipeline->retry_at_ns = os_now_ns() + pipeline->backoff_ns;
    pipeline->backoff_ns =
        pipeline->backoff_ns * 2 < BACKOFF_MAX_NS ? pipeline->backoff_ns * 2 : BACKOFF_MAX_NS;
}

static void start_done(struct persist *persist, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    if (answer->status < 0) {
        mongodb_is(persist, false, answer);
        set_state(persist, PERSIST_DOWN, answer);
        later(pipeline);
        return;
    }
    pipeline->owner = answer->number;
    pipeline->backoff_ns = BACKOFF_MIN_NS;
    pipeline->retry_at_ns = 0;
    pipe_mongodb_worked(persist);
    pipeline->mode = pipeline->has_cache ? PIPE_CONNECTING : PIPE_DIRECT;
    pipeline->served = !pipeline->has_cache;
}

/* Redis cannot be used: records go without it, until the next attempt. */
static void go_direct(struct persist *persist, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    redis_is(persist, false, answer);
    set_state(persist, PERSIST_DOWN, answer);
    pipeline->mode = PIPE_DIRECT;
    pipeline->served = true;
    later(pipeline);
}

static void connect_done(struct persist *persist, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    pipeline->connecting = false;
    if (answer->status < 0) {
        go_direct(persist, answer);
    } else {
        pipeline->mode = PIPE_DRAINING;
    }
}

static void drain_done(struct persist *persist, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    if (answer->status == -ESTALE) {
        pipe_fence(persist);
    } else if (answer->status < 0 && answer->where == JOB_WHERE_MONGODB) {
        pipe_mongodb_failed(persist, answer); /* DRAINING goes on after the backoff */
    } else if (answer->status < 0) {
        go_direct(persist, answer);
    } else {
        if (answer->number > 0) {
            log_notice("took over from Redis records=%llu", (unsigned long long)answer->number);
        }
        pipeline->mode = PIPE_CACHED;
        pipeline->served = true;
        pipeline->backoff_ns = BACKOFF_MIN_NS;
        redis_is(persist, true, NULL);
    }
}

static void redis_answered(struct persist *persist, const struct job_answer *answer)
{
    if (answer->op == JOB_CONNECT) {
        connect_done(persist, answer);
    } else if (answer->op == JOB_APPEND) {
        pipe_append_done(persist, answer);
    } else {
        persist->pipeline->pinging = false;
        if (answer->status < 0) {
            pipe_distrust(persist, answer);
        }
    }
    if (answer->redis_ns > 0) {
        metrics_observe(&persist->metrics->redis_round_trip_seconds, answer->redis_ns);
    }
}

static void batch_answered(struct persist *persist, struct pipe_flusher *flusher,
                           const struct job_answer *answer)
{
    metrics_add(&persist->metrics->persist_batches_total, 1);
    metrics_observe(&persist->metrics->persist_batch_seconds, answer->ns);
    metrics_add(&persist->metrics->persist_quarantined_total, answer->quarantined);
    if (answer->op == JOB_FLUSH) {
        pipe_flush_done(persist, flusher, answer);
    } else {
        metrics_add(&persist->metrics->persist_records_total, flusher->job.record_count);
        pipe_direct_done(persist, flusher, answer);
    }
    if (answer->status == -ESTALE) {
        pipe_fence(persist);
    } else if (answer->status < 0 && answer->where != JOB_WHERE_REDIS &&
               answer->status != -ENODATA) {
        pipe_mongodb_failed(persist, answer);
    } else {
        pipe_mongodb_worked(persist);
    }
}

static void flusher_answered(struct persist *persist, struct pipe_flusher *flusher,
                             const struct job_answer *answer)
{
    if (answer->mongodb_ns > 0) {
        metrics_observe(&persist->metrics->mongodb_round_trip_seconds, answer->mongodb_ns);
    }
    switch (answer->op) {
    case JOB_FLUSH:
    case JOB_DIRECT:
        batch_answered(persist, flusher, answer);
        return;
    case JOB_START:
        start_done(persist, answer);
        break;
    case JOB_DRAIN:
        drain_done(persist, answer);
        break;
    default:
        persist->pipeline->ended = answer->status == 0;
        persist->pipeline->end_answered = true;
    }
    flusher->op = 0;
}

/* Step 1. */
static bool take_answers(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;
    struct worker *redis = &pipeline->appender.worker;
    bool any = pipe_reads_pass(persist);
    uint32_t size;

    for (const struct job_answer *answer = worker_answer(redis, &size); answer != NULL;
         answer = worker_answer(redis, &size)) {
        redis_answered(persist, answer);
        worker_next(redis);
        any = true;
    }
    for (uint32_t i = 0; i < pipeline->flusher_count; i++) {
        struct worker *worker = flusher_worker(pipeline->flushers[i].flusher);
        const struct job_answer *answer = worker_answer(worker, &size);
        if (answer != NULL) {
            flusher_answered(persist, &pipeline->flushers[i], answer);
            worker_next(worker);
            any = true;
        }
    }
    return any;
}

/* --- modes --- */

static bool reset(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;

    if (!pipeline->resetting || pipe_in_flight(pipeline)) {
        return false;
    }
    pipe_stages_reset(persist);
    pipe_rooms_reset(persist);
    pipeline->resetting = false;
    pipeline->mode = pipeline->retry_at_ns > 0 ? PIPE_DIRECT : PIPE_CONNECTING;
    return true;
}

/* Step 2: what is next on the way to CACHED, if nothing is under way that it must wait for. */
static void step(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;
    const uint64_t now_ns = os_now_ns();
    const bool mongodb_may = now_ns >= pipeline->mongodb_retry_ns;

    switch (pipeline->mode) {
    case PIPE_OFFLINE:
        if (pipeline->flushers[0].op == 0 && now_ns >= pipeline->retry_at_ns) {
            ask_flusher(persist, JOB_START);
        }
        break;
    case PIPE_CONNECTING:
        if (!pipeline->connecting) {
            ask_redis(persist, JOB_CONNECT);
        }
        break;
    case PIPE_DRAINING:
        if (!pipe_in_flight(pipeline) && mongodb_may) {
            ask_flusher(persist, JOB_DRAIN);
        }
        break;
    case PIPE_DIRECT:
        if (pipeline->has_cache && !pipeline->connecting && now_ns >= pipeline->retry_at_ns) {
            ask_redis(persist, JOB_CONNECT);
        }
        break;
    case PIPE_CACHED:
        if (pipeline->append_count == 0 && !pipeline->pinging && now_ns >= pipeline->ping_at_ns) {
            pipeline->ping_at_ns = now_ns + PING_NS;
            ask_redis(persist, JOB_PING);
        }
        break;
    }
}

/* Steps 3 and 4. */
static bool give_jobs(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;
    const bool mongodb_may = os_now_ns() >= pipeline->mongodb_retry_ns;
    bool any = false;

    if (pipeline->resetting || pipeline->fenced) {
        return false;
    }
    if (pipeline->mode == PIPE_CACHED) {
        any = pipe_append_some(persist);
        any = (mongodb_may && pipe_flush_some(persist)) || any;
    } else if (pipeline->mode == PIPE_DIRECT && mongodb_may) {
        any = pipe_direct_some(persist);
    }
    return any;
}

static void show_backlog(struct persist *persist)
{
    const struct pipeline *pipeline = persist->pipeline;
    struct metrics *metrics = persist->metrics;
    uint64_t oldest_ns = UINT64_MAX;

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        const struct pipe_batch *batch = pipeline->stages[i].oldest;
        oldest_ns = batch != NULL && batch->begun_ns < oldest_ns ? batch->begun_ns : oldest_ns;
    }
    metrics_set(&metrics->persist_pending_messages, pipeline->pending_messages);
    metrics_set(&metrics->persist_pending_bytes, pipeline->pending_bytes);
    metrics_set(&metrics->persist_pending_seconds,
                oldest_ns == UINT64_MAX ? 0 : (os_now_ns() - oldest_ns) / 1000000000);
}

static bool pipeline_turn(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;
    struct os_event events[EVENTS_MAX];
    bool any = take_answers(persist);

    any = reset(persist) || any;
    if (!pipeline->resetting && !pipeline->fenced) {
        step(persist);
    }
    if (pipeline->served && !pipe_is_recovering(persist) &&
        atomic_load_explicit(&persist->state, memory_order_relaxed) != PERSIST_READY) {
        set_state(persist, PERSIST_READY, NULL);
    }
    any = give_jobs(persist) || any;
    pipe_stages_tell(persist);
    show_backlog(persist);
    pipeline->turns++;
    if (pipeline->asked) {
        pipeline->asked = false;
        (void)!os_turn(persist->ring, 0, events, EVENTS_MAX); /* the bells go out with this */
    }
    return any;
}

static int64_t pipeline_wait_ns(const struct persist *persist)
{
    const struct pipeline *pipeline = persist->pipeline;
    const uint64_t now_ns = os_now_ns();
    const uint64_t times[] = {pipeline->retry_at_ns, pipeline->mongodb_retry_ns,
                              pipeline->mode == PIPE_CACHED ? pipeline->ping_at_ns : 0,
                              pipeline->mode == PIPE_CACHED ? pipe_flush_due_ns(persist) : 0};
    uint64_t wait_ns = WAIT_NS;

    for (uint32_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        if (times[i] > now_ns && times[i] - now_ns < wait_ns) {
            wait_ns = times[i] - now_ns;
        }
    }
    return (int64_t)(wait_ns > LANE_WAIT_NS ? wait_ns : LANE_WAIT_NS);
}

/* --- the end --- */

/* What was given up is handed over again only to the next run: shards are gone. */
static bool is_given_up(const struct persist *persist)
{
    bool any = persist->pipeline->resetting;

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        any = any || persist->pipeline->stages[i].rewinding;
    }
    return any;
}

static bool all_is_stored(const struct persist *persist)
{
    bool all = !is_given_up(persist) && !pipe_is_recovering(persist);

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        const struct pipe_stage *stage = &persist->pipeline->stages[i];
        all =
            all && stage->first == stage->end && stage->oldest == NULL && !persist->lanes[i].stuck;
    }
    return all;
}

/* Flushes what is left as long as MongoDB takes it; the journal has the rest. */
static bool pipeline_drain(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;
    struct os_event events[EVENTS_MAX];
    const uint64_t now_ns = os_now_ns();

    if (!pipeline->ending) {
        pipeline->ending = true;
        pipeline->end_by_ns = now_ns + END_NS;
    }
    (void)pipeline_turn(persist);
    const bool stored = all_is_stored(persist) && !pipeline->fenced && pipeline->served;
    if (stored && !pipeline->end_asked && !pipe_in_flight(pipeline)) {
        pipeline->end_asked = true;
        ask_flusher(persist, JOB_END);
    }
    (void)!os_turn(persist->ring, END_STEP_NS, events, EVENTS_MAX);
    const bool hopeless = pipeline->fenced || !pipeline->served ||
                          (!stored && pipeline->mongodb_retry_ns > 0) || is_given_up(persist);
    return !pipeline->end_answered && !hopeless && now_ns < pipeline->end_by_ns;
}

static void pipeline_stop(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;

    worker_end(&pipeline->appender.worker);
    for (uint32_t i = 0; i < pipeline->flusher_count && pipeline->opened_flushers[i] != NULL; i++) {
        worker_end(flusher_worker(pipeline->opened_flushers[i]));
    }
    for (uint32_t i = 0; i < pipeline->reader_count && pipeline->readers[i] != NULL; i++) {
        worker_end(reader_worker(pipeline->readers[i]));
    }
    worker_stop(&pipeline->appender.worker);
    for (uint32_t i = 0; i < pipeline->flusher_count; i++) {
        if (pipeline->opened_flushers[i] != NULL) {
            worker_stop(flusher_worker(pipeline->opened_flushers[i]));
            flusher_close(pipeline->opened_flushers[i]);
        }
    }
    for (uint32_t i = 0; i < pipeline->reader_count; i++) {
        if (pipeline->readers[i] != NULL) {
            worker_stop(reader_worker(pipeline->readers[i]));
            reader_close(pipeline->readers[i]);
        }
    }
    appender_close(&pipeline->appender);
}

static void pipeline_close(struct persist *persist)
{
    if (persist->pipeline != NULL) {
        mongo_close(persist->pipeline->mongo);
    }
}

static bool pipeline_is_full(const struct persist *persist)
{
    (void)persist;
    return false; /* pipe_take says it of each lane */
}

const struct persist_engine pipeline_engine = {
    .open = pipeline_open,
    .reserve = pipeline_reserve,
    .start = pipeline_start,
    .take = pipe_take,
    .is_full = pipeline_is_full,
    .request = pipe_request,
    .turn = pipeline_turn,
    .wait_ns = pipeline_wait_ns,
    .drain = pipeline_drain,
    .stop = pipeline_stop,
    .close = pipeline_close,
};
