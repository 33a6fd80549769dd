/*
 * persist.h - the door of the persistence room: everything that outlives the process but is not
 *             the journal.
 *
 * Walk:       from shard/loop.c (records) and shard/call.c (reads, accounts); to the store.
 * Threads:    one persistence thread of its own, and a bounded pool for password hashes. Each
 *             shard talks to it over one pair of rings (struct persist_lane); nothing else is
 *             shared. persist_open, persist_replay and persist_close are for main while no shard
 *             runs.
 * Ownership:  requests and replies are bytes in the rings; tails follow their struct without
 *             padding.
 * Units:      sizes in bytes, times in ms since 1970.
 *
 * A request that the store cannot take or answer at the moment (disk full, somebody else's lock,
 * hash queue full) is answered with -EAGAIN: it may be asked again. -EINVAL: a client put something
 * into it that cannot be (persist/username.h has the rules for names).
 *
 * Invariants: (P1) a question of a shard sees every record that it handed over before it. Two
 *                  questions may be answered in either order: who needs one waits for the answer.
 *             (P2) a watermark is sent only after its records are durable in the store (synced).
 *             (P3) a record is stored once: one whose (room, seq) is there already is passed over
 *                  (with redis+mongodb, if it is the same; another one goes into quarantine); a
 *                  hole in seq is never stored: it is an alarm, and the watermark stays.
 *             (P4) every request gets exactly one final reply with its token, but PERSIST_RECORD,
 *                  PERSIST_REWOUND and PERSIST_RECOVERED, which get none.
 */
#pragma once

#include "core/config.h"
#include "core/doorbell.h"
#include "core/mem.h"
#include "core/metrics.h"
#include "core/os.h"
#include "core/record.h"
#include "core/spsc.h"

struct persist;

/* What follows each head, and what comes back. A final reply with a status other than 0 has no more
 * than its struct (persist_head, persist_room or persist_user), zeroed behind the head. */
enum persist_op {
    /* struct persist_record, the record behind it; no reply but watermarks */
    PERSIST_RECORD = 1,
    /* struct persist_head, tail: room_id up to the end of the request
     * -> MEMBERS*, KEYS*, ROOM (0) | ROOM (-ENOENT) */
    PERSIST_ROOM_LOAD,
    /* struct persist_room, tail: room_id (empty: one is made), name, user_id and username of the
     * owner -> ROOM (0, -EEXIST); epoch and created_ms 0: given by us */
    PERSIST_ROOM_CREATE,
    /* struct persist_list, tail: query, cursor (a room_id) -> ROOMS */
    PERSIST_ROOM_LIST,
    /* struct persist_page, tail: room_id -> HISTORY_PAGE (0, -ENOENT) */
    PERSIST_HISTORY,
    /* struct persist_user, tail: username, password, display_name -> USER (0, -EEXIST) */
    PERSIST_REGISTER,
    /* struct persist_user, tail: username, password -> USER (0, -EACCES) */
    PERSIST_LOGIN,
    /* struct persist_user, tail: user_id, username wanted -> USER (0) */
    PERSIST_USER_ENSURE,
    /* struct persist_user, tail: user_id -> USER (0, -ENOENT) */
    PERSIST_USER_GET,
    /* struct persist_head; no reply. Answers PERSIST_REWIND: the records behind it in the ring are
     * those above the rewound position, from the first one on; those before it in the ring that
     * came after the rewind are handed over again and count for nothing */
    PERSIST_REWOUND = 10,
    /* struct persist_head, from a recovered lane and once; no reply. All records of the run before
     * have been handed over: none follows */
    PERSIST_RECOVERED = 11,

    /* struct persist_record: all of the shard's records up to position are stored */
    PERSIST_WATERMARK = 64,
    /* count entries: role 1, user_id size 1, username size 1, then both */
    PERSIST_MEMBERS,
    /* count of struct persist_key, oldest first: the last limits.idempotency_keys keyed messages */
    PERSIST_KEYS,
    /* struct persist_room, tail: room_id, name */
    PERSIST_ROOM,
    /* count times (struct persist_room, room_id, name), each 8-aligned; fewer than the limit: there
     * are no more, or (only in rings under 1 MiB) no more fitted */
    PERSIST_ROOMS,
    /* count times (struct persist_entry, body), each 8-aligned, in the order asked for */
    PERSIST_HISTORY_PAGE,
    /* struct persist_user, tail: user_id, username, display_name */
    PERSIST_USER,
    /* struct persist_record: the shard's records up to position are held here and need not be
     * handed over again unless a rewind asks for it: they no longer count against its credit. They
     * are not stored yet: the journal keeps them until PERSIST_WATERMARK. Never with persist.mode
     * embedded
     */
    PERSIST_TAKEN = 71,
    /* struct persist_record: what was taken above position is lost here: hand over PERSIST_REWOUND,
     * then again every record above position, in the journal's order. Never with persist.mode
     * embedded */
    PERSIST_REWIND = 72,
};

/* Opens every request and reply. */
struct persist_head {
    uint16_t op;
    int16_t status; /* replies: 0 or -errno */
    uint32_t count; /* entries behind, where the op has some */
    uint64_t token; /* the asker's; comes back as it was */
};

struct persist_record {
    struct persist_head head; /* a record's count 1: store it soon, the journal fills */
    uint64_t position;        /* of the shard's journal */
    uint32_t record_bytes;
    uint32_t zero;
};

enum room_visibility { ROOM_PUBLIC = 0, ROOM_PRIVATE = 1 };

struct persist_room {
    struct persist_head head;
    uint64_t epoch; /* never 0; random at creation */
    uint64_t last_seq;
    uint64_t created_ms;
    uint32_t member_count;
    uint32_t members_max;
    uint8_t visibility;
    uint8_t durability;                             /* enum journal_durability */
    uint8_t room_bytes, user_bytes, username_bytes; /* sizes of the tail's parts */
    uint8_t zero;
    uint16_t name_bytes;
};

struct persist_key {
    uint8_t key_digest[16];
    uint64_t content_digest;
    uint64_t seq;
    uint64_t at_ms;
};

struct persist_list {
    struct persist_head head;
    uint32_t limit;
    uint16_t query_bytes, cursor_bytes;
};

struct persist_page {
    struct persist_head head;
    uint64_t from_seq, to_seq; /* both inside */
    uint32_t limit;
    uint32_t bytes_max; /* of the reply; a page always has one entry if there is one */
    uint8_t descending; /* from the end of the range downwards */
    uint8_t room_bytes;
    uint16_t zero[3];
};

struct persist_entry {
    uint64_t seq;
    uint32_t body_bytes;
    uint32_t zero;
};

struct persist_user {
    struct persist_head head;
    uint64_t created_ms;
    uint16_t user_bytes, username_bytes, password_bytes, display_bytes;
};

/* One shard's two rings to the persistence thread and back, and how each side wakes the other. The
 * shard's owner fills it in; bells ring only if the other side sleeps (core/doorbell.h). */
struct persist_lane {
    struct spsc requests; /* shard -> persistence */
    struct spsc replies;  /* persistence -> shard; a full one makes persistence wait, never drop */
    struct doorbell *shard_bell;
    const struct os_ring *shard_ring; /* where its bell rings, with tag shard_tag */
    uint64_t shard_tag;
    bool recovered; /* the records of earlier runs, by a thread of main's; no questions */
    bool salvage;   /* the same, and seqs may be missing: as in persist_replay */
};

/* Opens the store named by the configuration in its data directory: 0 or -errno with a sentence for
 * people. The configuration stays the caller's, unchanged until persist_close. If the last run did
 * not end by persist_close, rooms with durability memory get a new epoch (their tail may be gone),
 * and those with journal too if the machine was started anew. */
NODISCARD int persist_open(const struct config *config, struct persist **ret, char *ret_why,
                           size_t why_size);

/* Whether recovered records are not for persist_replay, but come by a lane of their own once the
 * thread runs (struct persist_lane, recovered). */
bool persist_replays_later(const struct persist *persist);

/* Start-up, unless persist_replays_later: gives a recovered record to the store; batches by itself.
 * 0, or -errno: -EBADMSG when a seq is missing before it (salvage: taken all the same, and the room
 * gets a new epoch). */
NODISCARD int persist_replay(struct persist *persist, const void *record, uint32_t size,
                             bool salvage);

/* Makes all that was replayed durable. */
NODISCARD int persist_replay_end(struct persist *persist);

/* Starts the thread (and the password workers) over count lanes, not pinned; each ring has at least
 * 16 KiB. The lanes stay the caller's. 0 or -errno. */
NODISCARD int persist_start(struct persist *persist, struct persist_lane *const *lanes,
                            uint32_t count, struct metrics *metrics);

/* Wakes the persistence thread if it sleeps: after spsc_publish on a lane. ring: the caller's own.
 */
void persist_wake(struct persist *persist, struct os_ring *ring);

/* The lines of persistence over count lanes in a MEM_COUNT plan, for `damsod --plan`. */
void persist_plan(const struct config *config, uint32_t count, struct mem_plan *plan);

/* Bytes of records that a shard may have handed over beyond its watermark so that its reads are
 * answered even while the store refuses writes: with more, records wait in its ring, and reads
 * behind them. */
uint32_t persist_unstored_max(const struct persist *persist);

/* False once the store refuses writes (disk full, I/O error): it retries by itself; for /readyz.
 * Any thread. */
bool persist_is_well(const struct persist *persist);

/* How a start goes on behind persist_start: READY rooms can be loaded; DOWN a store is away, it is
 * tried again, and what needs it is answered with -EAGAIN. Embedded is READY at once. */
enum persist_state { PERSIST_STARTING, PERSIST_READY, PERSIST_DOWN };

/* The state; ret_why, if a store was away, is the sentence for people, else untouched. Any thread.
 */
enum persist_state persist_state(struct persist *persist, char *ret_why, size_t why_size);

/* True once another damsod has taken over the stores, for good: nothing more may be acknowledged.
 * Any thread. */
bool persist_is_fenced(const struct persist *persist);

/* Takes what is left in the lanes, commits, stops the threads, marks a clean stop, closes. */
void persist_close(struct persist *persist);
