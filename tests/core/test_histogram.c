/*
 * test_histogram.c - quantiles are within one percent of the true sample, over the whole range.
 *
 * Method: against a sorted array of the same samples, drawn so that every power of two is hit.
 */
#include "core/check.h"
#include "core/histogram.h"

#include <stdlib.h>

enum { SAMPLES = 20000 };

static struct histogram histogram;
static struct histogram other;
static uint64_t samples[SAMPLES];

static int ascending(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a;
    const uint64_t right = *(const uint64_t *)b;

    return left < right ? -1 : left > right ? 1 : 0;
}

static void draw(void)
{
    uint64_t random = 88172645463325252U;

    for (uint32_t i = 0; i < SAMPLES; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        samples[i] = (random >> 24) >> (random % 40); /* each power of two up to 2^40 */
    }
}

static void quantiles_are_within_half_a_percent(void)
{
    const double shares[] = {0, 0.0001, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};

    draw();
    histogram_init(&histogram);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        histogram_record(&histogram, samples[i], 1);
    }
    qsort(samples, SAMPLES, sizeof(samples[0]), ascending);
    for (uint32_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        const double wanted = shares[i] * SAMPLES;
        const uint32_t rank =
            wanted <= 1 ? 1 : (uint32_t)wanted + ((double)(uint32_t)wanted < wanted);
        const double truth = (double)samples[rank - 1];
        const double told = (double)histogram_quantile(&histogram, shares[i]);
        CHECK(told >= truth * 0.995 && told <= truth * 1.005);
    }
    CHECK(histogram_quantile(&histogram, 1) == samples[SAMPLES - 1]); /* exact */
    CHECK(histogram.minimum == samples[0]);
}

static void every_bucket_holds_its_own_middle(void)
{
    for (uint64_t value = 1; value < UINT64_C(1) << 40; value += value / 50 + 1) {
        histogram_init(&histogram);
        histogram_record(&histogram, value, 1);
        histogram_record(&histogram, UINT64_C(1) << 41, 1); /* so that the maximum does not help */
        histogram_record(&histogram, 0, 1);
        const double told = (double)histogram_quantile(&histogram, 0.5);
        CHECK(told >= (double)value * 0.995 && told <= (double)value * 1.005);
        CHECK(value >= 128 || (uint64_t)told == value); /* small ones are exact */
    }
}

static void no_sample_is_zero_and_one_sample_is_itself(void)
{
    histogram_init(&histogram);
    CHECK(histogram_quantile(&histogram, 0.5) == 0);
    CHECK(histogram_mean(&histogram) == 0);
    histogram_record(&histogram, 999999999, 0);
    CHECK(histogram_quantile(&histogram, 0.5) == 0);
    histogram_record(&histogram, 123456789, 3);
    CHECK(histogram.total == 3);
    CHECK(histogram_quantile(&histogram, 0) == 123456789);
    CHECK(histogram_quantile(&histogram, 0.5) == 123456789);
    CHECK(histogram_quantile(&histogram, 0.99) == 123456789);
    CHECK(histogram_mean(&histogram) == 123456789);
}

static void beyond_the_range_the_maximum_stays_true(void)
{
    histogram_init(&histogram);
    histogram_record(&histogram, 5, 99);
    histogram_record(&histogram, UINT64_MAX, 1);
    CHECK(histogram_quantile(&histogram, 0.99) == 5);
    CHECK(histogram_quantile(&histogram, 0.995) == UINT64_MAX);
    CHECK(histogram.maximum == UINT64_MAX);
}

static void merging_is_recording_in_one(void)
{
    histogram_init(&histogram);
    histogram_init(&other);
    for (uint32_t i = 1; i <= 1000; i++) {
        histogram_record(i % 2 == 0 ? &histogram : &other, UINT64_C(1000) * i, 2);
    }
    histogram_merge(&histogram, &other);
    CHECK(histogram.total == 2000);
    CHECK(histogram.minimum == 1000 && histogram.maximum == 1000000);
    CHECK(histogram_mean(&histogram) == 500500);
    const uint64_t median = histogram_quantile(&histogram, 0.5);
    CHECK(median >= 497500 && median <= 502500);
}

int main(void)
{
    quantiles_are_within_half_a_percent();
    every_bucket_holds_its_own_middle();
    no_sample_is_zero_and_one_sample_is_itself();
    beyond_the_range_the_maximum_stays_true();
    merging_is_recording_in_one();
    puts("5 passed, 0 failed");
    return 0;
}
