// Figures about the running process, and the Prometheus text format (version 0.0.4) to show them in.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ds {

using MetricLabels = std::vector<std::pair<std::string_view, std::string>>;

// Counts of observations by upper bound. observe() may be called from any thread.
class Histogram {
 public:
  explicit Histogram(std::vector<double> upper_bounds);  // ascending; +infinity is added
  void observe(double value);

  const std::vector<double>& upper_bounds() const { return bounds_; }
  std::vector<int64_t> counts() const;  // per bound, the last for +infinity; not cumulative
  double sum() const { return sum_.load(std::memory_order_relaxed); }

  // 100 µs to 10 s, about three a decade: request and queue times in seconds.
  static std::vector<double> time_bounds();
  // 1, 2, 4 ... 1024.
  static std::vector<double> size_bounds();

 private:
  std::vector<double> bounds_;
  std::vector<std::atomic<int64_t>> counts_;
  std::atomic<double> sum_{0};
};

// Writes samples grouped under their metric. Every sample of a metric must follow its family().
class MetricsWriter {
 public:
  // `type`: "counter", "gauge" or "histogram".
  void family(std::string_view name, std::string_view type, std::string_view help);
  void sample(const MetricLabels& labels, double value);
  void histogram(const MetricLabels& labels, const Histogram& histogram);
  const std::string& text() const { return text_; }

 private:
  void line(std::string_view suffix, const MetricLabels& labels, double value);
  std::string name_;
  std::string text_;
};

// ds_memory_usage{tier="..."} in bytes now, its peak, and the process's resident memory.
void write_memory_metrics(MetricsWriter& writer);

}  // namespace ds
