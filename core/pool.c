/* pool.c - see pool.h for the invariants P1 to P3 named below. */
#include "core/pool.h"

#include "core/check.h"

#include <string.h>

#ifndef __has_feature
#define __has_feature(feature) 0 /* gcc 12 says __SANITIZE_ADDRESS__ instead */
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define POOL_HIDE(item, size) __asan_poison_memory_region((item), (size))
#define POOL_SHOW(item, size) __asan_unpoison_memory_region((item), (size))
#else
#define POOL_HIDE(item, size) ((void)(item), (void)(size))
#define POOL_SHOW(item, size) ((void)(item), (void)(size))
#endif

enum { POOL_ALIGN = 16, POOL_BITS = 64 };

void pool_init(struct pool *pool, struct mem_plan *plan, const char *name, size_t item_size,
               uint32_t capacity)
{
    CHECK(item_size >= sizeof(uint32_t) && item_size <= UINT32_MAX - POOL_ALIGN);
    CHECK(capacity > 0 && capacity < POOL_NONE);

    const size_t rounded = (item_size + POOL_ALIGN - 1) & ~((size_t)POOL_ALIGN - 1);
    const size_t words = ((size_t)capacity + POOL_BITS - 1) / POOL_BITS;
    unsigned char *items =
        mem_reserve_extra(plan, name, rounded, capacity, words * sizeof(uint64_t));

    *pool = (struct pool){
        .items = items,
        .item_size = (uint32_t)rounded,
        .capacity = capacity,
        .free_first = POOL_NONE,
    };
    if (items != NULL) {
        /* Aligned: rounded is a multiple of 16, and the block begins on a page. */
        pool->taken = (uint64_t *)(void *)(items + rounded * capacity);
        POOL_HIDE(items, rounded * capacity); /* P3 */
    }
}

static bool pool_bit(const struct pool *pool, uint32_t index)
{
    return (pool->taken[index / POOL_BITS] >> (index % POOL_BITS) & 1) != 0;
}

static void pool_bit_flip(struct pool *pool, uint32_t index)
{
    pool->taken[index / POOL_BITS] ^= UINT64_C(1) << (index % POOL_BITS);
}

void *pool_take(struct pool *pool)
{
    uint32_t index = pool->free_first;
    unsigned char *item = NULL;

    if (index != POOL_NONE) {
        item = pool->items + (size_t)index * pool->item_size;
        POOL_SHOW(item, pool->item_size);
        memcpy(&pool->free_first, item, sizeof(pool->free_first)); /* P2 */
    } else if (pool->fresh < pool->capacity) {
        index = pool->fresh++;
        item = pool->items + (size_t)index * pool->item_size;
        POOL_SHOW(item, pool->item_size);
    } else {
        return NULL;
    }

    CHECK(index < pool->fresh);    /* else somebody wrote into a free item */
    CHECK(!pool_bit(pool, index)); /* P1 */
    pool_bit_flip(pool, index);
    pool->used++;
    if (pool->used > pool->high_water) {
        pool->high_water = pool->used;
    }
    return item;
}

uint32_t pool_index(const struct pool *pool, const void *item)
{
    const size_t offset = (size_t)((uintptr_t)item - (uintptr_t)pool->items);
    const size_t index = offset / pool->item_size;

    CHECK(index < pool->capacity); /* a pointer before the first item is a huge offset */
    CHECK(index * pool->item_size == offset);
    return (uint32_t)index;
}

void pool_give(struct pool *pool, void *item)
{
    const uint32_t index = pool_index(pool, item);

    CHECK(pool_bit(pool, index)); /* P1: given twice */
    pool_bit_flip(pool, index);
    memcpy(item, &pool->free_first, sizeof(pool->free_first)); /* P2 */
    pool->free_first = index;
    pool->used--;
    POOL_HIDE(item, pool->item_size); /* P3 */
}

void *pool_at(const struct pool *pool, uint32_t index)
{
    CHECK(index < pool->capacity);
    return pool->items + (size_t)index * pool->item_size;
}

bool pool_taken(const struct pool *pool, uint32_t index)
{
    return index < pool->capacity && pool_bit(pool, index);
}
