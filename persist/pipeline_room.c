/* pipeline_room.c - see pipeline.h: the rooms that have records on their way, and their batches. */
#include "core/check.h"
#include "core/log.h"
#include "persist/pipeline.h"

#include <string.h>

/* --- the table --- */

void pipe_rooms_reserve(struct pipeline *pipeline, struct mem_plan *plan)
{
    uint32_t buckets = 1024;

    while (buckets < pipeline->room_count) {
        buckets *= 2;
    }
    pipeline->bucket_mask = buckets - 1;
    pipeline->buckets = mem_reserve(plan, "room table", sizeof(struct pipe_room *), buckets);
    pipeline->rooms =
        mem_reserve(plan, "rooms on their way", sizeof(struct pipe_room), pipeline->room_count);
    pipeline->batches =
        mem_reserve(plan, "batches in Redis", sizeof(struct pipe_batch), pipeline->batch_count);
}

void pipe_rooms_init(struct pipeline *pipeline)
{
    os_random(&pipeline->hash_key, sizeof(pipeline->hash_key));
    for (uint32_t i = pipeline->room_count; i > 0; i--) {
        pipeline->rooms[i - 1].chain = pipeline->free_rooms;
        pipeline->free_rooms = &pipeline->rooms[i - 1];
    }
    for (uint32_t i = pipeline->batch_count; i > 0; i--) {
        pipeline->batches[i - 1].next = pipeline->free_batches;
        pipeline->free_batches = &pipeline->batches[i - 1];
    }
    pipeline->free_batch_count = pipeline->batch_count;
}

struct slice pipe_room_id(const struct pipe_room *room)
{
    return (struct slice){room->room_id, room->room_bytes};
}

static struct pipe_room *find(struct pipeline *pipeline, struct slice room_id, uint64_t hash)
{
    struct pipe_room *room = pipeline->buckets[hash & pipeline->bucket_mask];

    while (room != NULL && (room->hash != hash || !slice_equal(pipe_room_id(room), room_id))) {
        room = room->chain;
    }
    return room;
}

struct pipe_room *pipe_room_find(struct pipeline *pipeline, struct slice room_id)
{
    return find(pipeline, room_id, hash_bytes(&pipeline->hash_key, room_id.data, room_id.size));
}

static void leave_idle(struct pipeline *pipeline, struct pipe_room *room)
{
    if (!room->idle) {
        return;
    }
    *(room->newer != NULL ? &room->newer->older : &pipeline->newest_idle) = room->older;
    *(room->older != NULL ? &room->older->newer : &pipeline->oldest_idle) = room->newer;
    room->newer = NULL;
    room->older = NULL;
    room->idle = false;
}

static void unchain(struct pipeline *pipeline, struct pipe_room *room)
{
    struct pipe_room **link = &pipeline->buckets[room->hash & pipeline->bucket_mask];

    while (*link != room) {
        link = &(*link)->chain;
    }
    *link = room->chain;
}

static struct pipe_room *take_free(struct pipeline *pipeline)
{
    struct pipe_room *room = pipeline->free_rooms;

    if (room != NULL) {
        pipeline->free_rooms = room->chain;
        return room;
    }
    room = pipeline->oldest_idle;
    if (room != NULL) {
        leave_idle(pipeline, room);
        unchain(pipeline, room);
    }
    return room;
}

struct pipe_room *pipe_room_get(struct pipeline *pipeline, struct slice room_id)
{
    const uint64_t hash = hash_bytes(&pipeline->hash_key, room_id.data, room_id.size);
    struct pipe_room *room = find(pipeline, room_id, hash);

    if (room != NULL) {
        leave_idle(pipeline, room);
        return room;
    }
    room = take_free(pipeline);
    if (room == NULL) {
        return NULL;
    }
    CHECK(room_id.size <= sizeof(room->room_id));
    *room = (struct pipe_room){.chain = pipeline->buckets[hash & pipeline->bucket_mask],
                               .hash = hash,
                               .room_bytes = (uint8_t)room_id.size};
    memcpy(room->room_id, room_id.data, room_id.size);
    pipeline->buckets[hash & pipeline->bucket_mask] = room;
    return room;
}

void pipe_room_release(struct pipeline *pipeline, struct pipe_room *room)
{
    if (room->idle || room->staged > 0 || room->open != NULL || room->flushing != NULL ||
        room->questions != NULL || room->dark_seq > room->taken_seq) {
        return;
    }
    room->older = pipeline->newest_idle;
    *(room->older != NULL ? &room->older->newer : &pipeline->oldest_idle) = room;
    pipeline->newest_idle = room;
    room->idle = true;
}

void pipe_room_is_absent(struct pipe_room *room)
{
    if (!room->absent) {
        log_warning("messages of a room that MongoDB does not know are passed over room_id=%.*s",
                    (int)room->room_bytes, room->room_id);
    }
    room->absent = true;
    room->taken_seq = 0; /* if it is made again, it begins anew */
    room->stored_seq = 0;
    room->dark_seq = 0;
}

/* --- batches --- */

static void list_push(struct pipe_list *list, struct pipe_batch *batch)
{
    batch->next = NULL;
    *(list->last != NULL ? &list->last->next : &list->first) = batch;
    list->last = batch;
}

/* Makes the room's open batch: the newest of its lane (Z1), and of the open ones. */
static struct pipe_batch *open_batch(struct persist *persist, uint32_t lane,
                                     const struct staged *entry)
{
    struct pipeline *pipeline = persist->pipeline;
    struct pipe_stage *stage = &pipeline->stages[lane];
    struct pipe_batch *batch = pipeline->free_batches;

    CHECK(batch != NULL); /* reserved when the job was formed */
    pipeline->free_batches = batch->next;
    pipeline->free_batch_count--;
    *batch = (struct pipe_batch){.room = entry->room,
                                 .lane = lane,
                                 .number = ++pipeline->number,
                                 .before = entry->before,
                                 .first_seq = entry->seq,
                                 .begun_ns = entry->taken_ns,
                                 .lane_older = stage->newest,
                                 .open_older = pipeline->newest_open};
    CHECK(stage->newest == NULL || stage->newest->before <= batch->before);
    *(stage->newest != NULL ? &stage->newest->lane_newer : &stage->oldest) = batch;
    stage->newest = batch;
    *(pipeline->newest_open != NULL ? &pipeline->newest_open->open_newer : &pipeline->oldest_open) =
        batch;
    pipeline->newest_open = batch;
    entry->room->open = batch;
    return batch;
}

void pipe_batch_add(struct persist *persist, uint32_t lane, const struct staged *entry)
{
    struct pipeline *pipeline = persist->pipeline;
    struct pipe_batch *batch = entry->room->open;

    if (batch == NULL) {
        batch = open_batch(persist, lane, entry);
    }
    CHECK(batch->lane == lane && (batch->count == 0 || entry->seq == batch->last_seq + 1));
    batch->last_seq = entry->seq;
    batch->count++;
    batch->bytes += entry->size;
    pipeline->pending_messages++;
    pipeline->pending_bytes += entry->size;
    pipeline->open_bytes += batch->due ? 0 : entry->size;
    if (batch->count >= pipeline->flush_messages) {
        pipe_batch_set_due(pipeline, batch);
    }
}

/* Takes a batch out of the list of those that are open and not due. */
static void leave_open(struct pipeline *pipeline, struct pipe_batch *batch)
{
    *(batch->open_newer != NULL ? &batch->open_newer->open_older : &pipeline->newest_open) =
        batch->open_older;
    *(batch->open_older != NULL ? &batch->open_older->open_newer : &pipeline->oldest_open) =
        batch->open_newer;
    batch->open_newer = NULL;
    batch->open_older = NULL;
    pipeline->open_bytes -= batch->bytes;
}

void pipe_batch_set_due(struct pipeline *pipeline, struct pipe_batch *batch)
{
    if (batch->due) {
        return;
    }
    leave_open(pipeline, batch);
    batch->due = true;
    batch->room->blocked = batch->room->flushing != NULL;
    if (!batch->room->blocked) {
        list_push(&pipeline->due, batch);
    }
}

void pipe_batch_begin(struct pipeline *pipeline, struct pipe_batch *batch)
{
    struct pipe_room *room = batch->room;

    CHECK(room->open == batch && room->flushing == NULL && batch->due); /* Z3 */
    room->open = NULL;
    room->flushing = batch;
    batch->due = false;
    pipe_batch_set_ready(pipeline, batch);
}

void pipe_batch_set_ready(struct pipeline *pipeline, struct pipe_batch *batch)
{
    list_push(&pipeline->ready, batch);
}

void pipe_batch_end(struct persist *persist, struct pipe_batch *batch)
{
    struct pipeline *pipeline = persist->pipeline;
    struct pipe_stage *stage = &pipeline->stages[batch->lane];
    struct pipe_room *room = batch->room;

    CHECK(room->flushing == batch && !batch->due);
    *(batch->lane_newer != NULL ? &batch->lane_newer->lane_older : &stage->newest) =
        batch->lane_older;
    *(batch->lane_older != NULL ? &batch->lane_older->lane_newer : &stage->oldest) =
        batch->lane_newer;
    room->flushing = NULL;
    if (room->blocked) { /* Z3: now it may go */
        room->blocked = false;
        list_push(&pipeline->due, room->open);
    }
    pipeline->pending_messages -= batch->count;
    pipeline->pending_bytes -= batch->bytes;
    batch->next = pipeline->free_batches;
    pipeline->free_batches = batch;
    pipeline->free_batch_count++;
    pipe_room_release(pipeline, room);
}

/* --- starting over --- */

static void reset_room(struct pipeline *pipeline, struct pipe_room *room)
{
    if (room->taken_seq > room->dark_seq) {
        room->dark_seq = room->taken_seq; /* Z4 */
    }
    room->taken_seq = room->stored_seq;
    room->open = NULL;
    room->flushing = NULL;
    room->staged = 0;
    room->direct = 0;
    room->blocked = false;
    leave_idle(pipeline, room);
    pipe_room_release(pipeline, room);
}

void pipe_rooms_reset(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        struct pipe_stage *stage = &pipeline->stages[i];
        while (stage->oldest != NULL) {
            struct pipe_batch *batch = stage->oldest;
            stage->oldest = batch->lane_newer;
            batch->next = pipeline->free_batches;
            pipeline->free_batches = batch;
            pipeline->free_batch_count++;
        }
        stage->newest = NULL;
    }
    pipeline->due = (struct pipe_list){0};
    pipeline->ready = (struct pipe_list){0};
    pipeline->newest_open = NULL;
    pipeline->oldest_open = NULL;
    pipeline->pending_messages = 0;
    pipeline->pending_bytes = 0;
    pipeline->open_bytes = 0;
    for (uint32_t bucket = 0; bucket <= pipeline->bucket_mask; bucket++) {
        for (struct pipe_room *room = pipeline->buckets[bucket]; room != NULL; room = room->chain) {
            reset_room(pipeline, room);
        }
    }
}
