/*
 * move.h - the data of a stopped server from one store into the other: `damsod --move`.
 *
 *     open -> (redis+mongodb as source: claim -> replay -> replay_end) -> run -> close
 *
 * run checks what the target holds, copies users, rooms, events and members page by page, and then
 * compares both sides. Progress is what is in the target: whoever calls it again after any crash
 * goes on where the copy ends.
 *
 * Walk:       from shard/move.c, which has the lock, the journals and the words for people; to
 *             persist/move_store.h and the two stores.
 * Threads:    main's. Everything blocks.
 * Ownership:  the configuration stays the caller's, unchanged until move_close.
 * Units:      counts; sizes in bytes.
 *
 * Invariants: (N1) nothing is written to the source but what an ordinary start writes.
 *             (N2) nothing is written to a target that holds what the source does not have.
 *             (N3) move_run returns 0 only when both sides were read after the copy, and are the
 *                  same in every user, room, member and event.
 */
#pragma once

#include "core/check.h"
#include "core/config.h"
#include "core/mem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In the order of persist.mode. */
enum move_side { MOVE_EMBEDDED = 0, MOVE_REDIS_MONGODB = 1 };

enum move_phase { MOVE_PREPARING, MOVE_CHECKING, MOVE_COPYING, MOVE_VERIFYING };

struct move_progress {
    enum move_phase phase;
    uint64_t users;
    uint64_t rooms;
    uint64_t members;
    uint64_t events;
};

/* Called between batches, and while something is waited for: 0 goes on; < 0 ends it with that
 * error. */
typedef int (*move_tick)(void *context, const struct move_progress *progress);

struct move_options {
    const struct config *config;
    enum move_side from, to;
    bool salvage; /* a journal may have holes */
    move_tick tick;
    void *context;
};

struct move;

/* Opens both stores; of a target nothing is written yet, but an empty SQLite database. 0 or -errno
 * with ret_why a sentence for people. */
NODISCARD int move_open(const struct move_options *options, struct move **ret, char *ret_why,
                        size_t why_size);

/* Source redis+mongodb: takes over, so that any other damsod on it is fenced. 0 or -errno; -EBUSY:
 * the last damsod on it had another data directory, and died: its journal is not here. */
NODISCARD int move_claim(struct move *move);

/* Source redis+mongodb: a record of a journal, in the journal's order. 0 or -errno; -EBADMSG: no
 * record, or one before it is missing. */
NODISCARD int move_replay(struct move *move, const void *record, uint32_t size);

/* Ends it: all that was replayed, and whatever lies in Redis, is in MongoDB. 0 or -errno. */
NODISCARD int move_replay_end(struct move *move);

/* All of it. 0: everything is in the target, durable and verified; ret: how much. -errno: -EEXIST
 * the target holds other data, -EUCLEAN the sides differ (and others). */
NODISCARD int move_run(struct move *move, struct move_progress *ret);

/* The last failure, a sentence for people. */
const char *move_why(const struct move *move);

/* NULL is nothing. */
void move_close(struct move *move);
