/* mem.c - see mem.h for the invariants M1 to M3 named below. */
#include "core/mem.h"

#include "core/check.h"

#include <errno.h>
#include <inttypes.h>
#include <mimalloc.h>
#include <string.h>
#include <sys/mman.h>

/* x86-64; a larger page would only make the guard too small to be one, and mmap says so. */
enum { MEM_PAGE = 4096 };

void mem_init(struct mem_plan *plan, const char *owner, enum mem_mode mode)
{
    memset(plan, 0, sizeof(*plan));
    plan->owner = owner;
    plan->mode = mode;
}

/* item_size * count + extra, rounded up to pages, or SIZE_MAX: a configuration may ask for more
 * than a size_t can say, and then the plan must say so instead of wrapping round. */
static size_t mem_total(size_t item_size, size_t count, size_t extra)
{
    size_t total = 0;

    if (__builtin_mul_overflow(item_size, count, &total) ||
        __builtin_add_overflow(total, extra, &total) ||
        __builtin_add_overflow(total, (size_t)MEM_PAGE - 1, &total)) {
        return SIZE_MAX;
    }
    return total & ~((size_t)MEM_PAGE - 1);
}

/* A line of the plan; the sum sticks at SIZE_MAX. */
static struct mem_line *mem_line_add(struct mem_plan *plan, const char *name, size_t item_size,
                                     size_t count, size_t total)
{
    CHECK(!plan->sealed);                    /* M1 */
    CHECK(plan->line_count < MEM_LINES_MAX); /* the number of reservations is in our source */
    CHECK(item_size > 0 && count > 0);

    struct mem_line *line = &plan->lines[plan->line_count++];
    *line = (struct mem_line){.name = name, .item_size = item_size, .count = count, .total = total};
    if (__builtin_add_overflow(plan->total, total, &plan->total)) {
        plan->total = SIZE_MAX;
    }
    if (plan->mode == MEM_MAP && plan->total == SIZE_MAX && plan->error == 0) {
        plan->error = -ENOMEM;
    }
    return line;
}

void *mem_reserve_extra(struct mem_plan *plan, const char *name, size_t item_size, size_t count,
                        size_t extra)
{
    struct mem_line *line =
        mem_line_add(plan, name, item_size, count, mem_total(item_size, count, extra));

    if (plan->mode == MEM_COUNT || plan->error != 0) {
        return NULL; /* M3; or an earlier refusal, which mem_seal will tell */
    }

    /* The guard turns a run past the end into a fault instead of a change in the next block. */
    char *block = mmap(NULL, line->total + MEM_PAGE, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) {
        plan->error = -errno;
        return NULL;
    }
    line->block = block;
    line->mapped = true;
    if (mprotect(block, line->total, PROT_READ | PROT_WRITE) != 0) {
        plan->error = -errno;
        return NULL;
    }
    return block;
}

void *mem_reserve(struct mem_plan *plan, const char *name, size_t item_size, size_t count)
{
    return mem_reserve_extra(plan, name, item_size, count, 0);
}

void *mem_alloc(struct mem_plan *plan, const char *name, size_t size)
{
    struct mem_line *line = mem_line_add(plan, name, size, 1, size);

    if (plan->mode == MEM_COUNT || plan->error != 0) {
        return NULL;
    }
    line->block = mi_zalloc_aligned(size, 16);
    if (line->block == NULL) {
        plan->error = -ENOMEM;
    }
    return line->block;
}

int mem_seal(struct mem_plan *plan)
{
    CHECK(!plan->sealed);
    plan->sealed = true;
    return plan->error;
}

/* "12.3 MiB": three digits are enough to decide by, the exact bytes stand beside it. */
static void mem_print_size(size_t size, char *dst, size_t capacity)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)size;
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(dst, capacity, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

void mem_print(const struct mem_plan *plan, FILE *file)
{
    char size[32];

    (void)fprintf(file, "%s\n  %-28s %12s %12s %20s %12s\n", plan->owner, "name", "item bytes",
                  "count", "bytes", "");
    for (uint32_t i = 0; i < plan->line_count; i++) {
        const struct mem_line *line = &plan->lines[i];
        mem_print_size(line->total, size, sizeof(size));
        (void)fprintf(file, "  %-28s %12zu %12zu %20zu %12s\n", line->name, line->item_size,
                      line->count, line->total, size);
    }
    mem_print_size(plan->total, size, sizeof(size));
    (void)fprintf(file, "  %-28s %12s %12s %20zu %12s\n", "sum", "", "", plan->total, size);
}

void mem_end(struct mem_plan *plan)
{
    for (uint32_t i = 0; i < plan->line_count; i++) {
        const struct mem_line *line = &plan->lines[i];
        if (line->mapped) {
            CHECK(munmap(line->block, line->total + MEM_PAGE) == 0);
        } else {
            mi_free(line->block);
        }
    }
    mem_init(plan, plan->owner, plan->mode);
}
