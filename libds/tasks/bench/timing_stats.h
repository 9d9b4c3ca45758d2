// Statistics of repeated timings.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ds::bench {

// Linear interpolation between order statistics (R type 7, numpy's default). `fraction` in [0, 1];
// `values` in any order, not empty.
double percentile(std::span<const double> values, double fraction);

struct TimingSummary {
  double min = 0, mean = 0, p50 = 0, p90 = 0, p99 = 0;  // seconds
};
TimingSummary summarize(std::span<const double> seconds);

// How much faster than the reference: the median over pairs of reference[i] / own[i].
//
// Pair i was timed in the same round, one right after the other, so that drift of the machine (clock
// frequency, neighbours) meets both and cancels. The interval is the bootstrap percentile interval
// (Efron 1979): pairs drawn with replacement `resamples` times, by a fixed seed.
struct PairedRatio {
  double speedup = 1;           // above 1: faster than the reference
  double low = 1, high = 1;     // 95 % interval
};
PairedRatio paired_ratio(std::span<const double> reference, std::span<const double> own, uint64_t seed, int resamples = 2000);

}  // namespace ds::bench
