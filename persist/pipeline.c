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
    CHECK_NS = 1000 * 1000 * 1000,
    TAKEOVER_NS = 2000 * 1000 * 1000, /* two looks of the one before us at the owner */
    ACTIVE_NS = 1000 * 1000 * 1000,
    IDLE_LOOK_NS = 200 * 1000 * 1000,
    LOOK_NS = 20 * 1000 * 1000,
    SYNC_LOOK_NS = 2 * 1000 * 1000,
    EVENTS_MAX = 16,
};

static const uint64_t backoff_max_ns = 2000000000;

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

/* A reason that waiting does not mend, so that it is worth a line of its own. */
static bool is_lasting(int status)
{
    return status == -EACCES || status == -EKEYREJECTED || status == -ENOTSUP ||
           status == -EUCLEAN || status == -EINVAL || status == -EROFS;
}

/* A line when a store goes, one for another lasting reason why it does not come, one when it comes.
 */
static void tell_store(bool was_up, bool up, int last_status, const char *went, const char *store,
                       const struct job_answer *answer)
{
    if (!up && (was_up || last_status == 0)) {
        log_error("%s reason=\"%.*s\"", went, (int)answer->why_bytes, answer->why);
    } else if (!up && answer->status != last_status && is_lasting(answer->status)) {
        log_error("%s cannot be used yet reason=\"%.*s\"", store, (int)answer->why_bytes,
                  answer->why);
    }
}

static void redis_is(struct persist *persist, bool up, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    tell_store(pipeline->redis_up, up, pipeline->redis_status,
               "Redis is away; messages go from the journal straight into MongoDB", "Redis",
               answer);
    if (up && !pipeline->redis_up) {
        log_notice("Redis is there prefix=%s restarted=%s", pipeline->cache.prefix,
                   pipeline->redis_restarted ? "yes" : "no");
    }
    pipeline->redis_up = up;
    pipeline->redis_status = up ? 0 : answer->status;
    set_well(persist);
}

static void mongodb_is(struct persist *persist, bool up, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    tell_store(pipeline->mongodb_up, up, pipeline->mongodb_status,
               "MongoDB is away; what it does not have stays in the journal", "MongoDB", answer);
    if (up && !pipeline->mongodb_up) {
        log_notice("MongoDB is there database=%s", mongo_database(pipeline->mongo));
    }
    pipeline->mongodb_up = up;
    pipeline->mongodb_status = up ? 0 : answer->status;
    set_well(persist);
}

void pipe_mongodb_failed(struct persist *persist, uint64_t asked_ns,
                         const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    metrics_add(&persist->metrics->persist_retries_total, 1);
    metrics_add(&persist->metrics->persist_store_errors_total_mongodb, 1);
    if (asked_ns < pipeline->mongodb_worked_ns) {
        return; /* since then it has worked: what failed is tried again like that */
    }
    pipeline->mongodb_retry_ns = os_now_ns() + pipeline->mongodb_backoff_ns;
    pipeline->mongodb_backoff_ns = pipeline->mongodb_backoff_ns * 2 < backoff_max_ns
                                       ? pipeline->mongodb_backoff_ns * 2
                                       : backoff_max_ns;
    pipeline->mongodb_failed_ns = os_now_ns();
    mongodb_is(persist, false, answer);
}

void pipe_mongodb_worked(struct persist *persist, uint64_t asked_ns)
{
    struct pipeline *pipeline = persist->pipeline;

    if (asked_ns < pipeline->mongodb_failed_ns) {
        return;
    }
    pipeline->mongodb_worked_ns = os_now_ns();
    pipeline->mongodb_retry_ns = 0;
    pipeline->mongodb_backoff_ns = PIPE_BACKOFF_MIN_NS;
    mongodb_is(persist, true, NULL);
}

void pipe_fence(struct persist *persist, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    if (pipeline->fenced) {
        return;
    }
    pipeline->fenced = true;
    atomic_store_explicit(&persist->fenced, true, memory_order_release);
    log_error(
        "these stores are not ours any more: nothing more is written or acknowledged here, and "
        "what MongoDB does not have stays in this journal; if two damsods run, stop one, or "
        "give them different databases and redis_prefix reason=\"%.*s\"",
        (int)answer->why_bytes, answer->why);
    set_well(persist);
}

static void later(struct pipeline *pipeline)
{
    pipeline->retry_at_ns = os_now_ns() + pipeline->backoff_ns;
    pipeline->backoff_ns =
        pipeline->backoff_ns * 2 < backoff_max_ns ? pipeline->backoff_ns * 2 : backoff_max_ns;
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
    /* One that lost something is asked again at once, if it has taken anything since; one that
     * refuses is left alone for a while, and longer each time. */
    if (answer->status == -ENODATA && pipeline->appended) {
        pipeline->retry_at_ns = 0;
    } else {
        later(pipeline);
    }
    if (answer->status != -ENODATA) {
        redis_is(persist, false, answer);
    }
}

/* --- jobs --- */

void pipe_ask(struct persist *persist, struct worker *worker, const struct job_head *head)
{
    void *space = worker_reserve(worker, sizeof(*head));
    struct job_head asked = *head;

    CHECK(space != NULL); /* there are few jobs at a time, and the ring holds many */
    asked.connection = persist->pipeline->connection;
    memcpy(space, &asked, sizeof(asked));
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
    flusher->asked_ns = os_now_ns();
    pipe_ask(persist, flusher_worker(flusher->flusher), &head);
}

static void ask_redis(struct persist *persist, enum job_op op)
{
    struct pipeline *pipeline = persist->pipeline;
    const struct job_head head = {.op = op, .number = pipeline->owner};

    *(op == JOB_PING ? &pipeline->pinging : &pipeline->connecting) = true;
    pipeline->connection += op == JOB_CONNECT;
    pipe_ask(persist, &pipeline->appender.worker, &head);
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
    pipe_mongodb_worked(persist, pipeline->flushers[0].asked_ns);
    pipeline->mode = PIPE_CONNECTING;
    if (answer->restarted) {
        pipeline->hold_ns = os_now_ns() + TAKEOVER_NS;
        log_warning("another damsod used these stores last and did not stop cleanly; it has two "
                    "seconds to see that it must stop, and every room begins a new epoch");
    }
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
    pipeline->redis_restarted = answer->status == 0 && answer->restarted;
    if (answer->status < 0) {
        go_direct(persist, answer);
    } else {
        pipeline->mode = PIPE_DRAINING;
    }
}

static void drain_done(struct persist *persist, const struct job_answer *answer)
{
    if (answer->status == -ESTALE) {
        pipe_fence(persist, answer);
    } else if (answer->status < 0 && answer->where == JOB_WHERE_MONGODB) {
        pipe_mongodb_failed(persist, persist->pipeline->flushers[0].asked_ns,
                            answer); /* DRAINING goes on after the backoff */
    } else if (answer->status < 0) {
        go_direct(persist, answer);
    } else {
        if (answer->number > 0) {
            log_notice("took over from Redis records=%llu", (unsigned long long)answer->number);
        }
        ask_redis(persist, JOB_PROBE);
    }
}

static void probe_done(struct persist *persist, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    pipeline->connecting = false;
    if (answer->status < 0) {
        go_direct(persist, answer);
        return;
    }
    pipeline->mode = PIPE_CACHED;
    pipeline->served = true;
    pipeline->appended = false;
    redis_is(persist, true, NULL);
}

static void redis_answered(struct persist *persist, const struct job_answer *answer)
{
    if (answer->op == JOB_CONNECT) {
        connect_done(persist, answer);
    } else if (answer->op == JOB_PROBE) {
        probe_done(persist, answer);
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
        pipe_fence(persist, answer);
    } else if (answer->status < 0 && answer->where != JOB_WHERE_REDIS &&
               answer->status != -ENODATA) {
        pipe_mongodb_failed(persist, flusher->asked_ns, answer);
    } else {
        pipe_mongodb_worked(persist, flusher->asked_ns);
    }
}

static void check_done(struct persist *persist, const struct job_answer *answer)
{
    if (answer->status == -ESTALE) {
        pipe_fence(persist, answer);
    } else if (answer->status < 0) {
        pipe_mongodb_failed(persist, persist->pipeline->flushers[0].asked_ns, answer);
    } else {
        pipe_mongodb_worked(persist, persist->pipeline->flushers[0].asked_ns);
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
    case JOB_CHECK:
        check_done(persist, answer);
        break;
    default:
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
        if (now_ns < pipeline->hold_ns) {
            break;
        }
        if (!pipeline->has_cache) {
            pipeline->mode = PIPE_DIRECT;
            pipeline->served = true;
        } else if (!pipeline->connecting) {
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

/* Whether we are still the owner: also while there is nothing to write. */
static void look_at_owner(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;
    const uint64_t now_ns = os_now_ns();

    if (pipeline->mode >= PIPE_CACHED && pipeline->flushers[0].op == 0 &&
        now_ns >= pipeline->check_at_ns && now_ns >= pipeline->mongodb_retry_ns) {
        pipeline->check_at_ns = now_ns + CHECK_NS;
        pipe_ask_flusher(persist, JOB_CHECK);
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
    if (!pipeline->resetting && !pipeline->fenced && !pipeline->ending) {
        look_at_owner(persist);
    }
    pipe_stages_tell(persist);
    show_backlog(persist);
    pipeline->turns++;
    if (pipeline->asked) {
        pipeline->asked = false;
        (void)!os_turn(persist->ring, 0, events, EVENTS_MAX); /* the bells go out with this */
    }
    return any;
}

/* Records ring no bell of their own as long as there are few (shard/handover.h, H2): so while some
 * come this looks for more. */
static uint64_t patience_ns(const struct pipeline *pipeline, uint64_t now_ns)
{
    const bool active = now_ns - pipeline->active_ns < ACTIVE_NS;

    if (!active) {
        return IDLE_LOOK_NS;
    }
    return pipeline->sync || pipeline->mode == PIPE_DIRECT ? SYNC_LOOK_NS : LOOK_NS;
}

int64_t pipe_wait_ns(const struct persist *persist)
{
    const struct pipeline *pipeline = persist->pipeline;
    const uint64_t now_ns = os_now_ns();
    const uint64_t times[] = {pipeline->retry_at_ns,
                              pipeline->mongodb_retry_ns,
                              pipeline->hold_ns,
                              pipeline->check_at_ns,
                              pipeline->mode == PIPE_CACHED ? pipeline->ping_at_ns : 0,
                              pipeline->mode == PIPE_CACHED ? pipe_flush_due_ns(persist) : 0};
    uint64_t wait_ns = patience_ns(pipeline, now_ns);

    for (uint32_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        if (times[i] > now_ns && times[i] - now_ns < wait_ns) {
            wait_ns = times[i] - now_ns;
        }
    }
    return (int64_t)(wait_ns > LANE_WAIT_NS ? wait_ns : LANE_WAIT_NS);
}
