/* histogram.h: latencies in log-linear buckets, each under 0.8 % wide, like HdrHistogram.
 * Knows nothing of clients or clocks: values are plain numbers. */
#ifndef STORM_HISTOGRAM_H
#define STORM_HISTOGRAM_H

#include <stdint.h>

enum {
    STORM_SUB_BITS = 7,
    STORM_MAX_SHIFT = 36,
    STORM_BUCKETS = (STORM_MAX_SHIFT + 2) << STORM_SUB_BITS,
};

typedef struct storm_histogram {
    uint64_t count;
    uint64_t max;
    uint64_t bucket[STORM_BUCKETS];
} storm_histogram;

void storm_histogram_add(storm_histogram *histogram, uint64_t value);

/* The value that `fraction` (0..1) of the samples do not exceed; 0 without samples. */
uint64_t storm_histogram_at(const storm_histogram *histogram, double fraction);

#endif
