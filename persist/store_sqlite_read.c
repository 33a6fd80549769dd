/*
 * store_sqlite_read.c - the embedded store: rooms, members, keys and history.
 *
 * Every query is a look-up or one range of a tree: rooms by room_id (unique index) or number,
 * members by (number, user_id), events by id (Q2), public rooms by the partial index
 * rooms_public.
 */
#include "persist/store_sqlite.h"

#include <errno.h>
#include <string.h>

enum { NAME_BYTES_MAX = 1024 /* of a room's name, when it is searched */ };

static struct store_sqlite *of(struct store *store)
{
    return (struct store_sqlite *)store; /* base is its first member */
}

/* The room that the statement, with one parameter bound, selects: 0, -ENOENT or -errno. */
static int take_room(struct store_sqlite *store, sqlite3_stmt *sql, struct store_room *ret,
                     uint64_t *ret_number)
{
    const int found = store_sqlite_next(sql);
    if (found <= 0) {
        return found < 0 ? found : -ENOENT;
    }
    store_sqlite_keep_begin(store);
    const uint64_t number = store_sqlite_number(sql, 0);
    const uint64_t base_seq = store_sqlite_number(sql, 2);
    struct store_room room = {
        .epoch = store_sqlite_number(sql, 1),
        .created_ms = store_sqlite_number(sql, 3),
        .member_count = (uint32_t)store_sqlite_number(sql, 4),
        .members_max = (uint32_t)store_sqlite_number(sql, 5),
        .visibility = (uint8_t)store_sqlite_number(sql, 6),
        .durability = (uint8_t)store_sqlite_number(sql, 7),
        .room_id = store_sqlite_keep(store, sql, 8),
        .name = store_sqlite_keep(store, sql, 9),
    };
    (void)sqlite3_reset(sql);
    struct store_sqlite_end end;
    const int error = store_sqlite_find_end(store, number, base_seq, &end);
    if (error == 0) {
        room.last_seq = end.last_seq;
        *ret = room;
        *ret_number = number;
    }
    return error;
}

/* The number of a room: 0, -ENOENT or -errno. */
static int find_number(struct store_sqlite *store, struct slice room_id, uint64_t *ret)
{
    sqlite3_stmt *sql = store->sql[SQL_ROOM_FIND];

    store_sqlite_bind_text(sql, 1, room_id);
    const int found = store_sqlite_next(sql);
    if (found <= 0) {
        return found < 0 ? found : -ENOENT;
    }
    *ret = store_sqlite_number(sql, 0);
    (void)sqlite3_reset(sql);
    return 0;
}

/* Whether a reading goes on after a row callback's answer; if not, its statement is reset (Q1). */
static bool goes_on(sqlite3_stmt *sql, int answer)
{
    if (answer != 0) {
        (void)sqlite3_reset(sql);
    }
    return answer == 0;
}

static int add_room(struct store_sqlite *store, const struct store_room *room)
{
    sqlite3_stmt *sql = store->sql[SQL_ROOM_ADD];

    store_sqlite_bind_text(sql, 1, room->room_id);
    store_sqlite_bind_number(sql, 2, room->epoch);
    store_sqlite_bind_number(sql, 3, room->created_ms);
    store_sqlite_bind_number(sql, 4, room->members_max);
    store_sqlite_bind_number(sql, 5, room->visibility);
    store_sqlite_bind_number(sql, 6, room->durability);
    store_sqlite_bind_text(sql, 7, room->name);
    store_sqlite_bind_number(sql, 8, STORE_ROOMS_MAX);
    const int error = store_sqlite_run(sql);
    return error == 0 && sqlite3_changes(store->db) == 0 ? -ENOSPC : error;
}

int store_sqlite_room_create(struct store *base, const struct store_room *room,
                             struct slice user_id, struct slice username)
{
    struct store_sqlite *store = of(base);
    sqlite3_stmt *sql = store->sql[SQL_MEMBER_ADD];
    const int error = add_room(store, room);

    if (error < 0) {
        return error;
    }
    store_sqlite_bind_number(sql, 1, (uint64_t)sqlite3_last_insert_rowid(store->db));
    store_sqlite_bind_text(sql, 2, user_id);
    store_sqlite_bind_text(sql, 3, username);
    store_sqlite_bind_number(sql, 4, ROLE_OWNER);
    store_sqlite_bind_number(sql, 5, room->created_ms);
    return store_sqlite_run(sql);
}

int store_sqlite_room_read(struct store *base, struct slice room_id, struct store_room *ret)
{
    struct store_sqlite *store = of(base);
    uint64_t number;

    store_sqlite_bind_text(store->sql[SQL_ROOM_BY_ID], 1, room_id);
    return take_room(store, store->sql[SQL_ROOM_BY_ID], ret, &number);
}

int store_sqlite_members_read(struct store *base, struct slice room_id, store_member_row row,
                              void *context)
{
    struct store_sqlite *store = of(base);
    sqlite3_stmt *sql = store->sql[SQL_MEMBERS];
    uint64_t number;
    int found = find_number(store, room_id, &number);

    if (found < 0) {
        return found;
    }
    store_sqlite_bind_number(sql, 1, number);
    for (found = store_sqlite_next(sql); found > 0; found = store_sqlite_next(sql)) {
        const struct store_member member = {.role = (uint8_t)store_sqlite_number(sql, 0),
                                            .user_id = store_sqlite_slice(sql, 1),
                                            .username = store_sqlite_slice(sql, 2)};
        const int answer = row(context, &member);
        if (!goes_on(sql, answer)) {
            return answer < 0 ? answer : 0;
        }
    }
    return found;
}

/* One keyed event, and the seq of the one before it: 1, 0: it is gone (retention), or -errno. */
static int take_key(struct store_sqlite *store, uint64_t id, struct store_sqlite_key *ret,
                    uint64_t *ret_previous)
{
    sqlite3_stmt *sql = store->sql[SQL_KEY];

    store_sqlite_bind_number(sql, 1, id);
    const int found = store_sqlite_next(sql);
    if (found <= 0) {
        return found;
    }
    const struct slice digest = store_sqlite_slice(sql, 3);
    const bool sound = digest.size == sizeof(ret->key_digest);
    if (sound) {
        *ret_previous = store_sqlite_number(sql, 0);
        ret->content_digest = store_sqlite_number(sql, 1);
        ret->at_ms = store_sqlite_number(sql, 2);
        memcpy(ret->key_digest, digest.data, sizeof(ret->key_digest));
    }
    (void)sqlite3_reset(sql);
    return sound ? 1 : -EUCLEAN;
}

/* Follows the list of keyed events from the newest: how many it put into store->keys, or -errno. */
static int64_t collect_keys(struct store_sqlite *store, uint64_t number, uint32_t limit)
{
    struct store_sqlite_end end;
    uint32_t count = 0;
    const int error = store_sqlite_find_end(store, number, 0, &end);

    if (error < 0) {
        return error;
    }
    for (uint64_t seq = end.last_key; seq > 0 && count < limit; count++) {
        struct store_sqlite_key *key = &store->keys[count];
        uint64_t previous = 0;
        const int found = take_key(store, store_sqlite_first(number) + seq, key, &previous);
        if (found <= 0) {
            return found < 0 ? found : (int64_t)count;
        }
        if (previous >= seq) {
            return -EUCLEAN; /* the list only goes back; another one would never end */
        }
        key->seq = seq;
        seq = previous;
    }
    return count;
}

int store_sqlite_keys_read(struct store *base, struct slice room_id, uint32_t limit,
                           store_key_row row, void *context)
{
    struct store_sqlite *store = of(base);
    uint64_t number;
    int answer = find_number(store, room_id, &number);

    if (answer < 0) {
        return answer;
    }
    int64_t left = collect_keys(store, number, limit < store->keys_max ? limit : store->keys_max);
    if (left < 0) {
        return (int)left;
    }
    for (; left > 0 && answer == 0; left--) {
        const struct store_sqlite_key *key = &store->keys[left - 1];
        const struct store_key shown = {.key_digest = key->key_digest,
                                        .content_digest = key->content_digest,
                                        .seq = key->seq,
                                        .at_ms = key->at_ms};
        answer = row(context, &shown);
    }
    return answer < 0 ? answer : 0;
}

/* --- public rooms --- */

static char lower(char c)
{
    if (c >= 'A' && c <= 'Z') {
        c = (char)(c + ('a' - 'A'));
    }
    return c;
}

/* Whether text contains what, which is in lower case already. */
static bool contains(struct slice text, struct slice what)
{
    char folded[NAME_BYTES_MAX];
    const uint32_t size = text.size < sizeof(folded) ? text.size : (uint32_t)sizeof(folded);

    for (uint32_t i = 0; i < size; i++) {
        folded[i] = lower(text.data[i]);
    }
    return memmem(folded, size, what.data, what.size) != NULL;
}

/* The full row of a room found by its number, for the caller's callback. */
static int show_room(struct store_sqlite *store, uint64_t number, store_room_row row, void *context)
{
    sqlite3_stmt *sql = store->sql[SQL_ROOM_BY_NUMBER];
    struct store_room room;
    uint64_t same;

    store_sqlite_bind_number(sql, 1, number);
    const int error = take_room(store, sql, &room, &same);
    return error < 0 ? error : row(context, &room);
}

int store_sqlite_rooms_read(struct store *base, struct slice query, struct slice cursor,
                            uint32_t limit, store_room_row row, void *context)
{
    struct store_sqlite *store = of(base);
    sqlite3_stmt *sql = store->sql[SQL_ROOMS_PUBLIC];
    char folded[NAME_BYTES_MAX];
    uint32_t shown = 0;
    int found = 0;

    if (query.size > sizeof(folded)) {
        return 0; /* longer than any name */
    }
    for (uint32_t i = 0; i < query.size; i++) {
        folded[i] = lower(query.data[i]);
    }
    const struct slice what = {folded, query.size};
    store_sqlite_bind_text(sql, 1, cursor);
    for (uint32_t seen = 0; shown < limit && seen < STORE_SCAN_MAX; seen++) {
        found = store_sqlite_next(sql);
        if (found <= 0) {
            return found;
        }
        if (what.size > 0 && !contains(store_sqlite_slice(sql, 1), what) &&
            !contains(store_sqlite_slice(sql, 2), what)) {
            continue;
        }
        const int answer = show_room(store, store_sqlite_number(sql, 0), row, context);
        if (!goes_on(sql, answer)) {
            return answer < 0 ? answer : 0;
        }
        shown++;
    }
    (void)sqlite3_reset(sql);
    return 0;
}

/* --- history --- */

int store_sqlite_history_read(struct store *base, const struct store_range *range,
                              store_entry_row row, void *context)
{
    struct store_sqlite *store = of(base);
    sqlite3_stmt *sql = store->sql[range->descending ? SQL_HISTORY_DOWN : SQL_HISTORY_UP];
    uint64_t number;
    int found = find_number(store, range->room_id, &number);

    if (found < 0) {
        return found;
    }
    /* Beyond the last possible seq lies the next room. */
    const uint64_t first = store_sqlite_first(number);
    const uint64_t from = range->from_seq < STORE_SEQ_MAX ? range->from_seq : STORE_SEQ_MAX;
    const uint64_t to = range->to_seq < STORE_SEQ_MAX ? range->to_seq : STORE_SEQ_MAX;
    store_sqlite_bind_number(sql, 1, first + from);
    store_sqlite_bind_number(sql, 2, first + to);
    store_sqlite_bind_number(sql, 3, range->limit);
    for (found = store_sqlite_next(sql); found > 0; found = store_sqlite_next(sql)) {
        const uint64_t seq = store_sqlite_number(sql, 0) - first;
        const int answer = row(context, seq, store_sqlite_slice(sql, 1));
        if (!goes_on(sql, answer)) {
            return answer < 0 ? answer : 0;
        }
    }
    return found;
}
