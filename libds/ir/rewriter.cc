#include "libds/ir/rewriter.h"

#include <algorithm>
#include <queue>

#include "libds/ir/free_name.h"
#include "libds/ir/op_def.h"

namespace ds {

// --- list and uses -----------------------------------------------------------------------------

void Rewriter::link(NodeId id, NodeId before) {
  Node& n = node(id);
  n.next = before;
  n.prev = before == kNone ? graph_.tail_ : node(before).prev;
  (n.prev == kNone ? graph_.head_ : node(n.prev).next) = id;
  (before == kNone ? graph_.tail_ : node(before).prev) = id;
  ++graph_.live_nodes_;
}

void Rewriter::unlink(NodeId id) {
  Node& n = node(id);
  (n.prev == kNone ? graph_.head_ : node(n.prev).next) = n.next;
  (n.next == kNone ? graph_.tail_ : node(n.next).prev) = n.prev;
  n.prev = n.next = kNone;
  --graph_.live_nodes_;
}

void Rewriter::insert_after(NodeId id) { before_ = node(id).next; }

void Rewriter::move_before(NodeId id, NodeId before) {
  unlink(id);
  link(id, before);
}

void Rewriter::add_user(ValueId id, NodeId user) {
  if (id != kNone) value(id).users.push_back(user);
}

void Rewriter::drop_user(ValueId id, NodeId user) {
  if (id == kNone) return;
  auto& users = value(id).users;
  const auto it = std::find(users.begin(), users.end(), user);
  DS_CHECK(it != users.end());
  users.erase(it);
}

// --- names -------------------------------------------------------------------------------------

void Rewriter::index_names() {
  if (names_indexed_) return;
  for (size_t i = 0; i < graph_.values_.size(); ++i) names_.emplace(graph_.values_[i].name, static_cast<ValueId>(i));
  names_indexed_ = true;
}

std::string Rewriter::unique_name(std::string_view base) {
  index_names();
  return free_name(std::string(base.empty() ? "value" : base), [&](const std::string& name) { return names_.count(name) > 0; });
}

// --- values ------------------------------------------------------------------------------------

ValueId Rewriter::new_value(std::string name) {
  const auto id = static_cast<ValueId>(graph_.values_.size());
  if (names_indexed_) names_.emplace(name, id);
  graph_.values_.emplace_back();
  graph_.values_.back().name = std::move(name);
  return id;
}

ValueId Rewriter::add_value(std::string_view name) { return new_value(std::string(name)); }

ValueId Rewriter::add_input(std::string_view name, DType dtype, Dims dims) {
  const ValueId id = new_value(unique_name(name));
  set_type(id, dtype, std::move(dims));
  graph_.inputs_.push_back(id);
  return id;
}

ValueId Rewriter::add_constant(std::string_view name, Tensor tensor) {
  return add_constant(name, std::make_shared<const Tensor>(std::move(tensor)));
}

ValueId Rewriter::add_constant(std::string_view name, std::shared_ptr<const Tensor> tensor) {
  const ValueId id = new_value(unique_name(name));
  set_constant(id, std::move(tensor));
  return id;
}

void Rewriter::set_constant(ValueId id, std::shared_ptr<const Tensor> tensor) {
  Value& v = value(id);
  v.dtype = tensor->dtype();
  v.dims = to_dims(tensor->shape());
  v.constant = std::move(tensor);
}

void Rewriter::clear_constant(ValueId id) { value(id).constant.reset(); }

void Rewriter::forget_unused_constant(ValueId id) {
  Value& v = value(id);
  const bool is_state = std::any_of(graph_.states_.begin(), graph_.states_.end(), [&](const State& s) { return s.value == id; });
  if (!v.is_constant() || !v.users.empty() || graph_.is_output(id) || is_state) return;
  if (const auto it = names_.find(v.name); it != names_.end() && it->second == id) names_.erase(it);
  v.constant.reset();
  v.name.clear();
}

void Rewriter::set_type(ValueId id, DType dtype, std::optional<Dims> dims) {
  Value& v = value(id);
  if (v.dtype != dtype) v.element.reset();
  v.dtype = dtype;
  v.dims = std::move(dims);
}

void Rewriter::set_type(ValueId id, ValueType type) {
  Value& v = value(id);
  v.dtype = type.dtype;
  v.dims = std::move(type.dims);
  v.element = std::move(type.element);
}

void Rewriter::set_known_ints(ValueId id, std::optional<Dims> ints) { value(id).ints = std::move(ints); }
void Rewriter::set_opaque(ValueId id, std::string opaque) { value(id).opaque = std::move(opaque); }

void Rewriter::rename_value(ValueId id, std::string_view name) {
  if (value(id).name == name) return;
  std::string chosen = unique_name(name);
  names_.erase(value(id).name);
  names_.emplace(chosen, id);
  value(id).name = std::move(chosen);
}

// --- nodes -------------------------------------------------------------------------------------

NodeId Rewriter::add_raw_node(Node n) {
  const auto id = static_cast<NodeId>(graph_.nodes_.size());
  for (ValueId in : n.inputs) add_user(in, id);
  for (size_t i = 0; i < n.outputs.size(); ++i) {
    if (n.outputs[i] == kNone) continue;
    value(n.outputs[i]).producer = id;
    value(n.outputs[i]).producer_index = static_cast<int32_t>(i);
  }
  n.alive = true;
  graph_.nodes_.push_back(std::move(n));
  link(id, before_);
  return id;
}

NodeId Rewriter::add_node(std::string_view op, std::vector<ValueId> inputs, Attributes attrs, std::string_view name,
                          size_t outputs) {
  Node n;
  n.op = op;
  n.def = OpRegistry::instance().find("", op);
  if (n.def == nullptr) {
    n.domain = Graph::kInternalDomain;
    n.def = OpRegistry::instance().find(n.domain, op);
  }
  if (n.def == nullptr) fail(ExitCode::kInternal, "no operator named '{}' is registered", op);
  n.inputs = std::move(inputs);
  n.attrs = std::move(attrs);
  const std::string base = name.empty() ? fmt::format("{}_{}", op, graph_.nodes_.size()) : std::string(name);
  n.name = base;
  for (size_t i = 0; i < outputs; ++i)
    n.outputs.push_back(new_value(unique_name(i == 0 ? base : fmt::format("{}.{}", base, i))));
  const NodeId id = add_raw_node(std::move(n));
  infer(id);
  return id;
}

ValueId Rewriter::emit(std::string_view op, std::vector<ValueId> inputs, Attributes attrs, std::string_view name) {
  return graph_.node(add_node(op, std::move(inputs), std::move(attrs), name, 1)).outputs[0];
}

void Rewriter::set_input(NodeId id, size_t index, ValueId v) {
  Node& n = node(id);
  if (n.inputs.size() <= index) n.inputs.resize(index + 1, kNone);
  drop_user(n.inputs[index], id);
  n.inputs[index] = v;
  add_user(v, id);
  if (n.captured > 0) return;
  while (!n.inputs.empty() && n.inputs.back() == kNone) n.inputs.pop_back();
}

void Rewriter::set_captured(NodeId id, std::vector<ValueId> values) {
  Node& n = node(id);
  for (size_t i = n.own_inputs(); i < n.inputs.size(); ++i) drop_user(n.inputs[i], id);
  n.inputs.resize(n.own_inputs());
  n.captured = values.size();
  for (ValueId v : values) {
    n.inputs.push_back(v);
    add_user(v, id);
  }
}

void Rewriter::set_attr(NodeId id, std::string_view key, Attribute v) {
  node(id).attrs.insert_or_assign(std::string(key), std::move(v));
}

void Rewriter::erase_attr(NodeId id, std::string_view key) {
  auto& attrs = node(id).attrs;
  if (const auto it = attrs.find(key); it != attrs.end()) attrs.erase(it);
}

void Rewriter::set_name(NodeId id, std::string_view name) { node(id).name = name; }

void Rewriter::set_op(NodeId id, std::string_view op) {
  Node& n = node(id);
  n.domain.clear();
  n.op = op;
  n.def = OpRegistry::instance().find("", op);
}

void Rewriter::truncate_outputs(NodeId id, size_t count) {
  Node& n = node(id);
  while (n.outputs.size() > count) {
    const ValueId out = n.outputs.back();
    n.outputs.pop_back();
    if (out == kNone) continue;
    DS_CHECK(value(out).users.empty() && !graph_.is_output(out));
    value(out).producer = kNone;
  }
}

void Rewriter::erase_node(NodeId id) {
  Node& n = node(id);
  DS_CHECK(n.alive);
  for (ValueId out : n.outputs) {
    if (out == kNone) continue;
    DS_CHECK(value(out).users.empty());
    value(out).producer = kNone;
  }
  for (ValueId in : n.inputs) drop_user(in, id);
  if (before_ == id) before_ = n.next;
  unlink(id);
  n.inputs.clear();
  n.captured = 0;
  n.outputs.clear();
  n.attrs.clear();
  n.alive = false;
}

void Rewriter::replace_uses(ValueId from, ValueId to) {
  if (from == to) return;
  const std::vector<NodeId> users = value(from).users;
  for (NodeId user : users)
    for (ValueId& in : node(user).inputs)
      if (in == from) in = to;
  value(from).users.clear();
  for (NodeId user : users) value(to).users.push_back(user);
  for (State& s : graph_.states_)
    if (s.update == from) s.update = to;
  const bool interface = graph_.is_output(to);
  for (ValueId& out : graph_.outputs_)
    if (out == from) out = to;
  // The two swap names. An output of the graph keeps its own when it replaces another value as well.
  if (interface || value(to).producer == kNone) return;
  std::swap(value(from).name, value(to).name);
  if (!names_indexed_) return;
  names_[value(from).name] = from;
  names_[value(to).name] = to;
}

// --- interface ---------------------------------------------------------------------------------

void Rewriter::set_inputs(std::vector<ValueId> inputs) { graph_.inputs_ = std::move(inputs); }
void Rewriter::set_outputs(std::vector<ValueId> outputs) { graph_.outputs_ = std::move(outputs); }
void Rewriter::add_output(ValueId id) { graph_.outputs_.push_back(id); }
void Rewriter::add_state(State state) { graph_.states_.push_back(state); }
void Rewriter::clear_states() { graph_.states_.clear(); }

size_t Rewriter::remove_dead_nodes() {
  std::vector<char> kept(graph_.values_.size(), 0);
  for (ValueId id : graph_.outputs_) kept[static_cast<size_t>(id)] = 1;
  for (const State& s : graph_.states_) kept[static_cast<size_t>(s.update)] = 1;
  size_t removed = 0;
  for (NodeId id = graph_.tail_; id != kNone;) {
    const Node& n = node(id);
    const NodeId previous = n.prev;
    const bool used = std::any_of(n.outputs.begin(), n.outputs.end(), [&](ValueId v) {
      return v != kNone && (kept[static_cast<size_t>(v)] || !value(v).users.empty());
    });
    if (!used) {
      erase_node(id);
      ++removed;
    }
    id = previous;
  }
  return removed;
}

void Rewriter::sort() {
  const std::vector<NodeId> before = graph_.order();
  std::vector<int> waiting(graph_.nodes_.size(), 0);
  std::vector<size_t> rank(graph_.nodes_.size(), 0);
  using Entry = std::pair<size_t, NodeId>;  // file position first: ties keep file order
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> ready;
  for (size_t i = 0; i < before.size(); ++i) {
    const NodeId id = before[i];
    rank[static_cast<size_t>(id)] = i;
    for (ValueId in : node(id).inputs)
      if (in != kNone && value(in).producer != kNone) ++waiting[static_cast<size_t>(id)];
    if (waiting[static_cast<size_t>(id)] == 0) ready.emplace(i, id);
  }
  std::vector<NodeId> after;
  while (!ready.empty()) {
    const NodeId id = ready.top().second;
    ready.pop();
    after.push_back(id);
    for (ValueId out : node(id).outputs) {
      if (out == kNone) continue;
      for (NodeId user : value(out).users)
        if (--waiting[static_cast<size_t>(user)] == 0) ready.emplace(rank[static_cast<size_t>(user)], user);
    }
  }
  if (after.size() != before.size()) {
    for (NodeId id : before)
      if (waiting[static_cast<size_t>(id)] > 0) bad_data("{} is on a cycle", node(id).label());
  }
  graph_.head_ = graph_.tail_ = kNone;
  graph_.live_nodes_ = 0;
  for (NodeId id : after) link(id, kNone);
}

void Rewriter::infer(NodeId id) {
  const OpDef* def = node(id).def;
  if (def == nullptr || !def->infer) return;
  with_context([&] { return node(id).label(); }, [&] {
    InferContext context(graph_, *this, id);
    def->infer(context);
  });
}

void Rewriter::infer_all() {
  for (NodeId id : graph_.order()) infer(id);
}

}  // namespace ds
