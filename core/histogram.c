/* histogram.c - see histogram.h for the invariant G1 named below. */
#include "core/histogram.h"

#include "core/check.h"

#include <string.h>

#define HISTOGRAM_SUB (UINT64_C(1) << HISTOGRAM_SUB_BITS)

void histogram_init(struct histogram *histogram)
{
    memset(histogram, 0, sizeof(*histogram));
    histogram->minimum = UINT64_MAX;
}

/* Below 128 the value itself; above, 128 buckets for each power of two. */
static uint32_t histogram_bucket(uint64_t value)
{
    if (value < HISTOGRAM_SUB) {
        return (uint32_t)value;
    }
    if (value >> HISTOGRAM_RANGE_BITS != 0) {
        return HISTOGRAM_BUCKETS - 1;
    }
    const uint32_t shift = 63 - (uint32_t)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    return (uint32_t)((shift << HISTOGRAM_SUB_BITS) + (value >> shift));
}

/* The middle of a bucket. */
static uint64_t histogram_value(uint32_t bucket)
{
    if (bucket < HISTOGRAM_SUB) {
        return bucket;
    }
    const uint32_t shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
    const uint64_t low = (HISTOGRAM_SUB + (bucket & (HISTOGRAM_SUB - 1))) << shift;
    return low + ((UINT64_C(1) << shift) - 1) / 2;
}

void histogram_record(struct histogram *histogram, uint64_t value, uint64_t count)
{
    if (count == 0) {
        return; /* no sample: minimum and maximum stay */
    }
    histogram->counts[histogram_bucket(value)] += count;
    histogram->total += count;
    histogram->sum += (double)value * (double)count;
    if (value < histogram->minimum) {
        histogram->minimum = value;
    }
    if (value > histogram->maximum) {
        histogram->maximum = value;
    }
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        into->counts[i] += from->counts[i];
    }
    into->total += from->total;
    into->sum += from->sum;
    if (from->minimum < into->minimum) {
        into->minimum = from->minimum;
    }
    if (from->maximum > into->maximum) {
        into->maximum = from->maximum;
    }
}

uint64_t histogram_quantile(const struct histogram *histogram, double share)
{
    if (histogram->total == 0) {
        return 0;
    }
    if (share >= 1) {
        return histogram->maximum;
    }

    /* The rank is the number of samples at or below the answer: at least one. Rounded up by hand,
     * because ceil() would be the only call that needs the mathematics library. */
    const double wanted = share <= 0 ? 0 : share * (double)histogram->total;
    uint64_t rank = (uint64_t)wanted;
    rank += (double)rank < wanted || rank == 0 ? 1 : 0;

    uint64_t seen = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen >= rank) {
            /* The first and last bucket hold less than their width: the true ends are nearer. */
            const uint64_t value = histogram_value(i);
            const uint64_t low = value < histogram->minimum ? histogram->minimum : value;
            return low > histogram->maximum || i == HISTOGRAM_BUCKETS - 1 ? histogram->maximum
                                                                          : low;
        }
    }
    CHECK(seen == histogram->total); /* G1 */
    return histogram->maximum;
}

double histogram_mean(const struct histogram *histogram)
{
    return histogram->total == 0 ? 0 : histogram->sum / (double)histogram->total;
}
