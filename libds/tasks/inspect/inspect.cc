#include "libds/tasks/inspect/inspect.h"

#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "libds/base/parallel.h"
#include "libds/compile/compile.h"
#include "libds/ir/lower.h"
#include "libds/ir/onnx_import.h"
#include "libds/ir/rewriter.h"
#include "libds/run/executor.h"
#include "libds/run/input_shapes.h"

namespace ds {
namespace {

std::string full_name(const Node& n) { return n.domain.empty() ? n.op : n.domain + "." + n.op; }

int64_t count_nonzero(const Tensor& t) {
  int64_t count = 0;
  dispatch_dtype(t.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for (const T& x : t.span<T>())
      if constexpr (std::is_same_v<T, f16> || std::is_same_v<T, bf16>) count += static_cast<float>(x) != 0;
      else count += x != T{};
  });
  return count;
}

Inspection::Interface interface_of(const Graph& g, ValueId id) {
  const Value& v = g.value(id);
  Inspection::Interface i;
  i.name = v.name;
  i.dtype = v.dtype;
  i.rank_known = v.dims.has_value();
  if (v.dims)
    for (Dim d : *v.dims) i.dims.push_back(g.dim_string(d));
  return i;
}

void count_ops(const Graph& g, Inspection& r) {
  std::map<std::string, int64_t> counts;
  std::set<std::string> unsupported, no_gradient;
  for (NodeId id : g.order()) {
    const Node& n = g.node(id);
    ++counts[full_name(n)];
    if (n.def == nullptr) unsupported.insert(full_name(n));
    else if (!n.def->grad && !n.def->lower && !n.def->stops_gradient) no_gradient.insert(full_name(n));
  }
  for (const auto& [op, nodes] : counts) r.ops.push_back({op, nodes, 0});
  std::stable_sort(r.ops.begin(), r.ops.end(), [](const auto& a, const auto& b) { return a.nodes > b.nodes; });
  r.unsupported.assign(unsupported.begin(), unsupported.end());
  r.no_gradient.assign(no_gradient.begin(), no_gradient.end());
}

void measure(const std::shared_ptr<Graph>& graph, const std::vector<Shape>& shapes, Inspection& r) {
  auto specialised = std::make_shared<Graph>(*graph);
  Rewriter rw(*specialised);
  lower_nodes(rw);
  specialize(rw, shapes, evaluate_node);
  r.why_no_cost = unplannable_reason(*specialised);
  if (!r.why_no_cost.empty()) return;
  CompileOptions options;
  options.threads = num_threads();
  options.for_sizes = true;
  const auto plan = compile(specialised, options);
  Inspection::Measured m;
  for (const Step& step : plan->steps) {
    m.flops += step.cost.flops;
    m.moved_bytes += step.cost.bytes;
    for (Inspection::OpCount& op : r.ops)
      if (op.op == full_name(plan->graph->node(step.node))) op.flops += step.cost.flops;
  }
  m.planned_bytes = static_cast<int64_t>(plan->planned_bytes());
  r.cost = m;
}

std::string scaled(double x, const char* unit) {
  static constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  size_t i = 0;
  while (x >= 1000 && i + 1 < std::size(kPrefixes)) {
    x /= 1000;
    ++i;
  }
  return i == 0 ? fmt::format("{:.0f} {}", x, unit) : fmt::format("{:.3g} {}{}", x, kPrefixes[i], unit);
}

}  // namespace

Inspection inspect_model(const std::string& path, const InspectOptions& options) {
  ImportOptions import;
  import.allow_unknown_ops = true;
  const std::shared_ptr<Graph> graph = load_model(path, import);
  return with_context([&] { return path; }, [&] {
    const Graph& g = *graph;
    Inspection r;
    r.path = path;
    struct stat info {};
    if (path != "-" && ::stat(path.c_str(), &info) == 0) r.file_bytes = info.st_size;
    r.ir_version = g.ir_version;
    r.opsets = {g.opsets.begin(), g.opsets.end()};
    r.producer = g.producer_version.empty() ? g.producer_name : g.producer_name + " " + g.producer_version;
    r.metadata = g.metadata;
    r.nodes = static_cast<int64_t>(g.node_count());
    for (ValueId id : g.initializers()) {
      const Tensor t = g.value(id).constant->transient();
      r.parameters += t.numel();
      r.parameter_bytes += static_cast<int64_t>(t.bytes());
      r.nonzero_parameters += count_nonzero(t);
    }
    for (ValueId id : g.inputs()) r.inputs.push_back(interface_of(g, id));
    for (ValueId id : g.outputs()) r.outputs.push_back(interface_of(g, id));
    count_ops(g, r);
    if (!r.unsupported.empty()) {
      r.why_no_cost = "some operators are not supported";
      return r;
    }
    const auto [shapes, assumed] = resolve_input_shapes(g, options.shapes);
    r.assumed_dims = assumed;
    for (size_t i = 0; i < shapes.size(); ++i) r.inputs[i].measured = shapes[i];
    try {
      measure(graph, shapes, r);
    } catch (const Error& error) {  // a shape this model cannot take is an answer, not a failure
      if (error.code() != ExitCode::kBadData && error.code() != ExitCode::kUnsupported) throw;
      r.why_no_cost = error.what();
    }
    return r;
  });
}

std::string inspection_text(const Inspection& r) {
  std::string text = r.path + "\n";
  const auto line = [&](std::string_view key, const std::string& value) { text += fmt::format("  {:<14}{}\n", key, value); };
  std::vector<std::string> opsets;
  for (const auto& [domain, version] : r.opsets) opsets.push_back(fmt::format("{}{}", domain.empty() ? "" : domain + " ", version));
  line("format", fmt::format("IR {}, opset {}{}", r.ir_version, fmt::join(opsets, ", "), r.producer.empty() ? "" : ", by " + r.producer));
  if (r.file_bytes > 0) line("file", scaled(static_cast<double>(r.file_bytes), "B"));
  line("parameters", fmt::format("{} ({}{})", r.parameters, scaled(static_cast<double>(r.parameter_bytes), "B"),
                                 r.parameters > 0 ? fmt::format(", {:.1f} % zero", 100.0 * static_cast<double>(r.parameters - r.nonzero_parameters) /
                                                                                       static_cast<double>(r.parameters))
                                                  : ""));
  const auto interface = [&](std::string_view key, const std::vector<Inspection::Interface>& list) {
    for (const auto& i : list)
      line(key, fmt::format("{} {}[{}]", i.name, dtype_name(i.dtype), i.rank_known ? fmt::format("{}", fmt::join(i.dims, ",")) : "..."));
  };
  interface("input", r.inputs);
  interface("output", r.outputs);
  if (r.cost) {
    std::vector<std::string> at;
    for (const auto& i : r.inputs) at.push_back(fmt::format("{}:{}", i.name, shape_string(i.measured)));
    line("compute", fmt::format("{} at {}{}", scaled(static_cast<double>(r.cost->flops), "FLOP"), fmt::join(at, " "),
                                r.assumed_dims ? " (unknown dimensions taken as 1)" : ""));
    line("memory", fmt::format("{} beside the parameters", scaled(static_cast<double>(r.cost->planned_bytes), "B")));
  } else {
    line("compute", "not known: " + r.why_no_cost);
  }
  std::vector<std::string> ops;
  for (const auto& op : r.ops) ops.push_back(fmt::format("{} {}", op.op, op.nodes));
  line("operators", fmt::format("{}: {}", r.nodes, fmt::join(ops, ", ")));
  if (!r.unsupported.empty()) line("unsupported", fmt::format("{}", fmt::join(r.unsupported, ", ")));
  if (!r.no_gradient.empty()) line("no gradient", fmt::format("{}", fmt::join(r.no_gradient, ", ")));
  return text;
}

std::string inspection_json(const Inspection& r) {
  using Json = nlohmann::ordered_json;
  Json json;
  json["model"] = r.path;
  json["file_bytes"] = r.file_bytes > 0 ? Json(r.file_bytes) : Json(nullptr);
  json["ir_version"] = r.ir_version;
  json["opsets"] = Json::object();
  for (const auto& [domain, version] : r.opsets) json["opsets"][domain.empty() ? "ai.onnx" : domain] = version;
  json["producer"] = r.producer;
  json["metadata"] = r.metadata;
  const auto interface = [](const std::vector<Inspection::Interface>& list, bool with_measured) {
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
  };
  json["inputs"] = interface(r.inputs, r.cost.has_value());
  json["outputs"] = interface(r.outputs, false);
  json["nodes"] = r.nodes;
  json["parameters"] = r.parameters;
  json["nonzero_parameters"] = r.nonzero_parameters;
  json["parameter_bytes"] = r.parameter_bytes;
  json["ops"] = Json::array();
  for (const auto& op : r.ops) {
    Json o{{"op", op.op}, {"nodes", op.nodes}};
    if (r.cost) o["flops"] = op.flops;
    json["ops"].push_back(std::move(o));
  }
  json["flops"] = r.cost ? Json(r.cost->flops) : Json(nullptr);
  json["moved_bytes"] = r.cost ? Json(r.cost->moved_bytes) : Json(nullptr);
  json["planned_bytes"] = r.cost ? Json(r.cost->planned_bytes) : Json(nullptr);
  if (!r.cost) json["why_no_cost"] = r.why_no_cost;
  json["assumed_dims"] = r.assumed_dims;
  json["unsupported_ops"] = r.unsupported;
  json["ops_without_gradient"] = r.no_gradient;
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace ds
