/*
 * metrics.h - counters of one thread, read by any, summed when somebody asks.
 *
 * Walk:       from everywhere (metrics_add); to shard/rest.c, GET /metrics (metrics_render).
 * Threads:    each struct metrics has one writer, its thread; any thread may render.
 * Ownership:  the thread's plan owns it. Begins as zeros. Names and help are in core/metrics.def.
 * Units:      nanoseconds in the fields of SECONDS and HISTOGRAM rows; seconds in the text.
 *
 * Invariants: (N1) only the owner writes, so a relaxed load and store do and no locked instruction
 *                  is needed. A reader sees each field whole, and fields of different moments.
 */
#pragma once

#include "core/check.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum {
    METRICS_BOUNDS = 16,          /* buckets with a bound: 50 us to 5 s; metrics.c has them */
    METRICS_TEXT_MAX = 64 * 1024, /* bytes: the text of all rows fits, whatever the values */
};

struct metrics_histogram {
    _Atomic uint64_t counts[METRICS_BOUNDS + 1]; /* the last one: above all bounds */
    _Atomic uint64_t sum_ns;
};

/* Two 64-byte lines apart from its neighbours, as in core/spsc.h. */
struct __attribute__((aligned(128))) metrics {
#define COUNTER(name, help)                _Atomic uint64_t name;
#define LABELLED(name, label, value, help) _Atomic uint64_t name##_##value;
#define SECONDS(name, help)                _Atomic uint64_t name;
#define GAUGE(name, help)                  _Atomic uint64_t name;
#define HISTOGRAM(name, help)              struct metrics_histogram name;
#include "core/metrics.def"
#undef COUNTER
#undef LABELLED
#undef SECONDS
#undef GAUGE
#undef HISTOGRAM
};

/* Owner only, as all that write: metrics_add(&metrics->acks_total, 1). */
static inline void metrics_add(_Atomic uint64_t *field, uint64_t amount)
{
    const uint64_t now = atomic_load_explicit(field, memory_order_relaxed);
    atomic_store_explicit(field, now + amount, memory_order_relaxed);
}

/* A gauge falls. */
static inline void metrics_subtract(_Atomic uint64_t *field, uint64_t amount)
{
    metrics_add(field, 0 - amount);
}

/* A gauge, or a counter that is counted elsewhere. */
static inline void metrics_set(_Atomic uint64_t *field, uint64_t value)
{
    atomic_store_explicit(field, value, memory_order_relaxed);
}

/* Any thread. */
static inline uint64_t metrics_get(const _Atomic uint64_t *field)
{
    return atomic_load_explicit(field, memory_order_relaxed);
}

/* Counts one duration. */
void metrics_observe(struct metrics_histogram *histogram, uint64_t ns);

/* Writes the sums over count threads as Prometheus text (format 0.0.4), without a terminating zero.
 * Returns its size, or -ENOSPC. */
NODISCARD int64_t metrics_render(struct metrics *const *all, uint32_t count, char *dst,
                                 size_t capacity);
