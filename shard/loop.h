/*
 * loop.h - a shard's thread: one turn after another.
 *
 * Walk:       from shard/server.c, which starts the thread; everything else of a shard is called
 *             from a turn.
 * Threads:    the shard's own.
 */
#pragma once

struct shard;

/* Runs turns until the server stops and everything acked is on disk and with persistence. 0 or
 * -errno. */
int loop_run(struct shard *shard);
