/*
 * room_log.h - a room's latest events as encoded frames; a connection is a cursor into it.
 *
 *   first chunk          ...          last chunk
 *   [frame frame frame] [frame frame] [frame frame | not durable yet]
 *                 ^ cursor of a slow member     ^ durable
 *
 * Walk:       from shard/room_home.c and shard/room.c (append); to shard/egress.c (pieces for
 *             members) and shard/mesh.c (pieces for replicas).
 * Threads:    its shard's.
 * Ownership:  chunks are pool items held by their log and by sends in flight (refs); a dropped
 *             chunk is freed when its last send has completed.
 * Units:      sizes in bytes, positions as (chunk, offset), seq as in the protocol.
 *
 * Invariants: (L1) frames lie whole in one chunk, in seq order without a hole, first_seq to
 *                  next_seq - 1.
 *             (L2) what is not durable is never dropped and never part of a piece.
 *             (L3) a cursor with seq > first_seq points into a chunk of the log; with seq ==
 *                  first_seq its position is the beginning, whatever it holds; with seq <
 *                  first_seq it has lost events.
 *             (L4) bytes of all chunks of a log stay below rooms.log_bytes, but for what is not
 *                  durable.
 */
#pragma once

#include "core/pool.h"
#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct shard;
struct room_log;

enum {
    CHUNK_CLASSES = 5,
    CHUNK_BYTES_MAX = 128 * 1024,
    ROOM_EVENT_BYTES_MAX = CHUNK_BYTES_MAX - 1024
};

struct chunk {
    uint32_t pool_link;
    uint32_t refs; /* the log and each send in flight */
    struct chunk *next;
    struct chunk *older, *newer; /* all chunks of the class, in the order they were taken */
    struct room_log *log;        /* NULL: dropped */
    uint64_t last_seq;
    uint64_t opened_ms;
    uint32_t size;
    uint32_t capacity;
    uint8_t class;
    char data[];
};

struct chunk_pools {
    struct pool pools[CHUNK_CLASSES];
    struct chunk *oldest[CHUNK_CLASSES], *newest[CHUNK_CLASSES];
};

struct log_cursor {
    struct chunk *chunk;
    uint32_t offset;
    uint64_t seq; /* of the next frame */
};

struct room_log {
    struct chunk *first, *last;
    uint64_t first_seq; /* next_seq when empty */
    uint64_t next_seq;
    struct log_cursor durable; /* the end of what may be shown */
    uint32_t bytes;            /* capacity of its chunks */
    uint32_t class;            /* of the next chunk */
};

void chunk_pools_init(struct shard *shard);

/* An empty log whose first event will be seq. */
void room_log_init(struct room_log *log, uint64_t seq);

/* Space for a frame of size bytes at the end, or NULL: no chunk is to be had. */
char *room_log_reserve(struct shard *shard, struct room_log *log, uint32_t size);

/* What was reserved holds the next count events. */
void room_log_commit(struct room_log *log, uint32_t size, uint32_t count);

/* The end, as a position to be made durable later. */
struct log_cursor room_log_end(const struct room_log *log);

/* Everything before the position may be shown. */
void room_log_set_durable(struct room_log *log, struct log_cursor position);

/* Forgets all durable events and goes on with seq. */
void room_log_clear(struct shard *shard, struct room_log *log, uint64_t seq);

/* A cursor at the event seq: false if it is not in memory. seq == durable.seq gives the end. */
bool room_log_find(const struct room_log *log, uint64_t seq, struct log_cursor *ret);

/* Whether the cursor has lost events (L3). */
static inline bool room_log_lost(const struct room_log *log, const struct log_cursor *cursor)
{
    return cursor->seq < log->first_seq;
}

static inline bool room_log_has_more(const struct room_log *log, const struct log_cursor *cursor)
{
    return cursor->seq < log->durable.seq;
}

/* The bytes from the cursor to the end of its chunk or of what is durable; empty if there are none.
 * Leaves the cursor behind them; ret_chunk is what holds them. Not for a cursor that has lost
 * events. */
struct slice room_log_piece(const struct room_log *log, struct log_cursor *cursor,
                            struct chunk **ret_chunk);

/* One event's JSON, without its frame header, and the cursor behind it; empty at the end. */
struct slice room_log_event(const struct room_log *log, struct log_cursor *cursor);

/* A send holds a chunk. */
void chunk_hold(struct chunk *chunk);
void chunk_release(struct shard *shard, struct chunk *chunk);

/* Drops durable chunks that were filled before a time: idle rooms shrink to the last one. */
void room_log_trim(struct shard *shard, struct room_log *log, uint64_t before_ms);
