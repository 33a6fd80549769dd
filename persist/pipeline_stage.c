/* pipeline_stage.c - see pipeline.h: records between their lane and the store. */
#include "core/check.h"
#include "core/failpoint.h"
#include "core/log.h"
#include "persist/pipeline.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum {
    RECORD_BYTES_MIN = RECORD_HEADER_BYTES + 2, /* a room_id and a user_id of one byte */
    SLACK_BYTES = 512 * 1024, /* what a record that does not fit the end leaves empty, twice */
    CREDIT_PARTS = 8,         /* a shard is told after a part of what it may have under way */
};

static uint32_t power_of_two(uint32_t size)
{
    uint32_t power = 64;
    while (power < size) {
        power *= 2;
    }
    return power;
}

void pipe_stages_reserve(struct persist *persist, struct mem_plan *plan)
{
    struct pipeline *pipeline = persist->pipeline;
    const uint32_t bytes = persist->ring_bytes / 2 + SLACK_BYTES;
    const uint32_t entries = power_of_two(bytes / RECORD_BYTES_MIN);

    pipeline->stages = mem_reserve(plan, "stages", sizeof(struct pipe_stage), persist->lane_count);
    uint8_t *stage_bytes = mem_reserve(plan, "staged records", bytes, persist->lane_count);
    struct staged *staged = mem_reserve(plan, "staged record table", sizeof(struct staged),
                                        (size_t)entries * persist->lane_count);
    pipeline->appends =
        mem_reserve(plan, "jobs for Redis", sizeof(struct pipe_append), PIPE_APPENDS);
    /* Not to be touched before the plan is sealed: pipe_stages_init lays them out. */
    persist->pipeline->stage_bytes = stage_bytes;
    persist->pipeline->stage_entries = staged;
}

void pipe_stages_init(struct persist *persist)
{
    const uint32_t bytes = persist->ring_bytes / 2 + SLACK_BYTES;
    const uint32_t entries = power_of_two(bytes / RECORD_BYTES_MIN);

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        persist->pipeline->stages[i] = (struct pipe_stage){
            .bytes = persist->pipeline->stage_bytes + (size_t)i * bytes,
            .entries = persist->pipeline->stage_entries + (size_t)i * entries,
            .bytes_max = bytes,
            .entries_max = entries,
            .recovered = !persist->lanes[i].door->recovered,
        };
    }
}

/* --- taking --- */

/* Where size bytes may lie, or -1: the records of the stage take all the room. */
static int64_t find_space(struct pipe_stage *stage, uint32_t size)
{
    uint32_t oldest = stage->first;

    while (oldest != stage->end && staged_at(stage, oldest)->size == 0) {
        oldest++; /* passed over: lies nowhere */
    }
    if (oldest == stage->end) {
        return size <= stage->bytes_max ? 0 : -1;
    }
    const uint32_t begin = staged_at(stage, oldest)->offset;
    if (stage->write_at > begin) {
        if (stage->bytes_max - stage->write_at >= size) {
            return stage->write_at;
        }
        return begin > size ? 0 : -1;
    }
    return begin - stage->write_at > size ? (int64_t)stage->write_at : -1;
}

/* The oldest entries that are done leave. */
static void advance(struct pipe_stage *stage)
{
    while (stage->first != stage->end && staged_at(stage, stage->first)->state == STAGED_DONE) {
        const struct staged *entry = staged_at(stage, stage->first);
        stage->done_position = entry->position;
        stage->done_bytes += entry->counted;
        stage->first++;
    }
    if ((int32_t)(stage->scan - stage->first) < 0) {
        stage->scan = stage->first;
    }
}

/* Puts an entry behind the last one. room NULL: one to be passed over. False: no room. */
static bool put(struct pipe_stage *stage, const struct persist_record *request,
                struct pipe_room *room, uint64_t seq)
{
    const uint32_t size = room != NULL ? request->record_bytes : 0;
    int64_t offset = 0;

    if (stage->end - stage->first == stage->entries_max) {
        return false;
    }
    if (room != NULL) {
        offset = find_space(stage, size);
        if (offset < 0) {
            return false;
        }
        memcpy(stage->bytes + offset, request + 1, size);
        stage->write_at = (uint32_t)offset + size;
    }
    *staged_at(stage, stage->end++) = (struct staged){
        .position = request->position,
        .before = stage->last_position,
        .seq = seq,
        .taken_ns = os_now_ns(),
        .room = room,
        .offset = (uint32_t)offset,
        .size = size,
        .counted = request->record_bytes,
        .state = room != NULL ? STAGED_WAITING : STAGED_DONE,
    };
    stage->last_position = request->position;
    advance(stage);
    return true;
}

void pipe_stuck(struct persist *persist, uint32_t lane, uint64_t before)
{
    struct lane *stuck = &persist->lanes[lane];

    if (!stuck->stuck || before < stuck->stuck_after) {
        stuck->stuck = true;
        stuck->stuck_after = before;
    }
}

/* A record that cannot follow what its room has (Z2). One line a room is enough: log.h bounds the
 * rest. */
static void raise_alarm(struct persist *persist, uint32_t lane, struct slice room_id, uint64_t seq)
{
    log_error("a record does not follow the last one of its room; it stays in the journal "
              "room_id=%.*s seq=%" PRIu64,
              (int)room_id.size, room_id.data, seq);
    pipe_stuck(persist, lane, persist->pipeline->stages[lane].last_position);
}

/* The newest entry of the lane becomes the last one of its room. */
static void link_staged(struct pipeline *pipeline, uint32_t lane, struct pipe_room *room)
{
    const struct pipe_where where = {lane, pipeline->stages[lane].end - 1};

    if (room->staged++ == 0) {
        room->first_staged = where;
    } else {
        staged_where(pipeline, room->last_staged)->next = where;
    }
    room->last_staged = where;
}

/* A room's oldest record is done: before any other of it. */
static void settle_staged(struct pipeline *pipeline, struct pipe_where where)
{
    struct staged *entry = staged_where(pipeline, where);
    struct pipe_room *room = entry->room;

    CHECK(room->first_staged.lane == where.lane && room->first_staged.index == where.index);
    entry->state = STAGED_DONE;
    room->first_staged = entry->next;
    room->staged--;
}

enum verdict { VERDICT_TAKE, VERDICT_PASS, VERDICT_HOLE, VERDICT_WAIT };

/* What is to become of a record with that seq. */
static enum verdict judge(struct persist *persist, uint32_t lane, struct pipe_room *room,
                          uint64_t seq)
{
    const bool under_way = room->staged > 0 || room->open != NULL || room->flushing != NULL;

    if (room->taken_seq == 0 && under_way) {
        /* It was not there, is made anew, and what was under way before must be through first. */
        if (room->open != NULL) {
            pipe_batch_set_due(persist->pipeline, room->open);
        }
        return VERDICT_WAIT;
    }
    if (room->absent || seq <= room->stored_seq ||
        (room->taken_seq > 0 && seq <= room->taken_seq)) {
        return VERDICT_PASS;
    }
    if (room->taken_seq == 0 || seq == room->taken_seq + 1) {
        return VERDICT_TAKE;
    }
    /* A hole, as it seems. What the room's journal lacks may be in MongoDB: of a generation that
     * was stored and freed, or because what was taken before was in conflict. That decides, as it
     * does for a room's first records (flush_room.check), once nothing of the room is under way. */
    if (under_way && !persist->lanes[lane].door->recovered) {
        return VERDICT_HOLE;
    }
    if (under_way) {
        if (room->open != NULL) {
            pipe_batch_set_due(persist->pipeline, room->open);
        }
        return VERDICT_WAIT;
    }
    room->renew = persist->lanes[lane].door->salvage; /* it passed over damage */
    room->taken_seq = 0;
    room->stored_seq = 0;
    return VERDICT_TAKE;
}

/* Stages one record, or passes over it. False: it must wait. */
static bool stage_record(struct persist *persist, uint32_t lane,
                         const struct persist_record *request)
{
    struct pipeline *pipeline = persist->pipeline;
    struct pipe_stage *stage = &pipeline->stages[lane];
    struct record record;

    if (record_decode(request + 1, request->record_bytes, &record) < 0) {
        raise_alarm(persist, lane, SLICE("(unreadable)"), 0);
        return put(stage, request, NULL, 0);
    }
    struct pipe_room *room = pipe_room_get(pipeline, record.room_id);
    if (room == NULL) {
        return false; /* as many rooms under way as there may be */
    }
    const enum verdict verdict = judge(persist, lane, room, record.seq);
    bool taken = false;
    if (verdict == VERDICT_HOLE) {
        raise_alarm(persist, lane, record.room_id, record.seq);
    }
    if (verdict == VERDICT_TAKE) {
        taken = put(stage, request, room, record.seq);
        if (taken) {
            room->taken_seq = record.seq;
            link_staged(pipeline, lane, room);
        }
    } else if (verdict != VERDICT_WAIT) {
        taken = put(stage, request, NULL, 0);
    }
    pipe_room_release(pipeline, room);
    return taken;
}

/* A record that comes again after the rewind: until then its room cannot be shown whole (Z4). */
static void pass_over(struct pipeline *pipeline, struct pipe_stage *stage,
                      const struct persist_record *request)
{
    struct record record;

    if (record_decode(request + 1, request->record_bytes, &record) < 0) {
        return;
    }
    struct pipe_room *room = pipe_room_get(pipeline, record.room_id);
    if (room == NULL) {
        stage->dark_position = request->position;
        return;
    }
    if (!room->absent && record.seq > room->dark_seq) {
        room->dark_seq = record.seq;
    }
    pipe_room_release(pipeline, room);
}

bool pipe_take(struct persist *persist, uint32_t lane, const struct persist_record *request)
{
    struct pipeline *pipeline = persist->pipeline;
    struct pipe_stage *stage = &pipeline->stages[lane];

    if (pipeline->fenced || request->position <= persist->lanes[lane].taken) {
        return true; /* stays in the journal; was taken or is stored */
    }
    if (stage->rewinding) {
        pass_over(pipeline, stage, request);
        return true;
    }
    pipeline->active_ns = os_now_ns();
    if (request->head.count > 0) {
        pipeline->hurry_at_ns = os_now_ns();
    }
    failpoint("take.before");
    if (!stage_record(persist, lane, request)) {
        return false;
    }
    persist->lanes[lane].taken = request->position;
    return true;
}

bool pipe_is_recovering(const struct persist *persist)
{
    for (uint32_t i = 0; i < persist->lane_count; i++) {
        const struct pipe_stage *stage = &persist->pipeline->stages[i];
        if (persist->lanes[i].door->recovered &&
            (!stage->recovered || stage->rewinding || stage->first != stage->end ||
             stage->oldest != NULL)) {
            return true;
        }
    }
    return false;
}

/* Whether the lane's records may go on: those of shards only behind those of the run before. */
static bool lane_may_go(const struct persist *persist, uint32_t lane, bool recovering)
{
    return persist->lanes[lane].door->recovered || !recovering;
}

/* --- into Redis --- */

static struct slice record_of(const struct pipe_stage *stage, const struct staged *entry)
{
    return (struct slice){(const char *)stage->bytes + entry->offset, entry->size};
}

/* The command that the record goes into: the room's last one of this job, or a new one. -1: the job
 * is full, or no batch is free for the room. */
static int64_t find_command(struct pipeline *pipeline, struct append_job *job,
                            struct pipe_room *room)
{
    const bool known = room->job_stamp == pipeline->job_stamp;

    if (known && job->rooms[room->job_index].count < CACHE_RECORDS_MAX) {
        return room->job_index;
    }
    const uint32_t reserved = pipeline->reserved_batches + job->room_count;
    if (job->room_count == JOB_APPEND_ROOMS || reserved >= pipeline->free_batch_count) {
        return -1;
    }
    room->job_stamp = pipeline->job_stamp;
    room->job_index = job->room_count;
    job->rooms[job->room_count] = (struct append_room){.room_id = pipe_room_id(room), .room = room};
    return job->room_count++;
}

/* Adds what waits in a lane to the job. Returns the bytes added. */
static uint64_t gather(struct persist *persist, uint32_t lane, struct pipe_append *append,
                       uint64_t bytes)
{
    struct pipeline *pipeline = persist->pipeline;
    struct pipe_stage *stage = &pipeline->stages[lane];
    struct append_job *job = &append->job;

    for (; stage->scan != stage->end; stage->scan++) {
        struct staged *entry = staged_at(stage, stage->scan);
        if (entry->state != STAGED_WAITING) {
            continue;
        }
        const bool fits = job->record_count < JOB_APPEND_RECORDS &&
                          (bytes == 0 || bytes + entry->size <= JOB_APPEND_BYTES);
        const int64_t command = fits ? find_command(pipeline, job, entry->room) : -1;
        if (command < 0) {
            break;
        }
        append->where[job->record_count] = (struct pipe_where){lane, stage->scan};
        append->group[job->record_count++] = (uint16_t)command;
        job->rooms[command].count++;
        entry->state = STAGED_IN_JOB;
        bytes += entry->size;
    }
    return bytes;
}

/* Puts the records of each room next to each other, in their order. */
static void arrange(struct pipeline *pipeline, struct pipe_append *append)
{
    struct append_job *job = &append->job;
    uint32_t first = 0;

    for (uint32_t i = 0; i < job->room_count; i++) {
        job->rooms[i].first = first;
        first += job->rooms[i].count;
        job->rooms[i].count = 0;
    }
    for (uint32_t i = 0; i < job->record_count; i++) {
        struct append_room *room = &job->rooms[append->group[i]];
        struct pipe_stage *stage = &pipeline->stages[append->where[i].lane];
        job->records[room->first + room->count++] =
            record_of(stage, staged_at(stage, append->where[i].index));
    }
}

static bool append_one(struct persist *persist, bool recovering)
{
    struct pipeline *pipeline = persist->pipeline;
    struct pipe_append *append =
        &pipeline->appends[(pipeline->append_first + pipeline->append_count) % PIPE_APPENDS];
    uint64_t bytes = 0;

    append->job.room_count = 0;
    append->job.record_count = 0;
    pipeline->job_stamp++;
    for (uint32_t i = 0; i < persist->lane_count; i++) {
        const uint32_t lane = (i + pipeline->turns) % persist->lane_count;
        if (lane_may_go(persist, lane, recovering)) {
            bytes = gather(persist, lane, append, bytes);
        }
    }
    if (append->job.record_count == 0) {
        return false;
    }
    arrange(pipeline, append);
    pipeline->reserved_batches += append->job.room_count;
    pipeline->append_count++;
    const struct job_head head = {.op = JOB_APPEND, .number = pipeline->owner, .job = &append->job};
    pipe_ask(persist, &pipeline->appender.worker, &head);
    return true;
}

bool pipe_append_some(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;
    const bool recovering = pipe_is_recovering(persist);
    bool any = false;

    while (pipeline->append_count < PIPE_APPENDS && append_one(persist, recovering)) {
        any = true;
    }
    return any;
}

/* Records that are in Redis: part of their room's batch. */
static void append_took(struct persist *persist, const struct pipe_append *append, uint32_t i)
{
    struct pipeline *pipeline = persist->pipeline;
    const struct pipe_where where = append->where[i];

    pipe_batch_add(persist, where.lane, staged_where(pipeline, where));
    settle_staged(pipeline, where);
}

void pipe_append_done(struct persist *persist, const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;
    struct pipe_append *append = &pipeline->appends[pipeline->append_first];

    CHECK(pipeline->append_count > 0 && answer->job == &append->job);
    pipeline->append_first = (pipeline->append_first + 1) % PIPE_APPENDS;
    pipeline->append_count--;
    pipeline->reserved_batches -= append->job.room_count;
    if (answer->status == -ESTALE) {
        pipe_fence(persist, answer);
    }
    if (pipeline->resetting || pipeline->fenced) {
        return;
    }
    if (answer->status != 0) {
        /* Also at maxmemory: a later command of the job may have been taken where an earlier one of
         * the same room was not. */
        pipe_distrust(persist, answer);
        return;
    }
    for (uint32_t i = 0; i < append->job.record_count; i++) {
        append_took(persist, append, i);
    }
    pipeline->appended = true;
    pipeline->backoff_ns = PIPE_BACKOFF_MIN_NS;
    for (uint32_t i = 0; i < persist->lane_count; i++) {
        advance(&pipeline->stages[i]);
    }
}

/* --- straight into MongoDB --- */

static struct flush_room *find_direct_room(struct pipeline *pipeline, struct flush_job *job,
                                           struct pipe_room *room, uint64_t seq)
{
    if (room->job_stamp == pipeline->job_stamp) {
        return &job->rooms[room->job_index];
    }
    if (room->direct > 0) {
        return NULL; /* a batch of it is under way: two at a time could overtake each other */
    }
    room->job_stamp = pipeline->job_stamp;
    room->job_index = job->room_count;
    job->rooms[job->room_count] = (struct flush_room){
        .room_id = pipe_room_id(room),
        .first_seq = seq,
        .check = room->stored_seq == 0,
        .renew = room->renew,
        .room = room,
    };
    return &job->rooms[job->room_count++];
}

static uint64_t gather_direct(struct persist *persist, uint32_t lane, struct pipe_flusher *flusher,
                              uint64_t bytes)
{
    struct pipeline *pipeline = persist->pipeline;
    struct pipe_stage *stage = &pipeline->stages[lane];
    struct flush_job *job = &flusher->job;

    for (uint32_t at = stage->scan; at != stage->end; at++) {
        struct staged *entry = staged_at(stage, at);
        if (entry->state != STAGED_WAITING) {
            stage->scan += stage->scan == at; /* nothing before it waits */
            continue;
        }
        const bool fits = job->record_count < pipeline->bulk_max &&
                          (bytes == 0 || bytes + entry->size <= JOB_FLUSH_BYTES);
        struct flush_room *room =
            fits ? find_direct_room(pipeline, job, entry->room, entry->seq) : NULL;
        if (room == NULL && fits) {
            continue; /* of a room that is being written: so are all that follow of it */
        }
        if (room == NULL) {
            break;
        }
        room->last_seq = entry->seq;
        flusher->where[job->record_count] = (struct pipe_where){lane, at};
        job->record_room[job->record_count] = (uint16_t)entry->room->job_index;
        job->records[job->record_count++] = record_of(stage, entry);
        entry->state = STAGED_IN_JOB;
        entry->room->direct++;
        bytes += entry->size;
    }
    return bytes;
}

static bool direct_one(struct persist *persist, struct pipe_flusher *flusher, bool recovering)
{
    struct pipeline *pipeline = persist->pipeline;
    uint64_t bytes = 0;

    flusher->job.room_count = 0;
    flusher->job.record_count = 0;
    pipeline->job_stamp++;
    for (uint32_t i = 0; i < persist->lane_count; i++) {
        const uint32_t lane = (i + pipeline->turns) % persist->lane_count;
        if (lane_may_go(persist, lane, recovering)) {
            bytes = gather_direct(persist, lane, flusher, bytes);
        }
    }
    if (flusher->job.record_count == 0) {
        return false;
    }
    const struct job_head head = {
        .op = JOB_DIRECT, .number = pipeline->owner, .job = &flusher->job};
    flusher->op = JOB_DIRECT;
    flusher->asked_ns = os_now_ns();
    pipe_ask(persist, flusher_worker(flusher->flusher), &head);
    return true;
}

bool pipe_direct_some(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;
    const bool recovering = pipe_is_recovering(persist);
    const uint32_t most = pipeline->mongodb_retry_ns > 0 ? 1 : pipeline->flusher_count;
    bool any = false;

    for (uint32_t i = 0; i < most; i++) {
        struct pipe_flusher *flusher = &pipeline->flushers[i];
        if (flusher->op == 0) {
            any = direct_one(persist, flusher, recovering) || any;
        }
    }
    return any;
}

/* One record of a direct job, of which its room's result is known. */
static void direct_took(struct persist *persist, const struct pipe_flusher *flusher, uint32_t i)
{
    struct pipeline *pipeline = persist->pipeline;
    const struct pipe_where where = flusher->where[i];
    struct pipe_stage *stage = &pipeline->stages[where.lane];
    struct staged *entry = staged_at(stage, where.index);
    const struct flush_room *result = &flusher->job.rooms[flusher->job.record_room[i]];
    struct pipe_room *room = entry->room;

    room->direct--;
    if (result->result == FLUSH_UNDONE) {
        entry->state = STAGED_WAITING;
        if ((int32_t)(stage->scan - where.index) > 0) {
            stage->scan = where.index;
        }
        return;
    }
    if (result->result == FLUSH_HOLE) {
        raise_alarm(persist, where.lane, pipe_room_id(room), entry->seq);
    }
    if (result->result == FLUSH_HOLE || result->result == FLUSH_STUCK) {
        pipe_stuck(persist, where.lane, entry->before);
    }
    if (result->result == FLUSH_STORED || result->result == FLUSH_STUCK) {
        room->stored_seq = entry->seq;
        room->renew = false;
    }
    if (result->result == FLUSH_PASSED) {
        pipe_room_is_absent(room);
    }
    settle_staged(pipeline, where);
    pipe_room_release(pipeline, room);
}

void pipe_direct_done(struct persist *persist, struct pipe_flusher *flusher,
                      const struct job_answer *answer)
{
    struct pipeline *pipeline = persist->pipeline;

    CHECK(flusher->op == JOB_DIRECT && answer->job == &flusher->job);
    flusher->op = 0;
    if (pipeline->resetting) {
        return;
    }
    const struct pipe_where oldest = flusher->where[0];
    const uint64_t taken_ns = staged_at(&pipeline->stages[oldest.lane], oldest.index)->taken_ns;
    metrics_observe(&persist->metrics->persist_lag_seconds, os_now_ns() - taken_ns);
    for (uint32_t i = 0; i < flusher->job.record_count; i++) {
        direct_took(persist, flusher, i);
    }
    for (uint32_t i = 0; i < persist->lane_count; i++) {
        advance(&pipeline->stages[i]);
    }
}

/* --- starting over, and what the shards are told --- */

void pipe_stages_reset(struct persist *persist)
{
    for (uint32_t i = 0; i < persist->lane_count; i++) {
        struct pipe_stage *stage = &persist->pipeline->stages[i];
        struct lane *lane = &persist->lanes[i];
        if (lane->taken <= lane->stored) {
            continue; /* nothing of it is under way: nothing is lost */
        }
        stage->first = stage->end;
        stage->scan = stage->end;
        stage->write_at = 0;
        stage->last_position = lane->stored;
        stage->done_position = lane->stored;
        stage->done_bytes = 0;
        stage->rewinding = true;
        stage->rewind_due = true;
        stage->recovered = !lane->door->recovered;
        lane->taken = lane->stored;
    }
}

/* Sends a reply that has a position; false: the ring is full for now. */
static bool tell(struct lane *lane, enum persist_op op, uint64_t position)
{
    const struct persist_record reply = {.head = {.op = (uint16_t)op}, .position = position};
    void *space = spsc_reserve(&lane->door->replies, sizeof(reply));

    if (space == NULL) {
        return false;
    }
    memcpy(space, &reply, sizeof(reply));
    spsc_commit(&lane->door->replies, sizeof(reply));
    return true;
}

/* Z1: what the lane's watermark may say. */
static uint64_t stored_position(const struct lane *lane, const struct pipe_stage *stage)
{
    uint64_t position = stage->done_position;

    if (stage->oldest != NULL && stage->oldest->before < position) {
        position = stage->oldest->before;
    }
    return lane->stuck && lane->stuck_after < position ? lane->stuck_after : position;
}

void pipe_stages_tell(struct persist *persist)
{
    const uint64_t part = persist_unstored_max(persist) / CREDIT_PARTS;

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        struct pipe_stage *stage = &persist->pipeline->stages[i];
        struct lane *lane = &persist->lanes[i];
        const uint64_t position = stored_position(lane, stage);
        if (position > lane->stored) {
            lane->stored = position;
            failpoint("watermark.before");
        }
        if (stage->rewind_due) {
            stage->rewind_due = !tell(lane, PERSIST_REWIND, lane->stored);
        }
        if (stage->done_bytes >= part && !stage->rewinding &&
            tell(lane, PERSIST_TAKEN, stage->done_position)) {
            stage->done_bytes = 0;
        }
    }
}
