/*
 * tail.h - a room as it is: what MongoDB has, and behind it the records that are still in Redis or
 *          on their way there. A struct store (persist/store.h) for persist/answer.c.
 *
 *     MongoDB        lists in Redis (frozen, then the log)       overlay
 *     1 ........ 950 951 ........................... 1150        1151 .. 1163
 *
 * Upstream is read first: overlay, Redis, then MongoDB; a batch that moves on between two looks is
 * seen twice and merged by seq, never missed. What is below the tail was in MongoDB when the view
 * was made, and is read from there whenever it suits.
 *
 * Only what reads and makes is there: records are stored by persist/flush.c, so begin, commit,
 * append and their like are NULL.
 *
 * Walk:       from persist/reader.c (tail_see, then answer_request); to cache.h and store_mongo.h.
 *             Files: tail.c (Redis, rooms and users), tail_page.c (history), tail_room.c (members,
 *             keys, a room).
 * Threads:    a reader's.
 *
 * Invariants: (T1) a page is gap-free within its room's log, or the read fails with -EAGAIN. Only a
 *                  hole that lies wholly in what MongoDB has (a salvaged log) is shown as it is.
 *             (T2) what the stores cannot answer for now is -EAGAIN; only -ENOENT and -EEXIST say
 *                  something else, and the error of a row callback, which is the caller's own.
 */
#pragma once

#include "persist/cache.h"
#include "persist/reader.h"
#include "persist/store_mongo.h"

struct tail;

/* Reserves in the plan; in a MEM_COUNT plan only counts. cache NULL: there is no Redis. It is
 * connected when a question needs it, as the owner that the question names, for the names of frozen
 * lists have it in them; nothing is written. */
NODISCARD int tail_open(struct store_mongo *mongo, struct cache *cache, uint32_t keys_max,
                        struct mem_plan *plan, struct tail **ret);
struct store *tail_store(struct tail *tail);

/* The view that the next calls of the store read through; it points into the question. NULL, NULL:
 * none, until the next question. */
void tail_see(struct tail *tail, const struct read_head *head, const void *overlay);

/* enum job_where of the last failed call, 0: none failed since tail_see. */
uint8_t tail_failed(const struct tail *tail);

/* How long the last look at each store took since tail_see, 0: there was none. */
uint64_t tail_redis_ns(const struct tail *tail);
uint64_t tail_mongodb_ns(const struct tail *tail);
