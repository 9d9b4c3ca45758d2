#include "libds/tasks/inspect/inspect.h"

#include <sys/stat.h>

#include <algorithm>
#include <functional>
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

int64_t count_nonzero(const Tensor& given) {
  int64_t count = 0;
  const Tensor tensor = is_packed(given.dtype()) ? given.unpacked() : given;
  const bool numeric = dispatch_dtype(tensor.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for (const T& x : tensor.span<T>())
      if constexpr (std::is_same_v<T, f16> || std::is_same_v<T, bf16>) count += static_cast<float>(x) != 0;
      else count += x != T{};
  });
  return numeric ? count : tensor.numel();
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

// Calls f(graph, id) for the nodes of a graph and of all bodies inside.
void for_each_node(const Graph& graph, const std::function<void(const Graph&, NodeId)>& f) {
  for (NodeId id : graph.order()) {
    f(graph, id);
    for (const auto& [name, body] : bodies_of(graph.node(id))) for_each_node(*body, f);
  }
}

void count_ops(const Graph& graph, Inspection& r) {
  std::map<std::string, Inspection::OpCount> counts;
  std::set<const Tensor*> counted;
  for_each_node(graph, [&](const Graph& g, NodeId id) {
    const Node& n = g.node(id);
    ++r.nodes;
    Inspection::OpCount& c = counts[full_op_name(n)];
    c.op = full_op_name(n);
    ++c.nodes;
    c.supported = n.def != nullptr;
    c.gradient = n.def != nullptr && (n.def->grad || n.def->lower || n.def->stops_gradient);
    for (ValueId in : n.inputs)
      if (in != kNone && g.value(in).is_constant() && counted.insert(g.value(in).constant.get()).second) c.parameters += g.value(in).constant->numel();
    for (ValueId out : n.outputs)
      if (out != kNone) ++r.result_types[g.value(out).dtype];
  });
  for (const auto& [op, c] : counts) {
    r.ops.push_back(c);
    if (!c.supported) r.unsupported.push_back(op);
    else if (!c.gradient) r.no_gradient.push_back(op);
  }
  std::stable_sort(r.ops.begin(), r.ops.end(), [](const auto& a, const auto& b) { return a.nodes > b.nodes; });
}

void keep_largest(std::vector<Inspection::LargeTensor>& list, size_t count) {
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  if (list.size() > count) list.resize(count);
}

void weigh_parameters(const Graph& g, size_t largest, Inspection& r) {
  std::map<DType, Inspection::TypeCount> types;
  for (ValueId id : g.initializers()) {
    const Tensor& t = *g.value(id).constant;
    const auto bytes = static_cast<int64_t>(t.bytes());
    r.parameters += t.numel();
    r.parameter_bytes += bytes;
    r.nonzero_parameters += count_nonzero(t.transient());
    Inspection::TypeCount& type = types[t.dtype()];
    type.dtype = t.dtype();
    ++type.tensors;
    type.elements += t.numel();
    type.bytes += bytes;
    r.largest_parameters.push_back({g.value(id).name, t.dtype(), t.shape(), bytes});
  }
  for (const auto& [dtype, type] : types) r.parameter_types.push_back(type);
  std::stable_sort(r.parameter_types.begin(), r.parameter_types.end(), [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  keep_largest(r.largest_parameters, largest);
}

void list_dynamic_dims(const Graph& g, Inspection& r) {
  std::vector<int32_t> symbols;
  const auto add = [&](ValueId id) {
    const Value& v = g.value(id);
    for (size_t i = 0; v.dims && i < v.dims->size(); ++i) {
      const Dim d = (*v.dims)[i];
      if (d.known()) continue;
      size_t at = static_cast<size_t>(std::find(symbols.begin(), symbols.end(), d.symbol_id()) - symbols.begin());
      if (at == symbols.size()) {
        symbols.push_back(d.symbol_id());
        r.dynamic_dims.push_back({g.symbol_name(d.symbol_id()), {}});
      }
      r.dynamic_dims[at].where.push_back(fmt::format("{}[{}]", v.name, i));
    }
  };
  for (ValueId id : g.inputs()) add(id);
  for (ValueId id : g.outputs()) add(id);
}

void list_results(const Graph& g, size_t largest, Inspection& r) {
  for (NodeId id : g.order()) {
    for (ValueId out : g.node(id).outputs) {
      const auto at = out == kNone ? r.shapes.end() : r.shapes.find(out);
      if (at == r.shapes.end()) continue;
      const DType dtype = g.value(out).dtype;
      r.largest_results.push_back({g.value(out).name, dtype, at->second, static_cast<int64_t>(Tensor::packed_bytes(dtype, checked_numel(at->second)))});
    }
  }
  keep_largest(r.largest_results, largest);
}

void measure(const Graph& graph, const std::vector<Shape>& shapes, size_t largest, Inspection& r) {
  auto specialised = std::make_shared<Graph>(graph);
  Rewriter rw(*specialised);
  specialize(rw, shapes, evaluate_node);
  const std::vector<NodeId> origin = lower_nodes_with_origins(rw);
  specialize(rw, shapes, evaluate_node);
  for (size_t i = 0; i < graph.value_capacity(); ++i) {
    const Value& v = specialised->value(static_cast<ValueId>(i));
    if (!v.dims || !all_known(*v.dims) || v.dtype == DType::kUndefined) continue;
    r.shapes.emplace(static_cast<ValueId>(i), concrete(*v.dims));
  }
  list_results(graph, largest, r);
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
    // Reorders that the layouts need have no origin and no FLOPs.
    if (static_cast<size_t>(step.node) >= origin.size()) continue;
    const NodeId from = origin[static_cast<size_t>(step.node)];
    m.node_flops[from] += step.cost.flops;
    for (Inspection::OpCount& op : r.ops)
      if (op.op == full_op_name(graph.node(from))) op.flops += step.cost.flops;
  }
  m.planned_bytes = static_cast<int64_t>(plan->planned_bytes());
  r.cost = std::move(m);
}

}  // namespace

std::string full_op_name(const Node& n) { return n.domain.empty() ? n.op : n.domain + "." + n.op; }

Inspection inspect_model(const std::string& path, const InspectOptions& options) {
  ImportOptions import;
  import.allow_unknown_ops = true;
  const std::shared_ptr<Graph> graph = load_model(path, import);
  return with_context([&] { return path; }, [&] {
    const Graph& g = *graph;
    Inspection r;
    r.graph = graph;
    r.path = path;
    struct stat info {};
    if (path != "-" && ::stat(path.c_str(), &info) == 0) r.file_bytes = info.st_size;
    r.ir_version = g.ir_version;
    r.opsets = {g.opsets.begin(), g.opsets.end()};
    r.producer = g.producer_version.empty() ? g.producer_name : g.producer_name + " " + g.producer_version;
    r.metadata = g.metadata;
    r.external_files = g.external_files;
    weigh_parameters(g, options.largest, r);
    for (ValueId id : g.inputs()) r.inputs.push_back(interface_of(g, id));
    for (ValueId id : g.outputs()) r.outputs.push_back(interface_of(g, id));
    list_dynamic_dims(g, r);
    count_ops(g, r);
    if (!r.unsupported.empty()) {
      r.why_no_cost = "some operators are not supported";
      return r;
    }
    for (ValueId id : g.inputs()) {
      if (g.value(id).dims || !options.shapes.empty()) continue;
      r.why_no_cost = fmt::format("the rank of input '{}' is not known; give its shape", g.value(id).name);
      return r;
    }
    const auto [shapes, assumed] = resolve_input_shapes(g, options.shapes);
    r.assumed_dims = assumed;
    for (size_t i = 0; i < shapes.size(); ++i) r.inputs[i].measured = shapes[i];
    try {
      measure(g, shapes, options.largest, r);
    } catch (const Error& error) {  // a shape this model cannot take is an answer, not a failure
      if (error.code() != ExitCode::kBadData && error.code() != ExitCode::kUnsupported) throw;
      r.why_no_cost = error.what();
    }
    return r;
  });
}

}  // namespace ds
