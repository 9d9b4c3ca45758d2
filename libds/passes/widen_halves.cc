#include "libds/passes/widen_halves.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "libds/ir/op_def.h"

namespace ds {
namespace {

class Widener {
 public:
  explicit Widener(Rewriter& rewriter) : graph_(rewriter.graph()), rw_(rewriter), is_state_(state_values(graph_)) {}

  bool run() {
    const std::vector<NodeId> nodes = graph_.order();
    if (nodes.empty()) return false;
    first_ = nodes.front();
    for (NodeId id : nodes) visit(id);
    if (changed_) rw_.remove_dead_nodes();
    return changed_;
  }

 private:
  const Value& value(ValueId id) const { return graph_.value(id); }
  bool is_half_value(ValueId id) const { return id != kNone && is_half(value(id).dtype); }
  bool is_state(ValueId id) const { return static_cast<size_t>(id) < is_state_.size() && is_state_[static_cast<size_t>(id)]; }
  static bool is_cast(const Node& n) { return n.is("Cast"); }

  // What the value was rounded from; kNone where it did not come from f32.
  ValueId source(ValueId id) const {
    const NodeId producer = value(id).producer;
    if (producer == kNone || !is_cast(graph_.node(producer))) return kNone;
    const ValueId x = graph_.node(producer).input(0);
    return value(x).dtype == DType::kF32 ? x : kNone;
  }

  void visit(NodeId id) {
    const Node& n = graph_.node(id);
    if (is_cast(n)) return skip_rounding(id);
    if (n.def == nullptr || n.has_bodies() || n.is("CastLike")) return;
    if (!std::any_of(n.inputs.begin(), n.inputs.end(), [&](ValueId v) { return is_half_value(v); })) return;
    const bool moves = n.def->moves_elements || n.def->is_view;
    for (ValueId v : n.inputs) {
      if (v == kNone) continue;
      if (is_object(value(v).dtype) || is_container(value(v).dtype) || is_state(v)) return;
      // Bytes are moved as they are, but for those that are f32 already.
      if (moves && is_half_value(v) && source(v) == kNone) return;
    }
    widen(id);
  }

  // A Cast to f32 of what this pass rounded.
  void skip_rounding(NodeId id) {
    const Node& n = graph_.node(id);
    const ValueId y = n.outputs[0];
    if (value(y).dtype != DType::kF32 || !is_half_value(n.input(0)) || graph_.is_output(y)) return;
    const ValueId x = source(n.input(0));
    if (x == kNone || !made(value(n.input(0)).producer)) return;
    rw_.replace_uses(y, x);
    changed_ = true;
  }

  bool made(NodeId id) const { return static_cast<size_t>(id) < made_.size() && made_[static_cast<size_t>(id)] != 0; }

  // The value in f32.
  ValueId widened(ValueId id) {
    if (const ValueId x = source(id); x != kNone) return x;
    ValueId& wide = widened_.try_emplace(id, kNone).first->second;
    if (wide != kNone) return wide;
    const std::string name = value(id).name + "/f32";
    if (const auto constant = value(id).constant; constant != nullptr && !is_state(id)) {
      return wide = rw_.add_constant(name, Tensor::deferred(DType::kF32, constant->shape(), [constant](std::byte* to) {
        const Tensor exact = constant->transient().cast(DType::kF32);
        std::memcpy(to, exact.raw(), exact.bytes());
      }));
    }
    // Where the value is made, so that whoever comes later finds it there.
    const NodeId producer = value(id).producer;
    if (producer != kNone) rw_.insert_after(producer);
    else rw_.insert_before(first_);
    return wide = rw_.emit("Cast", {id}, {{"to", static_cast<int64_t>(DType::kF32)}}, name);
  }

  void widen(NodeId id) {
    const std::vector<ValueId> inputs = graph_.node(id).inputs, outputs = graph_.node(id).outputs;
    std::vector<DType> before;
    for (ValueId y : outputs) before.push_back(y == kNone ? DType::kUndefined : value(y).dtype);
    for (size_t i = 0; i < inputs.size(); ++i)
      if (is_half_value(inputs[i])) rw_.set_input(id, i, widened(inputs[i]));
    if (!computes_in_f32(id, before)) {  // it has other ideas of its types
      for (size_t i = 0; i < inputs.size(); ++i)
        if (inputs[i] != kNone) rw_.set_input(id, i, inputs[i]);
      rw_.infer(id);
      return;
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (outputs[i] == kNone || !is_half(before[i])) continue;
      rw_.insert_after(id);
      const ValueId rounded = rw_.emit("Cast", {outputs[i]}, {{"to", static_cast<int64_t>(before[i])}}, value(outputs[i]).name + "/rounded");
      const NodeId cast = value(rounded).producer;
      rw_.replace_uses(outputs[i], rounded);
      rw_.set_input(cast, 0, outputs[i]);
      made_.resize(std::max(made_.size(), static_cast<size_t>(cast) + 1));
      made_[static_cast<size_t>(cast)] = 1;
    }
    changed_ = true;
  }

  // Whether inference takes the inputs in f32 and then makes f32 of what was a 16-bit float, and of nothing else.
  bool computes_in_f32(NodeId id, const std::vector<DType>& before) {
    try {
      rw_.infer(id);
    } catch (const Error&) {
      return false;
    }
    const std::vector<ValueId>& outputs = graph_.node(id).outputs;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (outputs[i] == kNone) continue;
      if (value(outputs[i]).dtype != (is_half(before[i]) ? DType::kF32 : before[i])) return false;
    }
    return true;
  }

  Graph& graph_;
  Rewriter& rw_;
  std::vector<char> is_state_;
  std::unordered_map<ValueId, ValueId> widened_;
  NodeId first_ = kNone;
  std::vector<char> made_;  // by node: a cast of this pass, back to 16 bits
  bool changed_ = false;
};

}  // namespace

bool widen_halves(Rewriter& rewriter, PassContext&) { return Widener(rewriter).run(); }

}  // namespace ds
