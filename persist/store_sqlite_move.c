/*
 * store_sqlite_move.c - the embedded store: whole tables, read and written page by page, for
 *                       persist/move.c. See move_store.h for W1 and W2.
 *
 * Written in transactions under synchronous=NORMAL, as a replay is (store_sqlite.c): a crash leaves
 * a sound first part, and write_end makes all of it durable.
 */
#include "core/check.h"
#include "core/os.h"
#include "persist/move_store.h"
#include "persist/store_sqlite.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

enum move_sql {
    MOVE_USERS,
    MOVE_USER,
    MOVE_USER_PUT,
    MOVE_ROOM_PAGE,
    MOVE_ROOM,
    MOVE_ROOM_PUT,
    MOVE_MEMBERS,
    MOVE_MEMBERS_CLEAR,
    MOVE_MEMBER_PUT,
    MOVE_EVENTS,
    MOVE_SQL_COUNT,
};

enum { USER_NAME_MAX = 128, NAME_MAX_BYTES = 1024, TEXT_MAX = 512 };

#define USER_COLUMNS "user_id, username, folded, display_name, password, created_ms"
#define OWNER                                                                                      \
    "FROM members WHERE members.number = rooms.number AND role = 3 ORDER BY joined_ms LIMIT 1"
#define ROOM_COLUMNS                                                                               \
    "number, epoch, base_seq, created_ms, member_count, members_max, visibility, durability, "     \
    "room_id, name, (SELECT user_id " OWNER "), (SELECT username " OWNER "), renew"

static const char *const statements[MOVE_SQL_COUNT] = {
    [MOVE_USERS] = "SELECT " USER_COLUMNS " FROM users WHERE user_id > ?1 ORDER BY user_id"
                   " LIMIT ?2",
    [MOVE_USER] = "SELECT " USER_COLUMNS " FROM users WHERE user_id = ?1",
    [MOVE_USER_PUT] = "INSERT INTO users VALUES(?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT(user_id)"
                      " DO UPDATE SET username = ?2, folded = ?3, display_name = ?4,"
                      " password = ?5, created_ms = ?6",
    [MOVE_ROOM_PAGE] = "SELECT " ROOM_COLUMNS " FROM rooms WHERE room_id > ?1 ORDER BY room_id"
                       " LIMIT ?2",
    [MOVE_ROOM] = "SELECT " ROOM_COLUMNS " FROM rooms WHERE room_id = ?1",
    [MOVE_ROOM_PUT] =
        "INSERT INTO rooms(room_id, epoch, created_ms, member_count, members_max, visibility,"
        " durability, name, renew) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
        " ON CONFLICT(room_id) DO UPDATE"
        " SET epoch = ?2, member_count = ?4, members_max = ?5, visibility = ?6, durability = ?7,"
        " name = ?8, renew = ?9",
    [MOVE_MEMBERS] = "SELECT user_id, username, role, joined_ms FROM members"
                     " WHERE number = ?1 AND user_id > ?2 ORDER BY user_id LIMIT ?3",
    [MOVE_MEMBERS_CLEAR] = "DELETE FROM members WHERE number = ?1",
    [MOVE_MEMBER_PUT] = "REPLACE INTO members VALUES(?1, ?2, ?3, ?4, ?5)",
    [MOVE_EVENTS] = "SELECT id, at_ms, kind, content_digest, key_digest, user_id, body FROM events"
                    " WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
};

struct sqlite_move {
    struct move_store base;
    struct store_sqlite *store;
    sqlite3_stmt *sql[MOVE_SQL_COUNT];
};

static struct sqlite_move *of(struct move_store *base)
{
    return (struct sqlite_move *)base; /* base is its first member */
}

/* --- what went wrong --- */

static int fail(struct sqlite_move *move, int error, const char *what)
{
    if (error < 0 && error != -ENOENT) {
        (void)snprintf(move->base.why, sizeof(move->base.why), "%s: cannot %s: %s", move->base.name,
                       what,
                       error == -EUCLEAN ? "a row is not as damso writes it; see 'sqlite3 damso.db "
                                           "\"PRAGMA integrity_check\"'"
                                         : sqlite3_errmsg(move->store->db));
    }
    return error;
}

/* --- columns --- */

static struct slice rows_column(struct move_rows *rows, sqlite3_stmt *sql, int column)
{
    return move_rows_keep(rows, store_sqlite_slice(sql, column));
}

static bool sizes_fit(sqlite3_stmt *sql, int column, uint32_t minimum, uint32_t maximum)
{
    const uint32_t size = (uint32_t)sqlite3_column_bytes(sql, column);
    return size >= minimum && size <= maximum;
}

/* --- users --- */

static bool is_user(sqlite3_stmt *sql)
{
    return sizes_fit(sql, 0, 1, MOVE_ID_BYTES) && sizes_fit(sql, 1, 1, USER_NAME_MAX) &&
           sizes_fit(sql, 2, 1, USER_NAME_MAX) && sizes_fit(sql, 3, 0, TEXT_MAX) &&
           sizes_fit(sql, 4, 0, TEXT_MAX);
}

/* Ends a statement that is stepped, for a row that cannot be. */
static int refuse_row(sqlite3_stmt *sql)
{
    (void)sqlite3_reset(sql);
    return -EUCLEAN;
}

static int users_read(struct move_store *base, struct move_cursor *cursor, struct move_rows *rows)
{
    struct sqlite_move *move = of(base);
    sqlite3_stmt *sql = move->sql[MOVE_USERS];
    const uint32_t limit = rows->limit - rows->count;
    uint32_t seen = 0;

    store_sqlite_bind_text(sql, 1, (struct slice){cursor->id, cursor->id_bytes});
    store_sqlite_bind_number(sql, 2, limit);
    int found = store_sqlite_next(sql);
    for (; found > 0; found = store_sqlite_next(sql), seen++) {
        if (!is_user(sql)) {
            found = refuse_row(sql);
            break;
        }
        rows->users[rows->count++] = (struct store_user){
            .user_id = rows_column(rows, sql, 0),
            .username = rows_column(rows, sql, 1),
            .folded = rows_column(rows, sql, 2),
            .display_name = rows_column(rows, sql, 3),
            .password = rows_column(rows, sql, 4),
            .created_ms = store_sqlite_number(sql, 5),
        };
    }
    if (found == 0 && seen > 0) {
        move_cursor_id(cursor, rows->users[rows->count - 1].user_id);
    }
    cursor->end = found == 0 && seen < limit;
    return fail(move, found, "read users");
}

static int user_find(struct move_store *base, struct slice user_id, struct store_user *ret)
{
    struct sqlite_move *move = of(base);
    sqlite3_stmt *sql = move->sql[MOVE_USER];

    store_sqlite_bind_text(sql, 1, user_id);
    int found = store_sqlite_next(sql);
    if (found > 0 && !is_user(sql)) {
        found = refuse_row(sql);
    }
    if (found <= 0) {
        return found < 0 ? fail(move, found, "read a user") : -ENOENT;
    }
    base->text_used = 0;
    *ret = (struct store_user){
        .user_id = move_store_keep(base, store_sqlite_slice(sql, 0)),
        .username = move_store_keep(base, store_sqlite_slice(sql, 1)),
        .folded = move_store_keep(base, store_sqlite_slice(sql, 2)),
        .display_name = move_store_keep(base, store_sqlite_slice(sql, 3)),
        .password = move_store_keep(base, store_sqlite_slice(sql, 4)),
        .created_ms = store_sqlite_number(sql, 5),
    };
    (void)sqlite3_reset(sql);
    return 0;
}

/* --- transactions --- */

/* Ends the transaction: by commit, or after an error by rollback. */
static int settle(struct sqlite_move *move, int error, const char *what)
{
    struct store *store = &move->store->base;

    error = error < 0 ? error : store->ops->commit(store);
    (void)fail(move, error, what);
    if (error < 0) {
        store->ops->rollback(store);
        return error;
    }
    store->ops->tend(store, false);
    return 0;
}

static int begin(struct sqlite_move *move)
{
    struct store *store = &move->store->base;
    return fail(move, store->ops->begin(store), "begin a transaction");
}

static int users_write(struct move_store *base, const struct move_rows *rows)
{
    struct sqlite_move *move = of(base);
    sqlite3_stmt *sql = move->sql[MOVE_USER_PUT];
    int error = begin(move);

    if (error < 0) {
        return error;
    }
    for (uint32_t i = 0; i < rows->count && error == 0; i++) {
        const struct store_user *user = &rows->users[i];
        store_sqlite_bind_text(sql, 1, user->user_id);
        store_sqlite_bind_text(sql, 2, user->username);
        store_sqlite_bind_text(sql, 3, user->folded);
        store_sqlite_bind_text(sql, 4, user->display_name);
        store_sqlite_bind_text(sql, 5, user->password);
        store_sqlite_bind_number(sql, 6, user->created_ms);
        error = store_sqlite_run(sql);
    }
    return settle(move, error, "write users");
}

/* --- rooms --- */

static bool is_room(sqlite3_stmt *sql)
{
    return sizes_fit(sql, 8, 1, MOVE_ID_BYTES) && sizes_fit(sql, 9, 0, NAME_MAX_BYTES) &&
           sizes_fit(sql, 10, 0, MOVE_ID_BYTES) && sizes_fit(sql, 11, 0, USER_NAME_MAX);
}

/* The row's numbers; its texts are the caller's to keep. */
static struct move_room room_numbers(sqlite3_stmt *sql)
{
    return (struct move_room){
        .number = store_sqlite_number(sql, 0),
        .renew = store_sqlite_number(sql, 12) != 0,
        .room = {.epoch = store_sqlite_number(sql, 1),
                 .last_seq = store_sqlite_number(sql, 2), /* base_seq so far */
                 .created_ms = store_sqlite_number(sql, 3),
                 .member_count = (uint32_t)store_sqlite_number(sql, 4),
                 .members_max = (uint32_t)store_sqlite_number(sql, 5),
                 .visibility = (uint8_t)store_sqlite_number(sql, 6),
                 .durability = (uint8_t)store_sqlite_number(sql, 7)}};
}

/* Where its events end. */
static int find_end(struct sqlite_move *move, struct move_room *room)
{
    struct store_sqlite_end end;
    const int error = store_sqlite_find_end(move->store, room->number, room->room.last_seq, &end);

    if (error == 0) {
        room->room.last_seq = end.last_seq;
        room->copied = end.last_seq;
        room->last_key = end.last_key;
    }
    return error;
}

static int find_ends(struct sqlite_move *move, struct move_rooms *rooms)
{
    int error = 0;

    for (uint32_t i = 0; i < rooms->count && error == 0; i++) {
        error = find_end(move, &rooms->rooms[i]);
    }
    return error;
}

static int rooms_read(struct move_store *base, struct move_cursor *cursor, struct move_rooms *rooms)
{
    struct sqlite_move *move = of(base);
    sqlite3_stmt *sql = move->sql[MOVE_ROOM_PAGE];

    rooms->count = 0;
    rooms->text_used = 0;
    store_sqlite_bind_text(sql, 1, (struct slice){cursor->id, cursor->id_bytes});
    store_sqlite_bind_number(sql, 2, MOVE_ROOMS);
    int found = store_sqlite_next(sql);
    for (; found > 0; found = store_sqlite_next(sql)) {
        if (!is_room(sql)) {
            found = refuse_row(sql);
            break;
        }
        struct move_room *room = &rooms->rooms[rooms->count++];
        *room = room_numbers(sql);
        room->room.room_id = move_rooms_keep(rooms, store_sqlite_slice(sql, 8));
        room->room.name = move_rooms_keep(rooms, store_sqlite_slice(sql, 9));
        room->owner_id = move_rooms_keep(rooms, store_sqlite_slice(sql, 10));
        room->owner_name = move_rooms_keep(rooms, store_sqlite_slice(sql, 11));
    }
    if (found == 0 && rooms->count > 0) {
        move_cursor_id(cursor, rooms->rooms[rooms->count - 1].room.room_id);
    }
    cursor->end = found == 0 && rooms->count < MOVE_ROOMS;
    return fail(move, found < 0 ? found : find_ends(move, rooms), "read rooms");
}

static int room_find(struct move_store *base, struct slice room_id, struct move_room *ret)
{
    struct sqlite_move *move = of(base);
    sqlite3_stmt *sql = move->sql[MOVE_ROOM];

    store_sqlite_bind_text(sql, 1, room_id);
    int found = store_sqlite_next(sql);
    if (found > 0 && !is_room(sql)) {
        found = refuse_row(sql);
    }
    if (found <= 0) {
        return found < 0 ? fail(move, found, "read a room") : -ENOENT;
    }
    base->text_used = 0;
    struct move_room room = room_numbers(sql);
    room.room.room_id = move_store_keep(base, store_sqlite_slice(sql, 8));
    room.room.name = move_store_keep(base, store_sqlite_slice(sql, 9));
    room.owner_id = move_store_keep(base, store_sqlite_slice(sql, 10));
    room.owner_name = move_store_keep(base, store_sqlite_slice(sql, 11));
    (void)sqlite3_reset(sql);
    const int error = find_end(move, &room);
    if (error == 0) {
        *ret = room;
    }
    return fail(move, error, "read a room");
}

static int put_room(struct sqlite_move *move, struct move_room *room)
{
    sqlite3_stmt *sql = move->sql[MOVE_ROOM_PUT];

    store_sqlite_bind_text(sql, 1, room->room.room_id);
    store_sqlite_bind_number(sql, 2, room->room.epoch);
    store_sqlite_bind_number(sql, 3, room->room.created_ms);
    store_sqlite_bind_number(sql, 4, room->room.member_count);
    store_sqlite_bind_number(sql, 5, room->room.members_max);
    store_sqlite_bind_number(sql, 6, room->room.visibility);
    store_sqlite_bind_number(sql, 7, room->room.durability);
    store_sqlite_bind_text(sql, 8, room->room.name);
    store_sqlite_bind_number(sql, 9, room->renew);
    int error = store_sqlite_run(sql);
    if (error < 0) {
        return error;
    }
    sql = move->store->sql[SQL_ROOM_FIND];
    store_sqlite_bind_text(sql, 1, room->room.room_id);
    error = store_sqlite_next(sql);
    if (error <= 0) {
        return error < 0 ? error : -EUCLEAN; /* we have just written it */
    }
    struct move_room stored = {.number = store_sqlite_number(sql, 0),
                               .room.last_seq = store_sqlite_number(sql, 2)};
    (void)sqlite3_reset(sql);
    error = stored.number <= STORE_ROOMS_MAX ? find_end(move, &stored) : -ENOSPC;
    room->number = stored.number;
    room->last_key = stored.last_key;
    room->copied = stored.copied;
    return error;
}

static int rooms_write(struct move_store *base, struct move_rooms *rooms)
{
    struct sqlite_move *move = of(base);
    int error = begin(move);

    if (error < 0) {
        return error;
    }
    for (uint32_t i = 0; i < rooms->count && error == 0; i++) {
        error = put_room(move, &rooms->rooms[i]);
    }
    return settle(move, error, "write rooms");
}

/* --- members --- */

static int members_read(struct move_store *base, const struct move_room *room, uint16_t index,
                        struct move_cursor *cursor, struct move_rows *rows)
{
    struct sqlite_move *move = of(base);
    sqlite3_stmt *sql = move->sql[MOVE_MEMBERS];
    const uint32_t limit = rows->limit - rows->count;
    uint32_t seen = 0;

    store_sqlite_bind_number(sql, 1, room->number);
    store_sqlite_bind_text(sql, 2, (struct slice){cursor->id, cursor->id_bytes});
    store_sqlite_bind_number(sql, 3, limit);
    int found = store_sqlite_next(sql);
    for (; found > 0; found = store_sqlite_next(sql), seen++) {
        if (!sizes_fit(sql, 0, 1, MOVE_ID_BYTES) || !sizes_fit(sql, 1, 0, USER_NAME_MAX)) {
            found = refuse_row(sql);
            break;
        }
        rows->rooms[rows->count] = index;
        rows->members[rows->count++] = (struct move_member){
            .user_id = rows_column(rows, sql, 0),
            .username = rows_column(rows, sql, 1),
            .role = (uint8_t)store_sqlite_number(sql, 2),
            .joined_ms = store_sqlite_number(sql, 3),
        };
    }
    if (found == 0 && seen > 0) {
        move_cursor_id(cursor, rows->members[rows->count - 1].user_id);
    }
    cursor->end = found == 0 && seen < limit;
    return fail(move, found, "read members");
}

static int members_clear(struct move_store *base, const struct move_room *room)
{
    struct sqlite_move *move = of(base);

    store_sqlite_bind_number(move->sql[MOVE_MEMBERS_CLEAR], 1, room->number);
    return fail(move, store_sqlite_run(move->sql[MOVE_MEMBERS_CLEAR]), "write members");
}

static int members_write(struct move_store *base, const struct move_rooms *rooms,
                         const struct move_rows *rows)
{
    struct sqlite_move *move = of(base);
    sqlite3_stmt *sql = move->sql[MOVE_MEMBER_PUT];
    int error = begin(move);

    if (error < 0) {
        return error;
    }
    for (uint32_t i = 0; i < rows->count && error == 0; i++) {
        const struct move_member *member = &rows->members[i];
        store_sqlite_bind_number(sql, 1, rooms->rooms[rows->rooms[i]].number);
        store_sqlite_bind_text(sql, 2, member->user_id);
        store_sqlite_bind_text(sql, 3, member->username);
        store_sqlite_bind_number(sql, 4, member->role);
        store_sqlite_bind_number(sql, 5, member->joined_ms);
        error = store_sqlite_run(sql);
    }
    return settle(move, error, "write members");
}

/* --- events --- */

static bool is_event(sqlite3_stmt *sql)
{
    const bool keyed = sqlite3_column_type(sql, 4) != SQLITE_NULL;
    const uint64_t kind = store_sqlite_number(sql, 2);

    return kind >= RECORD_MESSAGE && kind <= RECORD_LEFT && (!keyed || sizes_fit(sql, 4, 16, 16)) &&
           sizes_fit(sql, 5, 1, MOVE_ID_BYTES) && sizes_fit(sql, 6, 0, MOVE_ROW_BYTES_MAX - 1024);
}

static void take_event(struct move_rows *rows, const struct move_room *room, uint16_t index,
                       sqlite3_stmt *sql)
{
    struct record *event = &rows->events[rows->count];

    *event = (struct record){
        .kind = (uint8_t)store_sqlite_number(sql, 2),
        .epoch = room->room.epoch,
        .seq = store_sqlite_number(sql, 0) - store_sqlite_first(room->number),
        .at_ms = store_sqlite_number(sql, 1),
        .room_id = room->room.room_id,
        .user_id = rows_column(rows, sql, 5),
        .username = SLICE(""),
        .body = rows_column(rows, sql, 6),
    };
    if (sqlite3_column_type(sql, 4) != SQLITE_NULL) {
        event->flags = RECORD_KEYED;
        event->content_digest = store_sqlite_number(sql, 3);
        memcpy(event->key_digest, sqlite3_column_blob(sql, 4), sizeof(event->key_digest));
    }
    rows->rooms[rows->count++] = index;
}

static int events_read(struct move_store *base, const struct move_room *room, uint16_t index,
                       struct move_cursor *cursor, struct move_rows *rows)
{
    struct sqlite_move *move = of(base);
    sqlite3_stmt *sql = move->sql[MOVE_EVENTS];
    const uint64_t first = store_sqlite_first(room->number);

    store_sqlite_bind_number(sql, 1, first + cursor->seq);
    store_sqlite_bind_number(sql, 2, first + STORE_SEQ_MAX);
    store_sqlite_bind_number(sql, 3, rows->limit - rows->count + 1);
    int found = store_sqlite_next(sql);
    for (; found > 0 && !move_rows_full(rows); found = store_sqlite_next(sql)) {
        if (!is_event(sql)) {
            found = refuse_row(sql);
            break;
        }
        take_event(rows, room, index, sql);
        cursor->seq = rows->events[rows->count - 1].seq;
    }
    if (found > 0) {
        (void)sqlite3_reset(sql); /* there is more than fits */
    }
    cursor->end = found == 0;
    return fail(move, found < 0 ? found : 0, "read events");
}

static int put_event(struct sqlite_move *move, struct move_room *room, const struct record *event)
{
    sqlite3_stmt *sql = move->store->sql[SQL_EVENT_ADD];
    const struct slice digest = {(const char *)event->key_digest, sizeof(event->key_digest)};
    const bool keyed = (event->flags & RECORD_KEYED) != 0;

    if (event->seq > STORE_SEQ_MAX) {
        return -ERANGE;
    }
    store_sqlite_bind_number(sql, 1, store_sqlite_first(room->number) + event->seq);
    store_sqlite_bind_number(sql, 2, event->at_ms);
    store_sqlite_bind_number(sql, 3, event->kind);
    store_sqlite_bind_number(sql, 4, room->last_key);
    (void)sqlite3_bind_null(sql, 5);
    (void)sqlite3_bind_null(sql, 6);
    if (keyed) {
        store_sqlite_bind_number(sql, 5, event->content_digest);
        store_sqlite_bind_bytes(sql, 6, digest);
    }
    store_sqlite_bind_text(sql, 7, event->user_id);
    store_sqlite_bind_bytes(sql, 8, event->body);
    const int error = store_sqlite_run(sql);
    if (error == 0) {
        room->last_key = keyed ? event->seq : room->last_key;
        room->copied = event->seq;
    }
    return error;
}

/* What is below copied was written by an attempt whose commit is known. */
static int events_write(struct move_store *base, struct move_rooms *rooms,
                        const struct move_rows *rows)
{
    struct sqlite_move *move = of(base);
    int error = begin(move);

    if (error < 0) {
        return error;
    }
    for (uint32_t i = 0; i < rows->count && error == 0; i++) {
        struct move_room *room = &rooms->rooms[rows->rooms[i]];
        if (rows->events[i].seq > room->copied) {
            error = put_event(move, room, &rows->events[i]);
        }
    }
    return settle(move, error, "write events");
}

/* --- begin and end --- */

static int write_begin(struct move_store *base)
{
    struct sqlite_move *move = of(base);
    struct store *store = &move->store->base;

    return fail(move, store->ops->replay_begin(store), "prepare for a copy");
}

/* A clean stop first, so that the run that begins gives no room another epoch; the run's commit is
 * the one that makes all before it durable. */
static int write_end(struct move_store *base)
{
    struct sqlite_move *move = of(base);
    struct store *store = &move->store->base;
    int error = store->ops->run_end(store);

    error = error < 0 ? error : store->ops->run_begin(store, SLICE("moved"));
    error = error < 0 ? error : store->ops->run_end(store);
    return fail(move, error, "make the copy durable");
}

/* The lock of the data directory keeps everybody else out. */
static int check(struct move_store *base)
{
    (void)base;
    return 0;
}

static void close_move(struct move_store *base)
{
    struct sqlite_move *move = of(base);

    for (int i = 0; i < MOVE_SQL_COUNT; i++) {
        (void)sqlite3_finalize(move->sql[i]);
        move->sql[i] = NULL;
    }
}

static const struct move_store_ops ops = {
    .users_read = users_read,
    .members_read = members_read,
    .events_read = events_read,
    .rooms_read = rooms_read,
    .user_find = user_find,
    .room_find = room_find,
    .write_begin = write_begin,
    .users_write = users_write,
    .rooms_write = rooms_write,
    .events_write = events_write,
    .members_clear = members_clear,
    .members_write = members_write,
    .write_end = write_end,
    .check = check,
    .close = close_move,
};

int store_sqlite_move(struct store *base, const char *directory, struct mem_plan *plan,
                      struct move_store **ret, char *ret_why, size_t why_size)
{
    struct sqlite_move *move = mem_alloc(plan, "move SQLite", sizeof(*move));
    int code = SQLITE_OK;

    if (move == NULL) {
        (void)snprintf(ret_why, why_size, "no memory for moving");
        return -ENOMEM;
    }
    move->base.ops = &ops;
    move->store = (struct store_sqlite *)base; /* base is its first member */
    (void)snprintf(move->base.name, sizeof(move->base.name), "SQLite in %.200s", directory);
    for (int i = 0; i < MOVE_SQL_COUNT && code == SQLITE_OK; i++) {
        code = sqlite3_prepare_v3(move->store->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT,
                                  &move->sql[i], NULL);
    }
    if (code != SQLITE_OK) {
        (void)snprintf(ret_why, why_size, "%s: %s", move->base.name,
                       sqlite3_errmsg(move->store->db));
        close_move(&move->base);
        return store_sqlite_error(code);
    }
    *ret = &move->base;
    return 0;
}
