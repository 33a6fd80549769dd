/*
 * spsc.h - bounded ring that carries records of any size from one thread to one other thread.
 *
 *   bytes   | free | header, record | header, record | padding to the end |   the end is the start
 *                  ^ head           ^ take           ^ tail = fill after a publish
 *
 * Walk:       from shard/mesh.c on one shard; to shard/mesh.c on the other. Also from a shard's
 *             journal to the persistence shard.
 * Threads:    one producer and one consumer for the ring's whole life. reserve, commit and publish
 *             are the producer's; peek, next and release are the consumer's; used is anybody's.
 * Ownership:  the caller owns the bytes and keeps them until both threads are done. A reserved
 *             record is the producer's until publish; a peeked one is the consumer's until release.
 *             Nothing here allocates, blocks or makes a system call.
 * Units:      capacity, sizes and all indices are in bytes.
 *
 * Invariants: (I1) fill - head <= capacity, and head, take, tail, fill follow each other in this
 *                  order, in modulo-2^32 arithmetic.
 *             (I2) bytes [head, tail) hold whole records in push order. A padding record fills the
 *                  end when the next one would not be contiguous, and is never published alone.
 *             (I3) only the producer writes tail; only the consumer writes head.
 *             (I4) every record begins at a multiple of 8, and so does every index.
 */
#pragma once

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Two 64-byte lines: the spatial prefetcher of x86 servers fetches lines in pairs. */
#define SPSC_APART 128

/* Bytes that a record takes beside its own, before it is rounded up to a multiple of 8. */
#define SPSC_HEADER_SIZE  8

#define SPSC_CAPACITY_MIN 64

/* Each thread's own fields lie apart from the index that the other thread reads, so that a commit
 * or a next, which happen for every record, do not take that line from the other core. */
struct spsc {
    alignas(SPSC_APART) _Atomic uint32_t tail; /* end of what is published; the producer's */
    alignas(SPSC_APART) _Atomic uint32_t head; /* start of what is in use; the consumer's */

    alignas(SPSC_APART) uint32_t fill; /* producer: end of what is committed, published or not */
    uint32_t head_seen;                /* producer's last look at head: may lag, never lead */
    uint32_t reserved_at;              /* index of the reserved record's header */
    uint32_t reserved_size;            /* bytes of it; 0: nothing is reserved */

    alignas(SPSC_APART) uint32_t take; /* consumer: header of the next record */
    uint32_t tail_seen;                /* consumer's last look at tail: may lag, never lead */
    uint32_t peeked_size;              /* bytes of the peeked record with its header; 0: none */

    alignas(SPSC_APART) unsigned char *bytes; /* set by spsc_init, constant afterwards */
    uint32_t capacity;                        /* bytes; a power of two */
};

/* Prepares an empty ring before either thread uses it. bytes: 64-byte aligned. size: a power of
 * two, SPSC_CAPACITY_MIN to 2^31. */
void spsc_init(struct spsc *ring, void *bytes, uint32_t size);

/* Producer: contiguous, 8-aligned space for one record of size bytes, 1 to a quarter of the
 * capacity, or NULL: the ring is full. Publishes nothing. A second reserve before the commit gives
 * up the first one. An empty ring has room for any record that may be asked for. */
void *spsc_reserve(struct spsc *ring, uint32_t size);

/* Producer: the reserved record is final and takes size bytes, at most what was reserved. */
void spsc_commit(struct spsc *ring, uint32_t size);

/* Producer: shows the consumer every record committed since the last call, by one release store.
 * True if there was one: the caller then asks doorbell_should_ring (core/doorbell.h). */
bool spsc_publish(struct spsc *ring);

/* Consumer: the next record in push order and its size, or NULL: nothing is published. It stays
 * the next one, and readable, until spsc_next. 8-aligned. */
const void *spsc_peek(struct spsc *ring, uint32_t *ret_size);

/* Consumer: is done with the record that spsc_peek returned; the one after it is the next. The
 * bytes stay as they are until spsc_release. */
void spsc_next(struct spsc *ring);

/* Consumer: gives the producer the space of all records passed by spsc_next, by one release
 * store. Call it once a batch. */
void spsc_release(struct spsc *ring);

/* Either thread, or a third one for metrics: bytes in use, headers and padding included. Only
 * approximately right while the others work; never more than the capacity. */
uint32_t spsc_used(const struct spsc *ring);
