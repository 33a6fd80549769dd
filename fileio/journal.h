/*
 * journal.h - a shard's write-ahead log: what is in it survives a crash.
 *
 * Walk:       from shard/room_home.c (publish); commits are started by shard/loop.c once a turn;
 *             to shard/room_home.c (rooms_durable) and, by shard/handover.c, to persist/.
 * Threads:    its shard's thread only.
 * Ownership:  the journal owns its buffers, files and positions. A pointer from journal_append is
 *             valid until the next call; so is one from journal_handover, which gives the same
 *             record again until journal_handover_next, journal_rewind or journal_release.
 * Units:      a position counts bytes of the shard's journal since its first segment of this run
 *             and only rises; sizes in bytes.
 *
 * A group of records (all that a turn, or the turns during the commit before, appended) is written
 * by one O_DIRECT write into a prewritten segment, with the sync in the same operation. One commit
 * is in flight; what arrives meanwhile fills the rest of the buffer, which is a ring: a group stays
 * in it, for the handover, until its place is needed again.
 *
 * Invariants: (J1) journal_durable never passes a record whose write, and sync if it was asked for,
 *                  has not succeeded.
 *             (J2) after a failed write or sync nothing more is written: state JOURNAL_FAILED is
 *                  final.
 *             (J3) a segment is reused only when journal_release has passed its last record.
 *             (J4) the segments of all shards hold at most bytes_max in sum; at the bound, and
 *                  without a prepared segment, appends are refused.
 *             (J5) records are handed over in the order of their positions, each once since the
 *                  start or the last journal_rewind; those in segments that journal_release gives
 *                  back before a rewound handover has come to them are left out.
 */
#pragma once

#include "core/mem.h"
#include "core/metrics.h"
#include "core/os.h"

#include <stdbool.h>
#include <stdint.h>

struct journal;

enum journal_durability {
    DURABILITY_MEMORY = 0,  /* acked when written; the room begins anew after a crash */
    DURABILITY_JOURNAL = 1, /* written, not synced */
    DURABILITY_FSYNC = 2,   /* on disk */
};

/* A record, the largest allowed; what is read back into one piece of 256 KiB. */
enum { JOURNAL_RECORD_MAX = 240 * 1024 };

/* FULL lasts from a refused append until one of that size would be taken. */
enum journal_state { JOURNAL_OK, JOURNAL_FULL, JOURNAL_FAILED };

struct journal_options {
    struct os_ring *ring;  /* enabled by the owner before the first journal_append */
    const char *directory; /* exists; shared by all shards: names carry the shard */
    uint32_t shard;
    uint32_t segment_bytes; /* multiple of 4096 */
    uint64_t bytes_max;     /* of this shard's segments */
    uint32_t buffer_bytes;  /* two of them are reserved; a group is at most this */
    uint64_t first_segment; /* number of the first new segment: above all that recovery saw */
    uint8_t tag_kind;       /* os_tag kind of all its operations */
    struct metrics *metrics;
};

/* Prepares the first segment (blocks; called by main before the threads start, after recovery_run
 * and recovery_retire). 0 or -errno, with ret_why a sentence for people. In a MEM_COUNT plan it
 * only counts: 0, with NULL in ret. */
NODISCARD int journal_open(const struct journal_options *options, struct mem_plan *plan,
                           struct journal **ret, char *ret_why, size_t why_size);

/* Space for a record of 1 to JOURNAL_RECORD_MAX bytes, to be filled before the next call, or NULL:
 * journal_state says why (full: the bound is reached or the buffers are; failed). ret_position is
 * the record's own. */
void *journal_append(struct journal *journal, uint32_t size, enum journal_durability durability,
                     uint64_t *ret_position);

/* Starts a commit if there is something to write and none is in flight. Once a turn. */
void journal_commit(struct journal *journal);

/* Takes an event with the journal's tag kind. */
void journal_done(struct journal *journal, const struct os_event *event);

/* Every record with a position up to and including this one is as durable as it was asked to be. */
uint64_t journal_durable(const struct journal *journal);

enum journal_state journal_state(const struct journal *journal);

/* Whether an append of size bytes would be taken now. */
bool journal_has_room(const struct journal *journal, uint32_t size);

/* The oldest durable record that was not handed over yet, or NULL if there is none or it is being
 * read back from the segment (it is read back when it could not be handed over while it was in
 * memory). */
const void *journal_handover(struct journal *journal, uint32_t *ret_size, uint64_t *ret_position);
void journal_handover_next(struct journal *journal);

/* The handover begins again with the oldest record above position: what the taker was given above
 * it is lost to it. position is at least what journal_release was last told and at most that of a
 * record that was handed over. Costs no I/O itself; records that the buffer no longer holds are
 * read back, from the start of position's segment at most. Takes effect in every state: also while
 * a read back is in flight, and in JOURNAL_FAILED, where what is durable is still given out,
 * unless a read failed: then there is nothing more, before and after. Ask journal_handover again
 * before the next journal_handover_next. */
void journal_rewind(struct journal *journal, uint64_t position);

/* The store has everything up to and including position, which was handed over once (it may lie
 * before or behind where a rewound handover stands): segments wholly below are free. */
void journal_release(struct journal *journal, uint64_t position);

/* Bytes appended and not yet released: what a crash would replay. */
uint64_t journal_backlog_bytes(const struct journal *journal);

/* Nothing is in flight and nothing waits to be written (for a clean stop). */
bool journal_is_idle(const struct journal *journal);

/* Closes files. Marks released segments so that the next start need not read them. */
void journal_close(struct journal *journal);
