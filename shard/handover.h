/*
 * handover.h - durable records on their way to persistence, and the watermark back.
 *
 * Walk:       from shard/loop.c, step 6; through the lane's ring to persist/; back as watermarks
 *             (handover_stored), which free journal segments. With Redis and MongoDB, what is
 *             handed over may be lost there before it is stored: then the journal is rewound.
 * Threads:    its shard's.
 * Units:      bytes of records; positions as in fileio/journal.h.
 *
 * Invariants: (H1) at most persist_unstored_max bytes are handed over beyond what persistence said
 *                  it stored or took (PERSIST_TAKEN), so that a read never waits behind records
 *                  that a failing store cannot take; the rest stays in the journal.
 *             (H2) persistence is woken at once for questions, and for records when the ring or
 *                  the journal fills; else it looks by itself.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct shard;

enum { HANDOVER_MARKS = 256 };

/* Where in the stream of records a position lay. */
struct handover_mark {
    uint64_t position;
    uint64_t bytes;
};

struct handover {
    uint64_t position; /* of the last record handed over */
    uint64_t bytes;    /* of all handed over since the start */
    uint64_t taken;    /* of those, what counts no more at least: up to the last mark passed */
    uint64_t waked_bytes;
    struct handover_mark marks[HANDOVER_MARKS]; /* a ring: first to end, running freely */
    uint32_t first, end;
    bool asked;   /* a question stands in the ring: persistence is to be woken */
    bool rewound; /* PERSIST_REWOUND is to go before the next record */
};

/* Hands over what is durable, as far as there is room. Once a turn. */
void handover_run(struct shard *shard);

/* The store has everything up to position. */
void handover_stored(struct shard *shard, uint64_t position);

/* Persistence has everything up to position, though not stored yet. */
void handover_taken(struct shard *shard, uint64_t position);

/* What was handed over above position is lost there: it is handed over again. */
void handover_rewind(struct shard *shard, uint64_t position);

/* Whether persistence has been given the record at position: what it reads from the store then has
 * it. */
bool handover_has(const struct shard *shard, uint64_t position);

/* Whether persistence has been given every record that was published, so that what it reads from
 * the store is all there is. */
bool handover_is_complete(const struct shard *shard);
