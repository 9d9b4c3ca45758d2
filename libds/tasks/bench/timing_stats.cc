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

TimingSummary summarize(std::span<const double> seconds) {
  DS_CHECK(!seconds.empty());
  std::vector<double> sorted(seconds.begin(), seconds.end());
  std::sort(sorted.begin(), sorted.end());
  TimingSummary s;
  s.min = sorted.front();
  for (double x : sorted) s.mean += x;
  s.mean /= static_cast<double>(sorted.size());
  s.p50 = sorted_percentile(sorted, 0.50);
  s.p90 = sorted_percentile(sorted, 0.90);
  s.p99 = sorted_percentile(sorted, 0.99);
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
