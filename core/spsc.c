/* spsc.c - see spsc.h for the invariants I1 to I4 named below. */
#include "core/spsc.h"

#include "core/check.h"

#include <stddef.h>
#include <string.h>

/* Indices run freely and wrap at 2^32. They start just short of the wrap, so that every test run
 * and every deployment crosses it within the first records instead of after gigabytes of load. */
#define SPSC_INDEX_START (UINT32_MAX - 63)

/* What a record's header holds in place of a size: the rest up to the end of the bytes is empty. */
#define SPSC_PADDING UINT32_MAX

/* A record is at most a quarter of the ring: it and the padding before it always fit together. */
static uint32_t record_size_max(const struct spsc *ring)
{
    return ring->capacity / 4;
}

/* Bytes that a record of size bytes takes in the ring (I4). */
static uint32_t with_header(uint32_t size)
{
    return SPSC_HEADER_SIZE + ((size + 7U) & ~7U);
}

static unsigned char *at(const struct spsc *ring, uint32_t index)
{
    return ring->bytes + (index & (ring->capacity - 1));
}

static uint32_t to_end(const struct spsc *ring, uint32_t index)
{
    return ring->capacity - (index & (ring->capacity - 1));
}

void spsc_init(struct spsc *ring, void *bytes, uint32_t size)
{
    CHECK(bytes != NULL);
    CHECK((uintptr_t)bytes % 64 == 0);
    CHECK(size >= SPSC_CAPACITY_MIN);
    CHECK((size & (size - 1)) == 0); /* a power of two, hence at most 2^31 */

    atomic_init(&ring->tail, SPSC_INDEX_START);
    atomic_init(&ring->head, SPSC_INDEX_START);
    ring->fill = SPSC_INDEX_START;
    ring->head_seen = SPSC_INDEX_START;
    ring->reserved_at = SPSC_INDEX_START;
    ring->reserved_size = 0;
    ring->take = SPSC_INDEX_START;
    ring->tail_seen = SPSC_INDEX_START;
    ring->peeked_size = 0;
    ring->bytes = bytes;
    ring->capacity = size;
}

void *spsc_reserve(struct spsc *ring, uint32_t size)
{
    CHECK(size >= 1);
    CHECK(size <= record_size_max(ring));

    const uint32_t end = to_end(ring, ring->fill);
    const uint32_t padding = with_header(size) <= end ? 0 : end;
    const uint32_t needed = padding + with_header(size);

    if (ring->capacity - (ring->fill - ring->head_seen) < needed) {
        /* Look across cores only when the last look is not enough. Acquire pairs with the release
         * in spsc_release: the consumer is done reading the bytes that we are about to overwrite.
         */
        ring->head_seen = atomic_load_explicit(&ring->head, memory_order_acquire);
        CHECK(ring->fill - ring->head_seen <= ring->capacity); /* I1 */
        if (ring->capacity - (ring->fill - ring->head_seen) < needed) {
            return NULL;
        }
    }
    ring->reserved_at = ring->fill + padding;
    ring->reserved_size = size;
    return at(ring, ring->reserved_at) + SPSC_HEADER_SIZE;
}

void spsc_commit(struct spsc *ring, uint32_t size)
{
    CHECK(ring->reserved_size != 0);
    CHECK(size <= ring->reserved_size);

    if (ring->reserved_at != ring->fill) {
        const uint32_t padding = SPSC_PADDING;
        memcpy(at(ring, ring->fill), &padding, sizeof(padding));
    }
    memcpy(at(ring, ring->reserved_at), &size, sizeof(size));
    ring->fill = ring->reserved_at + with_header(size);
    ring->reserved_size = 0;
}

bool spsc_publish(struct spsc *ring)
{
    /* Relaxed: tail is this thread's own (I3). */
    if (ring->fill == atomic_load_explicit(&ring->tail, memory_order_relaxed)) {
        return false;
    }
    /* Release pairs with the acquire in spsc_peek: the consumer sees the records whole (I2). One
     * for all records since the last: what makes a batch cheaper than its records. */
    atomic_store_explicit(&ring->tail, ring->fill, memory_order_release);
    return true;
}

/* Bytes of the record at take; SPSC_PADDING if the rest up to the end is empty. */
static uint32_t size_at_take(const struct spsc *ring)
{
    uint32_t size;

    memcpy(&size, at(ring, ring->take), sizeof(size));
    CHECK(size == SPSC_PADDING || size <= record_size_max(ring));
    return size;
}

const void *spsc_peek(struct spsc *ring, uint32_t *ret_size)
{
    if (ring->take == ring->tail_seen) {
        /* Acquire pairs with the release in spsc_publish: the records are written (I2). */
        ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire);
        if (ring->take == ring->tail_seen) {
            return NULL;
        }
    }
    uint32_t size = size_at_take(ring);
    if (size == SPSC_PADDING) {
        ring->take += to_end(ring, ring->take);
        CHECK(ring->take != ring->tail_seen); /* I2: padding is never published alone */
        size = size_at_take(ring);
    }
    ring->peeked_size = with_header(size);
    CHECK(ring->peeked_size <= ring->tail_seen - ring->take); /* I2: published whole */
    *ret_size = size;
    return at(ring, ring->take) + SPSC_HEADER_SIZE;
}

void spsc_next(struct spsc *ring)
{
    CHECK(ring->peeked_size != 0);

    ring->take += ring->peeked_size;
    ring->peeked_size = 0;
}

void spsc_release(struct spsc *ring)
{
    /* Relaxed: head is this thread's own (I3). The producer's line is left alone if nothing moved.
     */
    if (ring->take != atomic_load_explicit(&ring->head, memory_order_relaxed)) {
        /* Release pairs with the acquire in spsc_reserve: we are done reading what it overwrites.
         */
        atomic_store_explicit(&ring->head, ring->take, memory_order_release);
    }
}

uint32_t spsc_used(const struct spsc *ring)
{
    /* Relaxed, and head first: each index is only a number here, and a tail read later than head
     * can only make the answer too large. */
    const uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    const uint32_t used = atomic_load_explicit(&ring->tail, memory_order_relaxed) - head;

    return used < ring->capacity ? used : ring->capacity;
}
