/*
 * test_mem.c - a plan counts what it maps, costs nothing until touched, and is closed by its seal.
 *
 * Method: the same reservations on a plan that maps and one that only counts; resident pages by
 *         mincore; what must kill the process is done in a child.
 */
#include "core/check.h"
#include "core/mem.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ITEM_SIZE = 100, ITEM_COUNT = 1000, PAGE = 4096, SIXTH_PAGE = 5 * PAGE };

static struct mem_plan plan;

/* Whether act, in a child, ends by a signal (an abort, or a fault under whatever sanitizer). */
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

static void counting_and_mapping_give_the_same_lines(void)
{
    struct mem_plan counted;

    mem_init(&plan, "mapped", MEM_MAP);
    mem_init(&counted, "counted", MEM_COUNT);
    CHECK(mem_reserve(&plan, "items", ITEM_SIZE, ITEM_COUNT) != NULL);
    CHECK(mem_alloc(&plan, "odd", 12345) != NULL);
    CHECK(mem_reserve(&counted, "items", ITEM_SIZE, ITEM_COUNT) == NULL);
    CHECK(mem_alloc(&counted, "odd", 12345) == NULL);
    CHECK(plan.total == 102400 + 12345); /* 100,000 rounded up to pages */
    CHECK(counted.total == plan.total);
    CHECK(counted.line_count == 2 && plan.line_count == 2);
    CHECK(mem_seal(&plan) == 0);
    CHECK(mem_seal(&counted) == 0);
    mem_end(&counted);
    mem_end(&plan);
}

static void blocks_are_zero_and_untouched_pages_cost_nothing(void)
{
    unsigned char resident[64] = {0};
    uint32_t pages = 0;

    mem_init(&plan, "test", MEM_MAP);
    unsigned char *block = mem_reserve(&plan, "lazy", PAGE, 64);
    unsigned char *odd = mem_alloc(&plan, "odd", 3000);
    CHECK(mem_seal(&plan) == 0);
    for (uint32_t i = 0; i < 3000; i++) {
        CHECK(odd[i] == 0);
    }
    CHECK(((uintptr_t)odd & 15) == 0);
    CHECK(block[SIXTH_PAGE] == 0);
    block[SIXTH_PAGE] = 1;
    CHECK(mincore(block, sizeof(resident) * PAGE, resident) == 0);
    for (uint32_t i = 0; i < sizeof(resident); i++) {
        pages += resident[i] & 1;
    }
    CHECK(pages == 1);
    mem_end(&plan);
}

static void more_than_the_address_space_is_told_by_the_seal(void)
{
    mem_init(&plan, "test", MEM_MAP);
    CHECK(mem_reserve(&plan, "too much", SIZE_MAX / 2, 3) == NULL);
    CHECK(mem_reserve(&plan, "after it", PAGE, 1) == NULL); /* no use any more */
    CHECK(plan.total == SIZE_MAX);
    CHECK(mem_seal(&plan) == -ENOMEM);
    mem_end(&plan);

    mem_init(&plan, "test", MEM_MAP);
    CHECK(mem_reserve(&plan, "the kernel refuses", (size_t)1 << 50, 1) == NULL);
    CHECK(mem_seal(&plan) == -ENOMEM);
    mem_end(&plan);
}

static void reserve_after_seal(void)
{
    (void)mem_reserve(&plan, "late", PAGE, 1);
}

static void run_past_the_end(void)
{
    ((volatile char *)plan.lines[0].block)[PAGE] = 1;
}

static void a_late_reservation_and_a_run_past_the_end_are_stopped(void)
{
    mem_init(&plan, "test", MEM_MAP);
    CHECK(mem_reserve(&plan, "page", PAGE, 1) != NULL);
    CHECK(mem_seal(&plan) == 0);
    CHECK(dies(reserve_after_seal)); /* M1 */
    CHECK(dies(run_past_the_end));
    mem_end(&plan);
}

static void table_has_every_line_and_the_sum(void)
{
    char text[2048] = {0};
    FILE *file = fmemopen(text, sizeof(text) - 1, "w");

    CHECK(file != NULL);
    mem_init(&plan, "shard 0", MEM_COUNT);
    (void)mem_reserve(&plan, "connections", 512, 20000);
    (void)mem_reserve(&plan, "chunks", 16384, 16384);
    mem_print(&plan, file);
    CHECK(fclose(file) == 0);
    CHECK(strstr(text, "shard 0\n") == text);
    CHECK(strstr(text, "connections") != NULL);
    CHECK(strstr(text, " 20000 ") != NULL);
    CHECK(strstr(text, " 10240000 ") != NULL);
    CHECK(strstr(text, "256.0 MiB") != NULL);
    CHECK(strstr(text, " 278675456 ") != NULL); /* the sum */
    mem_end(&plan);
}

int main(void)
{
    counting_and_mapping_give_the_same_lines();
    blocks_are_zero_and_untouched_pages_cost_nothing();
    more_than_the_address_space_is_told_by_the_seal();
    a_late_reservation_and_a_run_past_the_end_are_stopped();
    table_has_every_line_and_the_sum();
    puts("5 passed, 0 failed");
    return 0;
}
