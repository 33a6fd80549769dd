/*
 * move_own.h - what the files of moving share; nobody else includes it.
 *
 * Walk:       move.c (opening, checking, copying) to move_source.c (a source redis+mongodb is made
 *             complete) and move_verify.c (both sides are compared).
 */
#pragma once

#include "core/doorbell.h"
#include "core/hash.h"
#include "core/os.h"
#include "persist/cache.h"
#include "persist/flush.h"
#include "persist/move.h"
#include "persist/move_store.h"
#include "persist/redis_url.h"

enum {
    MOVE_TRIES_MAX = 20, /* of a call that says -EAGAIN, a second apart */
    MOVE_SEEN_SETS = 8192,
    MOVE_SEEN_WAYS = 4,
    MOVE_URL_BYTES = 4096,
};

/* What is known of a room while journals are replayed. */
struct move_seen {
    uint64_t last_seq;
    uint8_t room_bytes; /* 0: nobody's */
    bool missing;       /* no such room */
    char room_id[MOVE_ID_BYTES];
};

/* Records on their way from a journal into MongoDB. */
struct move_replay {
    uint32_t count;
    uint32_t bytes;
    struct slice records[MOVE_ROWS];
    uint8_t results[MOVE_ROWS];
    char text[MOVE_TEXT_BYTES_MAX];
};

struct move {
    struct doorbell bell;     /* first: two cache lines to itself; of the flusher's answers */
    struct mem_plan own_plan; /* of this struct */
    struct mem_plan plan;
    struct move_options options;
    struct move_progress progress;
    struct move_store *source, *target;

    struct store *sqlite;
    struct mongo *mongo;
    struct store_mongo *store;
    struct move_store *mongo_side;
    struct cache *cache; /* of a target: to see that nothing lies there */
    struct cache_options cache_options;
    char mongodb_uri[MOVE_URL_BYTES];
    char redis_url[MOVE_URL_BYTES];

    struct os_ring *ring; /* of a source redis+mongodb, as are those that follow */
    struct flusher *flusher;
    uint64_t owner;
    struct move_seen *seen; /* MOVE_SEEN_SETS sets of MOVE_SEEN_WAYS */
    struct move_replay *replay;

    struct move_rooms *rooms;
    struct move_rows *rows;
    uint32_t tries;
    char why[MOVE_WHY_BYTES];
};

/* Keeps a sentence for move_why; returns error. */
__attribute__((format(printf, 3, 4))) int move_fail(struct move *move, int error,
                                                    const char *format, ...);

/* The words of a store's failure; returns error. */
int move_failed(struct move *move, const struct move_store *store, int error);

/* Between two batches: what the caller says, and whether both stores are still ours. */
int move_go_on(struct move *move);

/* Whether a call that failed with error is worth another attempt, after a second. 0 starts anew. */
bool move_again(struct move *move, int error);

/* The next page of a reading into rows, behind what is there, tried again where that helps. */
enum move_table { MOVE_TABLE_USERS, MOVE_TABLE_MEMBERS, MOVE_TABLE_EVENTS };
int move_read(struct move *move, struct move_store *store, enum move_table table,
              const struct move_room *room, uint16_t index, struct move_cursor *cursor,
              struct move_rows *rows);
int move_read_rooms(struct move *move, struct move_store *store, struct move_cursor *cursor,
                    struct move_rooms *rooms);
int move_find_room(struct move *move, struct move_store *store, struct slice room_id,
                   struct move_room *ret);

/* move_source.c: the parts of a source redis+mongodb, and their end. */
int move_source_open(struct move *move, char *ret_why, size_t why_size);
void move_source_close(struct move *move);

/* --- sums: what is compared of a row, and in which order --- */

struct move_sum {
    uint64_t count;
    uint64_t last_seq; /* events */
    struct hash128 hash;
};

/* In the order of seq: the hash goes over all before it. */
void move_sum_event(struct move_sum *sum, const struct record *event);
/* In any order. */
void move_sum_member(struct move_sum *sum, const struct move_member *member);
void move_sum_user(struct move_sum *sum, const struct store_user *user);

/* Reads both sides wholly: 0, or -EUCLEAN with what differs. */
int move_verify(struct move *move);
