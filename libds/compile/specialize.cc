#include <algorithm>

#include "libds/compile/compile.h"
#include "libds/ir/rewriter.h"

namespace ds {
namespace {

// Shape arithmetic works on short vectors; anything longer is data and stays in the plan.
constexpr int64_t kMostElements = 1024;

bool foldable(const Graph& graph, const Node& n, const std::vector<char>& is_state) {
  if (n.def == nullptr || n.def->stateful || n.inputs.empty()) return false;
  for (ValueId in : n.inputs) {
    if (in == kNone) continue;
    const Value& v = graph.value(in);
    const bool state = static_cast<size_t>(in) < is_state.size() && is_state[static_cast<size_t>(in)];
    if (state || !v.is_constant() || v.constant->numel() > kMostElements) return false;
  }
  for (ValueId out : n.outputs) {
    if (out == kNone || n.def->data_dependent) continue;
    const Value& v = graph.value(out);
    if (!v.dims || !all_known(*v.dims) || checked_numel(concrete(*v.dims)) > kMostElements) return false;
  }
  return true;
}

// Content of an integer value that inference knows without running anything.
std::optional<Tensor> known_content(const Value& v) {
  if (v.dtype != DType::kI64 && v.dtype != DType::kI32) return std::nullopt;
  if (!v.ints || !all_known(*v.ints) || !v.dims || !all_known(*v.dims)) return std::nullopt;
  const Shape content = concrete(*v.ints), shape = concrete(*v.dims);
  if (checked_numel(shape) != static_cast<int64_t>(content.size())) return std::nullopt;
  return Tensor::vector<int64_t>(content).cast(v.dtype).reshaped(shape);
}

void set_input_shape(Rewriter& rw, ValueId id, const Shape& shape) {
  const Value& v = rw.graph().value(id);
  if (v.dims) {
    bool fits = v.dims->size() == shape.size();
    for (size_t d = 0; fits && d < shape.size(); ++d) fits = !(*v.dims)[d].known() || (*v.dims)[d].raw == shape[d];
    if (!fits)
      bad_data("input '{}' has shape {}, the model expects {}", v.name, shape_string(shape), rw.graph().dims_string(*v.dims));
  }
  rw.set_type(id, v.dtype, to_dims(shape));
}

// Uses of `id` become uses of its content.
void replace_by_constant(Rewriter& rw, ValueId id, Tensor content) {
  const Graph& graph = rw.graph();
  if (graph.node(graph.value(id).producer).outputs.size() > 1) {
    rw.replace_uses(id, rw.add_constant(graph.value(id).name, std::move(content)));
    return;
  }
  // The node dies, so that its name is free: no need to index the names of the whole graph.
  const ValueId constant = rw.add_value(std::string(graph.value(id).name));
  rw.set_constant(constant, std::make_shared<const Tensor>(std::move(content)));
  rw.replace_uses(id, constant);
}

}  // namespace

void specialize(Rewriter& rw, std::span<const Shape> input_shapes, const Evaluate& evaluate) {
  Graph& graph = rw.graph();
  if (input_shapes.size() != graph.inputs().size())
    bad_data("the model has {} inputs, {} were given", graph.inputs().size(), input_shapes.size());
  for (size_t i = 0; i < input_shapes.size(); ++i) set_input_shape(rw, graph.inputs()[i], input_shapes[i]);
  std::vector<char> is_state(graph.value_capacity(), 0);
  for (const State& s : graph.states()) is_state[static_cast<size_t>(s.value)] = 1;
  for (NodeId id : graph.order()) {
    rw.infer(id);
    const std::vector<ValueId> results = graph.node(id).outputs;  // a copy: new values move the arena
    bool all_known = true;
    for (ValueId out : results) {
      if (out == kNone) continue;
      std::optional<Tensor> content = known_content(graph.value(out));
      all_known = all_known && content;
      if (content) replace_by_constant(rw, out, std::move(*content));
    }
    if (all_known || !evaluate || !foldable(graph, graph.node(id), is_state)) continue;
    std::vector<Tensor> inputs;
    for (ValueId in : graph.node(id).inputs) inputs.push_back(in == kNone ? Tensor() : *graph.value(in).constant);
    const std::vector<Tensor> outputs =
        with_context([&] { return graph.node(id).label(); }, [&] { return evaluate(graph, id, inputs); });
    for (size_t i = 0; i < results.size(); ++i)
      if (results[i] != kNone) replace_by_constant(rw, results[i], outputs[i]);
  }
  rw.remove_dead_nodes();
}

std::string unplannable_reason(const Graph& graph) {
  for (ValueId in : graph.inputs()) {
    const DType dtype = graph.value(in).dtype;
    if (dtype == DType::kUndefined || is_object(dtype))
      return fmt::format("input '{}' is {}", graph.value(in).name, dtype == DType::kUndefined ? "of unknown type" : dtype_name(dtype));
  }
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    if (n.def == nullptr) fail(ExitCode::kUnsupported, "{}: unknown operator", n.label());
    if (n.def->data_dependent) return fmt::format("{}: its output shape depends on data", n.label());
    for (size_t i = 0; i < n.inputs.size() && i < 32; ++i)
      if (((n.def->shape_inputs >> i) & 1) && n.inputs[i] != kNone && !graph.value(n.inputs[i]).is_constant())
        return fmt::format("{}: input {} decides a shape and is computed at run time", n.label(), i);
    for (ValueId out : n.outputs) {
      if (out == kNone) continue;
      const Value& v = graph.value(out);
      if (is_object(v.dtype)) return fmt::format("{}: its output '{}' is {}", n.label(), v.name, dtype_name(v.dtype));
      if (!v.dims || !all_known(*v.dims))
        return fmt::format("{}: the shape of its output '{}' is not known", n.label(), v.name);
    }
  }
  return {};
}

}  // namespace ds
