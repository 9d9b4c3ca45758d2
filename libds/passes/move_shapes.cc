#include "libds/passes/move_shapes.h"

#include <algorithm>

#include "libds/ir/op_def.h"
#include "libds/passes/pattern.h"

namespace ds {
namespace {

using Perm = std::vector<int64_t>;

// first, then second: axis i of the result is axis first[second[i]] of the operand.
Perm composed(const Perm& first, const Perm& second) {
  Perm p;
  for (int64_t axis : second) p.push_back(first[static_cast<size_t>(axis)]);
  return p;
}

Perm inverse(const Perm& perm) {
  Perm p(perm.size());
  for (size_t i = 0; i < perm.size(); ++i) p[static_cast<size_t>(perm[i])] = static_cast<int64_t>(i);
  return p;
}

bool is_unary(const Node& n) {
  static const char* const kNames[] = {"Relu", "Sigmoid", "Tanh", "Exp", "Log", "Sqrt", "Reciprocal", "Neg", "Abs", "Erf", "LeakyRelu", "Elu",
                                       "Celu", "Selu", "ThresholdedRelu", "Softplus", "Softsign", "HardSigmoid", "HardSwish", "Gelu", "Mish",
                                       "Swish", "Cast", "Clip", "Floor", "Ceil", "Round", "Sign", "Not"};
  return std::any_of(std::begin(kNames), std::end(kNames), [&](const char* name) { return n.is(name); });
}

bool is_binary(const Node& n) {
  static const char* const kNames[] = {"Add", "Sub", "Mul", "Div", "Pow"};
  return n.inputs.size() == 2 && std::any_of(std::begin(kNames), std::end(kNames), [&](const char* name) { return n.is(name); });
}

class TransposeMover {
 public:
  explicit TransposeMover(Rewriter& rewriter) : graph_(rewriter.graph()), rw_(rewriter), pattern_(graph_) {}

  bool run() {
    bool changed = false;
    for (NodeId id : graph_.order()) {
      if (!graph_.node(id).alive || !graph_.node(id).is("Transpose")) continue;
      if (reaches_transpose(id)) {
        sink(id);
        changed = true;
      }
      changed |= graph_.node(id).alive && merge(id);
    }
    if (changed) rw_.remove_dead_nodes();
    return changed;
  }

 private:
  // A transpose of a transpose.
  bool merge(NodeId id) {
    const Node& n = graph_.node(id);
    const Node* before = pattern_.made_by(n.input(0), "Transpose");
    if (before == nullptr) return false;
    const Perm first = pattern_.permutation(*before), second = pattern_.permutation(n);
    if (first.empty() || second.empty()) return false;
    const Perm both = composed(first, second);
    const ValueId x = before->input(0), out = n.output(0);
    rw_.insert_before(id);
    const std::string name = n.name;
    if (std::is_sorted(both.begin(), both.end()) && !pattern_.visible(out)) rw_.replace_uses(out, x);
    else rw_.replace_uses(out, rw_.emit("Transpose", {x}, {{"perm", both}}, name));
    rw_.remove_dead_nodes();
    return true;
  }

  // The elementwise node that alone reads `id` and may be computed before the transpose `perm`.
  NodeId passable_user(ValueId id, const Perm& perm) const {
    const NodeId user = pattern_.only_user(id);
    if (user == kNone) return kNone;
    const Node& n = graph_.node(user);
    const Dims* out = pattern_.dims(n.output(0));
    if (out == nullptr || out->size() != perm.size()) return kNone;
    if (is_unary(n)) return n.input(0) == id ? user : kNone;
    if (!is_binary(n)) return kNone;
    const ValueId other = Pattern::partner(n, id);
    if (other == kNone) return kNone;
    if (pattern_.constant(other) != nullptr) return user;
    const Node* transpose = pattern_.made_by(other, "Transpose");
    return transpose != nullptr && pattern_.only_user(other) == user && pattern_.permutation(*transpose) == perm ? user : kNone;
  }

  bool reaches_transpose(NodeId id) const {
    const Perm perm = pattern_.permutation(graph_.node(id));
    if (perm.empty()) return false;
    ValueId v = graph_.node(id).output(0);
    for (bool moved = false;; moved = true) {
      const NodeId next = pattern_.only_user(v);
      if (next == kNone) return false;
      if (graph_.node(next).is("Transpose")) return moved && !pattern_.permutation(graph_.node(next)).empty();
      if (passable_user(v, perm) == kNone) return false;
      v = graph_.node(next).output(0);
    }
  }

  // What a second operand must be where the first is not transposed any more.
  ValueId untransposed(ValueId other, const Perm& perm) {
    if (const Node* n = pattern_.made_by(other, "Transpose"); n != nullptr && pattern_.constant(other) == nullptr) return n->input(0);
    const Tensor& c = *pattern_.constant(other);
    if (c.numel() == 1) return other;
    Shape full(perm.size() - c.shape().size(), 1);
    full.insert(full.end(), c.shape().begin(), c.shape().end());
    const ValueId shape = rw_.add_constant("transpose/shape", Tensor::vector<int64_t>(std::span<const int64_t>(full)));
    return rw_.emit("Transpose", {rw_.emit("Reshape", {other, shape})}, {{"perm", inverse(perm)}});
  }

  // Moves the transpose behind the elementwise nodes before the next one.
  void sink(NodeId id) {
    const Perm perm = pattern_.permutation(graph_.node(id));
    ValueId from = graph_.node(id).input(0), old = graph_.node(id).output(0);
    while (true) {
      const NodeId user = passable_user(old, perm);
      if (user == kNone) break;
      const Node n = graph_.node(user);  // a copy: new nodes move the arena
      rw_.insert_before(user);
      std::vector<ValueId> inputs = n.inputs;
      for (ValueId& in : inputs) {
        if (in == old) in = from;
        else if (is_binary(n)) in = untransposed(in, perm);
      }
      from = rw_.emit(n.op, inputs, n.attrs, n.name);
      old = n.output(0);
    }
    rw_.insert_before(graph_.value(old).users[0]);
    rw_.replace_uses(old, rw_.emit("Transpose", {from}, {{"perm", perm}}));
    rw_.remove_dead_nodes();
  }

  Graph& graph_;
  Rewriter& rw_;
  Pattern pattern_;
};

class ViewMerger {
 public:
  explicit ViewMerger(Rewriter& rewriter) : graph_(rewriter.graph()), rw_(rewriter), pattern_(graph_) {}

  bool run() {
    bool changed = false;
    for (NodeId id : graph_.order())
      if (graph_.node(id).alive) changed |= merge(id);
    if (changed) rw_.remove_dead_nodes();
    return changed;
  }

 private:
  // What a view reads; kNone when the value comes from no view.
  ValueId viewed(ValueId id) const {
    const Node* n = pattern_.producer(id);
    const bool view = n != nullptr && (n->is("Reshape") || n->is("Flatten") || n->is("Squeeze") || n->is("Unsqueeze"));
    return view ? n->input(0) : kNone;
  }

  bool merge(NodeId id) {
    const ValueId out = graph_.node(id).output(0);
    ValueId x = viewed(out);
    const Dims* to = pattern_.dims(out);
    if (x == kNone || viewed(x) == kNone || to == nullptr) return false;
    // Shape arithmetic is left to those who fold it.
    if (graph_.value(out).dtype == DType::kI64) return false;
    std::optional<std::vector<int64_t>> target;
    ValueId source = kNone;
    for (x = viewed(x); x != kNone; x = viewed(x)) {
      const Dims* from = pattern_.dims(x);
      if (from == nullptr) continue;
      if (*from == *to && !pattern_.visible(out)) {
        rw_.replace_uses(out, x);
        rw_.erase_node(id);
        return true;
      }
      if (auto t = target_from(*from, *to)) {
        target = std::move(t);
        source = x;
      }
    }
    if (source == kNone) return false;
    rw_.insert_before(id);
    const ValueId shape = rw_.add_constant("view/shape", Tensor::vector<int64_t>(std::span<const int64_t>(*target)));
    const std::string name = graph_.node(id).name;
    rw_.replace_uses(out, rw_.emit("Reshape", {source, shape}, {}, name));
    rw_.erase_node(id);
    return true;
  }

  // A constant target of Reshape that makes `to` of `from`; nullopt where there is none.
  static std::optional<std::vector<int64_t>> target_from(const Dims& from, const Dims& to) {
    std::vector<int64_t> target;
    bool inferred = false, empty = false;
    for (size_t i = 0; i < to.size(); ++i) {
      empty |= to[i] == Dim(0);
      if (to[i].known()) target.push_back(to[i].raw);
      else if (i < from.size() && from[i] == to[i]) target.push_back(0);
      else if (inferred) return std::nullopt;
      else {
        inferred = true;
        target.push_back(-1);
      }
    }
    if (empty) return std::nullopt;  // a 0 would copy, and -1 be ambiguous
    // -1 beside a copied size that may be 0 would be ambiguous, where the views of the file were not.
    if (inferred && std::find(target.begin(), target.end(), 0) != target.end()) return std::nullopt;
    return target;
  }

  Graph& graph_;
  Rewriter& rw_;
  Pattern pattern_;
};

}  // namespace

bool move_transposes(Rewriter& rewriter, PassContext&) { return TransposeMover(rewriter).run(); }
bool merge_views(Rewriter& rewriter, PassContext&) { return ViewMerger(rewriter).run(); }

}  // namespace ds
