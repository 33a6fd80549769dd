/*
 * lane.h - replies and watermarks from the persistence thread to the shards.
 *
 * Walk:       from the engines, and batch.c; by the reply ring to shard/loop.c, which gives
 *             replies to shard/call.c and shard/room.c, watermarks to shard/handover.c.
 * Threads:    the persistence thread.
 *
 * Invariants: (A1) a reply is never dropped while its shard runs: a full ring is waited for.
 *             (A2) a watermark never waits: the next one says the same and more.
 */
#pragma once

#include "persist/thread.h"

/* Puts a reply of size bytes, at most the lane's reply_max, into the lane's ring. Waits in steps of
 * LANE_WAIT_NS while it is full, until the shard took some or main stops us (then it is dropped:
 * no shard runs any more). */
void lane_reply(struct persist *persist, uint32_t index, const void *reply, uint32_t size);

/* Sends the watermark of each lane whose stored moved. True: one did not fit and is still due. */
bool lane_tell(struct persist *persist);

/* Publishes what was put into the rings and wakes the shards that sleep. */
void lane_flush(struct persist *persist);

enum { LANE_WAIT_NS = 1000000 };
