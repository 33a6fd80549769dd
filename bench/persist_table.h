/*
 * persist_table.h - damsod on Redis and MongoDB in four ways (persist.flush_mode batch and sync,
 *                   persist.cache redis and none), each under the same load, side by side.
 *
 * Walk:  from bench/damso_bench.c; to bench/scenario.c for the load, bench/persist_server.c.
 *
 * For each way, on an empty database and prefix:
 *   1 load    the options' rate for their duration: lag and CPU times
 *   2 search  the highest rate that is sustained: all of 5 s is acknowledged, and stored at most
 *             2.25 s later: flush_interval is 1 s here, the persistence thread looks at a quiet
 *             shard's ring once a second, and a quarter is for the rest
 *   3 top     four fifths of that rate for the duration: lag and CPU times again
 *   4 reads   pages of 50 by REST, one after the other, from MongoDB only (a damsod started on what
 *             an earlier one stored), from Redis (flushes held back, and a room's log in memory
 *             that is too short for them), from memory; each proved by damsod's counters
 *
 * Lag is damsod_persist_lag_seconds: for each batch, the time from its first message's handing over
 * (in the turn of its acknowledgement) until MongoDB has acknowledged the batch. It is a histogram
 * with few buckets, so a quantile is an upper bound. CPU times are of everything that the processes
 * did from the load's begin until all was stored, divided by the messages acknowledged.
 */
#pragma once

#include "bench/options.h"
#include "bench/persist_figures.h"

/* Prints the table, unless the options say json, and fills the figures. 0 or -errno with the
 * problem said. */
int persist_table_run(const struct options *options, struct persist_figures *figures);
