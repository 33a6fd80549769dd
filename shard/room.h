/*
 * room.h - a room: at its home shard the log that gives seq, elsewhere a replica that follows it.
 *
 *   room_ask(request) --- another shard is home: by the mesh ---> room_handle there
 *       | this one is
 *       +-- not loaded: parked until the store has answered (room_loaded)
 *       +-- loaded: room_answer, at once or when the journal is durable (rooms_durable)
 *
 * Walk:       from shard/session.c and shard/rest_rooms.c (room_ask); shard/room_home.c appends to
 *             fileio/journal.c and goes on in rooms_durable: to shard/egress.c (fan-out),
 *             shard/mesh.c (replicas) and shard/call.c (answers).
 * Threads:    its shard's.
 * Ownership:  rooms are items of shard->rooms, in memory while somebody follows them or they are
 *             busy.
 *
 * Invariants: (R1) seq rises by exactly 1 an event and is never reused, across restarts too.
 *             (R2) an event reaches no member and no replica before the durability its room asks
 *                  for.
 *             (R3) only the home shard appends events of its own; a replica appends what home
 *                  sends, in order.
 *             (R4) every request gets exactly one answer, but TYPING and UNFOLLOW, which get none.
 */
#pragma once

#include "core/hash.h"
#include "core/record.h"
#include "core/slice.h"
#include "core/timer.h"
#include "persist/persist.h"
#include "shard/key.h"
#include "shard/room_log.h"

#include <stdbool.h>
#include <stdint.h>

struct shard;
struct conn;

enum error_code {
#define ERROR(name, code, status, text) ERROR_##name,
#include "shard/error_code.def"
#undef ERROR
    ERROR_CODES
};

/* os_tag kind of the token of a load: above every shard's number. */
enum { ROOM_LOAD_TOKEN = 255 };

enum { ROOM_ID_MAX = 64, ROOM_NAME_MAX = 128, HISTORY_LIMIT_MAX = 200, HISTORY_LIMIT_DEFAULT = 50 };

/* --- what can be asked of a room --- */

enum room_op {
    ROOM_JOIN = 1, /* become a member if allowed; with follow: events after the answer's seq go to
                      the replica */
    ROOM_LEAVE,    /* end membership */
    ROOM_SEND,
    ROOM_HISTORY,
    ROOM_INFO,
    ROOM_TYPING,
    ROOM_UNFOLLOW,
};

struct room_request {
    uint8_t op; /* enum room_op */
    bool follow;
    bool keyed;
    bool descending;
    bool wants_event; /* SEND: the event itself comes with the answer */
    uint64_t token;   /* whose the answer is: os_tag(shard, generation, call) */
    uint32_t replica; /* JOIN with follow, UNFOLLOW: index of the asker's replica */
    uint32_t limit;   /* HISTORY */
    uint32_t bytes_max;
    uint64_t from_seq, to_seq; /* HISTORY, both inside */
    uint64_t reply_to;         /* SEND; 0: none */
    struct hash128 key_digest;
    uint64_t content_digest;
    struct slice room_id, user_id, username;
    struct slice text, data; /* SEND: raw JSON values; data may be empty */
};

struct room_answer {
    uint64_t token;
    uint8_t op;
    uint8_t error; /* enum error_code */
    uint8_t durability;
    uint8_t visibility;
    bool duplicate;
    bool more; /* HISTORY: the page ends before the range does */
    uint8_t zero[2];
    uint64_t seq; /* SEND: the event's; JOIN: the last before what will follow; HISTORY, INFO: the
                     last of the room */
    uint64_t epoch;
    uint64_t at_ms; /* SEND: created; INFO: the room's creation */
    uint32_t member_count;
    uint32_t members_max;
    uint32_t count;         /* HISTORY: entries in payload */
    uint32_t payload_bytes; /* behind it on the mesh */
    /* HISTORY: (struct persist_entry, body) each 8-aligned; INFO: the name; SEND that wants it: the
     * event, but not a duplicate's. */
    struct slice payload;
};

/* --- rooms --- */

enum room_state {
    ROOM_LOADING, /* home: the store was asked */
    ROOM_HOME,
    ROOM_JOINING, /* replica: home was asked, nothing is followed yet */
    ROOM_REPLICA,
};

struct member {
    uint32_t pool_link;
    uint32_t hash_next;
    uint32_t room_next, room_previous;
    uint32_t room;
    uint32_t user;
    uint8_t role;
};

/* A connection's place in a room. */
struct sub {
    uint32_t pool_link;
    bool active;   /* joined: events may go out; else the join is under way */
    bool pending;  /* stands in conn->pending_subs */
    uint64_t join; /* token of the call that made it */
    struct conn *conn;
    struct room *room;
    struct sub *conn_next, *conn_previous;
    struct sub *room_next, *room_previous;
    struct sub *pending_next;
    struct log_cursor cursor;
    uint64_t serial; /* of this join: a later one of the same room has another */
};

/* A shard with a replica of a room whose home is here. */
struct follower {
    uint32_t pool_link;
    uint32_t shard;
    uint32_t replica; /* room index there */
    struct follower *next;
    struct log_cursor cursor;
};

struct parked {
    struct parked *next;
    uint32_t size;
    bool large; /* which pool it is of */
    char bytes[];
};

struct room {
    uint32_t pool_link;
    uint32_t hash_next;
    uint8_t state; /* enum room_state */
    uint8_t visibility;
    uint8_t durability;
    uint8_t id_size;
    uint8_t name_size;
    bool in_fanout;
    bool in_replicate;
    bool damaged; /* while loading: it did not fit */
    struct shard *shard;
    uint64_t last_at_ms; /* of its latest event: times never fall within a room */
    uint64_t position;   /* of the journal: its latest record; 0: none in this run */
    uint32_t in_flight;  /* entries of shard->pending */
    uint32_t joins;      /* replica: of this shard's, waiting for home's answer */
    uint64_t epoch;
    uint64_t created_ms;
    uint64_t used_ms;
    uint64_t round_ms; /* when its events were last offered to its members */
    uint32_t member_count;
    uint32_t members_max;
    uint32_t members; /* index of the first member, POOL_NONE */
    uint32_t sub_count;
    struct sub *subs;
    struct follower *followers;
    struct parked *parked_first, *parked_last;
    struct room *fanout_next;
    struct room *replicate_next;
    struct room_log log;
    struct key_list keys;
    struct timer timer;
    char id[ROOM_ID_MAX];
    char name[ROOM_NAME_MAX];
};

struct room_table {
    uint32_t *buckets;
    uint32_t mask;
    uint32_t *member_buckets;
    uint32_t member_mask;
};

/* Published and not yet durable, oldest first. */
struct pending {
    uint64_t position; /* of the journal */
    struct room_answer answer;
    struct log_cursor end;
    uint32_t room;
    bool follow;
    bool wants_event;
    uint32_t replica;
};

struct pending_table {
    struct pending *entries;
    uint32_t mask;
    uint32_t first, end; /* running freely */
};

void room_init(struct shard *shard);

static inline struct slice room_id(const struct room *room)
{
    return (struct slice){room->id, room->id_size};
}

bool room_id_valid(struct slice id);

/* Which shard gives a room its seq. */
uint32_t room_home(const struct shard *shard, struct slice id);

/* Asks a room, wherever its home is. The answer comes to the token's shard (call_answered); bytes
 * of the request may go away after the call. Errors are answers too. */
void room_ask(struct shard *shard, const struct room_request *request);

/* The same, at the home shard. */
void room_handle(struct shard *shard, const struct room_request *request);

/* Answers of the store: PERSIST_MEMBERS, PERSIST_KEYS, PERSIST_ROOM to a load. */
void room_loading(struct shard *shard, const void *reply, uint32_t size);

/* The room is there, or cannot be: whoever waited for it gets on. */
void room_loaded(struct shard *shard, struct room *room, enum error_code error);

/* Answers and fans out everything that the journal has made durable. Once a turn. */
void rooms_durable(struct shard *shard);

/* Replica (or home) on this shard for a connection's join; made in state ROOM_JOINING if there is
 * none. NULL: no place for another. A replica stays until room_followed or room_abandon, called
 * once each, has told how the join ended. */
struct room *room_follow(struct shard *shard, struct slice id);
struct room *room_find(struct shard *shard, struct slice id);

/* A join has failed: a replica that no other join waits for goes. */
void room_abandon(struct shard *shard, struct slice id);

/* A replica's stream has begun or goes on: events up to seq have been or need not be received. */
void room_followed(struct shard *shard, struct room *room, uint64_t epoch, uint64_t seq);

/* Frames of events first_seq to first_seq + count - 1 from home; first_seq beyond what is due:
 * events were lost. */
void room_replicate(struct shard *shard, uint32_t replica, uint64_t epoch, uint64_t first_seq,
                    uint32_t count, struct slice frames);

/* A connection's place: taken by room_subscribe (inactive), NULL if the pool is empty. */
struct sub *room_subscribe(struct shard *shard, struct room *room, struct conn *conn);
void room_unsubscribe(struct shard *shard, struct sub *sub);

struct member *member_find(struct shard *shard, const struct room *room, struct slice user_id);
struct member *member_add(struct shard *shard, struct room *room, struct slice user_id,
                          struct slice username, uint8_t role);
void member_remove(struct shard *shard, struct room *room, struct member *member);

/* Ends what the user's connections on this shard have joined of the room. */
void room_expel(struct shard *shard, struct room *room, struct slice user_id);

/* Offers new events of a room to its members, now or when its round is due (shard/egress.c). */
void room_fan_out_later(struct shard *shard, struct room *room);

/* Replicas have events to get; rooms_replicate does it, once a turn. */
void room_replicate_later(struct shard *shard, struct room *room);
void rooms_replicate(struct shard *shard);

uint32_t room_index(const struct shard *shard, const struct room *room);

const char *error_code_text(enum error_code error);
const char *error_code_default(enum error_code error);
uint32_t error_code_status(enum error_code error);
