#include "libds/tasks/bench/timing_stats.h"

#include <algorithm>
#include <cmath>

#include "libds/base/error.h"
#include "libds/base/random.h"

namespace ds::bench {
namespace {

double sorted_percentile(std::span<const double> sorted, double fraction) {
  const double at = fraction * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// Destroys the order of `values`.
double median_of(std::vector<double>& values) {
  const size_t half = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(half), values.end());
  const double upper = values[half];
  if (values.size() % 2 == 1) return upper;
  return 0.5 * (upper + *std::max_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(half)));
}

}  // namespace

double percentile(std::span<const double> values, double fraction) {
  DS_CHECK(!values.empty());
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted_percentile(sorted, fraction);
}

Interval median_interval(std::span<const double> values) {
  DS_CHECK(!values.empty());
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  // The k smallest are left out while P(binomial(n, 1/2) <= k - 1) <= 2.5 %.
  const auto n = static_cast<double>(sorted.size());
  size_t k = 0;
  double cumulative = 0;
  for (;; ++k) {
    const double j = static_cast<double>(k);
    cumulative += std::exp(std::lgamma(n + 1) - std::lgamma(j + 1) - std::lgamma(n - j + 1) - n * std::log(2.0));
    if (cumulative > 0.025 || 2 * (k + 1) >= sorted.size()) break;
  }
  const size_t at = k == 0 ? 0 : k - 1;
  return {sorted[at], sorted[sorted.size() - 1 - at]};
}

TimingSummary summarize(std::span<const double> seconds) {
  DS_CHECK(!seconds.empty());
  std::vector<double> sorted(seconds.begin(), seconds.end());
  std::sort(sorted.begin(), sorted.end());
  TimingSummary s;
  s.min = sorted.front();
  s.max = sorted.back();
  for (double x : sorted) s.mean += x;
  s.mean /= static_cast<double>(sorted.size());
  s.p50 = sorted_percentile(sorted, 0.50);
  s.p90 = sorted_percentile(sorted, 0.90);
  s.p95 = sorted_percentile(sorted, 0.95);
  s.p99 = sorted_percentile(sorted, 0.99);
  double squares = 0;
  for (double x : sorted) squares += (x - s.mean) * (x - s.mean);
  if (sorted.size() > 1) s.stddev = std::sqrt(squares / static_cast<double>(sorted.size() - 1));
  s.p50_interval = median_interval(sorted);
  return s;
}

PairedRatio paired_ratio(std::span<const double> reference, std::span<const double> own, uint64_t seed, int resamples) {
  DS_CHECK(!own.empty() && own.size() == reference.size());
  const size_t n = own.size();
  std::vector<double> ratios(n), drawn(n), medians;
  for (size_t i = 0; i < n; ++i) ratios[i] = reference[i] / own[i];
  PairedRatio result;
  drawn = ratios;
  result.speedup = median_of(drawn);
  Random random(seed, stream_of("bench/bootstrap"));
  for (int r = 0; r < resamples; ++r) {
    for (double& x : drawn) x = ratios[random.below(n)];
    medians.push_back(median_of(drawn));
  }
  std::sort(medians.begin(), medians.end());
  result.low = sorted_percentile(medians, 0.025);
  result.high = sorted_percentile(medians, 0.975);
  return result;
}

}  // namespace ds::bench
