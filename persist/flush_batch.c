/*
 * flush_batch.c - FLUSH: batches out of Redis; DIRECT: out of our memory. See flush.h for F1 to F3.
 *
 * FLUSH looks at every list as a whole before anything of it is stored (F3). Usually one look at
 * all lists of the job takes their records into the buffer. A list that is too large for that, or
 * holds more than it should, is slow: it is looked at twice, once to see that nothing is missing,
 * and once to store it piece by piece.
 */
#include "core/check.h"
#include "core/failpoint.h"
#include "core/os.h"
#include "persist/flush_own.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

_Static_assert((int)JOB_FLUSH_RECORDS <= (int)STORE_MONGO_ENDS_MAX, "one look for all rooms");

static void begin(struct flusher *flusher, struct flush_job *job)
{
    CHECK(job->room_count <= JOB_FLUSH_RECORDS);
    flusher->job = job;
    memset(flusher->marks, 0, job->room_count * sizeof(flusher->marks[0]));
    for (uint32_t i = 0; i < job->room_count; i++) {
        job->rooms[i].result = FLUSH_UNDONE;
    }
}

/* --- does the room follow? --- */

/* Of a room without the event before its first one: it may be in quarantine, or later ones are
 * there. */
static int check_last(struct flusher *flusher, uint32_t index)
{
    struct flush_room *room = &flusher->job->rooms[index];
    uint64_t last_seq = 0;

    int error = flush_go_on(flusher);
    if (error < 0) {
        return error;
    }
    error = store_mongo_last_seq(flusher->store, room->room_id, &last_seq);
    if (error < 0) {
        return flush_failed_mongodb(flusher, error);
    }
    if (last_seq + 1 < room->first_seq) {
        room->result = FLUSH_HOLE;
        flusher->marks[index].out = true;
    }
    return 0;
}

/* One look for all rooms; those that it leaves open are looked at again. */
static int check_rooms(struct flusher *flusher)
{
    struct store_mongo_end *ends = flusher->ends;
    uint32_t count = 0;

    for (uint32_t i = 0; i < flusher->job->room_count; i++) {
        const struct flush_room *room = &flusher->job->rooms[i];
        if (room->check && !flusher->marks[i].out) {
            flusher->queued[count] = (uint16_t)i;
            ends[count++] = (struct store_mongo_end){.room_id = room->room_id,
                                                     .before_seq = room->first_seq - 1};
        }
    }
    int error = count > 0 ? store_mongo_ends(flusher->store, ends, count) : 0;
    if (error < 0) {
        return flush_failed_mongodb(flusher, error);
    }
    for (uint32_t i = 0; error == 0 && i < count; i++) {
        const uint16_t index = flusher->queued[i];
        if (!ends[i].known) {
            flusher->job->rooms[index].result = FLUSH_PASSED;
            flusher->marks[index].out = true;
        } else if (!ends[i].follows && !flusher->job->rooms[index].renew) {
            error = check_last(flusher, index);
        }
    }
    return error;
}

static int renew_rooms(struct flusher *flusher)
{
    for (uint32_t i = 0; i < flusher->job->room_count; i++) {
        const struct flush_room *room = &flusher->job->rooms[i];
        if (room->renew && !flusher->marks[i].out) {
            const int error = store_mongo_renew(flusher->store, room->room_id);
            if (error < 0) {
                return flush_failed_mongodb(flusher, error);
            }
        }
    }
    return 0;
}

/* --- freeze --- */

/* The worst of what queued commands came to: being fenced before any other. */
static void note_result(struct flusher *flusher, int result)
{
    if (flusher->queued_result == 0 || result == -ESTALE) {
        flusher->queued_result = result;
    }
}

/* A number is used once (cache.h, C2). So a list that has our name already is ours, by an attempt
 * whose reply was lost; and without a log it may be so too, which is seen by looking. */
static void freeze_result(void *context, uint32_t index, int result)
{
    struct flusher *flusher = context;
    const uint16_t room = flusher->queued[index];

    if (result == 0 || result == -EEXIST) {
        flusher->job->rooms[room].frozen = true;
    } else if (result != -ENOENT) {
        note_result(flusher, result);
    }
}

static int frozen_row(void *context, uint32_t range, struct slice record)
{
    struct flusher *flusher = context;

    (void)record;
    flusher->job->rooms[flusher->range_rooms[range]].frozen = true;
    return 0;
}

/* Redis does not have what it was given: told once a job, by the first room. */
static void lacks(struct flusher *flusher, uint32_t index, const char *what, uint64_t seq)
{
    const struct flush_room *room = &flusher->job->rooms[index];

    if (flusher->answer.status != -ENODATA) {
        flusher->answer.status = flush_failed(
            flusher, JOB_WHERE_REDIS, -ENODATA,
            "room %.*s, frozen list %" PRIu64 ".%" PRIu64 ": %s %" PRIu64, (int)room->room_id.size,
            room->room_id.data, flusher->owner, room->number, what, seq);
    }
    flusher->marks[index].out = true;
}

/* Rooms without a log: is their frozen list there? */
static int find_frozen(struct flusher *flusher)
{
    const struct flush_job *job = flusher->job;
    uint32_t count = 0;

    for (uint32_t i = 0; i < job->room_count; i++) {
        const struct flush_room *room = &job->rooms[i];
        if (!room->frozen) {
            flusher->range_rooms[count] = (uint16_t)i;
            flusher->ranges[count++] =
                (struct cache_range){.room_id = room->room_id, .number = room->number};
        }
    }
    if (count == 0) {
        return 0;
    }
    const int error = cache_read(flusher->cache, flusher->ranges, count, frozen_row, flusher);
    if (error < 0) {
        return flush_failed_redis(flusher, error);
    }
    for (uint32_t i = 0; i < job->room_count; i++) {
        if (!job->rooms[i].frozen) {
            lacks(flusher, i, "is not there, nor a log with seq", job->rooms[i].first_seq);
        }
    }
    return 0;
}

/* Sends what was queued and takes the results; also where queueing met an error, for what is known
 * of the commands before it. */
static int finish(struct flusher *flusher, int error, cache_result result)
{
    const uint64_t begun_ns = os_now_ns();
    const int finished = cache_finish(flusher->cache, result, flusher);

    error = error < 0 ? error : finished;
    if (error < 0 || flusher->queued_result < 0) {
        return flush_failed_redis(flusher, error < 0 ? error : flusher->queued_result);
    }
    flusher->answer.redis_ns = os_now_ns() - begun_ns;
    return 0;
}

static int freeze(struct flusher *flusher)
{
    const struct flush_job *job = flusher->job;
    uint32_t count = 0;
    int error = 0;

    flusher->queued_result = 0;
    failpoint("freeze.before");
    for (uint32_t i = 0; i < job->room_count && error == 0; i++) {
        if (!job->rooms[i].frozen) {
            flusher->queued[count++] = (uint16_t)i;
            error = cache_freeze(flusher->cache, job->rooms[i].room_id, job->rooms[i].number);
        }
    }
    error = count > 0 ? finish(flusher, error, freeze_result) : 0;
    error = error < 0 ? error : find_frozen(flusher);
    if (error == 0) {
        failpoint("freeze.after");
    }
    return error;
}

/* --- read: one look at all lists --- */

static uint64_t expected(const struct flush_room *room)
{
    CHECK(room->first_seq >= 1 && room->last_seq >= room->first_seq);
    return room->last_seq - room->first_seq + 1;
}

/* A record more than is expected of each tells whether there are more. */
static int raw_row(void *context, uint32_t range, struct slice record)
{
    struct flusher *flusher = context;
    const uint16_t index = flusher->range_rooms[range];
    struct flush_mark *mark = &flusher->marks[index];

    if (mark->slow || mark->raw_count == expected(&flusher->job->rooms[index]) ||
        flusher->raw_count == FLUSH_RAW_MAX ||
        record.size > JOB_FLUSH_BYTES - flusher->buffer_used) {
        mark->slow = true;
        return 0;
    }
    uint8_t *copy = flusher->buffer + flusher->buffer_used;
    memcpy(copy, record.data, record.size);
    flusher->buffer_used += record.size;
    if (mark->raw_count == 0) {
        mark->raw_first = flusher->raw_count;
    }
    mark->raw_count++;
    flusher->raw[flusher->raw_count++] = (struct slice){(const char *)copy, record.size};
    return 0;
}

/* Ranges of all lists to be looked at, in pieces whose replies stay bounded. */
static uint32_t make_ranges(struct flusher *flusher)
{
    const struct flush_job *job = flusher->job;
    uint32_t count = 0;

    for (uint32_t i = 0; i < job->room_count; i++) {
        const struct flush_room *room = &job->rooms[i];
        struct flush_mark *mark = &flusher->marks[i];
        const uint64_t elements = expected(room) + 1;
        mark->slow = !mark->out && (elements > JOB_FLUSH_RECORDS + 1 ||
                                    count + elements / FLUSH_RANGE + 1 > FLUSH_RAW_MAX);
        for (uint32_t at = 0; !mark->out && !mark->slow && at < elements; at += FLUSH_RANGE) {
            const uint64_t end = at + FLUSH_RANGE < elements ? at + FLUSH_RANGE : elements;
            flusher->range_rooms[count] = (uint16_t)i;
            flusher->ranges[count++] = (struct cache_range){.room_id = room->room_id,
                                                            .number = room->number,
                                                            .first = at,
                                                            .last = (uint32_t)end - 1};
        }
    }
    return count;
}

/* Keeps of a room's raw records those to be stored. False: told that some are missing or wrong. */
static bool sift(struct flusher *flusher, uint32_t index)
{
    const struct flush_room *room = &flusher->job->rooms[index];
    struct flush_mark *mark = &flusher->marks[index];
    struct slice *raw = flusher->raw + mark->raw_first;
    uint32_t kept = 0;

    flush_seen_begin(&flusher->seen, room->first_seq);
    for (uint32_t i = 0; i < mark->raw_count; i++) {
        struct record record;
        if (flush_decode(raw[i], room->room_id, &record) < 0) {
            lacks(flusher, index, "holds what is no record of the room, at", i);
            return false;
        }
        if (record.seq < room->first_seq || record.seq > room->last_seq) {
            continue;
        }
        const enum flush_sight sight = flush_seen_look(&flusher->seen, record.seq, raw[i]);
        if (sight == FLUSH_SIGHT_OTHER) {
            lacks(flusher, index, "holds two different records with seq", record.seq);
            return false;
        }
        if (sight == FLUSH_SIGHT_NEW) {
            raw[kept++] = raw[i];
        }
    }
    if (flusher->seen.next <= room->last_seq) {
        lacks(flusher, index, "has no record with seq", flusher->seen.next);
        return false;
    }
    mark->raw_count = kept;
    mark->left = kept;
    return true;
}

/* --- store --- */

static int store_raw(struct flusher *flusher)
{
    for (uint32_t i = 0; i < flusher->job->room_count; i++) {
        struct flush_mark *mark = &flusher->marks[i];
        if (!mark->out && !mark->slow) {
            (void)sift(flusher, i);
        }
    }
    for (uint32_t i = 0; i < flusher->job->room_count; i++) {
        const struct flush_mark *mark = &flusher->marks[i];
        for (uint32_t n = 0; !mark->out && !mark->slow && n < mark->raw_count; n++) {
            const int error = flush_bulk_add(flusher, flusher->raw[mark->raw_first + n], i, false);
            if (error < 0) {
                return error;
            }
        }
    }
    return flush_bulk_store(flusher);
}

/* --- slow: one list, looked at twice --- */

struct slow_look {
    struct flusher *flusher;
    uint32_t index; /* of the room */
    bool storing;
};

static int slow_row(void *context, uint32_t range, struct slice bytes)
{
    const struct slow_look *look = context;
    struct flusher *flusher = look->flusher;
    const struct flush_room *room = &flusher->job->rooms[look->index];
    struct record record;

    (void)range;
    flusher->row_error = flush_go_on(flusher);
    if (flusher->row_error < 0) {
        return flusher->row_error;
    }
    if (flush_decode(bytes, room->room_id, &record) < 0) {
        lacks(flusher, look->index,
              "holds what is no record of the room; records before it:", flusher->seen.top);
        return 0;
    }
    if (record.seq < room->first_seq || record.seq > room->last_seq) {
        return 0;
    }
    const enum flush_sight sight = flush_seen_look(&flusher->seen, record.seq, bytes);
    if (sight == FLUSH_SIGHT_OTHER) {
        lacks(flusher, look->index, "holds two different records with seq", record.seq);
    }
    if (sight == FLUSH_SIGHT_NEW && look->storing) {
        flusher->marks[look->index].left++;
        flusher->row_error = flush_bulk_add(flusher, bytes, look->index, true);
    }
    return flusher->row_error;
}

static int slow_look(struct flusher *flusher, uint32_t index, bool storing)
{
    const struct flush_room *room = &flusher->job->rooms[index];
    struct slow_look look = {.flusher = flusher, .index = index, .storing = storing};

    flush_seen_begin(&flusher->seen, room->first_seq);
    const int error = cache_read_found(flusher->cache, room->room_id, flusher->owner, room->number,
                                       slow_row, &look);
    if (flusher->row_error < 0) {
        return flusher->row_error;
    }
    if (error < 0) {
        return flush_failed_redis(flusher, error);
    }
    if (flusher->seen.next <= room->last_seq && !flusher->marks[index].out) {
        lacks(flusher, index, "has no record with seq", flusher->seen.next);
    }
    return 0;
}

static int store_slow(struct flusher *flusher, uint32_t index)
{
    struct flush_mark *mark = &flusher->marks[index];

    int error = slow_look(flusher, index, false);
    if (error < 0 || mark->out) {
        return error;
    }
    mark->left = 1; /* until all of it was given to the bulk */
    error = slow_look(flusher, index, true);
    error = error < 0 ? error : flush_bulk_store(flusher);
    if (error == 0 && !mark->out) {
        flush_settle(flusher, index);
    }
    return error;
}

static int read_and_store(struct flusher *flusher)
{
    const uint32_t count = make_ranges(flusher);

    int error =
        count > 0 ? cache_read(flusher->cache, flusher->ranges, count, raw_row, flusher) : 0;
    if (error < 0) {
        return flush_failed_redis(flusher, error);
    }
    failpoint("read.after");
    error = store_raw(flusher);
    for (uint32_t i = 0; i < flusher->job->room_count && error == 0; i++) {
        if (flusher->marks[i].slow && !flusher->marks[i].out) {
            error = store_slow(flusher, i);
        }
    }
    return error;
}

/* --- unlink --- */

/* F1: only what is in MongoDB, or has no room there any more. */
static bool may_go(const struct flusher *flusher, uint32_t index)
{
    const uint8_t result = flusher->job->rooms[index].result;

    return result == FLUSH_STORED || result == FLUSH_PASSED ||
           (result == FLUSH_STUCK && !flusher->marks[index].unkept);
}

static void unlink_result(void *context, uint32_t index, int result)
{
    (void)index;
    if (result < 0 && result != -ENOENT) {
        note_result(context, result);
    }
}

/* Nobody gives a stored batch again; so its list is remembered until Redis takes the command, which
 * may be given twice. What does not fit here is found by the next takeover. */
static void owe(struct flusher *flusher)
{
    for (uint32_t i = 0; i < flusher->job->room_count; i++) {
        const struct flush_room *room = &flusher->job->rooms[i];
        if (may_go(flusher, i) && flusher->owed_count < FLUSH_OWED_MAX &&
            room->room_id.size <= FLUSH_ROOM_ID_MAX) {
            struct flush_owed *owed = &flusher->owed[flusher->owed_count++];
            owed->number = room->number;
            owed->room_bytes = (uint8_t)room->room_id.size;
            memcpy(owed->room_id, room->room_id.data, room->room_id.size);
        }
    }
}

static int unlink_lists(struct flusher *flusher)
{
    uint32_t count = 0;
    int error = 0;

    flusher->queued_result = 0;
    for (uint32_t i = 0; i < flusher->owed_count && error == 0; i++, count++) {
        const struct flush_owed *owed = &flusher->owed[i];
        error = cache_unlink(flusher->cache, (struct slice){owed->room_id, owed->room_bytes},
                             owed->number);
    }
    for (uint32_t i = 0; i < flusher->job->room_count && error == 0; i++) {
        if (may_go(flusher, i)) {
            count++;
            error = cache_unlink(flusher->cache, flusher->job->rooms[i].room_id,
                                 flusher->job->rooms[i].number);
        }
    }
    error = count > 0 ? finish(flusher, error, unlink_result) : 0;
    if (error < 0) {
        owe(flusher);
        return error;
    }
    flusher->owed_count = 0;
    failpoint("unlink.after");
    return 0;
}

/* --- FLUSH --- */

int flush_job_run(struct flusher *flusher, struct flush_job *job)
{
    CHECK(flusher->cache != NULL);
    begin(flusher, job);
    int error = flush_check_owner(flusher);
    error = error < 0 ? error : flush_connect(flusher);
    error = error < 0 ? error : freeze(flusher);
    error = error < 0 ? error : check_rooms(flusher);
    error = error < 0 ? error : renew_rooms(flusher);
    error = error < 0 ? error : read_and_store(flusher);
    if (!cache_is_open(flusher->cache)) {
        owe(flusher);
        return error;
    }
    /* Also where MongoDB failed on the way: what it took before is done. */
    const struct job_answer first = flusher->answer;
    const int unlink_error = error != -ESTALE ? unlink_lists(flusher) : 0;
    if (error < 0) {
        flusher->answer = first; /* the first failure is the one to tell */
        return error;
    }
    return unlink_error < 0 ? unlink_error : flusher->answer.status;
}

/* --- DIRECT --- */

/* Rooms of which nothing is to be stored are done. */
static void count_direct(struct flusher *flusher)
{
    struct flush_job *job = flusher->job;

    for (uint32_t i = 0; i < job->record_count; i++) {
        CHECK(job->record_room[i] < job->room_count);
        flusher->marks[job->record_room[i]].left++;
    }
    for (uint32_t i = 0; i < job->room_count; i++) {
        if (flusher->marks[i].left == 0 && !flusher->marks[i].out) {
            job->rooms[i].result = FLUSH_STORED;
        }
    }
}

int flush_direct_run(struct flusher *flusher, struct flush_job *job)
{
    begin(flusher, job);
    int error = flush_check_owner(flusher);
    error = error < 0 ? error : check_rooms(flusher);
    error = error < 0 ? error : renew_rooms(flusher);
    if (error < 0) {
        return error;
    }
    count_direct(flusher);
    for (uint32_t i = 0; i < job->record_count && error == 0; i++) {
        if (!flusher->marks[job->record_room[i]].out) {
            error = flush_bulk_add(flusher, job->records[i], job->record_room[i], false);
        }
    }
    return error < 0 ? error : flush_bulk_store(flusher);
}
