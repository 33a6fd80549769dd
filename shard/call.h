/*
 * call.h - a client's request that waits for an answer: of a room, of the store.
 *
 * Walk:       from shard/session.c and shard/rest.c (call_take); to their functions by call->done.
 * Threads:    its shard's.
 * Ownership:  a call is an item of shard->calls from call_take until its answer has come, also
 *             when its connection has gone meanwhile.
 */
#pragma once

#include "core/slice.h"
#include "shard/conn.h"
#include "shard/room.h"

#include <stdint.h>

struct shard;
struct call;

enum { CALL_ID_MAX = 272 }; /* a JSON integer, or a string as it came, with its quotes */

/* An answer: of a room (room set) or of the store (reply set, bytes of persist.h). conn is NULL if
 * it has gone. */
struct call_answer {
    const struct room_answer *room;
    const void *reply;
    uint32_t reply_size;
};

typedef void (*call_done)(struct shard *shard, struct conn *conn, struct call *call,
                          const struct call_answer *answer);

struct call {
    uint32_t pool_link;
    uint32_t generation;
    struct conn_ref conn;
    call_done done;
    uint16_t id_size; /* 0: the client gave none */
    bool has_after;
    bool has_epoch;
    bool ascending;
    bool more; /* the wish goes on behind the page that was asked for */
    uint64_t after_seq;
    uint64_t epoch;
    uint64_t from_seq, to_seq;
    uint32_t limit;
    uint64_t sub_serial;       /* of the subscription that a join made */
    struct call *waiting_next; /* in conn->waiting */
    uint8_t room_id_size;
    char id[CALL_ID_MAX];
    char room_id[ROOM_ID_MAX];
};

void call_init(struct shard *shard);

/* A call for a connection (NULL: for the shard itself), or NULL: too many are in flight,
 * in all or of this connection. */
struct call *call_take(struct shard *shard, struct conn *conn, call_done done);
uint64_t call_token(struct shard *shard, const struct call *call);
void call_give(struct shard *shard, struct call *call);

/* The answer to a token of this shard has come: calls done, which gives the call back or asks on
 * with it. */
void call_answered(struct shard *shard, uint64_t token, const struct call_answer *answer);

/* Asks the store: op with a head already filled in but for the token. False: the ring is full. */
bool call_store(struct shard *shard, uint64_t token, const void *request, uint32_t request_size,
                const struct slice *tails, uint32_t tail_count);
