// Metrics of a run as JSON lines: one object a line, written whole, so that a reader following the
// file never sees half of one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace ds {

using MetricValue = std::variant<int64_t, double, std::string>;
// In the order they are written. Numbers that are not finite become null.
using MetricFields = std::vector<std::pair<std::string, MetricValue>>;

std::string metrics_line(const MetricFields& fields);

class MetricsLog {
 public:
  // An empty path writes nothing; "-" is standard output. A run from the start begins a new file; a
  // resumed one keeps the complete lines whose "step" is at most `resumed_step`, and appends.
  explicit MetricsLog(const std::string& path, std::optional<int64_t> resumed_step = std::nullopt);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void write(const MetricFields& fields);  // throws kIoError

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace ds
