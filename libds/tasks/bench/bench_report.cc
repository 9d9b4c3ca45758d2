#include <algorithm>
#include <nlohmann/json.hpp>

#include "libds/mem/tier.h"
#include "libds/tasks/bench/bench.h"

namespace ds::bench {
namespace {

// "1.23 ms": three significant digits in the unit that fits.
std::string time_text(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.3g} us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.3g} ms", seconds * 1e3);
  return fmt::format("{:.3g} s", seconds);
}

std::string scaled(double x, const char* unit) {
  static constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T", "P"};
  size_t i = 0;
  while (x >= 999.5 && i + 1 < std::size(kPrefixes)) {
    x /= 1000;
    ++i;
  }
  return i == 0 ? fmt::format("{:.0f} {}", x, unit) : fmt::format("{:.3g} {}{}", x, kPrefixes[i], unit);
}

// Rows of cells as aligned columns; the first column to the left, the others to the right.
std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows)
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  std::string out;
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c)
      out += c == 0 ? fmt::format("{:<{}}", row[c], widths[c]) : fmt::format("  {:>{}}", row[c], widths[c]);
    out += '\n';
  }
  return out;
}

nlohmann::ordered_json optional_json(const auto& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

}  // namespace

std::string bench_text(const BenchReport& report) {
  const bool accuracy = std::any_of(report.models.begin(), report.models.end(), [](const ModelReport& m) { return m.top1.has_value(); });
  std::vector<std::vector<std::string>> times{{"model", "p50", "p90", "p99", "min", "mean", "samples/s", "speed-up", "95 % interval"}};
  std::vector<std::vector<std::string>> sizes{{"model", "type", "file", "parameters", "compute", "FLOP/s", "efficiency", "planned", "measured"}};
  if (accuracy) sizes[0].push_back("top-1");
  for (size_t i = 0; i < report.models.size(); ++i) {
    const ModelReport& m = report.models[i];
    times.push_back({m.path, time_text(m.time.p50), time_text(m.time.p90), time_text(m.time.p99), time_text(m.time.min),
                     time_text(m.time.mean), fmt::format("{:.4g}", static_cast<double>(m.batch) / m.time.p50),
                     fmt::format("{:.3f}x", m.ratio.speedup),
                     i == 0 ? "reference" : fmt::format("{:.3f}-{:.3f}", m.ratio.low, m.ratio.high)});
    sizes.push_back({m.path, m.dtype, m.file_bytes > 0 ? scaled(static_cast<double>(m.file_bytes), "B") : "-",
                     m.nonzero_parameters == m.parameters
                         ? fmt::format("{}", m.parameters)
                         : fmt::format("{} ({:.1f} % zero)", m.parameters,
                                       100.0 * static_cast<double>(m.parameters - m.nonzero_parameters) / static_cast<double>(m.parameters)),
                     m.flops ? scaled(static_cast<double>(*m.flops), "FLOP") : "-",
                     m.flops_per_second ? scaled(*m.flops_per_second, "FLOP/s") : "-",
                     m.efficiency ? fmt::format("{:.1f} %", 100 * *m.efficiency) : "-",
                     m.planned ? scaled(static_cast<double>(m.planned_bytes), "B") : "eager",
                     scaled(static_cast<double>(m.measured_bytes), "B")});
    if (accuracy) sizes.back().push_back(m.top1 ? fmt::format("{:.2f} %", 100 * *m.top1) : "-");
  }
  std::vector<std::string> shapes;
  for (const auto& [name, shape] : report.models[0].inputs) shapes.push_back(fmt::format("{}:{}", name, shape_string(shape)));
  std::string out = fmt::format("{}; {} used; {} rounds, interleaved; {}{}\n\n", report.cpu,
                                report.threads == 1 ? "1 thread" : fmt::format("{} threads", report.threads), report.rounds,
                                fmt::join(shapes, " "), report.random_inputs ? ", random inputs" : " from " + report.data);
  out += table(times) + "\n" + table(sizes);
  if (accuracy) out += fmt::format("top-1 over {} samples\n", report.models[0].samples);
  return out;
}

std::string bench_json(const BenchReport& report) {
  using Json = nlohmann::ordered_json;
  Json json;
  json["schema"] = "ds-bench/1";
  json["cpu"] = report.cpu;
  json["threads"] = report.threads;
  json["seed"] = report.seed;
  json["data"] = report.random_inputs ? Json(nullptr) : Json(report.data);
  json["rounds"] = report.rounds;
  json["peak_flops_per_second"] = {{"f32", report.peak_f32 > 0 ? Json(report.peak_f32) : Json(nullptr)},
                                   {"i8", report.peak_i8 > 0 ? Json(report.peak_i8) : Json(nullptr)}};
  json["ds_memory_usage"] = Json::object();
  for (int t = 0; t < kTierCount; ++t)
    json["ds_memory_usage"][std::string(tier_name(static_cast<Tier>(t)))] = {{"bytes", tier_bytes(static_cast<Tier>(t))},
                                                                             {"peak_bytes", tier_peak_bytes(static_cast<Tier>(t))}};
  json["models"] = Json::array();
  for (const ModelReport& m : report.models) {
    Json j;
    j["model"] = m.path;
    j["file_bytes"] = m.file_bytes > 0 ? Json(m.file_bytes) : Json(nullptr);
    j["parameters"] = m.parameters;
    j["nonzero_parameters"] = m.nonzero_parameters;
    j["parameter_bytes"] = m.parameter_bytes;
    j["dtype"] = m.dtype;
    j["inputs"] = Json::array();
    for (const auto& [name, shape] : m.inputs) j["inputs"].push_back({{"name", name}, {"shape", shape}});
    j["batch"] = m.batch;
    j["flops"] = optional_json(m.flops);
    j["latency_seconds"] = {{"min", m.time.min}, {"mean", m.time.mean}, {"p50", m.time.p50}, {"p90", m.time.p90}, {"p99", m.time.p99}};
    j["samples_per_second"] = static_cast<double>(m.batch) / m.time.p50;
    j["speedup"] = {{"value", m.ratio.speedup}, {"low", m.ratio.low}, {"high", m.ratio.high}};
    j["flops_per_second"] = optional_json(m.flops_per_second);
    j["ds_compute_efficiency"] = optional_json(m.efficiency);
    j["planned_bytes"] = m.planned ? Json(m.planned_bytes) : Json(nullptr);
    j["measured_bytes"] = m.measured_bytes;
    j["eager_reason"] = m.planned ? Json(nullptr) : Json(m.eager_reason);
    j["top1"] = optional_json(m.top1);
    j["loss"] = optional_json(m.loss);
    j["samples"] = m.samples;
    j["seconds"] = m.seconds;
    json["models"].push_back(std::move(j));
  }
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace ds::bench
