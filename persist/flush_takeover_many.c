/*
 * flush_takeover_many.c - DRAIN, many rooms at once. See flush.h for F1 to F3.
 *
 *     claim all -> read what fits -> sift -> look in MongoDB -> one bulk -> remove lists
 *                       ^                                                        |
 *                       +--------------------------------------------------------+
 *
 * Room by room a takeover is ten round trips each, at a start after kill -9 before anything is
 * served. Here a step is one of them for all rooms. It is done only for what is plain: short lists
 * of sound records, without a hole, whose first one is seq 1 or follows one that MongoDB has. What
 * to do with anything else is known in one place, flush_takeover.c, which is given it whole.
 */
#include "persist/flush_takeover_many.h"

#include "core/check.h"
#include "persist/store_mongo_ends.h"

#include <errno.h>
#include <string.h>

enum {
    LIST_RECORDS_MAX = FLUSH_RANGE, /* a list with so many is large */
    PART_RECORDS = MONGO_BULK_MAX,
};
_Static_assert((int)FLUSH_MANY_LISTS <= (int)JOB_FLUSH_RECORDS, "a mark for each room");
_Static_assert((int)FLUSH_MANY_LISTS <= (int)STORE_MONGO_ENDS_MAX, "one look for all rooms");
_Static_assert((int)PART_RECORDS <= (int)FLUSH_RAW_MAX, "what is read has a place");

/* Of a room, marks has where its records lie in raw, and from the bulk whether they are kept. */
struct many {
    struct flusher *flusher;
    struct flush_many_room *rooms;
    uint32_t count;
    uint32_t first, end; /* of the part: rooms that are in the buffer */
    uint32_t range;      /* that is being read, and what was seen of it */
    uint32_t range_rows;
    uint64_t first_seqs[FLUSH_MANY_LISTS]; /* the lowest of each room's */
    uint64_t owners[FLUSH_MANY_LISTS];     /* of ranges */
    struct store_mongo_end ends[FLUSH_MANY_LISTS];
};

static struct slice room_id_of(const struct flush_many_room *room)
{
    return (struct slice){room->lists[0].room_id, room->lists[0].room_bytes};
}

/* --- queued commands --- */

/* The worst of what they came to: being fenced before any other. */
static void note_result(void *context, uint32_t index, int result)
{
    struct flusher *flusher = context;

    (void)index;
    if (result < 0 && result != -ENOENT && (flusher->queued_result == 0 || result == -ESTALE)) {
        flusher->queued_result = result;
    }
}

/* error: of queueing. */
static int finish(struct flusher *flusher, int error)
{
    flusher->queued_result = 0;
    const int finished = cache_finish(flusher->cache, note_result, flusher);

    error = error < 0 ? error : finished;
    error = error < 0 ? error : flusher->queued_result;
    return error < 0 ? flush_failed_redis(flusher, error) : 0;
}

static int claim_rooms(struct many *many)
{
    int error = 0;

    for (uint32_t i = 0; i < many->count && error == 0; i++) {
        if (!many->rooms[i].left) {
            error = cache_queue_claim(many->flusher->cache, room_id_of(&many->rooms[i]));
        }
    }
    return finish(many->flusher, error);
}

/* F1: MongoDB has acknowledged all of the part. */
static int remove_lists(struct many *many)
{
    struct flusher *flusher = many->flusher;
    int error = 0;

    for (uint32_t i = many->first; i < many->end; i++) {
        const struct flush_many_room *room = &many->rooms[i];
        for (uint32_t n = 0; !room->left && n < room->count && error == 0; n++) {
            error = cache_queue_remove(flusher->cache, room_id_of(room), room->lists[n].owner,
                                       room->lists[n].number);
        }
    }
    return finish(flusher, error);
}

/* --- read --- */

/* Takes the room's records out of the buffer again. They are the last ones in it. */
static void drop_records(struct flusher *flusher, struct flush_mark *mark)
{
    if (mark->raw_count > 0) {
        const char *begin = flusher->raw[mark->raw_first].data;
        CHECK(mark->raw_first + mark->raw_count == flusher->raw_count);
        flusher->buffer_used = (uint32_t)(begin - (const char *)flusher->buffer);
        flusher->raw_count = mark->raw_first;
        mark->raw_count = 0;
    }
}

static void keep_record(struct many *many, uint32_t index, struct slice bytes, uint64_t seq)
{
    struct flusher *flusher = many->flusher;
    struct flush_mark *mark = &flusher->marks[index];
    uint8_t *copy = flusher->buffer + flusher->buffer_used;

    memcpy(copy, bytes.data, bytes.size);
    flusher->buffer_used += bytes.size;
    if (mark->raw_count == 0) {
        mark->raw_first = flusher->raw_count;
        many->first_seqs[index] = seq;
    }
    mark->raw_count++;
    flusher->raw[flusher->raw_count++] = (struct slice){(const char *)copy, bytes.size};
    many->first_seqs[index] = seq < many->first_seqs[index] ? seq : many->first_seqs[index];
}

/* Where the buffer is full the part ends before the room; one that fills it alone is left. */
static int take_row(void *context, uint32_t range, struct slice bytes)
{
    struct many *many = context;
    struct flusher *flusher = many->flusher;
    const uint32_t index = flusher->range_rooms[range];
    struct flush_many_room *room = &many->rooms[index];
    struct flush_mark *mark = &flusher->marks[index];
    struct record record;

    flusher->row_error = flush_go_on(flusher);
    if (flusher->row_error < 0 || room->left) {
        return flusher->row_error;
    }
    many->range_rows = range == many->range ? many->range_rows + 1 : 1;
    many->range = range;
    const bool full =
        flusher->raw_count == PART_RECORDS || bytes.size > JOB_FLUSH_BYTES - flusher->buffer_used;
    if (full && mark->raw_count < flusher->raw_count) {
        drop_records(flusher, mark);
        many->end = index;
        return -ENOBUFS;
    }
    if (full || many->range_rows == LIST_RECORDS_MAX ||
        flush_decode(bytes, room_id_of(room), &record) < 0 || record.seq == 0) {
        drop_records(flusher, mark);
        room->left = true;
        return 0;
    }
    keep_record(many, index, bytes, record.seq);
    return 0;
}

/* Ranges of all lists from the part's first room on. */
static uint32_t make_ranges(struct many *many)
{
    struct flusher *flusher = many->flusher;
    uint32_t count = 0;

    for (uint32_t i = many->first; i < many->count; i++) {
        const struct flush_many_room *room = &many->rooms[i];
        for (uint32_t n = 0; !room->left && n < room->count; n++) {
            CHECK(count < FLUSH_MANY_LISTS);
            many->owners[count] = room->lists[n].owner;
            flusher->range_rooms[count] = (uint16_t)i;
            flusher->ranges[count++] = (struct cache_range){.room_id = room_id_of(room),
                                                            .number = room->lists[n].number,
                                                            .last = LIST_RECORDS_MAX - 1};
        }
    }
    return count;
}

/* Reads rooms from the part's first one on until the buffer is full, and sets its end. */
static int read_part(struct many *many)
{
    struct flusher *flusher = many->flusher;
    const uint32_t count = make_ranges(many);

    many->end = many->count;
    many->range = UINT32_MAX;
    flusher->raw_count = 0;
    flusher->buffer_used = 0;
    const int error =
        cache_read_owned(flusher->cache, flusher->ranges, many->owners, count, take_row, many);
    if (flusher->row_error < 0) {
        return flusher->row_error;
    }
    const bool cut = error == -ENOBUFS && many->end < many->count;
    return error < 0 && !cut ? flush_failed_redis(flusher, error) : 0;
}

/* --- is it plain? --- */

/* Keeps one record of each seq. False: some are missing, or contradict each other, or there are
 * none. */
static bool sift(struct many *many, uint32_t index)
{
    struct flusher *flusher = many->flusher;
    struct flush_mark *mark = &flusher->marks[index];
    struct slice *raw = flusher->raw + mark->raw_first;
    uint32_t kept = 0;

    if (mark->raw_count == 0) {
        return false;
    }
    flush_seen_begin(&flusher->seen, many->first_seqs[index]);
    for (uint32_t i = 0; i < mark->raw_count; i++) {
        struct record record;
        CHECK(flush_decode(raw[i], room_id_of(&many->rooms[index]), &record) == 0); /* take_row */
        const enum flush_sight sight = flush_seen_look(&flusher->seen, record.seq, raw[i]);
        if (sight == FLUSH_SIGHT_NEW) {
            raw[kept++] = raw[i];
        } else if (sight != FLUSH_SIGHT_AGAIN) {
            return false;
        }
    }
    mark->raw_count = kept;
    return flusher->seen.top < flusher->seen.next;
}

/* Whether rooms are there, and their records follow (F3). Where the event before the first record
 * is missing there may still be later ones, or quarantine may have it: the other way asks for
 * them. */
static int look_in_store(struct many *many)
{
    uint32_t rooms[FLUSH_MANY_LISTS];
    uint32_t count = 0;

    for (uint32_t i = many->first; i < many->end; i++) {
        if (!many->rooms[i].left) {
            rooms[count] = i;
            many->ends[count++] = (struct store_mongo_end){.room_id = room_id_of(&many->rooms[i]),
                                                           .before_seq = many->first_seqs[i] - 1};
        }
    }
    if (count == 0) {
        return 0;
    }
    const int error = store_mongo_ends(many->flusher->store, many->ends, count);
    if (error < 0) {
        return flush_failed_mongodb(many->flusher, error);
    }
    for (uint32_t i = 0; i < count; i++) {
        many->rooms[rooms[i]].left = !many->ends[i].known || !many->ends[i].follows;
    }
    return 0;
}

/* --- store --- */

/* What MongoDB has is given again: the bulk of the one that died may have been applied in part, and
 * its members not at all. */
static int store_part(struct many *many)
{
    struct flusher *flusher = many->flusher;
    int error = 0;

    for (uint32_t i = many->first; i < many->end; i++) {
        const struct flush_mark *mark = &flusher->marks[i];
        for (uint32_t n = 0; !many->rooms[i].left && n < mark->raw_count && error == 0; n++) {
            error = flush_bulk_add(flusher, flusher->raw[mark->raw_first + n], i, false);
        }
    }
    error = error < 0 ? error : flush_bulk_store(flusher);
    for (uint32_t i = many->first; i < many->end && error == 0; i++) {
        struct flush_many_room *room = &many->rooms[i];
        room->left = room->left || flusher->marks[i].unkept;
        flusher->answer.number += room->left ? 0 : flusher->marks[i].raw_count;
    }
    return error;
}

static int drain_part(struct many *many)
{
    int error = flush_go_on(many->flusher);

    error = error < 0 ? error : flush_check_owner(many->flusher);
    error = error < 0 ? error : read_part(many);
    if (error < 0) {
        return error;
    }
    for (uint32_t i = many->first; i < many->end; i++) {
        many->rooms[i].left = many->rooms[i].left || !sift(many, i);
    }
    error = look_in_store(many);
    error = error < 0 ? error : store_part(many);
    return error < 0 ? error : remove_lists(many);
}

int flush_takeover_many(struct flusher *flusher, struct flush_many_room *rooms, uint32_t count)
{
    struct many many = {.flusher = flusher, .rooms = rooms, .count = count};

    CHECK(count <= FLUSH_MANY_LISTS);
    memset(flusher->marks, 0, count * sizeof(flusher->marks[0]));
    int error = flush_go_on(flusher);
    error = error < 0 ? error : flush_check_owner(flusher);
    error = error < 0 ? error : claim_rooms(&many);
    /* Each part has a room at least: only what lies in the buffer already ends it before one. */
    while (error == 0 && many.first < many.count) {
        error = drain_part(&many);
        many.first = many.end;
    }
    return error;
}
