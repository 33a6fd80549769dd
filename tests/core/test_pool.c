/*
 * test_pool.c - a pool gives every item once, in the order that keeps it warm, and notices misuse.
 *
 * Method: a small pool emptied and filled; a long random walk against a plain list of what is
 *         taken; what must abort is done in a child.
 */
#include "core/check.h"
#include "core/pool.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CAPACITY = 100, ITEM_SIZE = 40, STEPS = 200000 };

static struct mem_plan plan;
static struct pool pool;
static void *victim;

static void begin(uint32_t capacity)
{
    mem_init(&plan, "test", MEM_MAP);
    pool_init(&pool, &plan, "items", ITEM_SIZE, capacity);
    CHECK(mem_seal(&plan) == 0);
}

static void empty_pool_gives_null_and_recovers(void)
{
    void *items[CAPACITY];

    begin(CAPACITY);
    for (uint32_t i = 0; i < CAPACITY; i++) {
        items[i] = pool_take(&pool);
        CHECK(items[i] != NULL);
        CHECK(pool_index(&pool, items[i]) == i); /* from the front, so that the rest stays cold */
        CHECK(pool_at(&pool, i) == items[i]);
        CHECK(((uintptr_t)items[i] & 15) == 0);
        memset(items[i], 0xff, ITEM_SIZE);
    }
    CHECK(pool_take(&pool) == NULL);
    CHECK(pool.used == CAPACITY && pool.high_water == CAPACITY);
    pool_give(&pool, items[7]);
    pool_give(&pool, items[3]);
    CHECK(pool.used == CAPACITY - 2);
    CHECK(pool_take(&pool) == items[3]); /* last in, first out */
    CHECK(pool_take(&pool) == items[7]);
    CHECK(pool_take(&pool) == NULL);
    CHECK(pool.high_water == CAPACITY);
    mem_end(&plan);
}

static void what_lies_behind_the_link_survives(void)
{
    begin(CAPACITY);
    uint32_t *item = pool_take(&pool);
    CHECK(item[0] == 0 && item[1] == 0); /* never taken before */
    item[1] = 77;                        /* a generation */
    pool_give(&pool, item);
    CHECK(pool_take(&pool) == item);
    CHECK(item[1] == 77);
    mem_end(&plan);
}

static void taken_tells_taken_from_free_and_from_nonsense(void)
{
    begin(65); /* more than one word of bits */
    void *item = NULL;
    for (uint32_t i = 0; i < 65; i++) {
        CHECK(!pool_taken(&pool, i));
        item = pool_take(&pool);
        CHECK(pool_taken(&pool, i));
    }
    pool_give(&pool, item);
    CHECK(!pool_taken(&pool, 64));
    CHECK(pool_taken(&pool, 63));
    CHECK(!pool_taken(&pool, 65));
    CHECK(!pool_taken(&pool, POOL_NONE));
    mem_end(&plan);
}

static void a_long_walk_never_gives_an_item_twice(void)
{
    static void *taken[CAPACITY];
    uint32_t count = 0;
    uint64_t random = 88172645463325252U;

    begin(CAPACITY);
    for (uint32_t step = 0; step < STEPS; step++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if (random % 2 == 0) {
            uint64_t *item = pool_take(&pool);
            CHECK((item == NULL) == (count == CAPACITY));
            if (item != NULL) {
                item[1] = (uint64_t)(uintptr_t)item; /* overwritten if somebody else has it too */
                taken[count++] = item;
            }
        } else if (count > 0) {
            const uint32_t at = (uint32_t)(random >> 32) % count;
            uint64_t *item = taken[at];
            CHECK(item[1] == (uint64_t)(uintptr_t)item);
            item[1] = 0;
            pool_give(&pool, item);
            taken[at] = taken[--count];
        }
        CHECK(pool.used == count);
    }
    mem_end(&plan);
}

static bool dies(void (*act)(void))
{
    int status = 0;
    const pid_t child = fork();

    if (child == 0) {
        (void)close(STDERR_FILENO);
        act();
        _exit(0);
    }
    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void give_victim(void)
{
    pool_give(&pool, victim);
}

/* A write after the give: AddressSanitizer stops the write (P3), else the next take notices. */
static void write_victim_and_take(void)
{
    const uint32_t link = 1; /* a taken item */

    memcpy(victim, &link, sizeof(link));
    (void)pool_take(&pool);
    (void)pool_take(&pool);
}

#if defined(__SANITIZE_ADDRESS__)
static void read_victim(void)
{
    (void)*(volatile char *)victim;
}
#endif

static void a_wrong_give_is_stopped(void)
{
    begin(CAPACITY);
    char *item = pool_take(&pool);
    CHECK(pool_take(&pool) != NULL); /* index 1, for write_victim_and_take */
    victim = item + 1;               /* inside an item */
    CHECK(dies(give_victim));
    victim = item - 16; /* before the first */
    CHECK(dies(give_victim));
    victim = &plan; /* somewhere else */
    CHECK(dies(give_victim));
    pool_give(&pool, item);
    victim = item; /* twice (P1) */
    CHECK(dies(give_victim));
    CHECK(dies(write_victim_and_take));
#if defined(__SANITIZE_ADDRESS__)
    CHECK(dies(read_victim)); /* P3 */
#endif
    mem_end(&plan);
}

int main(void)
{
    empty_pool_gives_null_and_recovers();
    what_lies_behind_the_link_survives();
    taken_tells_taken_from_free_and_from_nonsense();
    a_long_walk_never_gives_an_item_twice();
    a_wrong_give_is_stopped();
    puts("5 passed, 0 failed");
    return 0;
}
