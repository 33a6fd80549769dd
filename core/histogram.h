/*
 * histogram.h - counts of values in log-linear buckets: quantiles of any number of samples in 36
 * KiB.
 *
 * Threads:    one; merge copies of threads that are done.
 * Units:      whatever is recorded, by convention nanoseconds; range 0 to 2^40 - 1 (18 minutes).
 *
 * Values below 128 are exact. Above, each power of two is cut into 128 buckets, so a bucket is at
 * most 1/128 of its values wide, and its middle is wrong by at most 0.4 %.
 *
 * Invariants: (G1) total is the sum of counts; minimum and maximum are exact even beyond the range.
 */
#pragma once

#include <stdint.h>

enum {
    HISTOGRAM_SUB_BITS = 7,
    HISTOGRAM_RANGE_BITS = 40,
    HISTOGRAM_BUCKETS = (HISTOGRAM_RANGE_BITS - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS,
};

struct histogram {
    uint64_t total; /* samples */
    uint64_t minimum;
    uint64_t maximum;
    double sum; /* of all samples */
    uint64_t counts[HISTOGRAM_BUCKETS];
};

void histogram_init(struct histogram *histogram);

/* Adds count samples of one value. A value beyond the range counts in the last bucket. */
void histogram_record(struct histogram *histogram, uint64_t value, uint64_t count);

/* Adds all samples of from to into. */
void histogram_merge(struct histogram *into, const struct histogram *from);

/* The value that a share of the samples does not exceed: 0.5 is the median, 0.99 is p99, 1 the
 * maximum. Within 0.4 % of a sample; 0 if there is none. */
uint64_t histogram_quantile(const struct histogram *histogram, double share);

/* 0 if there is no sample. */
double histogram_mean(const struct histogram *histogram);
