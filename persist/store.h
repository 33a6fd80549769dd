/*
 * store.h - what persistence asks of a store, so that SQLite now, and Redis with MongoDB next, can
 * stand behind it, and a test between.
 *
 * Walk:       from persist/batch.c (records) and persist/answer.c, persist/account.c (the rest); to
 *             persist/store_sqlite.c.
 * Threads:    one at a time: main while it opens, replays and closes, the persistence thread
 *             otherwise. Every call may block.
 * Ownership:  slices handed in are read during the call. Slices that come out, by a row callback or
 *             a ret_ parameter, are good until the callback returns or the next call to the store.
 * Units:      sizes in bytes, times in ms since 1970.
 *
 *              begin                    commit 0
 *     reading --------> writing -------------------> reading
 *                          |  commit < 0, rollback
 *                          +-----------------------> reading, as before begin
 *
 * Reads are answered in both states; while writing they see what was written (S2).
 *
 * Invariants: (S1) after commit returned 0 everything since begin survives a loss of power.
 *             (S2) a read sees all that was written before it, committed or not.
 *             (S3) after rollback nothing since begin is there.
 *             (S4) in each room the stored seqs rise by exactly 1, except where holes_taken allowed
 *                  a hole. No (room, seq) is stored twice.
 */
#pragma once

#include "core/config.h"
#include "core/mem.h"
#include "core/record.h"
#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

/* What became of a record. */
enum store_append {
    STORE_STORED = 0,
    STORE_PASSED =
        1,          /* there already, of another epoch, or of a room that is not there (deleted) */
    STORE_HOLE = 2, /* a seq before it is missing: not stored */
};

/* Bounds that every store keeps, so that an id of room and seq fits 63 bits. */
#define STORE_SEQ_MAX   ((UINT64_C(1) << 39) - 1)
#define STORE_ROOMS_MAX ((UINT64_C(1) << 24) - 1)

struct store_room {
    uint64_t epoch;
    uint64_t last_seq;
    uint64_t created_ms;
    uint32_t member_count;
    uint32_t members_max;
    uint8_t visibility;
    uint8_t durability;
    struct slice room_id;
    struct slice name;
};

struct store_user {
    uint64_t created_ms;
    struct slice user_id;
    struct slice username;
    struct slice folded;       /* username without regard to case; unique; not read back */
    struct slice display_name; /* empty: none was given */
    struct slice password;     /* hash as text; empty: signs in by token only */
};

struct store_member {
    uint8_t role;
    struct slice user_id;
    struct slice username;
};

struct store_key {
    const void *key_digest; /* 16 bytes */
    uint64_t content_digest;
    uint64_t seq;
    uint64_t at_ms;
};

struct store_range {
    struct slice room_id;
    uint64_t from_seq, to_seq; /* both inside */
    uint32_t limit;
    bool descending;
};

/* A row for the caller: 0 goes on, > 0 ends the reading (which then returns 0), < 0 ends it with
 * that error. */
typedef int (*store_member_row)(void *context, const struct store_member *row);
typedef int (*store_key_row)(void *context, const struct store_key *row);
typedef int (*store_room_row)(void *context, const struct store_room *row);
typedef int (*store_entry_row)(void *context, uint64_t seq, struct slice body);

struct store;

struct store_ops {
    /* Start-up: from now on commits need not be durable one by one, until run_begin. */
    int (*replay_begin)(struct store *store);

    /* Ends start-up: all that was committed is durable when it returns 0. In the same transaction,
     * rooms get a new epoch whose log may have lost its tail: those marked by holes_taken, and
     * unless the last run ended by run_end, those with durability memory, and those with journal if
     * boot_id is another one than then. */
    int (*run_begin)(struct store *store, struct slice boot_id);

    /* Marks a clean stop, durably. */
    int (*run_end)(struct store *store);

    int (*begin)(struct store *store);
    int (*commit)(struct store *store);
    void (*rollback)(struct store *store);

    /* The next record of its room: enum store_append, or -errno. holes_taken: stores it over a hole
     * too, and marks the room for a new epoch. Joined and left change the members. */
    int (*append)(struct store *store, const struct record *record, bool holes_taken);

    /* 0 or -EEXIST. The owner becomes the first member. */
    int (*room_create)(struct store *store, const struct store_room *room, struct slice user_id,
                       struct slice username);
    int (*room_read)(struct store *store, struct slice room_id,
                     struct store_room *ret); /* -ENOENT */
    int (*members_read)(struct store *store, struct slice room_id, store_member_row row,
                        void *context);
    /* The newest limit keyed messages, oldest first. */
    int (*keys_read)(struct store *store, struct slice room_id, uint32_t limit, store_key_row row,
                     void *context);
    /* Public rooms after the cursor, by room_id, whose id or name contains query (ASCII letters
     * without regard to case). Looks at no more than STORE_SCAN_MAX rooms. */
    int (*rooms_read)(struct store *store, struct slice query, struct slice cursor, uint32_t limit,
                      store_room_row row, void *context);
    int (*history_read)(struct store *store, const struct store_range *range, store_entry_row row,
                        void *context); /* -ENOENT: no such room */

    int (*user_create)(struct store *store, const struct store_user *user); /* -EEXIST */
    int (*user_by_id)(struct store *store, struct slice user_id, struct store_user *ret);
    int (*user_by_name)(struct store *store, struct slice folded, struct store_user *ret);

    /* Between two batches: housekeeping that may wait for an idle moment, and must not wait for
     * ever. */
    void (*tend)(struct store *store, bool idle);
    void (*close)(struct store *store);
};

enum { STORE_SCAN_MAX = 100000 };

/* Opens every implementation's own struct. */
struct store {
    const struct store_ops *ops;
};

struct store_options {
    const char *directory; /* exists */
    uint64_t cache_bytes;
    uint32_t keys_max;     /* that keys_read gives at most */
    struct mem_plan *plan; /* not sealed yet */
};

/* Opens, or makes, the SQLite store of the directory: 0, or -errno with ret_why a sentence for
 * people that says what to do. The room table lies in the plan: seal it before the first call. */
NODISCARD int store_sqlite_open(const struct store_options *options, struct store **ret,
                                char *ret_why, size_t why_size);

/* Its lines in a MEM_COUNT plan, the page cache included. */
void store_sqlite_plan(const struct store_options *options);
