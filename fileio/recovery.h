/*
 * recovery.h - what a start makes of the journal segments it finds.
 *
 * Walk:       from shard/server.c at start; records go through a callback into persist/.
 * Threads:    main, before any shard runs. Blocks.
 * Units:      sizes in bytes, offsets from the start of a segment file.
 *
 * Segments of any number of shards are read, each shard's in the order of their numbers; a room's
 * records are in one shard's segments for the length of a run, and a run starts only after all
 * records of the one before are in the store. Records that the store has already are handed over
 * again: the store ignores them by room, epoch and seq.
 *
 * Invariants: (V1) a torn tail (damage with nothing valid of the same segment behind it, in the
 *                  last written segment of its shard) is dropped, and reported.
 *             (V2) any other damage is an error that names file and offset; nothing is given up
 *                  silently.
 */
#pragma once

#include "core/os.h"

#include <stdint.h>

struct recovery_report {
    uint64_t records;
    uint64_t bytes;
    uint64_t segments;
    uint64_t torn_bytes;    /* dropped as torn tails, or missing at a file's end; at least */
    uint64_t salvaged_gaps; /* damaged places passed over because of salvage */
    uint64_t first_segment; /* number that new segments may start with */
};

typedef int (*recovery_record)(void *context, const void *record, uint32_t size);

/* Hands every intact record to the callback, whose negative return ends it. salvage: passes over
 * damage and counts it instead of refusing. Returns 0 or -errno (-EBADMSG: damage), with ret_why
 * the sentence for people: which file, where, and what to do. */
NODISCARD int recovery_run(const char *directory, bool salvage, recovery_record callback,
                           void *context, struct recovery_report *ret, char *ret_why,
                           size_t why_size);

/* After the store has everything: the segments that were read are free. Removes them, or keeps
 * two a shard that journal_open may reuse, marked as free durably. Blocks; 0 or -errno, and then
 * the start must not go on. */
NODISCARD int recovery_retire(const char *directory);
