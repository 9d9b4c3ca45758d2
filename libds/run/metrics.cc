#include "libds/run/metrics.h"

#include <fmt/format.h>

#include <algorithm>

#include "libds/base/process.h"
#include "libds/mem/tier.h"

namespace ds {
namespace {

std::string escaped(std::string_view value) {
  std::string out;
  for (char c : value) {
    if (c == '\\') out += "\\\\";
    else if (c == '"') out += "\\\"";
    else if (c == '\n') out += "\\n";
    else out += c;
  }
  return out;
}

}  // namespace

Histogram::Histogram(std::vector<double> upper_bounds) : bounds_(std::move(upper_bounds)), counts_(bounds_.size() + 1) {}

void Histogram::observe(double value) {
  const size_t i = static_cast<size_t>(std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin());
  counts_[i].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

std::vector<int64_t> Histogram::counts() const {
  std::vector<int64_t> out;
  for (const auto& c : counts_) out.push_back(c.load(std::memory_order_relaxed));
  return out;
}

std::vector<double> Histogram::time_bounds() {
  return {1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
}

std::vector<double> Histogram::size_bounds() { return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}; }

void MetricsWriter::family(std::string_view name, std::string_view type, std::string_view help) {
  name_ = name;
  text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void MetricsWriter::line(std::string_view suffix, const MetricLabels& labels, double value) {
  text_ += name_;
  text_ += suffix;
  if (!labels.empty()) {
    text_ += '{';
    for (size_t i = 0; i < labels.size(); ++i)
      text_ += fmt::format("{}{}=\"{}\"", i == 0 ? "" : ",", labels[i].first, escaped(labels[i].second));
    text_ += '}';
  }
  text_ += fmt::format(" {}\n", value);
}

void MetricsWriter::sample(const MetricLabels& labels, double value) { line("", labels, value); }

void MetricsWriter::histogram(const MetricLabels& labels, const Histogram& histogram) {
  const std::vector<int64_t> counts = histogram.counts();
  int64_t cumulative = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    cumulative += counts[i];
    MetricLabels with_bound = labels;
    with_bound.emplace_back("le", i < histogram.upper_bounds().size() ? fmt::format("{}", histogram.upper_bounds()[i]) : "+Inf");
    line("_bucket", with_bound, static_cast<double>(cumulative));
  }
  line("_sum", labels, histogram.sum());
  line("_count", labels, static_cast<double>(cumulative));
}

void write_memory_metrics(MetricsWriter& writer) {
  writer.family("ds_memory_usage", "gauge", "Bytes of tensors and arenas held now, by tier.");
  for (int t = 0; t < kTierCount; ++t)
    writer.sample({{"tier", std::string(tier_name(static_cast<Tier>(t)))}}, static_cast<double>(tier_bytes(static_cast<Tier>(t))));
  writer.family("ds_memory_peak", "gauge", "Most bytes held at any time, by tier.");
  for (int t = 0; t < kTierCount; ++t)
    writer.sample({{"tier", std::string(tier_name(static_cast<Tier>(t)))}}, static_cast<double>(tier_peak_bytes(static_cast<Tier>(t))));
  writer.family("process_resident_memory_bytes", "gauge", "Resident memory of the process.");
  writer.sample({}, static_cast<double>(resident_bytes()));
}

}  // namespace ds
