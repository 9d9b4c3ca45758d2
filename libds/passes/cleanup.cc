// Passes that tidy a graph without changing what it computes.
#include <algorithm>
#include <map>

#include "libds/ir/lower.h"
#include "libds/ir/op_def.h"
#include "libds/passes/pass.h"

namespace ds {
namespace {

constexpr int64_t kMostGrowth = int64_t{1} << 20;  // bytes folding may add to a model, per node

// --- identities --------------------------------------------------------------------------------

bool same_dims(const Value& a, const Value& b) { return a.dims && b.dims && *a.dims == *b.dims; }

bool is_false(const Graph& graph, ValueId id) {
  if (id == kNone) return true;
  const Value& v = graph.value(id);
  return v.is_constant() && v.constant->numel() == 1 && v.dtype == DType::kBool && !v.constant->data<bool>()[0];
}

bool keeps_order(const Node& n, const Value& in) {
  if (!in.dims) return false;
  std::vector<int64_t> reversed;
  for (size_t i = in.dims->size(); i-- > 0;) reversed.push_back(static_cast<int64_t>(i));
  const std::vector<int64_t> perm = n.attr_ints("perm", reversed);
  return std::is_sorted(perm.begin(), perm.end());
}

// Whether output 0 always equals input 0, and no other output is wanted.
bool returns_input(const Graph& graph, const Node& n) {
  if (!n.domain.empty() || n.input(0) == kNone || n.output(0) == kNone) return false;
  for (size_t i = 1; i < n.outputs.size(); ++i) {
    if (n.outputs[i] == kNone) continue;
    if (!graph.value(n.outputs[i]).users.empty() || graph.is_output(n.outputs[i])) return false;
  }
  const Value &in = graph.value(n.inputs[0]), &out = graph.value(n.outputs[0]);
  if (n.op == "Identity") return true;
  if (n.op == "Dropout") return is_false(graph, n.input(2));
  if (n.op == "Cast") return in.dtype == out.dtype && in.dtype != DType::kUndefined;
  if (n.op == "Reshape" || n.op == "Flatten" || n.op == "Squeeze" || n.op == "Unsqueeze" || n.op == "Expand")
    return same_dims(in, out);
  if (n.op == "Transpose") return keeps_order(n, in);
  if (n.op == "Concat") return n.inputs.size() == 1;
  return false;
}

// Whether callers see the value: an output, or the next content of a state.
bool leaves_graph(const Graph& graph, ValueId id) {
  return graph.is_output(id) ||
         std::any_of(graph.states().begin(), graph.states().end(), [&](const State& s) { return s.update == id; });
}

// Whether uses of `from` may become uses of `to` without the graph's interface losing a name or
// gaining an output that is an input or a constant.
bool may_replace(const Graph& graph, ValueId from, ValueId to) {
  if (!leaves_graph(graph, from)) return true;
  return graph.value(to).producer != kNone && !graph.is_output(to) && !graph.value(to).is_constant();
}

// --- constants ---------------------------------------------------------------------------------

int64_t tensor_bytes(const Value& v) {
  if (!v.dims || !all_known(*v.dims)) return -1;
  return checked_mul(checked_numel(concrete(*v.dims)), static_cast<int64_t>(dtype_size(v.dtype)));
}

bool foldable(const Graph& graph, const Node& n, const std::vector<char>& is_state) {
  if (n.def == nullptr || n.def->stateful || n.has_bodies()) return false;
  if (n.is("DequantizeLinear")) return false;
  int64_t in_bytes = 0, out_bytes = 0;
  for (ValueId in : n.inputs) {
    if (in == kNone) continue;
    const Value& v = graph.value(in);
    if (!v.is_constant() || (static_cast<size_t>(in) < is_state.size() && is_state[static_cast<size_t>(in)])) return false;
    in_bytes += static_cast<int64_t>(v.constant->bytes());
  }
  for (ValueId out : n.outputs) {
    if (out == kNone) continue;
    const int64_t bytes = tensor_bytes(graph.value(out));
    if (bytes < 0 && !n.def->data_dependent) return false;
    out_bytes = checked_add(out_bytes, std::max<int64_t>(bytes, 0));
  }
  return out_bytes <= in_bytes + kMostGrowth;
}

// Integers that inference knows although the operands are not: the Shape of a typed value.
std::optional<Tensor> known_ints(const Value& v) {
  if (v.is_constant() || (v.dtype != DType::kI64 && v.dtype != DType::kI32)) return std::nullopt;
  if (!v.ints || !all_known(*v.ints) || !v.dims || !all_known(*v.dims)) return std::nullopt;
  const Shape content = concrete(*v.ints), shape = concrete(*v.dims);
  if (checked_numel(shape) != static_cast<int64_t>(content.size())) return std::nullopt;
  return Tensor::vector<int64_t>(content).cast(v.dtype).reshaped(shape);
}

void replace_by_constant(Rewriter& rw, ValueId out, Tensor content) {
  const std::string name = rw.graph().value(out).name;
  rw.replace_uses(out, rw.add_constant(name, std::move(content)));
}

// --- common subexpressions ---------------------------------------------------------------------

std::string bits_key(const Tensor& t) {
  std::string key = fmt::format("{}:{}:", dtype_name(t.dtype()), shape_string(t.shape()));
  if (t.dtype() == DType::kString)
    for (const std::string& s : t.strings()) key += fmt::format("{}:{},", s.size(), s);
  else if (is_object(t.dtype())) key += fmt::format("@{}", t.raw());  // never equal to another
  else if (t.bytes() > 0) key.append(static_cast<const char*>(t.raw()), t.bytes());
  return key;
}

// Equal keys: the same operator on the same operands with the same attributes. Short constants
// (axes, shapes) count by content, as exporters write one copy per use.
std::string expression_key(const Graph& graph, const Node& n, const std::vector<char>& is_state) {
  constexpr size_t kShortConstant = 1024;  // bytes
  std::string key = fmt::format("{}.{}/{}(", n.domain, n.op, n.outputs.size());
  for (ValueId in : n.inputs) {
    const Tensor* constant = in == kNone || (static_cast<size_t>(in) < is_state.size() && is_state[static_cast<size_t>(in)])
                                 ? nullptr
                                 : graph.value(in).constant.get();
    key += constant != nullptr && constant->bytes() <= kShortConstant ? "c" + bits_key(*constant) : fmt::format("v{}", in);
    key += ',';
  }
  for (const auto& [name, attribute] : n.attrs) {
    key += fmt::format(";{}={}:", name, attribute.index());
    struct Writer {
      std::string operator()(int64_t v) const { return std::to_string(v); }
      std::string operator()(float v) const { return std::to_string(float_bits(v)); }
      std::string operator()(const std::string& v) const { return fmt::format("{}:{}", v.size(), v); }
      std::string operator()(const std::vector<int64_t>& v) const { return fmt::format("{}", fmt::join(v, ",")); }
      std::string operator()(const std::vector<float>& v) const {
        std::string s;
        for (float x : v) s += fmt::format("{},", float_bits(x));
        return s;
      }
      std::string operator()(const std::vector<std::string>& v) const {
        std::string s;
        for (const std::string& x : v) s += fmt::format("{}:{},", x.size(), x);
        return s;
      }
      std::string operator()(const Tensor& t) const { return bits_key(t); }
      std::string operator()(const std::shared_ptr<const Graph>&) const { return {}; }  // nodes with bodies are never merged
    };
    key += std::visit(Writer{}, attribute);
  }
  return key;
}

bool merge_into(Rewriter& rw, NodeId duplicate, NodeId kept) {
  const Graph& graph = rw.graph();
  const std::vector<ValueId> from = graph.node(duplicate).outputs, to = graph.node(kept).outputs;
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i] == kNone) continue;
    if (to[i] == kNone || !may_replace(graph, from[i], to[i])) return false;
  }
  for (size_t i = 0; i < from.size(); ++i)
    if (from[i] != kNone) rw.replace_uses(from[i], to[i]);
  rw.erase_node(duplicate);
  return true;
}

}  // namespace

bool lower_operators(Rewriter& rw, PassContext&) { return lower_nodes(rw); }

bool remove_dead_code(Rewriter& rw, PassContext&) { return rw.remove_dead_nodes() > 0; }

bool remove_identities(Rewriter& rw, PassContext&) {
  const Graph& graph = rw.graph();
  bool changed = false;
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    if (!returns_input(graph, n) || !may_replace(graph, n.outputs[0], n.inputs[0])) continue;
    rw.replace_uses(n.outputs[0], n.inputs[0]);
    rw.erase_node(id);
    changed = true;
  }
  return changed;
}

bool fold_constants(Rewriter& rw, PassContext& context) {
  const Graph& graph = rw.graph();
  const std::vector<char> is_state = state_values(graph);
  bool changed = false;
  for (NodeId id : graph.order()) {
    const Node n = graph.node(id);  // a copy: constants added below move the arenas
    // Outputs and new states stay results of nodes: a constant carries no interface name.
    if (std::any_of(n.outputs.begin(), n.outputs.end(), [&](ValueId out) { return out != kNone && leaves_graph(graph, out); })) continue;
    for (ValueId out : n.outputs) {
      if (out == kNone || graph.value(out).users.empty()) continue;
      if (auto content = known_ints(graph.value(out))) {
        replace_by_constant(rw, out, std::move(*content));
        changed = true;
      }
    }
    if (!context.evaluate || !foldable(graph, n, is_state)) continue;
    std::vector<Tensor> inputs;
    for (ValueId in : n.inputs) inputs.push_back(in == kNone ? Tensor() : *graph.value(in).constant);
    std::vector<Tensor> outputs = with_context([&] { return n.label(); }, [&] { return context.evaluate(graph, id, inputs); });
    for (size_t i = 0; i < n.outputs.size(); ++i)
      if (n.outputs[i] != kNone) replace_by_constant(rw, n.outputs[i], std::move(outputs[i]));
    changed = true;
    rw.erase_node(id);
  }
  if (changed) rw.remove_dead_nodes();
  return changed;
}

bool merge_common_subexpressions(Rewriter& rw, PassContext&) {
  const Graph& graph = rw.graph();
  const std::vector<char> is_state = state_values(graph);
  std::map<std::string, NodeId> seen;
  bool changed = false;
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    if (n.def == nullptr || n.def->stateful || n.has_bodies()) continue;
    const auto [it, fresh] = seen.emplace(expression_key(graph, n, is_state), id);
    if (!fresh) changed |= merge_into(rw, id, it->second);
  }
  return changed;
}

}  // namespace ds
