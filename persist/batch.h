/*
 * batch.h - the records and account changes of one transaction of the store, and what happens when
 * the store refuses it.
 *
 *                    add, write                    commit 0: watermarks, held replies
 *     empty ----------------------> open -----------------------------------------> empty
 *                                   | ^
 *               commit or append < 0| | again (add, a read, or after the backoff)
 *                                   v |
 *                                refusing: rolled back, records kept, held replies answered -EAGAIN
 *
 * Walk:       from embedded.c: records and commits, and what answer.c and account.c ask of their
 *             answerer; to the store.
 * Threads:    the persistence thread.
 * Ownership:  records are copied here, so that a lane's ring goes on while the store refuses.
 *
 * While the store refuses commits, records still come in, up to lane_bytes_max a lane, and are
 * applied to a transaction that is not committed yet, so that reads see them (P1). Beyond that
 * bound a lane's records wait in its ring, and with them whatever is behind them. A shard that
 * hands over no more than persist_unstored_max beyond its watermark never meets it.
 *
 * Invariants: (B1) a record leaves the batch only after a commit that held it returned 0.
 *             (B2) records are applied in the order in which they were added, after a rollback too.
 *             (B3) a reply about something written is sent after its commit, as is each reply to a
 *                  question asked meanwhile that could tell of it.
 */
#pragma once

#include "persist/thread.h"

/* Whether a record of size bytes from that lane would be taken now. */
bool batch_takes(const struct persist *persist, uint32_t lane, uint32_t size);

/* Takes it, from the lane of that index: batch_takes said so. */
void batch_add(struct persist *persist, uint32_t index, uint64_t position, const void *record,
               uint32_t size);

/* Enough for one transaction. */
bool batch_is_full(const struct persist *persist);

/* Time to commit: it is full, somebody waits for it, or its first record is persist.commit_interval
 * old. Each commit writes every page it touched, so that fewer and larger ones cost less; the
 * journal keeps the records meanwhile. */
bool batch_is_due(const struct persist *persist);

/* Before a read: whether it sees all records taken so far. False: answer it with -EAGAIN. */
bool batch_is_readable(struct persist *persist);

/* Before an account or room is written: 0, or -EAGAIN: the store refuses writes. */
NODISCARD int batch_write(struct persist *persist);

/* An account or room could not be written, by an error of the store. */
void batch_refuse(struct persist *persist, int error);

/* The reply to what was written after batch_write: held until the commit (B3). size: at most
 * ANSWER_REPLY_MAX; opens with struct persist_user or struct persist_room. */
void batch_written(struct persist *persist, uint32_t lane, const void *reply, uint32_t size);

/* Any other reply about an account or room: sent, or held behind those that are (B3). */
void batch_reply(struct persist *persist, uint32_t lane, const void *reply, uint32_t size);

/* Before a read that could show an account or room that is not committed: commits it first. */
void batch_settle(struct persist *persist);

/* Commits what is open; while refusing, only when the backoff is over. */
void batch_commit(struct persist *persist);

/* Reserves the batch's memory in the plan, for that number of lanes. */
void batch_init(struct batch *batch, struct mem_plan *plan, uint32_t lanes, uint32_t ring_bytes,
                uint32_t records);
