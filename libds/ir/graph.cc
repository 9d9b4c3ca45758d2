#include "libds/ir/graph.h"

#include <algorithm>
#include <set>

#include "libds/ir/op_def.h"

namespace ds {

bool all_known(const Dims& dims) {
  return std::all_of(dims.begin(), dims.end(), [](Dim d) { return d.known(); });
}

Shape concrete(const Dims& dims) {
  Shape shape;
  shape.reserve(dims.size());
  for (Dim d : dims) {
    DS_CHECK(d.known());
    shape.push_back(d.raw);
  }
  return shape;
}

Dims to_dims(const Shape& shape) { return Dims(shape.begin(), shape.end()); }

// --- Node --------------------------------------------------------------------------------------

namespace {

template <typename T>
const T* typed_attr(const Node& node, std::string_view key, const char* expected) {
  const auto it = node.attrs.find(key);
  if (it == node.attrs.end()) return nullptr;
  const T* value = std::get_if<T>(&it->second);
  if (value == nullptr) bad_data("{}: attribute '{}' is not {}", node.label(), key, expected);
  return value;
}

}  // namespace

int64_t Node::attr_int(std::string_view key, int64_t otherwise) const {
  const auto* v = typed_attr<int64_t>(*this, key, "an integer");
  return v ? *v : otherwise;
}

float Node::attr_float(std::string_view key, float otherwise) const {
  const auto* v = typed_attr<float>(*this, key, "a float");
  return v ? *v : otherwise;
}

std::string Node::attr_string(std::string_view key, std::string_view otherwise) const {
  const auto* v = typed_attr<std::string>(*this, key, "a string");
  return v ? *v : std::string(otherwise);
}

std::vector<int64_t> Node::attr_ints(std::string_view key, std::vector<int64_t> otherwise) const {
  const auto* v = typed_attr<std::vector<int64_t>>(*this, key, "a list of integers");
  return v ? *v : std::move(otherwise);
}

std::vector<float> Node::attr_floats(std::string_view key, std::vector<float> otherwise) const {
  const auto* v = typed_attr<std::vector<float>>(*this, key, "a list of floats");
  return v ? *v : std::move(otherwise);
}

std::vector<std::string> Node::attr_strings(std::string_view key) const {
  const auto* v = typed_attr<std::vector<std::string>>(*this, key, "a list of strings");
  return v ? *v : std::vector<std::string>();
}

const Tensor* Node::attr_tensor(std::string_view key) const { return typed_attr<Tensor>(*this, key, "a tensor"); }

std::shared_ptr<const Graph> Node::attr_graph(std::string_view key) const {
  const auto* v = typed_attr<std::shared_ptr<const Graph>>(*this, key, "a graph");
  return v ? *v : nullptr;
}

bool Node::has_bodies() const {
  return std::any_of(attrs.begin(), attrs.end(), [](const auto& entry) {
    return std::holds_alternative<std::shared_ptr<const Graph>>(entry.second);
  });
}

std::vector<std::pair<std::string, std::shared_ptr<const Graph>>> bodies_of(const Node& node) {
  std::vector<std::pair<std::string, std::shared_ptr<const Graph>>> bodies;
  for (const auto& [key, attribute] : node.attrs)
    if (const auto* body = std::get_if<std::shared_ptr<const Graph>>(&attribute)) bodies.emplace_back(key, *body);
  return bodies;
}

bool Node::is_internal(std::string_view internal_op) const {
  return op == internal_op && domain == Graph::kInternalDomain;
}

std::string Node::label() const {
  const std::string full = domain.empty() ? op : fmt::format("{}.{}", domain, op);
  return fmt::format("node '{}' ({})", name, full);
}

// --- Graph -------------------------------------------------------------------------------------

std::vector<NodeId> Graph::order() const {
  std::vector<NodeId> ids;
  ids.reserve(live_nodes_);
  for (NodeId id = head_; id != kNone; id = node(id).next) ids.push_back(id);
  return ids;
}

ValueId Graph::find_value(std::string_view name) const {
  for (size_t i = 0; i < values_.size(); ++i)
    if (values_[i].name == name) return static_cast<ValueId>(i);
  return kNone;
}

bool Graph::is_input(ValueId id) const { return std::find(inputs_.begin(), inputs_.end(), id) != inputs_.end(); }
bool Graph::is_output(ValueId id) const { return std::find(outputs_.begin(), outputs_.end(), id) != outputs_.end(); }

std::vector<ValueId> Graph::initializers() const {
  std::set<ValueId> kept(outputs_.begin(), outputs_.end());
  for (const State& s : states_) kept.insert(s.value);
  std::vector<ValueId> ids;
  for (size_t i = 0; i < values_.size(); ++i) {
    const auto id = static_cast<ValueId>(i);
    if (values_[i].is_constant() && (!values_[i].users.empty() || kept.count(id))) ids.push_back(id);
  }
  return ids;
}

Dim Graph::symbol(std::string_view name) {
  if (const auto it = symbol_ids_.find(name); it != symbol_ids_.end()) return Dim::symbol(it->second);
  const auto id = static_cast<int32_t>(symbols_.size());
  symbols_.emplace_back(name);
  symbol_ids_.emplace(name, id);
  return Dim::symbol(id);
}

Dim Graph::fresh_dim() {
  symbols_.emplace_back();
  return Dim::symbol(static_cast<int32_t>(symbols_.size() - 1));
}

std::string Graph::dim_string(Dim dim) const {
  if (dim.known()) return std::to_string(dim.raw);
  const std::string& name = symbols_[static_cast<size_t>(dim.symbol_id())];
  return name.empty() ? "?" : name;
}

std::string Graph::dims_string(const Dims& dims) const {
  std::string out = "[";
  for (size_t i = 0; i < dims.size(); ++i) out += (i ? "," : "") + dim_string(dims[i]);
  return out + "]";
}

std::string Graph::type_string(ValueId id) const { return type_string(value(id).type()); }

std::string Graph::type_string(const ValueType& type) const {
  if (is_container(type.dtype))
    return fmt::format("{}({})", dtype_name(type.dtype), type.element ? type_string(*type.element) : "...");
  return fmt::format("{}{}", dtype_name(type.dtype), type.dims ? dims_string(*type.dims) : "[...]");
}

ValueType Graph::translate(const Graph& from, const ValueType& type) {
  ValueType result = type;
  if (result.dims) {
    for (Dim& d : *result.dims) {
      if (d.known()) continue;
      const std::string& name = from.symbol_name(d.symbol_id());
      d = name.empty() ? fresh_dim() : symbol(name);
    }
  }
  if (type.element) result.element = std::make_shared<const ValueType>(translate(from, *type.element));
  return result;
}

// --- text --------------------------------------------------------------------------------------

namespace {

std::string attribute_string(const Attribute& a) {
  struct Printer {
    std::string operator()(int64_t v) const { return std::to_string(v); }
    std::string operator()(float v) const { return fmt::format("{}f", v); }
    std::string operator()(const std::string& v) const { return fmt::format("\"{}\"", v); }
    std::string operator()(const std::vector<int64_t>& v) const { return fmt::format("[{}]", fmt::join(v, ",")); }
    std::string operator()(const std::vector<float>& v) const { return fmt::format("[{}]", fmt::join(v, ",")); }
    std::string operator()(const std::vector<std::string>& v) const { return fmt::format("[{}]", fmt::join(v, ",")); }
    std::string operator()(const Tensor& t) const { return fmt::format("{}<{}>", dtype_name(t.dtype()), shape_string(t.shape())); }
    std::string operator()(const std::shared_ptr<const Graph>& g) const { return "{" + print_graph(*g) + "}"; }
  };
  return std::visit(Printer{}, a);
}

}  // namespace

std::string print_graph(const Graph& graph) {
  auto name = [&](ValueId id) { return id == kNone ? std::string("_") : "%" + graph.value(id).name; };
  std::string out = fmt::format("graph {} {{\n", graph.name);
  for (ValueId id : graph.inputs()) out += fmt::format("  input {}: {}\n", name(id), graph.type_string(id));
  for (ValueId id : graph.initializers()) out += fmt::format("  const {}: {}\n", name(id), graph.type_string(id));
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    out += "  ";
    for (size_t i = 0; i < n.outputs.size(); ++i) {
      out += (i ? ", " : "") + name(n.outputs[i]);
      if (n.outputs[i] != kNone) out += ": " + graph.type_string(n.outputs[i]);
    }
    out += " = " + (n.domain.empty() ? n.op : n.domain + "." + n.op) + "(";
    for (size_t i = 0; i < n.inputs.size(); ++i) out += (i ? ", " : "") + name(n.inputs[i]);
    out += ")";
    for (const auto& [key, value] : n.attrs) out += fmt::format(" {}={}", key, attribute_string(value));
    out += "\n";
  }
  for (const State& s : graph.states()) out += fmt::format("  state {} <- {}\n", name(s.value), name(s.update));
  for (ValueId id : graph.outputs()) out += fmt::format("  output {}\n", name(id));
  return out + "}\n";
}

// --- verifier ----------------------------------------------------------------------------------

namespace {

void broken(const std::string& what) { fail(ExitCode::kInternal, "broken graph: {}", what); }

void verify_arity(const Node& n) {
  const OpDef& def = *n.def;
  const int inputs = static_cast<int>(n.own_inputs()), outputs = static_cast<int>(n.outputs.size());
  if (inputs < def.min_inputs || (def.max_inputs >= 0 && inputs > def.max_inputs))
    broken(fmt::format("{} has {} inputs", n.label(), inputs));
  if (outputs < def.min_outputs || (def.max_outputs >= 0 && outputs > def.max_outputs))
    broken(fmt::format("{} has {} outputs", n.label(), outputs));
}

}  // namespace

void verify_graph(const Graph& graph) {
  const auto verify_bodies = [](const Node& n) {
    if (n.captured > n.inputs.size()) broken(n.label() + " captures more than it reads");
    for (const auto& [key, body] : bodies_of(n)) {
      if (body->inputs().size() < n.captured) broken(fmt::format("{}: body '{}' lacks inputs for what is captured", n.label(), key));
      verify_graph(*body);
    }
  };
  std::vector<char> defined(graph.value_capacity(), 0);
  std::vector<std::vector<NodeId>> users(graph.value_capacity());
  std::set<std::string> names;
  for (ValueId id : graph.inputs()) defined[static_cast<size_t>(id)] = 1;
  for (size_t i = 0; i < graph.value_capacity(); ++i)
    if (graph.value(static_cast<ValueId>(i)).is_constant()) defined[i] = 1;
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    if (!n.alive) broken(n.label() + " is dead but linked");
    if (n.def != nullptr) verify_arity(n);
    verify_bodies(n);
    for (ValueId in : n.inputs) {
      if (in == kNone) continue;
      if (!defined[static_cast<size_t>(in)])
        broken(fmt::format("{} reads '{}' before it is made", n.label(), graph.value(in).name));
      users[static_cast<size_t>(in)].push_back(id);
    }
    for (size_t i = 0; i < n.outputs.size(); ++i) {
      const ValueId out = n.outputs[i];
      if (out == kNone) continue;
      const Value& v = graph.value(out);
      if (v.producer != id || v.producer_index != static_cast<int32_t>(i))
        broken(fmt::format("{} does not own its output '{}'", n.label(), v.name));
      if (defined[static_cast<size_t>(out)]) broken(fmt::format("'{}' is made twice", v.name));
      if (!names.insert(v.name).second) broken(fmt::format("two values are named '{}'", v.name));
      defined[static_cast<size_t>(out)] = 1;
    }
  }
  for (size_t i = 0; i < graph.value_capacity(); ++i) {
    std::vector<NodeId> recorded = graph.value(static_cast<ValueId>(i)).users;
    std::sort(recorded.begin(), recorded.end());
    std::sort(users[i].begin(), users[i].end());
    if (recorded != users[i]) broken(fmt::format("uses of '{}' are not what is recorded", graph.value(static_cast<ValueId>(i)).name));
  }
  for (ValueId id : graph.outputs())
    if (!defined[static_cast<size_t>(id)]) broken(fmt::format("output '{}' is never made", graph.value(id).name));
  for (const State& s : graph.states())
    if (!defined[static_cast<size_t>(s.update)] || !graph.value(s.value).is_constant())
      broken(fmt::format("state '{}' has no initial or no new content", graph.value(s.value).name));
}

}  // namespace ds
