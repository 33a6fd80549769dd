/* metrics.c - see metrics.h for the invariant N1; the text is Prometheus' exposition format 0.0.4.
 */
#include "core/metrics.h"

#include "core/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum metrics_kind { METRICS_COUNTER, METRICS_SECONDS, METRICS_GAUGE, METRICS_HISTOGRAM };

/* Upper bounds of the buckets, as numbers and as they are written: 1, 2 and 5 of each decade of
 * what a data sync or a transaction takes. */
static const struct {
    uint64_t ns;
    const char *seconds;
} metrics_bounds[METRICS_BOUNDS] = {
    {50000, "5e-05"},   {100000, "0.0001"}, {200000, "0.0002"}, {500000, "0.0005"},
    {1000000, "0.001"}, {2000000, "0.002"}, {5000000, "0.005"}, {10000000, "0.01"},
    {20000000, "0.02"}, {50000000, "0.05"}, {100000000, "0.1"}, {200000000, "0.2"},
    {500000000, "0.5"}, {1000000000, "1"},  {2000000000, "2"},  {5000000000, "5"},
};

struct metrics_row {
    enum metrics_kind kind;
    const char *name; /* without "damso_"; of a family: rows with a label share it */
    const char *label;
    const char *help;
    size_t offset; /* of the field in struct metrics */
};

static const struct metrics_row metrics_rows[] = {
#define COUNTER(name, help) {METRICS_COUNTER, #name, "", help, offsetof(struct metrics, name)},
#define LABELLED(name, label, value, help)                                                         \
    {METRICS_COUNTER, #name, "{" #label "=\"" #value "\"}", help,                                  \
     offsetof(struct metrics, name##_##value)},
#define SECONDS(name, help)   {METRICS_SECONDS, #name, "", help, offsetof(struct metrics, name)},
#define GAUGE(name, help)     {METRICS_GAUGE, #name, "", help, offsetof(struct metrics, name)},
#define HISTOGRAM(name, help) {METRICS_HISTOGRAM, #name, "", help, offsetof(struct metrics, name)},
#include "core/metrics.def"
#undef COUNTER
#undef LABELLED
#undef SECONDS
#undef GAUGE
#undef HISTOGRAM
};

void metrics_observe(struct metrics_histogram *histogram, uint64_t ns)
{
    uint32_t bucket = 0;

    while (bucket < METRICS_BOUNDS && ns > metrics_bounds[bucket].ns) {
        bucket++;
    }
    metrics_add(&histogram->counts[bucket], 1);
    metrics_add(&histogram->sum_ns, ns);
}

/* Text in the making; once something did not fit, full stays set. */
struct metrics_text {
    char *dst;
    size_t capacity;
    size_t size;
    bool full;
};

__attribute__((format(printf, 2, 3))) static void metrics_put(struct metrics_text *text,
                                                              const char *format, ...)
{
    if (text->full) {
        return;
    }

    const size_t room = text->capacity - text->size;
    va_list arguments;
    va_start(arguments, format);
    const int size = vsnprintf(text->dst + text->size, room, format, arguments);
    va_end(arguments);
    CHECK(size >= 0);
    if ((size_t)size >= room) {
        text->full = true;
        return;
    }
    text->size += (size_t)size;
}

static const void *metrics_field(const struct metrics *metrics, size_t offset)
{
    return (const char *)metrics + offset;
}

static uint64_t metrics_sum(struct metrics *const *all, uint32_t count, size_t offset)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < count; i++) {
        sum += metrics_get(metrics_field(all[i], offset));
    }
    return sum;
}

/* Nanoseconds as seconds, exact. */
static void metrics_put_seconds(struct metrics_text *text, uint64_t ns)
{
    const uint64_t second_ns = 1000000000;

    metrics_put(text, " %" PRIu64 ".%09" PRIu64 "\n", ns / second_ns, ns % second_ns);
}

static void metrics_put_histogram(struct metrics_text *text, const struct metrics_row *row,
                                  struct metrics *const *all, uint32_t count)
{
    const size_t counts = row->offset + offsetof(struct metrics_histogram, counts);
    uint64_t below = 0;

    /* _count is the sum of what we read here, so that it always equals the last bucket, as the
     * format demands, though the writers go on counting. */
    for (uint32_t i = 0; i <= METRICS_BOUNDS; i++) {
        below += metrics_sum(all, count, counts + i * sizeof(uint64_t));
        metrics_put(text, "damso_%s_bucket{le=\"%s\"} %" PRIu64 "\n", row->name,
                    i < METRICS_BOUNDS ? metrics_bounds[i].seconds : "+Inf", below);
    }
    metrics_put(text, "damso_%s_sum", row->name);
    metrics_put_seconds(
        text, metrics_sum(all, count, row->offset + offsetof(struct metrics_histogram, sum_ns)));
    metrics_put(text, "damso_%s_count %" PRIu64 "\n", row->name, below);
}

static void metrics_put_row(struct metrics_text *text, const struct metrics_row *row,
                            struct metrics *const *all, uint32_t count)
{
    const uint64_t sum = row->kind == METRICS_HISTOGRAM ? 0 : metrics_sum(all, count, row->offset);

    switch (row->kind) {
    case METRICS_COUNTER:
        metrics_put(text, "damso_%s%s %" PRIu64 "\n", row->name, row->label, sum);
        break;
    case METRICS_GAUGE:
        /* Signed: a gauge that one thread raises and another lowers is right only in the sum. */
        metrics_put(text, "damso_%s%s %" PRId64 "\n", row->name, row->label, (int64_t)sum);
        break;
    case METRICS_SECONDS:
        metrics_put(text, "damso_%s%s", row->name, row->label);
        metrics_put_seconds(text, sum);
        break;
    case METRICS_HISTOGRAM:
        metrics_put_histogram(text, row, all, count);
        break;
    }
}

int64_t metrics_render(struct metrics *const *all, uint32_t count, char *dst, size_t capacity)
{
    static const char *const types[] = {"counter", "counter", "gauge", "histogram"};
    struct metrics_text text = {.capacity = capacity};
    const char *family = "";

    text.dst = dst;
    for (size_t i = 0; i < sizeof(metrics_rows) / sizeof(metrics_rows[0]); i++) {
        const struct metrics_row *row = &metrics_rows[i];
        if (strcmp(family, row->name) != 0) {
            family = row->name;
            metrics_put(&text, "# HELP damso_%s %s\n# TYPE damso_%s %s\n", row->name, row->help,
                        row->name, types[row->kind]);
        }
        metrics_put_row(&text, row, all, count);
    }
    return text.full ? -ENOSPC : (int64_t)text.size;
}
