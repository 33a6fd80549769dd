/*
 * move_source.c - a source redis+mongodb is made complete: journals, then Redis, go into MongoDB.
 *
 *     look -> prepare, claim -> (run_begin) -> journals -> DRAIN -> END (a clean stop)
 *
 * DRAIN and END are the flusher's (persist/flush.h), which runs here as in a damsod: on a thread of
 * its own, asked over its rings. Journals come first: they hold every message that MongoDB may
 * lack, so what Redis has is then found to be there, and no list has a hole. After a clean stop no
 * run is begun: a move that is killed would make it an unclean one, and give rooms a new epoch that
 * need none.
 */
#include "persist/embedded.h"
#include "persist/move_own.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

enum {
    ANSWER_WAIT_NS = 50 * 1000 * 1000,
    WORKER_BYTES = 64 * 1024,
    RING_ENTRIES = 16,
    EVENTS_MAX = 8,
    PATH_BYTES = 512,
};

/* --- opening --- */

int move_source_open(struct move *move, char *ret_why, size_t why_size)
{
    const struct os_ring_options ring = {.entries = RING_ENTRIES};
    char boot_id[EMBEDDED_BOOT_ID_BYTES];

    doorbell_init(&move->bell);
    move->seen = mem_reserve(&move->plan, "move rooms seen", sizeof(struct move_seen),
                             (size_t)MOVE_SEEN_SETS * MOVE_SEEN_WAYS);
    move->replay = mem_reserve(&move->plan, "move journals", sizeof(struct move_replay), 1);
    int error = os_ring_create(&ring, &move->ring, ret_why, why_size);
    error = error < 0 ? error : os_ring_enable(move->ring);
    if (error < 0) {
        return error;
    }
    embedded_boot_id(boot_id);
    const struct worker_options worker = {.name = "damso-flush",
                                          .in_bytes = WORKER_BYTES,
                                          .out_bytes = WORKER_BYTES,
                                          .asker_bell = &move->bell,
                                          .asker_ring = move->ring,
                                          .asker_tag = os_tag(1, 0, 0)};
    const struct flush_options options = {
        .cache = move->cache != NULL ? &move->cache_options : NULL,
        .mongo = move->mongo,
        .bulk_max = MONGO_BULK_MAX,
        .keys_max = 1,
        .boot_id = {boot_id, sizeof(boot_id)},
    };
    return flusher_open(&options, &worker, &move->plan, &move->flusher, ret_why, why_size);
}

void move_source_close(struct move *move)
{
    if (move->flusher != NULL) {
        worker_stop(flusher_worker(move->flusher));
        flusher_close(move->flusher);
        move->flusher = NULL;
    }
    if (move->ring != NULL) {
        os_ring_destroy(move->ring);
        move->ring = NULL;
    }
}

/* --- the flusher --- */

/* Waits for the answer to the one job that is out; stop asks for an end of it meanwhile. */
static int wait_for_answer(struct move *move, struct job_answer *ret)
{
    struct worker *worker = flusher_worker(move->flusher);
    struct os_event events[EVENTS_MAX];
    uint32_t size = 0;
    int error = 0;
    const void *answer = worker_answer(worker, &size);

    while (answer == NULL && error >= 0) {
        doorbell_prepare_sleep(&move->bell);
        answer = worker_answer(worker, &size);
        if (answer == NULL) {
            error = os_turn(move->ring, ANSWER_WAIT_NS, events, EVENTS_MAX);
        }
        doorbell_cancel_sleep(&move->bell);
        if (error >= 0 && move->options.tick(move->options.context, &move->progress) < 0) {
            return move_fail(move, -ECANCELED, "stopped; start the same command again");
        }
        answer = worker_answer(worker, &size);
    }
    if (answer == NULL) {
        return move_fail(move, error, "cannot wait for a thread: %s", os_error(error));
    }
    CHECK(size == sizeof(*ret));
    memcpy(ret, answer, sizeof(*ret));
    worker_next(worker);
    return ret->status;
}

static int ask_once(struct move *move, enum job_op op, struct job_answer *ret)
{
    struct worker *worker = flusher_worker(move->flusher);
    const struct job_head head = {.op = (uint32_t)op, .number = move->owner};
    struct os_event events[EVENTS_MAX];
    void *space = worker_reserve(worker, sizeof(head));

    CHECK(space != NULL); /* one job is out at a time */
    memcpy(space, &head, sizeof(head));
    worker_ask(worker, sizeof(head), move->ring);
    int error = os_turn(move->ring, 0, events, EVENTS_MAX); /* the bell goes out */
    if (error < 0) {
        return move_fail(move, error, "cannot ask a thread: %s", os_error(error));
    }
    error = wait_for_answer(move, ret);
    if (error < 0 && ret->why_bytes > 0) {
        return move_fail(move, error, "%.*s", (int)ret->why_bytes, ret->why);
    }
    return error;
}

static int ask(struct move *move, enum job_op op, struct job_answer *ret)
{
    int error;

    do {
        *ret = (struct job_answer){0};
        error = ask_once(move, op, ret);
    } while (move_again(move, error));
    return error;
}

/* --- taking over --- */

/* The data directory's name for itself (persist/pipeline_open.c makes it); empty if it has none. */
static struct slice read_server_id(const struct move *move, char id[EMBEDDED_BOOT_ID_BYTES])
{
    char path[PATH_BYTES];
    int64_t size = 0;

    (void)snprintf(path, sizeof(path), "%s/id", move->options.config->server_data);
    const int file = os_file_open(path, 0);
    if (file >= 0) {
        size = os_file_read(file, id, EMBEDDED_BOOT_ID_BYTES, 0);
        os_file_close(file);
    }
    return (struct slice){id, size == EMBEDDED_BOOT_ID_BYTES ? EMBEDDED_BOOT_ID_BYTES : 0};
}

static int take_over(struct move *move, bool clean, struct slice server_id)
{
    char boot_id[EMBEDDED_BOOT_ID_BYTES];
    int error;

    embedded_boot_id(boot_id);
    do {
        error = store_mongo_prepare(move->store);
        error = error < 0 ? error : store_mongo_claim(move->store, &move->owner);
        if (error == 0 && !clean) {
            error = store_mongo_run_begin(move->store, (struct slice){boot_id, sizeof(boot_id)},
                                          server_id, NULL);
        }
    } while (move_again(move, error));
    if (error < 0) {
        return move_fail(move, error, "%s", store_mongo_why(move->store));
    }
    store_mongo_move_owner(move->source, move->owner);
    error = worker_start(flusher_worker(move->flusher));
    return error < 0 ? move_fail(move, error, "cannot start a thread: %s", os_error(error)) : 0;
}

int move_claim(struct move *move)
{
    char id[EMBEDDED_BOOT_ID_BYTES];
    const struct slice ours = read_server_id(move, id);
    struct slice theirs = {"", 0};
    bool clean = false;
    int error;

    do {
        error = store_mongo_move_look(move->source, &clean, &theirs);
    } while (move_again(move, error));
    if (error < 0) {
        return move_failed(move, move->source, error);
    }
    if (!clean && (ours.size == 0 || !slice_equal(ours, theirs))) {
        return move_fail(move, -EBUSY,
                         "the last damsod on %s did not stop cleanly, and its journal may hold "
                         "messages that the stores do not; name its data directory with --data, "
                         "or start and stop it once there",
                         move->source->name);
    }
    return take_over(move, clean, ours);
}

/* --- journals --- */

static int store_replayed(struct move *move)
{
    struct move_replay *replay = move->replay;
    struct record record;
    int error;

    if (replay->count == 0) {
        return 0;
    }
    do {
        error = store_mongo_insert(move->store, replay->records, replay->count, replay->results);
    } while (move_again(move, error));
    if (error < 0) {
        return move_fail(move, error, "%s", store_mongo_why(move->store));
    }
    for (uint32_t i = 0; i < replay->count; i++) {
        if (replay->results[i] == STORE_MONGO_STORED ||
            replay->results[i] == STORE_MONGO_QUARANTINED) {
            continue;
        }
        CHECK(record_decode(replay->records[i].data, replay->records[i].size, &record) == 0);
        return move_fail(move, -EUCLEAN,
                         "%s has another message than the journal in the room %.*s with seq %llu, "
                         "or refuses it in quarantine too; start damsod there, it says more",
                         move->source->name, (int)record.room_id.size, record.room_id.data,
                         (unsigned long long)record.seq);
    }
    replay->count = 0;
    replay->bytes = 0;
    return move_go_on(move);
}

static int load_room(struct move *move, struct slice room_id, struct move_seen *seen)
{
    uint64_t epoch = 0;
    uint64_t last = 0;
    int error;

    do {
        error = store_mongo_epoch(move->store, room_id, &epoch);
        const bool missing = error == -ENOENT;
        error = missing ? 0 : error;
        error = error == 0 && !missing ? store_mongo_last_seq(move->store, room_id, &last) : error;
        *seen = (struct move_seen){
            .last_seq = last, .room_bytes = (uint8_t)room_id.size, .missing = missing};
        memcpy(seen->room_id, room_id.data, room_id.size);
    } while (move_again(move, error));
    if (error < 0) {
        seen->room_bytes = 0;
        return move_fail(move, error, "%s", store_mongo_why(move->store));
    }
    return 0;
}

/* What is known of a room. One that is not known yet takes the place of another; then what is on
 * its way is stored first, for MongoDB is asked when that one comes again. */
static int find_seen(struct move *move, struct slice room_id, struct move_seen **ret)
{
    const uint64_t home = hash_home(room_id);
    struct move_seen *set = &move->seen[home % MOVE_SEEN_SETS * MOVE_SEEN_WAYS];
    struct move_seen *slot = NULL;
    int error = 0;

    for (int way = 0; way < MOVE_SEEN_WAYS; way++) {
        if (set[way].room_bytes > 0 &&
            slice_equal(room_id, (struct slice){set[way].room_id, set[way].room_bytes})) {
            *ret = &set[way];
            return 0;
        }
        slot = slot == NULL && set[way].room_bytes == 0 ? &set[way] : slot;
    }
    if (slot == NULL) {
        slot = &set[home / MOVE_SEEN_SETS % MOVE_SEEN_WAYS];
        error = store_replayed(move);
    }
    error = error < 0 ? error : load_room(move, room_id, slot);
    if (error == 0) {
        *ret = slot;
    }
    return error;
}

static int refuse_hole(struct move *move, const struct record *record, uint64_t last_seq)
{
    return move_fail(move, -EBADMSG,
                     "the room %.*s ends with seq %llu in %s, and the journal goes on with %llu; "
                     "with --salvage what is missing is given up",
                     (int)record->room_id.size, record->room_id.data, (unsigned long long)last_seq,
                     move->source->name, (unsigned long long)record->seq);
}

int move_replay(struct move *move, const void *bytes, uint32_t size)
{
    struct move_replay *replay = move->replay;
    struct move_seen *seen = NULL;
    struct record record;
    int error = size <= MOVE_ROW_BYTES_MAX ? record_decode(bytes, size, &record) : -EBADMSG;

    if (error < 0) {
        return move->options.salvage ? 0
                                     : move_fail(move, error, "a journal holds what is no record");
    }
    error = find_seen(move, record.room_id, &seen);
    if (error < 0 || seen->missing) {
        return error;
    }
    if (record.seq > seen->last_seq + 1 && !move->options.salvage) {
        return refuse_hole(move, &record, seen->last_seq);
    }
    if (record.seq > seen->last_seq + 1) {
        error = store_mongo_renew(move->store, record.room_id);
        if (error < 0) {
            return move_fail(move, error, "%s", store_mongo_why(move->store));
        }
    }
    if (replay->count == MOVE_ROWS || replay->bytes >= MOVE_TEXT_BYTES) {
        error = store_replayed(move);
    }
    if (error == 0) {
        char *space = replay->text + replay->bytes;
        memcpy(space, bytes, size);
        replay->records[replay->count++] = (struct slice){space, size};
        replay->bytes += size;
        seen->last_seq = record.seq > seen->last_seq ? record.seq : seen->last_seq;
    }
    return error;
}

int move_replay_end(struct move *move)
{
    struct job_answer answer;
    int error = store_replayed(move);

    error = error < 0 ? error : ask(move, JOB_DRAIN, &answer);
    return error < 0 ? error : ask(move, JOB_END, &answer);
}
