/*
 * supply.h - a shard's segment files: one is always ready before the journal needs it.
 *
 *   (nothing) -> MAKING -> SPARE -> LIVE -> FREE -> MAKING ...
 *             create,  ^ supply_take  ^ supply_release
 *             zeros, sync, rename     a FREE one only gets a new header
 *
 * Walk:       from fileio/journal.c; to core/os.h.
 * Threads:    its shard's thread; supply_open and supply_close main's.
 * Ownership:  owns the files and the table of them.
 * Units:      sizes in bytes. An ordinal counts the segments used in this run from 0; a number is
 *             what the header says and only rises, over runs too.
 *
 * A file keeps its name for life; the number in its header is what orders it. A new file is called
 * .new until its size, its zeros and its header are on disk.
 *
 * Invariants: (U1) a segment is SPARE only when its header, with a new number and a new id, is on
 *                  disk and so is its name. Before that no group goes into it.
 *             (U2) at every moment of a power cut a file has either its old header, whose groups
 *                  the store has, or its new one, with no group of that id.
 *             (U3) of the released segments the one with the lowest number is reused first, so
 *                  that those left on disk hold an unbroken row of groups.
 *             (U4) at most one preparation is in flight, and never more than count_max files.
 *             (U5) a file whose preparation failed is removed and not tried again; the next try
 *                  comes a second later at the earliest, under a new number.
 */
#pragma once

#include "core/mem.h"
#include "core/os.h"
#include "fileio/segment.h"

#include <stdbool.h>
#include <stdint.h>

enum { SUPPLY_SEGMENTS_MAX = 4096 }; /* descriptors are bounded: RLIMIT_NOFILE */

enum supply_state { SUPPLY_NONE, SUPPLY_MAKING, SUPPLY_SPARE, SUPPLY_LIVE, SUPPLY_FREE };

struct supply_segment {
    int file;
    uint8_t state;                /* enum supply_state */
    bool marked;                  /* the header on disk says SEGMENT_FREE */
    uint64_t name;                /* number in the file's name */
    struct segment_header header; /* as on disk, or as it is being written */
    uint64_t last_position;       /* of its last record, once the next segment is in use */
    uint32_t end;                 /* offset behind its last group, likewise; 0 before */
};

enum supply_step { SUPPLY_IDLE, SUPPLY_HEADER, SUPPLY_ZEROS, SUPPLY_SYNC, SUPPLY_NAMES };

struct supply {
    struct os_ring *ring;
    char directory[SEGMENT_PATH_MAX];
    int names; /* descriptor of the directory, to sync it on the ring; -1 before supply_open */
    uint64_t tag;
    uint32_t shard;
    uint32_t segment_bytes;

    struct supply_segment *segments;
    uint32_t *order; /* index of the LIVE segment with ordinal o at o % count_max */
    uint32_t count_max;
    uint32_t count;         /* files that exist */
    uint64_t ordinal_first; /* oldest LIVE one */
    uint64_t ordinal_next;
    uint64_t number_next;

    uint8_t step; /* enum supply_step: what is in flight */
    bool is_new;  /* the file in preparation was created, not reused */
    bool stopped; /* the journal failed: nothing is begun or carried on */
    bool has_spare;
    uint32_t making; /* index of the segment in preparation */
    uint32_t spare;  /* index, with has_spare */
    uint32_t zeroed; /* offset up to which zeros were written */
    uint64_t retry_at_ns;

    uint8_t *zeros; /* never written to: its pages cost no memory */
    uint8_t *block; /* header on its way to disk */
};

struct supply_options {
    struct os_ring *ring;
    const char *directory; /* copied */
    uint32_t shard;
    uint32_t segment_bytes;
    uint64_t bytes_max;
    uint64_t first_number;
    uint64_t tag; /* of the one operation in flight */
};

/* Reserves from the plan; without a mapping (MEM_COUNT) that is all. */
void supply_plan(struct supply *supply, const struct supply_options *options,
                 struct mem_plan *plan);

/* Takes over the shard's free files, removes those it has no use for, and makes the first spare.
 * Blocks. 0 or -errno, with ret_why a sentence for people; -EEXIST: a segment still has groups that
 * recovery_retire has not freed. */
NODISCARD int supply_open(struct supply *supply, char *ret_why, size_t why_size);

/* Begins a preparation when there is no spare, none is in flight, the bound allows it and the last
 * failure is a second ago. Once a turn. */
void supply_tick(struct supply *supply, uint64_t now_ns);

/* The operation in flight has ended with that result. */
void supply_done(struct supply *supply, int32_t result, uint64_t now_ns);

/* The spare becomes LIVE under the next ordinal. Call it only with has_spare. */
void supply_take(struct supply *supply);

/* The LIVE segment of an ordinal. */
struct supply_segment *supply_at(const struct supply *supply, uint64_t ordinal);

/* The oldest LIVE segment becomes FREE. */
void supply_release(struct supply *supply);

/* Closes all files; with clean, first marks what the next start need not read: all released ones
 * and the spare, and the LIVE ones too if everything in them is released. Blocks. */
void supply_close(struct supply *supply, bool clean, bool live_too);
