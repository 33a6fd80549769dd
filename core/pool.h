/*
 * pool.h - a fixed number of items of one size, planned at start-up.
 *
 * Walk:       from every module that holds connections, rooms, requests or buffers.
 * Threads:    one; a pool belongs to the thread of its plan.
 * Ownership:  a taken item is the taker's until pool_give. The memory is the plan's.
 * Units:      capacity, used and indices in items; sizes in bytes.
 *
 * Free items are taken last-in first-out, so that the working set stays small and warm; items never
 * taken are handed out from the front, so that untouched ones cost no memory.
 *
 * Invariants: (P1) used + free items = capacity; an item's bit in taken is set exactly while it is
 *                  taken, which is how a second give of the same item is noticed.
 *             (P2) give and take change only the first 4 bytes of an item: a generation kept behind
 *                  them survives. A never-taken item reads as zeros.
 *             (P3) under AddressSanitizer an item that is not taken cannot be read or written.
 */
#pragma once

#include "core/mem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No item: a link to nothing. */
#define POOL_NONE UINT32_MAX

struct pool {
    unsigned char *items;
    uint64_t *taken;    /* one bit an item */
    uint32_t item_size; /* as given, rounded up to 16 */
    uint32_t capacity;
    uint32_t fresh;      /* items from here on have never been taken */
    uint32_t free_first; /* index of the item given last; POOL_NONE: none */
    uint32_t used;
    uint32_t high_water; /* most that were ever taken at once */
};

/* Reserves the pool in the plan; usable when mem_seal returned 0. item_size: at least 4, rounded up
 * to 16. capacity: 1 to 2^32 - 2. */
void pool_init(struct pool *pool, struct mem_plan *plan, const char *name, size_t item_size,
               uint32_t capacity);

/* An item with whatever its last owner left in it (P2), or NULL: all are taken. */
void *pool_take(struct pool *pool);

/* Gives a taken item back; twice, or a pointer that is no item, is a CHECK. */
void pool_give(struct pool *pool, void *item);

/* The index of an item of this pool, taken or not. */
uint32_t pool_index(const struct pool *pool, const void *item);

/* The item with that index; index < capacity. It may be free: see pool_taken. */
void *pool_at(const struct pool *pool, uint32_t index);

/* True while the item with that index is taken; false too for an index out of range, so that an
 * index from an old completion can be tested. */
bool pool_taken(const struct pool *pool, uint32_t index);

/* How many buckets a hash table over that many items wants: a power of two, at least 64. */
static inline uint32_t pool_buckets(uint64_t items)
{
    uint32_t buckets = 64;
    while (buckets < items && buckets < (1U << 30)) {
        buckets *= 2;
    }
    return buckets;
}
