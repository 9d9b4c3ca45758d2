// Statistics of repeated timings.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ds::bench {

// Linear interpolation between order statistics (R type 7, numpy's default). `fraction` in [0, 1];
// `values` in any order, not empty.
double percentile(std::span<const double> values, double fraction);

struct Interval {
  double low = 0, high = 0;
};
// 95 % confidence interval of the median from order statistics: the number of values below the true median is
// binomial(n, 1/2) whatever their distribution, so that the k-th smallest and k-th largest value enclose it with
// a probability of at least 95 % (Conover, Practical Nonparametric Statistics, section 3.2). Below six values no
// pair does; then least and most are returned.
Interval median_interval(std::span<const double> values);

struct TimingSummary {
  double min = 0, max = 0, mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0;  // seconds
  double stddev = 0;    // of the sample (n - 1); 0 for one value
  Interval p50_interval;
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
