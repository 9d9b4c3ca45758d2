// Reports of ds-quantize.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "libds/tasks/quantize/quantize.h"

namespace ds {
namespace {

std::string clipped(const std::string& text, size_t width) {
  return text.size() <= width ? text : "..." + text.substr(text.size() - width + 3);
}

nlohmann::ordered_json params_json(const std::optional<ActivationParams>& p) {
  if (!p) return nullptr;
  return {{"scale", p->scale}, {"zero_point", p->zero}};
}

}  // namespace

std::string quantize_report_text(const QuantizeOutcome& o) {
  size_t width = 4;
  for (const NodeQuantization& n : o.nodes) width = std::max(width, std::min<size_t>(n.name.size(), 36));
  std::string text = fmt::format("{:<{}}  {:<17}  {:<4}  {:>10}  {:>10}  {:>8}  {}\n", "node", width, "op", "int8", "in scale", "out scale", "SQNR dB", "");
  size_t quantized = 0;
  for (const NodeQuantization& n : o.nodes) {
    quantized += n.quantized;
    const auto scale = [](const std::optional<ActivationParams>& p) { return p ? fmt::format("{:.4g}", p->scale) : std::string("-"); };
    const std::string ratio = !n.sqnr_db ? "-" : std::isinf(*n.sqnr_db) ? "exact" : fmt::format("{:.1f}", *n.sqnr_db);
    text += fmt::format("{:<{}}  {:<17}  {:<4}  {:>10}  {:>10}  {:>8}  {}\n", clipped(n.name, 36), width, n.op, n.quantized ? "yes" : "no",
                        scale(n.input), scale(n.result), ratio, n.reason);
  }
  text += fmt::format("{} of {} operators in int8", quantized, o.nodes.size());
  if (o.samples > 0) text += fmt::format(", calibrated on {} samples", o.samples);
  text += "\n";
  if (o.float_metric)
    text += fmt::format("{}: float {:.4f}, int8 {:.4f}, drop {:.4f}{}\n", o.metric, *o.float_metric, *o.quantized_metric,
                        *o.float_metric - *o.quantized_metric, o.gate_passed ? "" : " (above --max-drop)");
  return text;
}

std::string quantize_report_json(const QuantizeOutcome& o) {
  nlohmann::ordered_json nodes = nlohmann::ordered_json::array();
  for (const NodeQuantization& n : o.nodes) {
    nlohmann::ordered_json j = {{"name", n.name}, {"op", n.op}, {"quantized", n.quantized}};
    if (!n.reason.empty()) j["reason"] = n.reason;
    if (n.quantized) {
      j["input"] = params_json(n.input);
      j["output"] = params_json(n.result);
      if (n.weight_scale) j["weight_scale"] = {{"min", n.weight_scale->low}, {"max", n.weight_scale->high}};
      if (n.sqnr_db) {
        if (std::isfinite(*n.sqnr_db)) j["sqnr_db"] = *n.sqnr_db;
        else j["sqnr_db"] = nullptr;  // no error at all
      }
    }
    nodes.push_back(std::move(j));
  }
  nlohmann::ordered_json report = {{"schema", "ds-quantize/1"}, {"calibration_samples", o.samples}, {"nodes", std::move(nodes)}};
  if (o.float_metric) {
    report["metric"] = o.metric;
    report["float"] = *o.float_metric;
    report["int8"] = *o.quantized_metric;
    report["gate_passed"] = o.gate_passed;
  }
  return report.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace ds
