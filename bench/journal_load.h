/*
 * journal_load.h - load on the journal alone: in this process, without a server or a socket.
 *
 * Walk:       from bench/scenario.c; to fileio/journal.c, and to fileio/recovery.c for the count.
 * Threads:    one.
 * Ownership:  owns its ring, its journal, and a directory that it makes and removes.
 * Units:      sizes in bytes; a record's number counts from 1.
 *
 * It does what a shard does, with nothing around it: appends a group of records, commits, and waits
 * until the last one is durable; one commit is in flight. Durable records are taken in order by a
 * consumer in place of the store, which releases them late, as the store does: so segments are
 * reused as in service, and a long run leaves 64 MiB at least to recover. A commit's latency counts
 * from the first append of its group.
 *
 * Invariants: (W1) records up to `released` may be gone; recovery must give every later one, whole,
 *                  in order, once.
 *             (W2) SIGHUP, SIGINT and SIGTERM wait from begin to end: the directory is removed
 *                  before one of them ends the process.
 */
#pragma once

#include "bench/options.h"
#include "bench/report.h"
#include "core/histogram.h"
#include "core/mem.h"
#include "core/metrics.h"
#include "fileio/journal.h"

#include <signal.h>

enum { JOURNAL_LOAD_PATH_BYTES = 512 };

/* How far the consumer has come. */
struct journal_load_mark {
    uint64_t number;
    uint64_t position;
};

struct journal_load {
    struct os_ring *ring;
    struct journal *journal; /* NULL once it is closed */
    struct metrics metrics;
    struct mem_plan plan;
    char directory[JOURNAL_LOAD_PATH_BYTES]; /* empty: not made */
    uint32_t size, group;
    enum journal_durability durability;
    uint64_t deadline_ns;             /* of the group under way */
    uint64_t appended;                /* number of the last record */
    struct journal_load_mark handed;  /* to the consumer */
    struct journal_load_mark lagging; /* what it releases next, and what after that */
    struct journal_load_mark leading;
    uint64_t released; /* number */
    uint64_t reordered;
    struct histogram latency; /* of commits, ns */
    sigset_t signals;         /* those blocked before */
};

/* What recovery gave back, one record after the other. */
struct journal_load_found {
    uint32_t size;   /* of every record */
    uint64_t last;   /* the highest number that may come */
    uint64_t newest; /* that has come */
    uint8_t *seen;   /* a bit a number */
    uint64_t duplicated, reordered;
    uint64_t foreign; /* of another size, number or content */
};

/* Makes a directory of its own in options->data and opens a journal there. 0, or -errno with the
 * problem written; then nothing is left to end. -EINVAL: the directory is in memory, where nothing
 * can be synced to a disk. */
NODISCARD int journal_load_begin(struct journal_load *load, const struct options *options,
                                 char *problem);

/* Commits groups for so many seconds, one at least. 0, or -errno with the problem written: the
 * journal failed, a commit took too long, or a signal wants the process to end (-EINTR). */
NODISCARD int journal_load_stretch(struct journal_load *load, double seconds, char *problem);

/* Waits until nothing is in flight and closes the journal: its directory is as a server leaves it.
 */
void journal_load_stop(struct journal_load *load);

/* Recovers what journal_load_stop left, and counts what W1 says: lost, duplicated, reordered;
 * damage is an error. 0, or -ENOMEM. */
NODISCARD int journal_load_count(const struct journal_load *load, struct report *report,
                                 char *problem);

/* Takes a record that was recovered; always 0. context: struct journal_load_found. */
int journal_load_take(void *context, const void *record, uint32_t size);

/* Stops, removes the directory, and lets signals through. */
void journal_load_end(struct journal_load *load);

/* All of it: warm-up, measured stretch, count. 0 or -errno, as above. */
NODISCARD int journal_load_run(const struct options *options, struct report *report, char *problem);
