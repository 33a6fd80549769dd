/*
 * flush_takeover.c - DRAIN: whatever lies in Redis goes into MongoDB. See flush.h for F1 to F3.
 *
 *     scan -> what is plain, many rooms at once: flush_takeover_many.c          until a scan
 *          -> the rest room by room: claim -> look -> store -> remove its lists  finds nothing
 *
 * Lists are left by a damsod that died, here or elsewhere, or by ourselves before Redis failed.
 * What they hold is in the journal of the one that wrote them; if that is ours it comes from there
 * too, and is then found in MongoDB. A takeover is for the case that the journal is lost with its
 * machine.
 *
 * A room with a hole waits until a scan later than its claim has found nothing more of it: a list
 * may be renamed while a scan is under way, and is then seen by the next one only. If the hole
 * stays, nothing beyond it is stored (F3). In the first takeover of a run its lists are then kept
 * under another name, for people. Later ones in the same run can only be of this run (all others
 * were removed, and are fenced): their records are above our watermark, hence in our journal, and
 * are handed over again; so such lists are removed, for a Redis at maxmemory would fill with them.
 */
#include "core/check.h"
#include "core/failpoint.h"
#include "core/log.h"
#include "persist/flush_own.h"
#include "persist/flush_takeover_many.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { SCANS_MAX = 4096 };

/* One room's lists, and what was found in them. */
struct takeover {
    struct flusher *flusher;
    struct slice room_id;
    struct flush_list *list; /* being read */
    uint64_t stored;         /* last seq in MongoDB */
    uint64_t limit;          /* the last one without a hole before it */
    uint64_t damaged; /* elements that are no record of the room, or contradict another one */
    bool storing;
};

/* --- what there is --- */

static int found(void *context, struct slice room_id, uint64_t owner, uint64_t number)
{
    struct flusher *flusher = context;

    if (room_id.size == 0 || room_id.size > FLUSH_ROOM_ID_MAX) {
        return 0; /* no room of ours has such a name */
    }
    if (flusher->list_count == FLUSH_TAKEOVER_LISTS) {
        flusher->row_error = -ENOBUFS; /* the rest is for the next scan */
        return flusher->row_error;
    }
    struct flush_list *list = &flusher->lists[flusher->list_count++];
    *list =
        (struct flush_list){.owner = owner, .number = number, .room_bytes = (uint8_t)room_id.size};
    memcpy(list->room_id, room_id.data, room_id.size);
    return 0;
}

static int compare_numbers(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int compare_rooms(const struct flush_list *a, const struct flush_list *b)
{
    if (a->room_bytes != b->room_bytes) {
        return compare_numbers(a->room_bytes, b->room_bytes);
    }
    return memcmp(a->room_id, b->room_id, a->room_bytes);
}

/* By room, then in the order in which the lists were written: the log last. */
static int compare_lists(const void *left, const void *right)
{
    const struct flush_list *a = left;
    const struct flush_list *b = right;
    int order = compare_rooms(a, b);

    order = order != 0 ? order : (a->number == 0) - (b->number == 0);
    order = order != 0 ? order : compare_numbers(a->owner, b->owner);
    return order != 0 ? order : compare_numbers(a->number, b->number);
}

static int scan(struct flusher *flusher)
{
    flusher->list_count = 0;
    const int error = cache_scan(flusher->cache, found, flusher);
    if (error < 0 && flusher->row_error == 0) {
        return flush_failed_redis(flusher, error);
    }
    flusher->row_error = 0;
    qsort(flusher->lists, flusher->list_count, sizeof(flusher->lists[0]), compare_lists);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < flusher->list_count; i++) {
        if (kept == 0 || compare_lists(&flusher->lists[kept - 1], &flusher->lists[i]) != 0) {
            flusher->lists[kept++] = flusher->lists[i]; /* a scan may tell one twice */
        }
    }
    flusher->list_count = kept;
    return 0;
}

/* --- a room --- */

static int take_record(struct takeover *takeover, struct slice bytes, uint64_t seq)
{
    struct flusher *flusher = takeover->flusher;
    enum flush_sight sight = FLUSH_SIGHT_NEW;

    if (seq > takeover->stored) {
        sight = flush_seen_look(&flusher->seen, seq, bytes);
    }
    if (sight == FLUSH_SIGHT_OTHER) {
        takeover->damaged += takeover->storing;
        takeover->list->keep = true;
    }
    if (takeover->storing && seq > takeover->limit) {
        takeover->list->keep = true;
        return 0;
    }
    if (!takeover->storing || sight != FLUSH_SIGHT_NEW) {
        return 0;
    }
    /* What MongoDB has is given again: the bulk of the one that died may have been applied in part,
     * and its members not at all. */
    flusher->answer.number++;
    return flush_bulk_add(flusher, bytes, 0, true);
}

static int list_row(void *context, uint32_t range, struct slice bytes)
{
    struct takeover *takeover = context;
    struct flusher *flusher = takeover->flusher;
    struct record record;

    (void)range;
    flusher->row_error = flush_go_on(flusher);
    if (flusher->row_error < 0) {
        return flusher->row_error;
    }
    if (flush_decode(bytes, takeover->room_id, &record) < 0) {
        takeover->damaged += takeover->storing;
        takeover->list->keep = true;
        return 0;
    }
    flusher->row_error = take_record(takeover, bytes, record.seq);
    return flusher->row_error;
}

/* Goes through all lists of the room, in their order. */
static int look(struct takeover *takeover, struct flush_list *lists, uint32_t count, bool storing)
{
    struct flusher *flusher = takeover->flusher;

    takeover->storing = storing;
    flush_seen_begin(&flusher->seen, takeover->stored + 1);
    for (uint32_t i = 0; i < count; i++) {
        takeover->list = &lists[i];
        const int error = cache_read_found(flusher->cache, takeover->room_id, lists[i].owner,
                                           lists[i].number, list_row, takeover);
        if (flusher->row_error < 0) {
            return flusher->row_error;
        }
        if (error < 0) {
            return flush_failed_redis(flusher, error);
        }
    }
    return storing ? flush_bulk_store(flusher) : 0;
}

static int remove_lists(struct flusher *flusher, struct slice room_id, struct flush_list *lists,
                        uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const int error = cache_remove_found(flusher->cache, room_id, lists[i].owner,
                                             lists[i].number, lists[i].keep);
        if (error < 0 && error != -ENOENT) {
            return flush_failed_redis(flusher, error);
        }
    }
    return 0;
}

static int keep_unknown(struct flusher *flusher, struct slice room_id, struct flush_list *lists,
                        uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        lists[i].keep = true;
    }
    log_error("Redis holds messages of a room that MongoDB does not know; they are kept in Redis "
              "under names with :orphan:, to be looked at (LRANGE) or "
              "deleted (DEL) room_id=%.*s lists=%" PRIu32,
              (int)room_id.size, room_id.data, count);
    return remove_lists(flusher, room_id, lists, count);
}

/* What people should know of a room once its lists were looked at. */
static void tell_kept(const struct takeover *takeover, bool hole)
{
    const struct flusher *flusher = takeover->flusher;

    if (hole) {
        log_error(
            "messages between MongoDB and Redis are missing; unless the journal of the damsod "
            "that wrote them still has them (start it once more with its data directory), they "
            "are lost; what came after them is kept in Redis under names with :orphan: "
            "room_id=%.*s missing_seq=%" PRIu64 " last_seq=%" PRIu64,
            (int)takeover->room_id.size, takeover->room_id.data, takeover->limit + 1,
            flusher->seen.top);
    } else if (takeover->damaged > 0 || flusher->marks[0].unkept) {
        log_error("Redis holds what is no message of its room, or what MongoDB refuses; the lists "
                  "are kept in Redis under names with :orphan: "
                  "room_id=%.*s elements=%" PRIu64,
                  (int)takeover->room_id.size, takeover->room_id.data, takeover->damaged);
    }
}

/* Whether the lists must stay, and how. */
static void decide(struct takeover *takeover, struct flush_list *lists, uint32_t count, bool hole)
{
    const struct flusher *flusher = takeover->flusher;
    const bool ours = flusher->drained_owner == flusher->owner;

    for (uint32_t i = 0; i < count; i++) {
        const bool foreign = lists[i].owner > 0 && lists[i].owner != flusher->owner;
        lists[i].keep = (foreign || !ours) && (lists[i].keep || flusher->marks[0].unkept);
    }
    if (!ours) {
        tell_kept(takeover, hole);
    } else if (hole) {
        log_info("Redis lost messages that the journal has; they are handed over again "
                 "room_id=%.*s missing_seq=%" PRIu64 " last_seq=%" PRIu64,
                 (int)takeover->room_id.size, takeover->room_id.data, takeover->limit + 1,
                 flusher->seen.top);
    }
}

/* ret_waits: it has a hole, and is left as it is unless holes are final. */
static int drain_known(struct flusher *flusher, struct slice room_id, struct flush_list *lists,
                       uint32_t count, bool final, bool *ret_waits)
{
    struct takeover takeover = {.flusher = flusher, .room_id = room_id};

    int error = store_mongo_last_seq(flusher->store, room_id, &takeover.stored);
    if (error < 0) {
        return flush_failed_mongodb(flusher, error);
    }
    flusher->marks[0] = (struct flush_mark){0};
    error = look(&takeover, lists, count, false);
    if (error < 0) {
        return error;
    }
    takeover.limit = flusher->seen.next - 1;
    const bool hole = flusher->seen.top > takeover.limit;
    if (hole && !final) {
        *ret_waits = true;
        return 0;
    }
    error = look(&takeover, lists, count, true);
    if (error < 0) {
        return error;
    }
    decide(&takeover, lists, count, hole);
    return remove_lists(flusher, room_id, lists, count);
}

static int drain_room(struct flusher *flusher, struct flush_list *lists, uint32_t count, bool final,
                      bool *ret_waits)
{
    const struct slice room_id = {lists[0].room_id, lists[0].room_bytes};
    uint64_t epoch = 0;

    int error = flush_go_on(flusher);
    error = error < 0 ? error : flush_check_owner(flusher);
    if (error < 0) {
        return error;
    }
    error = cache_claim(flusher->cache, room_id);
    if (error < 0) {
        return flush_failed_redis(flusher, error);
    }
    error = store_mongo_epoch(flusher->store, room_id, &epoch);
    if (error == -ENOENT) {
        return keep_unknown(flusher, room_id, lists, count);
    }
    if (error < 0) {
        return flush_failed_mongodb(flusher, error);
    }
    return drain_known(flusher, room_id, lists, count, final, ret_waits);
}

/* --- all rooms --- */

/* Rooms from the list at first on, as many as go together; *ret_end: the list behind them. A room
 * with too many lists is alone, and left. */
static uint32_t gather(struct flusher *flusher, uint32_t first, struct flush_many_room *rooms,
                       uint32_t *ret_end)
{
    uint32_t count = 0;
    uint32_t at = first;

    while (at < flusher->list_count) {
        uint32_t end = at + 1;
        while (end < flusher->list_count &&
               compare_rooms(&flusher->lists[at], &flusher->lists[end]) == 0) {
            end++;
        }
        if (count > 0 && end - first > FLUSH_MANY_LISTS) {
            break;
        }
        rooms[count++] = (struct flush_many_room){
            .lists = &flusher->lists[at], .count = end - at, .left = end - at > FLUSH_MANY_LISTS};
        at = end;
    }
    *ret_end = at;
    return count;
}

/* ret_progress: some lists are gone. */
static int drain_lists(struct flusher *flusher, bool final, bool *ret_progress)
{
    struct flush_many_room rooms[FLUSH_MANY_LISTS];
    uint32_t first = 0;

    while (first < flusher->list_count) {
        const uint32_t count = gather(flusher, first, rooms, &first);
        int error = flush_takeover_many(flusher, rooms, count);
        for (uint32_t i = 0; i < count && error == 0; i++) {
            bool waits = false;
            if (rooms[i].left) {
                error = drain_room(flusher, rooms[i].lists, rooms[i].count, final, &waits);
            }
            *ret_progress = *ret_progress || (error == 0 && !waits);
        }
        if (error < 0) {
            return error;
        }
    }
    return 0;
}

int flush_drain_run(struct flusher *flusher)
{
    bool progress = true;

    flusher->job = NULL;
    if (flusher->cache == NULL) {
        return 0;
    }
    failpoint("drain.before");
    int error = flush_check_owner(flusher);
    error = error < 0 ? error : flush_connect(flusher);
    for (uint32_t scans = 0; scans < SCANS_MAX && error == 0; scans++) {
        error = scan(flusher);
        if (error == 0 && flusher->list_count == 0) {
            flusher->drained_owner = flusher->owner;
            failpoint("drain.after");
            return 0;
        }
        const bool final = !progress; /* all of these have been claimed, and looked for again */
        progress = false;
        error = error < 0 ? error : drain_lists(flusher, final, &progress);
    }
    return error < 0 ? error
                     : flush_failed(flusher, JOB_WHERE_REDIS, -EAGAIN,
                                    "lists appear in Redis faster than they can be taken over");
}
