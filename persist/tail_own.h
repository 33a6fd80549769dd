/*
 * tail_own.h - what the files of the tail share: tail.c (Redis, rooms and users), tail_page.c
 *              (history) and tail_room.c (members, keys, a room).
 *
 * Ownership:  all memory is in struct tail; a page's and a room's parts are used anew by each
 *             question.
 */
#pragma once

#include "core/hash.h"
#include "persist/jobs.h"
#include "persist/tail.h"

enum {
    TAIL_PAGE_RECORDS = 4096,          /* of one page; shards ask for 1,000 at most */
    TAIL_PAGE_BYTES = 4 * 1024 * 1024, /* bodies out of Redis: as limits.history_bytes may be */
    TAIL_CHANGES = 16384,              /* members who joined or left in a tail */
    TAIL_BUCKETS = 2 * TAIL_CHANGES,
    TAIL_USER_BYTES = 64, /* as core/record.h has them */
    TAIL_NAME_BYTES = 128,
};

/* --- a page --- */

enum tail_slot_state {
    TAIL_MISSING = 0, /* not seen so far */
    TAIL_SEEN,
    TAIL_DROPPED, /* seen, but the buffer is full: the page ends here */
};

/* One seq of a page. */
struct tail_slot {
    const char *body; /* in the buffer, or in the question */
    uint64_t at;      /* in the buffer, see below */
    uint32_t size;
    uint32_t state; /* enum tail_slot_state */
};

/* Bodies lie in the buffer one behind the other, round and round: at counts on over its end. */
struct tail_page_memory {
    struct tail_slot slots[TAIL_PAGE_RECORDS];
    uint32_t kept[TAIL_PAGE_RECORDS]; /* slots in the buffer, in the order they came */
    uint32_t kept_first, kept_end;
    uint64_t bytes_end;
    char bytes[TAIL_PAGE_BYTES];
};

/* --- a room --- */

/* What the tail last says of a user. */
struct tail_change {
    uint64_t seq;
    uint32_t bucket;
    uint8_t role; /* ROLE_NONE: has left */
    bool told;
    uint8_t user_bytes, name_bytes;
    char user_id[TAIL_USER_BYTES];
    char username[TAIL_NAME_BYTES];
};

struct tail_key {
    uint8_t key_digest[16];
    uint64_t content_digest;
    uint64_t seq;
    uint64_t at_ms;
};

/* What a room's load needs of its tail, read once a question. */
struct tail_room_memory {
    bool looked;  /* the rest is that of this question */
    bool moved;   /* some of it MongoDB alone had by then */
    bool counted; /* members_read has told so many */
    uint32_t member_count;
    uint32_t change_count;
    uint64_t key_count; /* keyed records seen; the last keys_max of them are kept */
    struct hash_key hash_key;
    uint32_t buckets[TAIL_BUCKETS]; /* of changes by user_id: index + 1, 0 empty */
    struct tail_change changes[TAIL_CHANGES];
};

/* --- the tail --- */

struct tail {
    struct store store; /* first */
    struct store_mongo *mongo;
    struct cache *cache;  /* NULL: there is none */
    uint64_t cache_owner; /* that it is connected as */
    uint64_t retry_at_ns; /* no connecting before then */
    uint32_t keys_max;

    const struct read_head *head; /* the view */
    const uint8_t *overlay;
    uint64_t first_seq, last_seq; /* of lists and overlay; last_seq 0: the tail is empty */
    uint8_t failed;
    bool connected; /* since tail_see: what was there may be gone with the server */
    uint64_t redis_ns, mongodb_ns;

    struct tail_page_memory page;
    struct tail_room_memory room;
    /* Behind it: keys of the tail, as a ring, and those of MongoDB; keys_max each. */
};

static inline struct tail_key *tail_keys(struct tail *tail)
{
    return (struct tail_key *)(tail + 1);
}

static inline struct tail_key *tail_mongodb_keys(struct tail *tail)
{
    return tail_keys(tail) + tail->keys_max;
}

/* --- tail.c --- */

/* The overlay's next record; *at begins with 0. False: there is none. */
bool tail_overlay_next(const struct tail *tail, uint32_t *at, struct record *ret);

/* An element of a list, if it is a record of that room. */
bool tail_decode(struct slice element, struct slice room_id, struct record *ret);

/* cache_read, over a connection that is made if need be, and once more if it broke: then row is
 * called with elements again. row never returns an error. 0 or -EAGAIN (T2). */
NODISCARD int tail_cache_read(struct tail *tail, const struct cache_range *ranges, uint32_t count,
                              cache_row row, void *context);

/* After a call to the store that began at begun_ns: what its error is for who asked (T2).
 * row_error: of the caller's own callback, 0: none. */
NODISCARD int tail_mongodb_done(struct tail *tail, uint64_t begun_ns, int error, int row_error);

/* Neither Redis nor MongoDB has what the view says is there: -EAGAIN (T1). */
NODISCARD int tail_lost(struct tail *tail, enum job_where where, struct slice room_id,
                        uint64_t seq);

/* --- tail_page.c, tail_room.c: of struct store_ops --- */

int tail_history_read(struct store *store, const struct store_range *range, store_entry_row row,
                      void *context);
int tail_members_read(struct store *store, struct slice room_id, store_member_row row,
                      void *context);
int tail_keys_read(struct store *store, struct slice room_id, uint32_t limit, store_key_row row,
                   void *context);
int tail_room_read(struct store *store, struct slice room_id, struct store_room *ret);
