/*
 * persist_history.h - pages of history out of Redis and out of MongoDB, while messages are written.
 *
 * Walk:  from bench/damso_bench.c; by bench/persist_load.c to persistence, and back by its replies.
 *
 * Three groups of rooms: those that are written to all the time at the options' rate; those whose
 * messages are in MongoDB only; those whose messages stay in Redis, fewer than are flushed. Pages
 * of 50 are asked for at times given beforehand, whatever has come back, and latency counts from
 * then. Every page must be whole. Where it came from is proved by the round trips to MongoDB that
 * are not batches: none (but 1 % for what is counted at the edges) for pages out of Redis, one a
 * page or more for the others.
 */
#pragma once

#include "bench/options.h"
#include "bench/persist_figures.h"
#include "persist/persist.h"

/* 0 or -errno with the problem said. */
int persist_history_run(const struct options *options, struct persist_figures *figures);

/* Whether a reply is a page of count events, with seqs that rise by 1 from first_seq; for the test.
 */
bool persist_history_is_page(const struct persist_head *reply, uint32_t size, uint64_t first_seq,
                             uint32_t count);
