/*
 * move_store.h - what moving asks of a store that struct store_ops has no call for: whole tables,
 *                read and written page by page. persist/move*.c, persist/store_sqlite_move.c and
 *                persist/store_mongo_move.c share it; nobody else includes it.
 *
 * Walk:       from persist/move.c and persist/move_verify.c, which know of no store; to the two
 *             stores.
 * Threads:    main's.
 * Ownership:  texts of a page lie in the page, until it is cleared; what a _find gives is good
 *             until the next call to the same store.
 * Units:      times in ms since 1970.
 *
 * Pages are read to their end before anybody looks at them, so that a page that failed (-EAGAIN)
 * is read again without a row told twice.
 *
 * Invariants: (W1) a page holds at least one row more if there is one, however large it is.
 *             (W2) every write may be repeated.
 */
#pragma once

#include "core/record.h"
#include "persist/store.h"

enum {
    MOVE_ROOMS = 256,
    MOVE_ROWS = 1000,                      /* MONGO_BULK_MAX: what one bulk takes */
    MOVE_TEXT_BYTES = 4 * 1024 * 1024,     /* a page with that many takes no further row */
    MOVE_ROW_BYTES_MAX = 17 * 1024 * 1024, /* no document is larger */
    MOVE_TEXT_BYTES_MAX = MOVE_TEXT_BYTES + MOVE_ROW_BYTES_MAX,
    MOVE_ROOM_TEXT_BYTES = 2048, /* name 1024, ids, owner's name */
    MOVE_ID_BYTES = 64,
    MOVE_WHY_BYTES = 1024,
};

struct move_room {
    struct store_room room; /* last_seq: of what the source has */
    struct slice owner_id;  /* empty: nobody */
    struct slice owner_name;
    bool renew;        /* the next run gives it a new epoch */
    uint64_t number;   /* in SQLite */
    uint64_t last_key; /* in SQLite as target: seq of the last keyed event so far */
    uint64_t copied;   /* in the target: every event up to here is there */
};

struct move_rooms {
    uint32_t count;
    uint32_t text_used;
    struct move_room rooms[MOVE_ROOMS];
    char text[MOVE_ROOMS * MOVE_ROOM_TEXT_BYTES];
};

struct move_member {
    uint8_t role; /* never ROLE_NONE */
    uint64_t joined_ms;
    struct slice user_id;
    struct slice username;
};

/* Rows of one kind; of several rooms, one after the other, where they have rooms. */
struct move_rows {
    uint32_t count;
    uint32_t limit; /* at most MOVE_ROWS */
    uint32_t text_used;
    uint16_t rooms[MOVE_ROWS]; /* index in the page of rooms */
    union {
        struct record events[MOVE_ROWS]; /* epoch, role and username: not of every store */
        struct move_member members[MOVE_ROWS];
        struct store_user users[MOVE_ROWS];
    };
    char text[MOVE_TEXT_BYTES_MAX];
};

/* Where a reading goes on. All zero: at the first row. */
struct move_cursor {
    uint64_t seq;           /* events: the last one read */
    char id[MOVE_ID_BYTES]; /* the others: the same */
    uint8_t id_bytes;
    bool owner_seen; /* members: a row said what the owner is */
    bool end;        /* there are no more */
};

struct move_store;

/* Every call: 0 or -errno with move_store.why; -EAGAIN: worth another attempt. */
struct move_store_ops {
    /* Appends to rows what comes after the cursor, as far as there is space. */
    int (*users_read)(struct move_store *store, struct move_cursor *cursor, struct move_rows *rows);
    int (*members_read)(struct move_store *store, const struct move_room *room, uint16_t index,
                        struct move_cursor *cursor, struct move_rows *rows);
    /* In the order of seq. */
    int (*events_read)(struct move_store *store, const struct move_room *room, uint16_t index,
                       struct move_cursor *cursor, struct move_rows *rows);
    /* Fills an empty page. */
    int (*rooms_read)(struct move_store *store, struct move_cursor *cursor,
                      struct move_rooms *rooms);
    int (*user_find)(struct move_store *store, struct slice user_id,
                     struct store_user *ret); /* -ENOENT */
    int (*room_find)(struct move_store *store, struct slice room_id,
                     struct move_room *ret); /* -ENOENT */

    /* Before the first write: 0, or why this store must not be written to. */
    int (*write_begin)(struct move_store *store);
    int (*users_write)(struct move_store *store, const struct move_rows *rows);
    /* Makes rooms, or makes them as they are here; fills in what the store needs to write their
     * events, copied included. */
    int (*rooms_write)(struct move_store *store, struct move_rooms *rooms);
    int (*events_write)(struct move_store *store, struct move_rooms *rooms,
                        const struct move_rows *rows);
    /* The room has no members from here on. */
    int (*members_clear)(struct move_store *store, const struct move_room *room);
    int (*members_write)(struct move_store *store, const struct move_rooms *rooms,
                         const struct move_rows *rows);
    /* All of it is durable, and marked as cleanly stopped. */
    int (*write_end)(struct move_store *store);

    /* Whether nobody else has taken the store over. */
    int (*check)(struct move_store *store);
    void (*close)(struct move_store *store);
};

/* Opens every implementation's own struct. */
struct move_store {
    const struct move_store_ops *ops;
    bool fresh; /* a target that was empty: nothing of it has to be looked up */
    char why[MOVE_WHY_BYTES];
    char name[256];                  /* for people: "SQLite in DIR" */
    char text[MOVE_ROOM_TEXT_BYTES]; /* of what a _find gives */
    uint32_t text_used;
};

static inline void move_rows_clear(struct move_rows *rows)
{
    rows->count = 0;
    rows->limit = MOVE_ROWS;
    rows->text_used = 0;
}

static inline bool move_rows_full(const struct move_rows *rows)
{
    return rows->count >= rows->limit || rows->text_used >= MOVE_TEXT_BYTES;
}

/* A text copied to where it outlives its row; cut where there is no space, which the sizes that
 * rows are checked for never cause. */
static inline struct slice move_keep(char *text, uint32_t size, uint32_t *used, struct slice from)
{
    const uint32_t left = size - *used;
    const struct slice kept = {text + *used, from.size < left ? from.size : left};

    if (kept.size > 0) {
        memcpy(text + *used, from.data, kept.size);
    }
    *used += kept.size;
    return kept;
}

static inline struct slice move_rows_keep(struct move_rows *rows, struct slice from)
{
    return move_keep(rows->text, MOVE_TEXT_BYTES_MAX, &rows->text_used, from);
}

static inline struct slice move_rooms_keep(struct move_rooms *rooms, struct slice from)
{
    return move_keep(rooms->text, sizeof(rooms->text), &rooms->text_used, from);
}

static inline struct slice move_store_keep(struct move_store *store, struct slice from)
{
    return move_keep(store->text, sizeof(store->text), &store->text_used, from);
}

static inline void move_cursor_id(struct move_cursor *cursor, struct slice id)
{
    cursor->id_bytes = (uint8_t)(id.size < MOVE_ID_BYTES ? id.size : MOVE_ID_BYTES);
    memcpy(cursor->id, id.data, cursor->id_bytes);
}

/* --- the two stores; an opened store_sqlite or store_mongo stays the caller's --- */

struct store_mongo;
struct cache_options;

/* 0 or -errno with ret_why; its memory from the plan, not sealed yet. */
NODISCARD int store_sqlite_move(struct store *base, const char *directory, struct mem_plan *plan,
                                struct move_store **ret, char *ret_why, size_t why_size);

/* owner: of store_mongo_claim; 0: a target, which takes over at write_begin. */
NODISCARD int store_mongo_move(struct store_mongo *mongo, struct mem_plan *plan,
                               struct move_store **ret, char *ret_why, size_t why_size);
void store_mongo_move_owner(struct move_store *store, uint64_t owner);

/* How a source begins: -ENOENT: the database holds nothing of damso's. ret_clean: the last run
 * ended with everything stored. ret_server_id: of the data directory of that run, or empty. Without
 * store_mongo_prepare before. */
NODISCARD int store_mongo_move_look(struct move_store *store, bool *ret_clean,
                                    struct slice *ret_server_id);
