/*
 * store_sqlite.h - what the files of the SQLite store share; nobody else includes it.
 *
 * Walk:       from store_sqlite.c (opening, batches) to store_sqlite_read.c (rooms, history) and
 *             store_sqlite_user.c (accounts).
 * Threads:    as persist/store.h says: one at a time, so the connection has no lock of its own.
 *
 * Invariants: (Q1) no statement is left stepped when a call returns: an open reader would keep
 *                  the checkpoint from ever finishing.
 *             (Q2) an event's id is its room's number << STORE_SQLITE_SEQ_BITS | seq, so that a
 *                  room's history is one range of the table's own tree.
 */
#pragma once

#include "core/hash.h"
#include "persist/store.h"

#include <sqlite3.h>

enum {
    STORE_SQLITE_SEQ_BITS = 39,
    STORE_SQLITE_TEXT_MAX =
        2048, /* a row's texts when it is handed out: name 1024, ids, username */
};

/* Every statement, prepared when the store is opened and kept. */
enum store_sqlite_sql {
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_ROOM_FIND,
    SQL_ROOM_LAST,
    SQL_EVENT_ADD,
    SQL_MEMBER_ADD,
    SQL_MEMBER_ROLE,
    SQL_MEMBER_REMOVE,
    SQL_MEMBER_COUNT,
    SQL_ROOM_RENEW,
    SQL_EPOCHS,
    SQL_META_GET,
    SQL_META_SET,
    SQL_ROOM_ADD,
    SQL_ROOM_BY_ID,
    SQL_ROOM_BY_NUMBER,
    SQL_ROOMS_PUBLIC,
    SQL_MEMBERS,
    SQL_KEY,
    SQL_HISTORY_UP,
    SQL_HISTORY_DOWN,
    SQL_USER_ADD,
    SQL_USER_BY_ID,
    SQL_USER_BY_NAME,
    SQL_COUNT,
};

/* Where a room's log ends. */
struct store_sqlite_end {
    uint64_t last_seq;
    uint64_t last_key; /* seq of the last keyed event; 0: none */
};

/* That, kept, so that a record is checked without a query. */
struct store_sqlite_slot {
    uint64_t generation; /* of the table when it was filled in; another one: empty */
    uint64_t used;       /* the table's clock at the last look */
    uint64_t number;
    uint64_t epoch;
    struct store_sqlite_end end;
    uint8_t room_bytes;
    char room_id[64];
};

/* A keyed message while they are put into order. */
struct store_sqlite_key {
    uint64_t seq;
    uint64_t at_ms;
    uint64_t content_digest;
    uint8_t key_digest[16];
};

struct store_sqlite {
    struct store base;
    sqlite3 *db;
    sqlite3_stmt *sql[SQL_COUNT];

    struct store_sqlite_slot *slots; /* sets of neighbours; a look-up passes one set */
    struct hash_key hash_key;
    uint64_t generation; /* rises when a rollback makes the slots doubtful */
    uint64_t clock;

    struct store_sqlite_key *keys;
    uint32_t keys_max;

    uint32_t wal_pages;     /* in the write-ahead log after the last commit */
    uint32_t checkpoint_at; /* pages at which they are brought into the database */

    uint64_t commits; /* for the test seam */
    uint32_t text_used;
    char text[STORE_SQLITE_TEXT_MAX]; /* what the slices of a row handed out point into */
};

/* What a result code means to our callers; 0 for SQLITE_OK, ROW and DONE. */
int store_sqlite_error(int code);

/* Parameters of a statement, counted from 1. Binding fails for want of memory only; the step then
 * fails too, so the result is not looked at twice. */
void store_sqlite_bind_number(sqlite3_stmt *sql, int index, uint64_t number);
void store_sqlite_bind_text(sqlite3_stmt *sql, int index, struct slice text);
void store_sqlite_bind_bytes(sqlite3_stmt *sql, int index, struct slice bytes);

/* One step and a reset (Q1), for what gives no row that matters: 0, or -errno. */
int store_sqlite_run(sqlite3_stmt *sql);

/* One step: 1 there is a row, 0 there is none (and it is reset), or -errno (reset too). */
int store_sqlite_next(sqlite3_stmt *sql);

/* Columns of the row at hand, counted from 0. */
uint64_t store_sqlite_number(sqlite3_stmt *sql, int column);
struct slice store_sqlite_slice(sqlite3_stmt *sql, int column);

/* The same, copied to where it outlives the statement: until store_sqlite_keep_begin. */
void store_sqlite_keep_begin(struct store_sqlite *store);
struct slice store_sqlite_keep(struct store_sqlite *store, sqlite3_stmt *sql, int column);

/* The first id of a room's events; seqs are added to it. */
static inline uint64_t store_sqlite_first(uint64_t number)
{
    return number << STORE_SQLITE_SEQ_BITS;
}

/* The end of a room's log, whose events may all have been removed down to base_seq: 0, or -errno.
 */
int store_sqlite_find_end(struct store_sqlite *store, uint64_t number, uint64_t base_seq,
                          struct store_sqlite_end *ret);

/* store_ops of store_sqlite_read.c */
int store_sqlite_room_create(struct store *base, const struct store_room *room,
                             struct slice user_id, struct slice username);
int store_sqlite_room_read(struct store *base, struct slice room_id, struct store_room *ret);
int store_sqlite_members_read(struct store *base, struct slice room_id, store_member_row row,
                              void *context);
int store_sqlite_keys_read(struct store *base, struct slice room_id, uint32_t limit,
                           store_key_row row, void *context);
int store_sqlite_rooms_read(struct store *base, struct slice query, struct slice cursor,
                            uint32_t limit, store_room_row row, void *context);
int store_sqlite_history_read(struct store *base, const struct store_range *range,
                              store_entry_row row, void *context);

/* store_ops of store_sqlite_user.c */
int store_sqlite_user_create(struct store *base, const struct store_user *user);
int store_sqlite_user_by_id(struct store *base, struct slice user_id, struct store_user *ret);
int store_sqlite_user_by_name(struct store *base, struct slice folded, struct store_user *ret);
