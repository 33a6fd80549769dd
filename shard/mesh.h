/*
 * mesh.h - what shards say to each other: requests to a room's home, answers and events from it.
 *
 *   asker --- requests ring --> home    taken only while the events ring back has room for an
 *                                       answer
 *   asker <--- events ring ---- home    always taken: so no two shards wait for each other
 *
 * Walk:       from shard/room.c; to shard/room.c and shard/call.c on the other shard.
 * Threads:    each ring has one producing and one consuming shard (core/spsc.h).
 * Units:      sizes in bytes.
 *
 * Invariants: (X1) between two shards, answers and events arrive in the order in which home
 *                  produced them.
 *             (X2) a full ring refuses a request (the client is told unavailable), delays an
 *                  answer (it stays in its queue) and leaves a replica behind (its cursor
 *                  stays): nothing is lost.
 */
#pragma once

#include "core/doorbell.h"
#include "core/os.h"
#include "core/slice.h"
#include "core/spsc.h"

#include <stdbool.h>
#include <stdint.h>

struct shard;
struct room;
struct follower;
struct room_request;
struct room_answer;

enum { MESH_PEERS_MAX = 64 };

/* From one shard to one other. */
struct mesh_lane {
    struct spsc requests;
    struct spsc events;
};

/* A record that waits for room: a block. */
struct late_record;

struct mesh_peer {
    struct mesh_lane *out;
    struct mesh_lane *in;
    struct doorbell *bell;
    const struct os_ring *ring;
    bool published;                             /* something was pushed this turn */
    struct late_record *late_first, *late_last; /* what the events ring had no room for */
};

struct mesh {
    struct mesh_peer peers[MESH_PEERS_MAX];
};

/* Takes what the others have sent; a bounded part a turn. Returns whether more is waiting. */
bool mesh_take(struct shard *shard);

/* Publishes what this turn has pushed and wakes who sleeps. */
void mesh_publish(struct shard *shard);

/* Whether something has arrived (looked at before sleeping). */
bool mesh_has_input(struct shard *shard);

/* False: the ring is full. */
bool mesh_request(struct shard *shard, uint32_t peer, const struct room_request *request);

/* False: the ring is full; the caller tries again later, or gives it to mesh_answer_late. */
bool mesh_answer(struct shard *shard, uint32_t peer, const struct room_answer *answer);

/* For who cannot wait: the answer goes out when there is room, before any event (X1); a page of
 * history becomes unavailable. */
void mesh_answer_late(struct shard *shard, uint32_t peer, const struct room_answer *answer);

/* Volatile: dropped if there is no room. For the room's members on that shard but the one it is
 * from. */
void mesh_volatile(struct shard *shard, const struct room *room, const struct follower *follower,
                   struct slice from, struct slice text);

/* The user's connections on that shard have the room no longer. */
void mesh_expel(struct shard *shard, const struct room *room, const struct follower *follower,
                struct slice user_id);

/* Whether every ring has room for an answer, the largest too: only then is taken what causes
 * answers. */
bool mesh_can_answer(struct shard *shard);

/* Whether answers wait for a ring to drain. */
bool mesh_is_held(const struct shard *shard);

/* Brings each replica up to date as far as there is room. Once a turn for rooms with new events. */
void mesh_replicate_room(struct shard *shard, struct room *room);

/* A request as bytes, for the mesh and for parking. */
uint32_t room_request_bytes(const struct room_request *request);
void room_request_pack(const struct room_request *request, void *bytes);
NODISCARD int room_request_unpack(const void *bytes, uint32_t size, struct room_request *ret);
