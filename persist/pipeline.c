/*
 * pipeline.c - see pipeline.h: the turn, the modes, and what is told to people.
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
#include "persist/lane.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    PING_NS = 1000 * 1000 * 1000,
    WAIT_NS = 1000 * 1000 * 1000,
    EVENTS_MAX = 16,
};

static const uint64_t BACKOFF_MAX_NS = 5000000000;

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

static void set_state(struct persist *persist, enum persist_state state, const char *what,
                      const struct job_answer *answer)
{
    if (answer != NULL) {
        (void)pthread_mutex_lock(&persist->why_lock);
        (void)snprintf(persist->why, sizeof(persist->why), "%s%.*s", what, (int)answer->why_bytes,
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
    pipeline->mongodb_backoff_ns = PIPE_BACKOFF_MIN_NS;
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
    bool any = pipeline->append_count > 0 || pipeline->connecting || pipeline->pinging ||
               pipeline->freezing;

    for (uint32_t i = 0; i < pipeline->flusher_count; i++) {
        any = any || pipeline->flushers[i].op != 0;
    }
    return any;
}

void pipe_ask_flusher(struct persist *persist, enum job_op op)
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
        set_state(persist, PERSIST_DOWN, "", answer);
        later(pipeline);
        if (pipeline->has_cache && !pipeline->connecting) {
            ask_redis(persist, JOB_CONNECT);
        }
        return;
    }
    pipeline->owner = answer->number;
    pipeline->backoff_ns = PIPE_BACKOFF_MIN_NS;
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
    set_state(persist, PERSIST_DOWN, "Redis ([persist] redis_url) at ", answer);
    pipeline->mode = PIPE_DIRECT;
    pipeline->served = true;
    later(pipeline);
}

static void connect_done(struct persist *persist, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    pipeline->connecting = false;
    if (answer->number != pipeline->owner || pipeline->mode == PIPE_OFFLINE) {
        /* Only a look, while MongoDB was away: Redis is told of too. */
        if (answer->status < 0) {
            redis_is(persist, false, answer);
        }
        return;
    }
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
        pipeline->backoff_ns = PIPE_BACKOFF_MIN_NS;
        redis_is(persist, true, NULL);
    }
}

static void redis_answered(struct persist *persist, const struct job_answer *answer)
{
    if (answer->op == JOB_CONNECT) {
        connect_done(persist, answer);
    } else if (answer->op == JOB_APPEND) {
        pipe_append_done(persist, answer);
    } else if (answer->op == JOB_FREEZE) {
        pipe_freeze_done(persist, answer);
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

    while (pipeline->has_cache) {
        const struct job_answer *answer = worker_answer(redis, &size);
        if (answer == NULL) {
            break;
        }
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
            pipe_ask_flusher(persist, JOB_START);
        }
        break;
    case PIPE_CONNECTING:
        if (!pipeline->connecting) {
            ask_redis(persist, JOB_CONNECT);
        }
        break;
    case PIPE_DRAINING:
        if (!pipe_in_flight(pipeline) && mongodb_may) {
            pipe_ask_flusher(persist, JOB_DRAIN);
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
        any = (mongodb_may && pipe_freeze_some(persist)) || any;
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

bool pipe_turn(struct persist *persist)
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
        set_state(persist, PERSIST_READY, "", NULL);
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

int64_t pipe_wait_ns(const struct persist *persist)
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
