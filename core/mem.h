/*
 * mem.h - the memory plan: what one thread will use, decided and printed before it starts.
 *
 * Walk:       from main (damsod --plan, start-up); to core/pool.c and every start-up reservation.
 * Threads:    a plan belongs to one thread; main makes it and hands it over before that thread
 *             runs.
 * Ownership:  the plan owns every block; all live until mem_end. Nothing is given back singly.
 * Units:      sizes in bytes.
 *
 * Two steps: first reserve everything, then mem_seal, and only when it returned 0 touch the blocks.
 * So one check at the end replaces thirty, and `damsod --plan` runs the first step alone.
 *
 * Invariants: (M1) after mem_seal nothing is reserved any more: a further reservation is a CHECK.
 *             (M2) blocks read as zeros when first touched; an untouched page costs no memory.
 *             (M3) a MEM_COUNT plan has the same lines as a MEM_MAP plan and maps nothing.
 */
#pragma once

#include "core/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { MEM_LINES_MAX = 512 };

enum mem_mode {
    MEM_MAP,   /* the real thing */
    MEM_COUNT, /* sums only; every reservation returns NULL */
};

struct mem_line {
    const char *name;
    size_t item_size;
    size_t count;
    size_t total; /* item_size * count, what the owner keeps beside the items, rounded to pages */
    void *block;
    bool mapped; /* else from the allocator */
};

struct mem_plan {
    const char *owner; /* "shard 0" */
    enum mem_mode mode;
    bool sealed;
    int error;    /* first failure, -errno; told by mem_seal */
    size_t total; /* sum of the lines; SIZE_MAX when it does not fit a size_t */
    uint32_t line_count;
    struct mem_line lines[MEM_LINES_MAX];
};

/* An empty plan. owner is kept, not copied. */
void mem_init(struct mem_plan *plan, const char *owner, enum mem_mode mode);

/* Reserves count items in one page-aligned block with a guard page behind it; pages come into being
 * when they are touched. NULL in a MEM_COUNT plan, or when the kernel refused (mem_seal tells).
 * Not to be touched before mem_seal returned 0. name is kept, not copied. */
void *mem_reserve(struct mem_plan *plan, const char *name, size_t item_size, size_t count);

/* The same, with extra bytes right behind the last item for the owner's book-keeping. */
void *mem_reserve_extra(struct mem_plan *plan, const char *name, size_t item_size, size_t count,
                        size_t extra);

/* A zeroed piece from the allocator (mimalloc), for what start-up needs in odd sizes; 16-aligned.
 * NULL as for mem_reserve. */
void *mem_alloc(struct mem_plan *plan, const char *name, size_t size);

/* Closes the plan: 0, or the -errno of the first reservation that failed. */
NODISCARD int mem_seal(struct mem_plan *plan);

/* The table for people: name, item size, count, total of each line, and the sum. */
void mem_print(const struct mem_plan *plan, FILE *file);

/* Gives everything back to the system; the plan may be initialised again. */
void mem_end(struct mem_plan *plan);
