/* histogram.c: latencies in log-linear buckets, each under 0.8 % wide, like HdrHistogram.
 * Knows nothing of clients or clocks: values are plain numbers. */
#include "histogram.h"

#include <stddef.h>

static size_t index_of(uint64_t value)
{
    if (value >> (STORM_SUB_BITS + 1) == 0)
        return (size_t) value;
    int shift = 63 - __builtin_clzll(value) - STORM_SUB_BITS;
    if (shift > STORM_MAX_SHIFT)
        return STORM_BUCKETS - 1;
    return ((size_t) shift << STORM_SUB_BITS) + (size_t) (value >> shift);
}

/* The largest value of a bucket, so that a percentile is never reported too small. */
static uint64_t value_of(size_t index)
{
    if (index >> (STORM_SUB_BITS + 1) == 0)
        return index;
    size_t shift = (index >> STORM_SUB_BITS) - 1;
    uint64_t top = index - (shift << STORM_SUB_BITS);
    return ((top + 1) << shift) - 1;
}

void storm_histogram_add(storm_histogram *histogram, uint64_t value)
{
    histogram->count++;
    histogram->bucket[index_of(value)]++;
    if (value > histogram->max)
        histogram->max = value;
}

uint64_t storm_histogram_at(const storm_histogram *histogram, double fraction)
{
    uint64_t wanted = (uint64_t) (fraction * (double) histogram->count + 0.5);
    uint64_t seen = 0;

    if (wanted == 0)
        wanted = 1;
    for (size_t index = 0; index < STORM_BUCKETS; index++) {
        seen += histogram->bucket[index];
        if (seen >= wanted) {
            uint64_t value = value_of(index);
            return value < histogram->max ? value : histogram->max;
        }
    }
    return histogram->max;
}
