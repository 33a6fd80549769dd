/*
 * recovery.h - what a start makes of the journal segments it finds.
 *
 * Walk:       from shard/server.c at start; records go through a callback into persist/.
 * Threads:    recovery_generations, recovery_set_aside and recovery_retire: main, before any shard
 *             runs. recovery_run and recovery_drop of a generation also one helper thread with
 *             2 MiB of stack while shards run: they touch nothing but its directory and its name.
 *             All block.
 * Units:      sizes in bytes, offsets from the start of a segment file.
 *
 * Segments of any number of shards are read, each shard's in the order of their numbers; a room's
 * records are in one shard's segments for the length of a run. Records that the store has already
 * are handed over again: the store ignores them by room, epoch and seq.
 *
 * A run starts when all records of the runs before are in the store; or, when the store cannot take
 * them, beside them: the directory `journal` is set aside as a generation, and the run begins a new
 * one.
 *
 *   DATA/journal           of this run, or of the last one
 *   DATA/journal.000001    set aside: generations, the oldest first
 *   DATA/journal.000002
 *   DATA/journal.dropped   what is left of one that the store has; empty but during recovery_drop
 *
 * A generation is read by recovery_run like any journal directory, in the order of the numbers, and
 * `journal` of the last run after all of them; each is dropped when the store has all of it.
 * Segments of two generations never meet: they lie in different directories, each directory is
 * moved as one by a single rename, and a journal takes over files of its own directory only. The
 * random id of S1 keeps bytes of one from passing for bytes of another. So the segments of a new
 * empty `journal` may be numbered from 1. Neither `journal` nor a generation may be a mount point
 * or a symbolic link: it could not be moved.
 *
 * Invariants: (V1) a torn tail (damage with nothing valid of the same segment behind it, in the
 *                  last written segment of its shard) is dropped, and reported.
 *             (V2) any other damage is an error that names file and offset; nothing is given up
 *                  silently. Both hold for each generation by itself.
 *             (V3) at every moment of a crash in recovery_set_aside a segment lies in `journal` or
 *                  in its generation with all the others; in recovery_drop a generation is whole
 *                  or is none.
 *             (V4) generations are an unbroken row of numbers: one that is missing between two is
 *                  damage.
 */
#pragma once

#include "core/os.h"
#include "fileio/segment.h"

#include <stdint.h>

enum { RECOVERY_GENERATION_MAX = 999999 };

struct recovery_report {
    uint64_t records;
    uint64_t bytes;
    uint64_t segments;
    uint64_t torn_bytes;    /* dropped as torn tails, or missing at a file's end; at least */
    uint64_t salvaged_gaps; /* damaged places passed over because of salvage */
    uint64_t first_segment; /* number that new segments may start with, unless stopped */
    bool stopped;           /* by the callback: not all was read */
};

typedef int (*recovery_record)(void *context, const void *record, uint32_t size);

/* Hands every intact record to the callback. Its negative return ends it with that error; a
 * positive one ends it with 0 and stopped set (for a taker that wants to begin again: the next run
 * hands over everything from the first record; the record it was returned for is not counted).
 * salvage: passes over damage and counts it instead of refusing. Returns 0 or -errno (-EBADMSG:
 * damage), with ret_why the sentence for people: which file, where, and what to do. */
NODISCARD int recovery_run(const char *directory, bool salvage, recovery_record callback,
                           void *context, struct recovery_report *ret, char *ret_why,
                           size_t why_size);

/* After the store has everything: the segments that were read are free. Removes them, or keeps
 * two a shard that journal_open may reuse, marked as free durably. Blocks; 0 or -errno, and then
 * the start must not go on. */
NODISCARD int recovery_retire(const char *directory);

/* Path of a generation's directory, or with 0 of `journal`, in the directory data: 0, or
 * -ENAMETOOLONG. */
NODISCARD int recovery_directory(const char *data, uint32_t generation, char ret[SEGMENT_PATH_MAX]);

/* The first thing at a start. Makes `journal` if it is not there, durably; mends what a crash left
 * behind of the two functions below; counts the generations: ret_first, and ret_count from there
 * on. 0 or -errno, with ret_why a sentence for people; -EBADMSG: one is missing between two (V4;
 * salvage: an empty one takes its place, with a warning). */
NODISCARD int recovery_generations(const char *data, bool salvage, uint32_t *ret_first,
                                   uint32_t *ret_count, char *ret_why, size_t why_size);

/* `journal` becomes the newest generation, ret_generation, and a new empty `journal` is made, both
 * durably. For a `journal` that recovery_run found records in (else recovery_retire frees it),
 * after recovery_generations and before any journal_open. 0 or -errno, with ret_why a sentence for
 * people: then the start must not go on; the next one finds the records. */
NODISCARD int recovery_set_aside(const char *data, uint32_t *ret_generation, char *ret_why,
                                 size_t why_size);

/* The store has all of a generation: no later start finds it. Oldest first, so that the row stays
 * whole. Its files are removed, whatever they are. 0 or -errno, with ret_why a sentence for
 * people; may be called again, and is 0 for one that is gone. */
NODISCARD int recovery_drop(const char *data, uint32_t generation, char *ret_why, size_t why_size);
