#include "libds/passes/pattern.h"

#include <algorithm>

#include "libds/passes/pass.h"

namespace ds {

Pattern::Pattern(const Graph& graph) : graph_(graph), is_state_(state_values(graph)) {}

const Node* Pattern::producer(ValueId id) const {
  if (id == kNone || graph_.value(id).producer == kNone) return nullptr;
  return &graph_.node(graph_.value(id).producer);
}

const Node* Pattern::made_by(ValueId id, std::string_view op) const {
  const Node* n = producer(id);
  return n != nullptr && n->is(op) ? n : nullptr;
}

const Tensor* Pattern::constant(ValueId id) const {
  if (id == kNone || (static_cast<size_t>(id) < is_state_.size() && is_state_[static_cast<size_t>(id)])) return nullptr;
  return graph_.value(id).constant.get();
}

std::optional<double> Pattern::scalar(ValueId id) const {
  const Tensor* t = constant(id);
  if (t == nullptr || t->numel() != 1 || !is_float(t->dtype())) return std::nullopt;
  return t->to_doubles()[0];
}

std::optional<std::vector<int64_t>> Pattern::ints(ValueId id) const {
  const Tensor* t = constant(id);
  if (t == nullptr || !is_int(t->dtype()) || t->shape().size() > 1) return std::nullopt;
  return t->to_ints();
}

bool Pattern::visible(ValueId id) const {
  return graph_.is_output(id) ||
         std::any_of(graph_.states().begin(), graph_.states().end(), [&](const State& s) { return s.update == id; });
}

NodeId Pattern::only_user(ValueId id) const {
  if (id == kNone) return kNone;
  const Value& v = graph_.value(id);
  return v.users.size() == 1 && !visible(id) ? v.users[0] : kNone;
}

ValueId Pattern::partner(const Node& n, ValueId operand) {
  if (n.input(0) == operand && n.input(1) != operand) return n.input(1);
  return n.input(1) == operand && n.input(0) != operand ? n.input(0) : kNone;
}

const Dims* Pattern::dims(ValueId id) const {
  if (id == kNone || !graph_.value(id).dims) return nullptr;
  return &*graph_.value(id).dims;
}

bool Pattern::is_f32(ValueId id) const { return id != kNone && graph_.value(id).dtype == DType::kF32; }

std::vector<int64_t> Pattern::permutation(const Node& n) const {
  const Dims* in = n.is("Transpose") ? dims(n.input(0)) : nullptr;
  if (in == nullptr) return {};
  std::vector<int64_t> reversed;
  for (size_t i = in->size(); i-- > 0;) reversed.push_back(static_cast<int64_t>(i));
  return n.attr_ints("perm", reversed);
}

}  // namespace ds
