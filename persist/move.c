/*
 * move.c - see move.h for N1 to N3. Opening, checking what the target holds, copying.
 *
 * A copy goes page by page of rooms: the rooms, then their events, then their members; pages of
 * events and members are filled across rooms, so that a thousand small rooms cost as much as a
 * large one. Users come first.
 */
#include "persist/move_own.h"
#include "persist/secret.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

enum { CACHE_REDIS = 0 /* of persist.cache, in the order of its words */ };

/* --- what went wrong --- */

int move_fail(struct move *move, int error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(move->why, sizeof(move->why), format, arguments);
    va_end(arguments);
    return error;
}

int move_failed(struct move *move, const struct move_store *store, int error)
{
    return move_fail(move, error, "%s", store->why);
}

const char *move_why(const struct move *move)
{
    return move->why;
}

static int tick(struct move *move)
{
    const int error = move->options.tick(move->options.context, &move->progress);
    return error < 0 ? move_fail(move, error,
                                 "stopped; start the same command again, and it goes "
                                 "on where it ended")
                     : 0;
}

/* A store that is away is found out, and waited for, by the next batch. */
static int check_store(struct move *move, struct move_store *store)
{
    const int error = store->ops->check(store);
    return error < 0 && error != -EAGAIN ? move_failed(move, store, error) : 0;
}

int move_go_on(struct move *move)
{
    int error = tick(move);

    error = error < 0 ? error : check_store(move, move->source);
    return error < 0 ? error : check_store(move, move->target);
}

bool move_again(struct move *move, int error)
{
    const struct timespec second = {.tv_sec = 1};

    if (error != -EAGAIN) {
        move->tries = 0;
        return false;
    }
    move->tries++;
    if (move->tries == MOVE_TRIES_MAX ||
        move->options.tick(move->options.context, &move->progress) < 0) {
        move->tries = 0;
        return false;
    }
    (void)nanosleep(&second, NULL);
    return true;
}

/* --- reading, tried again where that helps --- */

static int read_once(struct move_store *store, enum move_table table, const struct move_room *room,
                     uint16_t index, struct move_cursor *cursor, struct move_rows *rows)
{
    switch (table) {
    case MOVE_TABLE_USERS:
        return store->ops->users_read(store, cursor, rows);
    case MOVE_TABLE_MEMBERS:
        return store->ops->members_read(store, room, index, cursor, rows);
    case MOVE_TABLE_EVENTS:
        break;
    }
    return store->ops->events_read(store, room, index, cursor, rows);
}

/* NOLINTNEXTLINE(readability-function-size): seven parameters, each another thing */
int move_read(struct move *move, struct move_store *store, enum move_table table,
              const struct move_room *room, uint16_t index, struct move_cursor *cursor,
              struct move_rows *rows)
{
    const struct move_cursor begin = *cursor;
    const uint32_t count = rows->count;
    const uint32_t text_used = rows->text_used;
    int error;

    do {
        *cursor = begin;
        rows->count = count;
        rows->text_used = text_used;
        error = read_once(store, table, room, index, cursor, rows);
    } while (move_again(move, error));
    return error < 0 ? move_failed(move, store, error) : 0;
}

int move_read_rooms(struct move *move, struct move_store *store, struct move_cursor *cursor,
                    struct move_rooms *rooms)
{
    const struct move_cursor begin = *cursor;
    int error;

    do {
        *cursor = begin;
        error = store->ops->rooms_read(store, cursor, rooms);
    } while (move_again(move, error));
    return error < 0 ? move_failed(move, store, error) : 0;
}

int move_find_room(struct move *move, struct move_store *store, struct slice room_id,
                   struct move_room *ret)
{
    int error;

    do {
        error = store->ops->room_find(store, room_id, ret);
    } while (move_again(move, error));
    return error < 0 && error != -ENOENT ? move_failed(move, store, error) : error;
}

static int find_user(struct move *move, struct move_store *store, struct slice user_id,
                     struct store_user *ret)
{
    int error;

    do {
        error = store->ops->user_find(store, user_id, ret);
    } while (move_again(move, error));
    return error < 0 && error != -ENOENT ? move_failed(move, store, error) : error;
}

/* --- what the target holds (N2) --- */

static int refuse_target(struct move *move, const char *what, struct slice id, const char *how)
{
    return move_fail(move, -EEXIST,
                     "%s holds the %s %.*s, which %s %s: that is no copy of this data; name an "
                     "empty target, or empty this one",
                     move->target->name, what, (int)id.size, id.data, move->source->name, how);
}

static int check_user(struct move *move, const struct store_user *there)
{
    struct store_user here;
    const int error = find_user(move, move->source, there->user_id, &here);

    if (error == -ENOENT) {
        return refuse_target(move, "user", there->user_id, "does not have");
    }
    if (error == 0 &&
        (here.created_ms != there->created_ms || !slice_equal(here.folded, there->folded))) {
        return refuse_target(move, "user", there->user_id, "has with another name or time");
    }
    return error;
}

static int check_users(struct move *move, bool *ret_any)
{
    struct move_cursor cursor = {0};
    int error = 0;

    while (error == 0 && !cursor.end) {
        move_rows_clear(move->rows);
        error = move_read(move, move->target, MOVE_TABLE_USERS, NULL, 0, &cursor, move->rows);
        for (uint32_t i = 0; error == 0 && i < move->rows->count; i++) {
            *ret_any = true;
            error = check_user(move, &move->rows->users[i]);
            move->progress.users++;
        }
        error = error < 0 ? error : move_go_on(move);
    }
    return error;
}

/* The sum of the first event above seq: its count is 0 if there is none. */
static int sum_next(struct move *move, struct move_store *store, const struct move_room *room,
                    uint64_t seq, struct move_sum *ret)
{
    struct move_cursor cursor = {.seq = seq};

    move_rows_clear(move->rows);
    move->rows->limit = 2; /* what a store may need for one (W1) */
    const int error = move_read(move, store, MOVE_TABLE_EVENTS, room, 0, &cursor, move->rows);
    *ret = (struct move_sum){0};
    if (error == 0 && move->rows->count > 0) {
        move_sum_event(ret, &move->rows->events[0]);
    }
    return error;
}

/* Where the events of a room begin must be the same: a copy begins with the first. */
static int check_events(struct move *move, const struct move_room *here,
                        const struct move_room *there)
{
    struct move_sum ours;
    struct move_sum theirs;
    int error = sum_next(move, move->target, there, 0, &theirs);

    if (error < 0 || theirs.count == 0) {
        return error;
    }
    error = sum_next(move, move->source, here, theirs.last_seq - 1, &ours);
    if (error < 0) {
        return error;
    }
    return ours.count == 1 && hash128_equal(ours.hash, theirs.hash)
               ? 0
               : refuse_target(move, "room", there->room.room_id, "has with other messages");
}

/* The last seq of a room in the source. */
static int find_last(struct move *move, const struct move_room *room, uint64_t *ret)
{
    int error;

    if (move->source != move->mongo_side) {
        *ret = room->room.last_seq;
        return 0;
    }
    do {
        error = store_mongo_last_seq(move->store, room->room.room_id, ret);
    } while (move_again(move, error));
    return error < 0 ? move_fail(move, error, "%s", store_mongo_why(move->store)) : 0;
}

/* Nothing may be there beyond what the source has: then the target has gone on by itself. */
static int check_end(struct move *move, const struct move_room *here, const struct move_room *there)
{
    struct move_sum more = {0};
    uint64_t last = 0;
    int error = find_last(move, here, &last);

    error = error < 0 ? error : sum_next(move, move->target, there, last, &more);
    if (error == 0 && more.count > 0) {
        return refuse_target(move, "room", there->room.room_id,
                             "has with fewer messages (did a damsod run on it?)");
    }
    return error;
}

static int check_room(struct move *move, const struct move_room *there)
{
    struct move_room here;
    int error = move_find_room(move, move->source, there->room.room_id, &here);

    if (error == -ENOENT) {
        return refuse_target(move, "room", there->room.room_id, "does not have");
    }
    if (error == 0 && here.room.created_ms != there->room.created_ms) {
        return refuse_target(move, "room", there->room.room_id, "has, made at another time");
    }
    error = error < 0 ? error : check_events(move, &here, there);
    return error < 0 ? error : check_end(move, &here, there);
}

static int check_rooms(struct move *move, bool *ret_any)
{
    struct move_cursor cursor = {0};
    int error = 0;

    while (error == 0 && !cursor.end) {
        error = move_read_rooms(move, move->target, &cursor, move->rooms);
        for (uint32_t i = 0; error == 0 && i < move->rooms->count; i++) {
            *ret_any = true;
            error = check_room(move, &move->rooms->rooms[i]);
            move->progress.rooms++;
            error = error < 0 ? error : move_go_on(move);
        }
    }
    return error;
}

static int found_list(void *context, struct slice room_id, uint64_t owner, uint64_t number)
{
    struct move *move = context;

    (void)owner, (void)number;
    (void)move_fail(move, -EEXIST,
                    "Redis holds messages of the room %.*s under the prefix %s, which a damsod "
                    "would take for newer ones; start the damsod that wrote them, or name another "
                    "[persist] redis_prefix",
                    (int)room_id.size, room_id.data, move->cache_options.prefix);
    return -EEXIST;
}

/* A target's Redis holds nothing: what lies there would be taken over by the next start. */
static int check_redis(struct move *move)
{
    int error;

    if (move->cache == NULL || move->options.to != MOVE_REDIS_MONGODB) {
        return 0;
    }
    do {
        error = cache_connect(move->cache, 0);
        error = error < 0 ? move_fail(move, error, "%s", cache_why(move->cache)) : 0;
    } while (move_again(move, error));
    if (error == 0) {
        error = cache_scan(move->cache, found_list, move);
        error = error < 0 && error != -EEXIST ? move_fail(move, error, "%s", cache_why(move->cache))
                                              : error;
        cache_disconnect(move->cache);
    }
    return error;
}

static int check_target(struct move *move)
{
    bool any = false;
    int error;

    move->progress = (struct move_progress){.phase = MOVE_CHECKING};
    error = check_redis(move);
    error = error < 0 ? error : check_users(move, &any);
    error = error < 0 ? error : check_rooms(move, &any);
    move->target->fresh = !any;
    return error;
}

/* --- copying --- */

static int copy_users(struct move *move)
{
    struct move_cursor cursor = {0};
    int error = 0;

    while (error == 0 && !cursor.end) {
        move_rows_clear(move->rows);
        error = move_read(move, move->source, MOVE_TABLE_USERS, NULL, 0, &cursor, move->rows);
        if (error < 0) {
            return error;
        }
        do {
            error = move->target->ops->users_write(move->target, move->rows);
        } while (move_again(move, error));
        error = error < 0 ? move_failed(move, move->target, error) : move_go_on(move);
        move->progress.users += move->rows->count;
    }
    return error;
}

static int write_rooms(struct move *move)
{
    int error;

    do {
        error = move->target->ops->rooms_write(move->target, move->rooms);
    } while (move_again(move, error));
    return error < 0 ? move_failed(move, move->target, error) : 0;
}

/* Writes the page of events or members, and makes it empty. */
static int write_rows(struct move *move, enum move_table table)
{
    const struct move_store_ops *ops = move->target->ops;
    int error;

    if (move->rows->count == 0) {
        return 0;
    }
    do {
        error = table == MOVE_TABLE_EVENTS
                    ? ops->events_write(move->target, move->rooms, move->rows)
                    : ops->members_write(move->target, move->rooms, move->rows);
    } while (move_again(move, error));
    if (error < 0) {
        return move_failed(move, move->target, error);
    }
    if (table == MOVE_TABLE_EVENTS) {
        move->progress.events += move->rows->count;
    } else {
        move->progress.members += move->rows->count;
    }
    move_rows_clear(move->rows);
    return move_go_on(move);
}

/* The index-th room's part of a table, the last of which stay in the page. */
static int copy_part(struct move *move, enum move_table table, uint16_t index)
{
    struct move_room *room = &move->rooms->rooms[index];
    struct move_cursor cursor = {.seq = table == MOVE_TABLE_EVENTS ? room->copied : 0};
    uint64_t members = 0;
    int error = 0;

    while (error == 0 && !cursor.end) {
        const uint32_t before = move->rows->count;
        error = move_read(move, move->source, table, room, index, &cursor, move->rows);
        members += move->rows->count - before;
        if (error == 0 && (!cursor.end || move_rows_full(move->rows))) {
            error = write_rows(move, table);
        }
    }
    if (error == 0 && table == MOVE_TABLE_MEMBERS) {
        room->room.member_count = (uint32_t)members;
    }
    if (error == 0 && table == MOVE_TABLE_EVENTS && cursor.seq < room->room.last_seq) {
        return move_fail(move, -EUCLEAN,
                         "%s says that the room %.*s has had messages up to %llu, and has them up "
                         "to %llu; the last ones were removed, and that cannot be moved",
                         move->source->name, (int)room->room.room_id.size, room->room.room_id.data,
                         (unsigned long long)room->room.last_seq, (unsigned long long)cursor.seq);
    }
    if (table == MOVE_TABLE_EVENTS) {
        room->room.last_seq = cursor.seq;
    }
    return error;
}

static int copy_table(struct move *move, enum move_table table)
{
    int error = 0;

    move_rows_clear(move->rows);
    for (uint32_t i = 0; error == 0 && i < move->rooms->count; i++) {
        error = copy_part(move, table, (uint16_t)i);
    }
    return error < 0 ? error : write_rows(move, table);
}

static int clear_members(struct move *move)
{
    int error = 0;

    if (move->target->fresh) {
        return 0;
    }
    for (uint32_t i = 0; error == 0 && i < move->rooms->count; i++) {
        do {
            error = move->target->ops->members_clear(move->target, &move->rooms->rooms[i]);
        } while (move_again(move, error));
    }
    return error < 0 ? move_failed(move, move->target, error) : 0;
}

/* One page of rooms with all that is theirs. Written twice: how many members they have is known at
 * the end. */
static int copy_page(struct move *move)
{
    int error = write_rooms(move);

    error = error < 0 ? error : copy_table(move, MOVE_TABLE_EVENTS);
    error = error < 0 ? error : clear_members(move);
    error = error < 0 ? error : copy_table(move, MOVE_TABLE_MEMBERS);
    error = error < 0 ? error : write_rooms(move);
    move->progress.rooms += move->rooms->count;
    return error < 0 ? error : move_go_on(move);
}

static int copy(struct move *move)
{
    struct move_cursor cursor = {0};
    int error = 0;

    move->progress = (struct move_progress){.phase = MOVE_COPYING};
    do {
        error = move->target->ops->write_begin(move->target);
    } while (move_again(move, error));
    error = error < 0 ? move_failed(move, move->target, error) : copy_users(move);
    while (error == 0 && !cursor.end) {
        error = move_read_rooms(move, move->source, &cursor, move->rooms);
        error = error < 0 ? error : copy_page(move);
    }
    return error;
}

int move_run(struct move *move, struct move_progress *ret)
{
    int error = check_target(move);

    error = error < 0 ? error : copy(move);
    error = error < 0 ? error : move_verify(move);
    if (error < 0) {
        return error;
    }
    do {
        error = move->target->ops->write_end(move->target);
    } while (move_again(move, error));
    if (error < 0) {
        return move_failed(move, move->target, error);
    }
    *ret = move->progress;
    return 0;
}

/* --- opening --- */

static int open_sqlite(struct move *move, char *ret_why, size_t why_size)
{
    const struct config *config = move->options.config;
    const struct store_options options = {.directory = config->server_data,
                                          .cache_bytes = config->persist_cache_bytes,
                                          .keys_max = (uint32_t)config->limits_idempotency_keys,
                                          .plan = &move->plan};
    struct move_store *side = NULL;
    int error = store_sqlite_open(&options, &move->sqlite, ret_why, why_size);

    error = error < 0 ? error
                      : store_sqlite_move(move->sqlite, config->server_data, &move->plan, &side,
                                          ret_why, why_size);
    if (error == 0 && move->options.from == MOVE_EMBEDDED) {
        move->source = side;
    } else if (error == 0) {
        move->target = side;
    }
    return error;
}

static int resolve(struct move *move, char *ret_why, size_t why_size)
{
    const struct config *config = move->options.config;
    int error = secret_resolve("[persist] mongodb_uri", config->persist_mongodb_uri,
                               move->mongodb_uri, sizeof(move->mongodb_uri), ret_why, why_size);

    if (error == 0 && config->persist_cache == CACHE_REDIS) {
        error = secret_resolve("[persist] redis_url", config->persist_redis_url, move->redis_url,
                               sizeof(move->redis_url), ret_why, why_size);
    }
    move->cache_options = (struct cache_options){
        .url = move->redis_url,
        .ca_file = config->persist_redis_ca_file,
        .prefix = config->persist_redis_prefix,
        .connect_ms = (uint32_t)config->persist_store_connect,
        .reply_ms = (uint32_t)config->persist_redis_timeout,
        .plan = &move->plan,
    };
    return error;
}

static int open_mongo(struct move *move, char *ret_why, size_t why_size)
{
    const struct config *config = move->options.config;
    int error = resolve(move, ret_why, why_size);
    const struct mongo_options options = {
        .uri = move->mongodb_uri,
        .connect_ms = (uint32_t)config->persist_store_connect,
        .socket_ms = (uint32_t)config->persist_store_timeout,
        .clients = 2, /* ours, and the flusher's */
        .plan = &move->plan,
    };

    error = error < 0 ? error : mongo_open(&options, &move->mongo, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    error = store_mongo_open(move->mongo, 1, &move->plan, &move->store);
    if (error < 0) {
        (void)snprintf(ret_why, why_size, "no memory for moving");
        return error;
    }
    error = store_mongo_move(move->store, &move->plan, &move->mongo_side, ret_why, why_size);
    if (error == 0 && config->persist_cache == CACHE_REDIS) {
        error = cache_open(&move->cache_options, &move->cache, ret_why, why_size);
    }
    if (move->options.from == MOVE_EMBEDDED) {
        move->target = move->mongo_side;
        return error;
    }
    move->source = move->mongo_side;
    return error < 0 ? error : move_source_open(move, ret_why, why_size);
}

static int open_parts(struct move *move, char *ret_why, size_t why_size)
{
    int error;

    move->rooms = mem_reserve(&move->plan, "move rooms", sizeof(struct move_rooms), 1);
    move->rows = mem_reserve(&move->plan, "move rows", sizeof(struct move_rows), 1);
    error = open_sqlite(move, ret_why, why_size);
    error = error < 0 ? error : open_mongo(move, ret_why, why_size);
    if (error == 0) {
        error = mem_seal(&move->plan);
        if (error < 0) {
            (void)snprintf(ret_why, why_size, "no memory for moving");
        }
    }
    return error;
}

int move_open(const struct move_options *options, struct move **ret, char *ret_why, size_t why_size)
{
    struct mem_plan own;

    CHECK(options->from != options->to);
    mem_init(&own, "moving", MEM_MAP);
    struct move *move = mem_reserve(&own, "move", sizeof(*move), 1);
    int error = mem_seal(&own);
    if (error < 0) {
        (void)snprintf(ret_why, why_size, "no memory for moving");
        mem_end(&own);
        return error;
    }
    move->own_plan = own;
    move->options = *options;
    mem_init(&move->plan, "moving between stores", MEM_MAP);
    error = open_parts(move, ret_why, why_size);
    if (error < 0) {
        move_close(move);
        return error;
    }
    *ret = move;
    return 0;
}

void move_close(struct move *move)
{
    if (move == NULL) {
        return;
    }
    struct mem_plan own = move->own_plan; /* it lies in what it gives back */

    move_source_close(move);
    cache_close(move->cache);
    store_mongo_close(move->store);
    mongo_close(move->mongo);
    if (move->source != NULL) {
        move->source->ops->close(move->source);
    }
    if (move->target != NULL) {
        move->target->ops->close(move->target);
    }
    if (move->sqlite != NULL) {
        move->sqlite->ops->close(move->sqlite);
    }
    mem_end(&move->plan);
    mem_end(&own);
}
