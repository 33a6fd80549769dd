/*
 * key.h - idempotency: which keyed messages a room has, so that a repeat is answered, not stored.
 *
 * Walk:       from shard/room_home.c; shard/room.c refills it from the store when a room is loaded.
 * Threads:    its shard's.
 *
 * Invariants: (K1) the last limits.idempotency_keys keyed messages of a loaded room are found,
 *                  exactly: the key is a 128-bit digest of (user_id, idempotency_key).
 */
#pragma once

#include "core/hash.h"

#include <stdint.h>

struct shard;
struct room;

struct key {
    uint32_t pool_link;
    uint32_t hash_next;
    uint32_t room_next; /* the next newer one of the room: index + 1 */
    uint32_t room;      /* index */
    struct hash128 digest;
    uint64_t content_digest;
    uint64_t seq;
    uint64_t at_ms;
};

struct key_table {
    uint32_t *buckets;
    uint32_t mask;
};

/* Of one room, oldest to newest; index + 1, 0: none. */
struct key_list {
    uint32_t first, last;
    uint32_t count;
};

void key_init(struct shard *shard);
struct key *key_find(struct shard *shard, const struct room *room, struct hash128 digest);

/* Remembers a keyed message, forgetting the room's oldest beyond the limit. NULL: the pool is
 * empty. */
struct key *key_add(struct shard *shard, struct room *room, struct hash128 digest,
                    uint64_t content_digest, uint64_t seq, uint64_t at_ms);
void key_forget_all(struct shard *shard, struct room *room);
