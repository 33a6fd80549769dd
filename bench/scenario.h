/*
 * scenario.h - what is sent when, and what is measured: S1 to S5, acks, and the journal alone.
 *
 * Walk:  from bench/damso_bench.c; to bench/setup.c, bench/loadgen.c and bench/journal_load.c.
 *
 *   open loop    message k is due at start + k / rate, whatever has come back; its latency counts
 *                from then, so a stalled server cannot hide its stall by stopping the loader
 *   closed loop  pairs: a room's next message is due when both members and the ack have come
 *   acks         each sender has in_flight messages under way, and is a member that does not listen
 *   idle         users are members already; then all connect, join and wait
 *   connect      64 at a time: upgrade with a token, `connected`, reset, again
 *   journal      no server: bench/journal_load.h
 *
 * The measured window opens after the warm-up has been delivered and closes with the last delivery;
 * CPU times are of that window only.
 */
#pragma once

#include "bench/options.h"
#include "bench/report.h"

enum { SCENARIO_PROBLEM_BYTES = 1024 };

/* Runs the scenario and fills the report. 0, whatever the server did to the messages; -errno with
 * the problem written if the load could not be set up. problem: SCENARIO_PROBLEM_BYTES. */
int scenario_run(const struct options *options, struct report *report, char *problem);
