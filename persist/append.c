/* append.c - see append.h. */
#include "persist/append.h"

#include "core/check.h"
#include "core/failpoint.h"
#include "core/os.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* --- what went wrong --- */

static void say(struct job_answer *answer, int status, const char *why)
{
    const int size = snprintf(answer->why, sizeof(answer->why), "%s", why);

    answer->status = status;
    answer->where = JOB_WHERE_REDIS;
    answer->why_bytes =
        (uint16_t)(size < JOB_WHY_BYTES ? (size > 0 ? size : 0) : JOB_WHY_BYTES - 1);
}

/* Whether there is a connection to work with; making one is the asker's to decide. */
static bool is_open(struct appender *appender, struct job_answer *answer)
{
    if (!cache_is_open(appender->cache)) {
        say(answer, -ENOTCONN, "not connected");
        return false;
    }
    return true;
}

/* --- jobs --- */

static void connect_job(struct appender *appender, const struct job_head *head,
                        struct job_answer *answer)
{
    char run_id[CACHE_RUN_ID_BYTES] = {0};
    const int error = cache_connect(appender->cache, head->number);

    if (error < 0) {
        say(answer, error, cache_why(appender->cache));
        return;
    }
    cache_run_id(appender->cache, run_id);
    answer->restarted =
        appender->connected_before && memcmp(run_id, appender->run_id, sizeof(run_id)) != 0;
    memcpy(appender->run_id, run_id, sizeof(run_id));
    appender->connected_before = true;
}

static void ping_job(struct appender *appender, struct job_answer *answer)
{
    const uint64_t begun_ns = os_now_ns();

    if (!is_open(appender, answer)) {
        return;
    }
    const int error = cache_ping(appender->cache);
    if (error < 0) {
        say(answer, error, cache_why(appender->cache));
        return;
    }
    answer->redis_ns = os_now_ns() - begun_ns;
}

static void probe_job(struct appender *appender, struct job_answer *answer)
{
    if (!is_open(appender, answer)) {
        return;
    }
    const int error = cache_probe(appender->cache);
    if (error < 0) {
        say(answer, error, cache_why(appender->cache));
    }
}

static void append_result(void *context, uint32_t index, int result)
{
    struct append_job *job = ((struct appender *)context)->job;

    CHECK(index < job->room_count); /* one command a room, in their order */
    job->rooms[index].result = result;
}

/* The worse of two results: being fenced is final, a full Redis is not, the rest needs a look. */
static int worse(int one, int other)
{
    if (one == -ESTALE || other == -ESTALE) {
        return -ESTALE;
    }
    return one == 0 || (other == -ENOSPC && one != -ENOSPC) ? other : one;
}

static int worst(const struct append_job *job)
{
    int result = 0;

    for (uint32_t i = 0; i < job->room_count; i++) {
        result = worse(result, job->rooms[i].result);
    }
    return result;
}

static const char *meaning(int status, const struct cache *cache)
{
    switch (status) {
    case -ESTALE:
        return "another damsod took over";
    case -ENOSPC:
        return "Redis is at maxmemory";
    case -ENODATA:
        return "a room's log is not there to be frozen";
    default:
        return cache_why(cache);
    }
}

static int append_rooms(struct appender *appender, const struct append_job *job)
{
    for (uint32_t i = 0; i < job->room_count; i++) {
        const struct append_room *room = &job->rooms[i];
        CHECK(room->count >= 1 && room->count <= CACHE_RECORDS_MAX);
        CHECK(room->first + room->count <= job->record_count);
        const int error =
            cache_append(appender->cache, room->room_id, job->records + room->first, room->count);
        if (error < 0) {
            return error;
        }
    }
    return 0;
}

static void append_job(struct appender *appender, struct append_job *job, struct job_answer *answer)
{
    for (uint32_t i = 0; i < job->room_count; i++) {
        job->rooms[i].result = -EIO; /* until Redis says otherwise */
    }
    if (!is_open(appender, answer)) {
        return;
    }
    failpoint("append.before");
    appender->job = job;
    const int queued = append_rooms(appender, job);
    const uint64_t sent_ns = os_now_ns();
    /* Also after an error, for what is known of the commands before it. */
    const int finished = cache_finish(appender->cache, append_result, appender);
    const int error = queued < 0 ? queued : finished;
    answer->redis_ns = error == 0 ? os_now_ns() - sent_ns : 0;
    appender->job = NULL;
    failpoint("append.after");
    const int status = error < 0 ? error : worst(job);
    if (status < 0) {
        say(answer, status, meaning(status, appender->cache));
    }
}

static void freeze_result(void *context, uint32_t index, int result)
{
    struct freeze_job *job = ((struct appender *)context)->freeze;

    CHECK(index < job->room_count);
    job->rooms[index].result = result;
}

static int freeze_rooms(struct appender *appender, struct freeze_job *job)
{
    int error = 0;

    for (uint32_t i = 0; error == 0 && i < job->room_count; i++) {
        job->rooms[i].result = -EIO;
        error = cache_freeze(appender->cache, job->rooms[i].room_id, job->rooms[i].number);
    }
    appender->freeze = job;
    const int finished = cache_finish(appender->cache, freeze_result, appender);
    appender->freeze = NULL;
    return error < 0 ? error : finished;
}

static void freeze_job(struct appender *appender, struct freeze_job *job, struct job_answer *answer)
{
    if (!is_open(appender, answer)) {
        return;
    }
    failpoint("freeze.before");
    int status = freeze_rooms(appender, job);
    failpoint("freeze.after");
    for (uint32_t i = 0; status == 0 && i < job->room_count; i++) {
        const int result = job->rooms[i].result;
        status = worse(status, result == -ENOENT || result == -EEXIST ? -ENODATA : result);
    }
    if (status < 0) {
        say(answer, status, meaning(status, appender->cache));
    }
}

static void take(void *context, const void *request, uint32_t size)
{
    struct appender *appender = context;
    struct job_answer answer = {0};
    struct job_head head;
    const uint64_t begun_ns = os_now_ns();

    CHECK(size == sizeof(head));
    memcpy(&head, request, sizeof(head));
    answer.op = head.op;
    answer.job = head.job;
    answer.number = head.number;
    switch (head.op) {
    case JOB_CONNECT:
        connect_job(appender, &head, &answer);
        break;
    case JOB_PING:
        ping_job(appender, &answer);
        break;
    case JOB_PROBE:
        probe_job(appender, &answer);
        break;
    case JOB_FREEZE:
        freeze_job(appender, head.job, &answer);
        break;
    default:
        CHECK(head.op == JOB_APPEND);
        append_job(appender, head.job, &answer);
        break;
    }
    answer.ns = os_now_ns() - begun_ns;
    worker_reply(&appender->worker, &answer, sizeof(answer));
}

/* --- opening --- */

int appender_open(struct appender *appender, const struct cache_options *cache,
                  const struct worker_options *worker, struct mem_plan *plan, char *ret_why,
                  size_t why_size)
{
    struct worker_options worker_options = *worker;
    struct cache_options cache_options = *cache;

    memset(appender, 0, sizeof(*appender));
    worker_options.take = take;
    worker_options.tend = NULL;
    worker_options.context = appender;
    cache_options.plan = plan;
    int error = worker_open(&appender->worker, &worker_options, plan, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    error = cache_open(&cache_options, &appender->cache, ret_why, why_size);
    if (error < 0) {
        worker_stop(&appender->worker);
    }
    return error;
}

void appender_close(struct appender *appender)
{
    cache_close(appender->cache);
    appender->cache = NULL;
}
