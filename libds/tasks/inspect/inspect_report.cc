#include <nlohmann/json.hpp>

#include "libds/tasks/inspect/inspect.h"

namespace ds {
namespace {

using Json = nlohmann::ordered_json;

std::string bytes_text(int64_t bytes) { return scaled_number(static_cast<double>(bytes), "B"); }

std::string tensor_line(const Inspection::LargeTensor& t) {
  return fmt::format("{} {}[{}] ({})", t.name, dtype_name(t.dtype), fmt::join(t.shape, ","), bytes_text(t.bytes));
}

Json interfaces_json(const std::vector<Inspection::Interface>& list, bool with_measured) {
  Json out = Json::array();
  for (const auto& i : list) {
    Json o;
    o["name"] = i.name;
    o["dtype"] = dtype_name(i.dtype);
    o["dims"] = i.rank_known ? Json(i.dims) : Json(nullptr);
    if (with_measured) o["measured_shape"] = i.measured;
    out.push_back(std::move(o));
  }
  return out;
}

Json tensors_json(const std::vector<Inspection::LargeTensor>& list) {
  Json out = Json::array();
  for (const auto& t : list) out.push_back({{"name", t.name}, {"dtype", dtype_name(t.dtype)}, {"shape", t.shape}, {"bytes", t.bytes}});
  return out;
}

}  // namespace

std::string scaled_number(double x, const char* unit) {
  static constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  size_t i = 0;
  while (x >= 1000 && i + 1 < std::size(kPrefixes)) {
    x /= 1000;
    ++i;
  }
  std::string text = i == 0 ? fmt::format("{:.0f} {}", x, unit) : fmt::format("{:.3g} {}{}", x, kPrefixes[i], unit);
  if (text.back() == ' ') text.pop_back();
  return text;
}

std::string inspection_text(const Inspection& r) {
  std::string text = r.path + "\n";
  const auto line = [&](std::string_view key, const std::string& value) { text += fmt::format("  {:<14}{}\n", key, value); };
  std::vector<std::string> opsets;
  for (const auto& [domain, version] : r.opsets) opsets.push_back(fmt::format("{}{}", domain.empty() ? "" : domain + " ", version));
  line("format", fmt::format("IR {}, opset {}{}", r.ir_version, fmt::join(opsets, ", "), r.producer.empty() ? "" : ", by " + r.producer));
  if (r.file_bytes > 0) line("file", bytes_text(r.file_bytes));
  for (const ExternalFile& f : r.external_files) line("external data", fmt::format("{}: {} tensors in {}", f.location, f.tensors, bytes_text(f.bytes)));
  line("parameters", fmt::format("{} ({}{})", r.parameters, bytes_text(r.parameter_bytes),
                                 r.parameters > 0 ? fmt::format(", {:.1f} % zero", 100.0 * static_cast<double>(r.parameters - r.nonzero_parameters) /
                                                                                       static_cast<double>(r.parameters))
                                                  : ""));
  if (r.parameter_types.size() > 1) {
    std::vector<std::string> types;
    for (const auto& t : r.parameter_types) types.push_back(fmt::format("{} {}", dtype_name(t.dtype), bytes_text(t.bytes)));
    line("types", fmt::format("{}", fmt::join(types, ", ")));
  }
  const auto interface = [&](std::string_view key, const std::vector<Inspection::Interface>& list) {
    for (const auto& i : list)
      line(key, fmt::format("{} {}[{}]", i.name, dtype_name(i.dtype), i.rank_known ? fmt::format("{}", fmt::join(i.dims, ",")) : "..."));
  };
  interface("input", r.inputs);
  interface("output", r.outputs);
  if (r.cost) {
    std::vector<std::string> at;
    for (const auto& i : r.inputs) at.push_back(fmt::format("{}:{}", i.name, shape_string(i.measured)));
    line("compute", fmt::format("{} at {}{}", scaled_number(static_cast<double>(r.cost->flops), "FLOP"), fmt::join(at, " "),
                                r.assumed_dims ? " (unknown dimensions taken as 1)" : ""));
    line("memory", fmt::format("{} beside the parameters", bytes_text(r.cost->planned_bytes)));
  } else {
    line("compute", "not known: " + r.why_no_cost);
  }
  if (!r.largest_parameters.empty()) line("largest", tensor_line(r.largest_parameters[0]));
  std::vector<std::string> ops;
  for (const auto& op : r.ops) ops.push_back(fmt::format("{} {}", op.op, op.nodes));
  line("operators", fmt::format("{}: {}", r.nodes, fmt::join(ops, ", ")));
  if (!r.unsupported.empty()) line("unsupported", fmt::format("{}", fmt::join(r.unsupported, ", ")));
  if (!r.no_gradient.empty()) line("no gradient", fmt::format("{}", fmt::join(r.no_gradient, ", ")));
  return text;
}

std::string inspection_json(const Inspection& r) {
  Json json;
  json["schema"] = "ds-bench-inspect/1";
  json["model"] = r.path;
  json["file_bytes"] = r.file_bytes > 0 ? Json(r.file_bytes) : Json(nullptr);
  json["external_files"] = Json::array();
  for (const ExternalFile& f : r.external_files) json["external_files"].push_back({{"location", f.location}, {"bytes", f.bytes}, {"tensors", f.tensors}});
  json["ir_version"] = r.ir_version;
  json["opsets"] = Json::object();
  for (const auto& [domain, version] : r.opsets) json["opsets"][domain.empty() ? "ai.onnx" : domain] = version;
  json["producer"] = r.producer;
  json["metadata"] = Json::object();
  for (const auto& [key, value] : r.metadata) json["metadata"][key] = value;
  json["inputs"] = interfaces_json(r.inputs, r.cost.has_value());
  json["outputs"] = interfaces_json(r.outputs, false);
  json["dynamic_dims"] = Json::array();
  for (const auto& d : r.dynamic_dims) json["dynamic_dims"].push_back({{"name", d.name.empty() ? Json(nullptr) : Json(d.name)}, {"where", d.where}});
  json["nodes"] = r.nodes;
  json["parameters"] = r.parameters;
  json["nonzero_parameters"] = r.nonzero_parameters;
  json["parameter_bytes"] = r.parameter_bytes;
  json["parameter_types"] = Json::array();
  for (const auto& t : r.parameter_types)
    json["parameter_types"].push_back({{"dtype", dtype_name(t.dtype)}, {"tensors", t.tensors}, {"elements", t.elements}, {"bytes", t.bytes}});
  json["result_types"] = Json::object();
  for (const auto& [dtype, values] : r.result_types) json["result_types"][dtype == DType::kUndefined ? "unknown" : std::string(dtype_name(dtype))] = values;
  json["ops"] = Json::array();
  for (const auto& op : r.ops) {
    json["ops"].push_back({{"op", op.op},
                           {"nodes", op.nodes},
                           {"flops", r.cost ? Json(op.flops) : Json(nullptr)},
                           {"parameters", op.parameters},
                           {"supported", op.supported},
                           {"gradient", op.gradient}});
  }
  json["flops"] = r.cost ? Json(r.cost->flops) : Json(nullptr);
  json["moved_bytes"] = r.cost ? Json(r.cost->moved_bytes) : Json(nullptr);
  json["planned_bytes"] = r.cost ? Json(r.cost->planned_bytes) : Json(nullptr);
  json["why_no_cost"] = r.cost ? Json(nullptr) : Json(r.why_no_cost);
  json["assumed_dims"] = r.assumed_dims;
  json["largest_parameters"] = tensors_json(r.largest_parameters);
  json["largest_results"] = tensors_json(r.largest_results);
  json["unsupported_ops"] = r.unsupported;
  json["ops_without_gradient"] = r.no_gradient;
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace ds
