/*
 * replay.h - the journals that earlier runs left, on their way into a store that takes them while
 *            this run serves already (persist.mode = redis+mongodb).
 *
 * A start sets the journal of the last run aside as a generation (fileio/recovery.h) and begins a
 * new one. A thread hands the records of all generations to persistence over a lane of their own,
 * like a shard, and drops each generation when the store has it. If the store is away, or must have
 * them again, the files are still there.
 *
 * Walk:       from shard/server.c; to fileio/recovery.h and persist/persist.h.
 * Threads:    replay_open, _start and _stop: main. Everything else: its own.
 * Units:      a position counts records over all generations, from 1.
 *
 * Invariants: (Y1) a generation is dropped only when the watermark has passed its last record.
 */
#pragma once

#include "core/doorbell.h"
#include "core/mem.h"
#include "core/os.h"
#include "persist/persist.h"

#include <pthread.h>
#include <stdatomic.h>

enum { REPLAY_GENERATIONS_MAX = 1024 };

struct replay {
    struct doorbell bell; /* first: two cache lines to itself */
    struct persist_lane lane;
    struct persist *persist;
    struct os_ring *ring;
    const char *data;
    bool salvage;
    uint32_t first; /* generation */
    uint32_t count; /* 0: nothing to replay */
    uint32_t dropped;
    uint64_t records[REPLAY_GENERATIONS_MAX]; /* of each */
    pthread_t thread;
    bool started;
    _Atomic bool stopping;

    uint64_t watermark;
    uint64_t position;  /* of the record at hand */
    uint64_t rewind_to; /* what is above it is handed over */
    bool rewinding;     /* is asked for */
};

/* Looks at what earlier runs left in the data directory: checks every record, and sets the last
 * journal aside if it has any. ret_first_segment: for journal_open. 0 or -errno with a sentence for
 * people (damage: which file, where, what to do). The rings lie in the plan. */
NODISCARD int replay_open(struct replay *replay, const char *data, bool salvage,
                          struct mem_plan *plan, uint64_t *ret_first_segment, char *ret_why,
                          size_t why_size);

/* Starts the thread, once persistence runs: 0 or -errno. Nothing to replay: does nothing. */
NODISCARD int replay_start(struct replay *replay, struct persist *persist);

/* Ends it, and gives back its ring; before persist_close. */
void replay_stop(struct replay *replay);
