/* pipeline_flush.c - see pipeline.h: batches out of Redis into MongoDB. */
#include "core/check.h"
#include "core/failpoint.h"
#include "core/log.h"
#include "persist/pipeline.h"

#include <errno.h>

enum {
    OLDEST_AT_A_TIME = 64,
};

/* --- what is due --- */

/* When the batch is to be flushed by its age. */
static uint64_t due_ns(const struct pipeline *pipeline, const struct pipe_batch *batch)
{
    return batch->begun_ns + pipeline->flush_interval_ns;
}

/* Whether all batches are to go: shards are gone, or wait for the rest of the run before. */
static bool all_are_due(const struct persist *persist)
{
    const struct pipeline *pipeline = persist->pipeline;
    bool recovered = true;

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        recovered = recovered && pipeline->stages[i].recovered;
    }
    return pipeline->ending || (recovered && pipe_is_recovering(persist));
}

/* Marks open batches, oldest first, by age, by bytes over all, because a journal fills, because the
 * table of batches does, or because all are to go. */
static void mark_due(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;
    const uint64_t now_ns = os_now_ns();
    const bool all = all_are_due(persist);
    const bool scarce = pipeline->free_batch_count < pipeline->batch_count / 4;
    uint32_t oldest = scarce ? OLDEST_AT_A_TIME : 0;

    for (struct pipe_batch *batch = pipeline->oldest_open; batch != NULL;
         batch = pipeline->oldest_open) {
        const bool aged =
            due_ns(pipeline, batch) <= now_ns || batch->begun_ns <= pipeline->hurry_at_ns;
        if (!all && !aged && pipeline->open_bytes <= pipeline->flush_bytes && oldest == 0) {
            break;
        }
        pipe_batch_set_due(pipeline, batch); /* and the next one is the oldest */
        oldest -= oldest > 0;
    }
}

uint64_t pipe_flush_due_ns(const struct persist *persist)
{
    const struct pipe_batch *oldest = persist->pipeline->oldest_open;

    return oldest != NULL ? due_ns(persist->pipeline, oldest) : UINT64_MAX;
}

/* --- freezing --- */

static void fill_freeze(struct pipeline *pipeline)
{
    struct freeze_job *job = &pipeline->freeze;

    job->room_count = 0;
    while (pipeline->due.first != NULL && job->room_count < JOB_FLUSH_ROOMS) {
        struct pipe_batch *batch = pipeline->due.first;
        pipeline->due.first = batch->next;
        pipeline->due.last = batch->next == NULL ? NULL : pipeline->due.last;
        job->rooms[job->room_count++] = (struct freeze_room){
            .room_id = pipe_room_id(batch->room), .number = batch->number, .batch = batch};
    }
}

/* By the thread that appends: what it was given before is in the list when it is frozen, what it is
 * given after is in the next one. Until the answer comes the batch is the room's open one. */
bool pipe_freeze_some(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;

    mark_due(persist);
    if (pipeline->freezing) {
        return false;
    }
    fill_freeze(pipeline);
    if (pipeline->freeze.room_count == 0) {
        return false;
    }
    const struct job_head head = {
        .op = JOB_FREEZE, .number = pipeline->owner, .job = &pipeline->freeze};
    pipeline->freezing = true;
    pipe_ask(persist, &pipeline->appender.worker, &head);
    return true;
}

void pipe_freeze_done(struct persist *persist, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    pipeline->freezing = false;
    if (answer->status == -ESTALE) {
        pipe_fence(persist, answer);
    } else if (answer->status < 0) {
        pipe_distrust(persist, answer);
    }
    if (pipeline->resetting || pipeline->fenced) {
        return;
    }
    for (uint32_t i = 0; i < pipeline->freeze.room_count; i++) {
        pipe_batch_begin(pipeline, pipeline->freeze.rooms[i].batch);
    }
}

/* --- flushing --- */

/* Whether the batch may go with those that the job has: up to one bulk together, a larger one
 * alone.
 */
static bool fits(const struct pipeline *pipeline, const struct flush_job *job, uint64_t records,
                 uint64_t bytes, const struct pipe_batch *batch)
{
    return job->room_count == 0 ||
           (job->room_count < JOB_FLUSH_ROOMS && records + batch->count <= pipeline->bulk_max &&
            bytes + batch->bytes <= JOB_FLUSH_BYTES);
}

static void add_batch(struct pipe_flusher *flusher, struct pipe_batch *batch)
{
    struct flush_job *job = &flusher->job;

    flusher->batches[job->room_count] = batch;
    job->rooms[job->room_count++] = (struct flush_room){
        .room_id = pipe_room_id(batch->room),
        .number = batch->number,
        .first_seq = batch->first_seq,
        .last_seq = batch->last_seq,
        .frozen = true,
        .check = batch->room->stored_seq == 0,
        .renew = batch->room->renew,
        .room = batch->room,
    };
}

/* Fills the job from those that are ready, in their order. */
static void fill(struct pipeline *pipeline, struct pipe_flusher *flusher)
{
    uint64_t records = 0;
    uint64_t bytes = 0;

    for (struct pipe_batch *batch = pipeline->ready.first;
         batch != NULL && fits(pipeline, &flusher->job, records, bytes, batch);
         batch = pipeline->ready.first) {
        pipeline->ready.first = batch->next;
        pipeline->ready.last = batch->next == NULL ? NULL : pipeline->ready.last;
        records += batch->count;
        bytes += batch->bytes;
        add_batch(flusher, batch);
    }
}

static bool flush_one(struct persist *persist, struct pipe_flusher *flusher)
{
    struct pipeline *pipeline = persist->pipeline;

    flusher->job.room_count = 0;
    flusher->job.record_count = 0;
    fill(pipeline, flusher);
    if (flusher->job.room_count == 0) {
        return false;
    }
    const struct job_head head = {.op = JOB_FLUSH, .number = pipeline->owner, .job = &flusher->job};
    flusher->op = JOB_FLUSH;
    flusher->asked_ns = os_now_ns();
    pipe_ask(persist, flusher_worker(flusher->flusher), &head);
    return true;
}

bool pipe_flush_some(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;
    const uint32_t most = pipeline->mongodb_retry_ns > 0 ? 1 : pipeline->flusher_count;
    bool any = false;

    for (uint32_t i = 0; i < most && pipeline->ready.first != NULL; i++) {
        struct pipe_flusher *flusher = &pipeline->flushers[i];
        if (flusher->op == 0) {
            any = flush_one(persist, flusher) || any;
        }
    }
    return any;
}

/* --- results --- */

static void flush_took(struct persist *persist, struct pipe_batch *batch,
                       const struct flush_room *result)
{
    struct pipe_room *room = batch->room;

    switch (result->result) {
    case FLUSH_UNDONE:
        pipe_batch_set_ready(persist->pipeline, batch); /* it stays frozen */
        return;
    case FLUSH_PASSED:
        pipe_room_is_absent(room);
        break;
    case FLUSH_HOLE:
        log_error("records do not follow what MongoDB has of their room; they stay in the journal "
                  "room_id=%.*s",
                  (int)room->room_bytes, room->room_id);
        pipe_stuck(persist, batch->lane, batch->before);
        break;
    case FLUSH_STUCK:
        pipe_stuck(persist, batch->lane, batch->before);
        room->stored_seq = batch->last_seq;
        break;
    default:
        room->stored_seq = batch->last_seq;
        room->renew = false;
        break;
    }
    metrics_add(&persist->metrics->persist_flushed_total, batch->count);
    metrics_observe(&persist->metrics->persist_lag_seconds, os_now_ns() - batch->begun_ns);
    pipe_batch_end(persist, batch);
}

void pipe_flush_done(struct persist *persist, struct pipe_flusher *flusher,
                     const struct job_answer *answer)
{
    CHECK(flusher->op == JOB_FLUSH && answer->job == &flusher->job);
    flusher->op = 0;
    for (uint32_t i = 0; i < flusher->job.room_count; i++) {
        flush_took(persist, flusher->batches[i], &flusher->job.rooms[i]);
    }
    if (answer->status == -ENODATA || answer->where == JOB_WHERE_REDIS) {
        pipe_distrust(persist, answer);
    }
}
