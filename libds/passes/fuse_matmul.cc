#include "libds/passes/fuse_matmul.h"

#include "libds/passes/activation_node.h"

namespace ds {
namespace {

constexpr size_t kBias = 2, kAddend = 3;

class Fuser {
 public:
  explicit Fuser(Rewriter& rewriter) : graph_(rewriter.graph()), rw_(rewriter), is_state_(state_values(graph_)) {}

  bool run() {
    const size_t before = made_;
    for (NodeId id : graph_.order())
      if (graph_.node(id).alive && graph_.node(id).is("Gemm")) take_gemm(id);
    for (NodeId id : graph_.order())
      if (graph_.node(id).alive && graph_.node(id).is("Add")) take_add(id);
    for (NodeId id : graph_.order())
      if (graph_.node(id).alive) take_activation(id);
    if (made_ != before) rw_.remove_dead_nodes();
    return made_ != before;
  }

 private:
  const Tensor* constant(ValueId id) const {
    if (id == kNone) return nullptr;
    const bool state = static_cast<size_t>(id) < is_state_.size() && is_state_[static_cast<size_t>(id)];
    return state ? nullptr : graph_.value(id).constant.get();
  }

  bool is_weight(ValueId id) const {
    const Tensor* t = constant(id);
    return t != nullptr && t->shape().size() == 2 && (t->dtype() == DType::kF32 || t->dtype() == DType::kBF16);
  }

  // A row of n elements as [n]; kNone when the value is none.
  ValueId row(ValueId id, int64_t n) {
    const Tensor* t = constant(id);
    if (t == nullptr || t->numel() != n || (t->rank() > 0 && t->shape().back() != n)) return kNone;
    if (t->rank() == 1) return id;
    return rw_.add_constant(graph_.value(id).name + "/row", t->reshaped({n}));
  }

  // The product that makes `id` for one reader only, as operands and attributes of a FusedMatMul.
  struct Product {
    NodeId node = kNone;
    std::vector<ValueId> inputs;  // four
    Attributes attrs;
    int64_t columns = 0;
  };
  std::optional<Product> product_behind(ValueId id) const {
    if (id == kNone || graph_.is_output(id)) return std::nullopt;
    const Value& v = graph_.value(id);
    if (v.producer == kNone || v.users.size() != 1) return std::nullopt;
    for (const State& s : graph_.states())
      if (s.update == id) return std::nullopt;
    const Node& n = graph_.node(v.producer);
    Product p;
    p.node = v.producer;
    p.inputs = n.inputs;
    p.inputs.resize(4, kNone);
    p.attrs = n.attrs;
    const bool plain = n.is("MatMul") && is_weight(n.input(1)) && graph_.value(n.input(0)).dims && !graph_.value(n.input(0)).dims->empty();
    if (!plain && !n.is_internal("FusedMatMul")) return std::nullopt;
    p.columns = graph_.value(p.inputs[1]).constant->shape()[n.attr_int("trans_b", 0) != 0 ? 0 : 1];
    return p;
  }

  void replace(NodeId last, std::vector<ValueId> inputs, Attributes attrs) {
    while (!inputs.empty() && inputs.back() == kNone) inputs.pop_back();
    rw_.insert_before(last);
    const std::string name = graph_.node(last).name;
    const ValueId y = rw_.emit("FusedMatMul", std::move(inputs), std::move(attrs), name);
    rw_.replace_uses(graph_.node(last).outputs[0], y);
    rw_.erase_node(last);
    ++made_;
  }

  // Gemm that is a plain product with a row added at most.
  void take_gemm(NodeId id) {
    const Node n = graph_.node(id);
    const bool row_added = n.input(2) != kNone && n.attr_float("beta", 1.0f) != 0.0f;
    if (n.attr_int("transA", 0) != 0 || n.attr_float("alpha", 1.0f) != 1.0f || !is_weight(n.input(1))) return;
    if (row_added && n.attr_float("beta", 1.0f) != 1.0f) return;
    const int64_t trans_b = n.attr_int("transB", 0) != 0;
    ValueId bias = kNone;
    if (row_added) bias = row(n.input(2), constant(n.input(1))->shape()[trans_b != 0 ? 0 : 1]);
    if (row_added && bias == kNone) return;
    Attributes attrs;
    if (trans_b != 0) attrs["trans_b"] = trans_b;
    replace(id, {n.input(0), n.input(1), bias}, std::move(attrs));
  }

  // Add of a constant row, or of a value of the product's shape. Of two products the later takes the other's result.
  void take_add(NodeId id) {
    const Node n = graph_.node(id);
    if (n.input(0) == n.input(1)) return;
    std::optional<Product> best;
    ValueId other = kNone;
    for (size_t side : {0, 1}) {
      auto p = product_behind(n.input(side));
      if (!p || p->inputs[kAddend] != kNone || p->attrs.count("activation") != 0) continue;
      if (best && !precedes(graph_, best->node, p->node)) continue;
      best = std::move(p);
      other = n.input(1 - side);
    }
    if (!best) return;
    if (best->inputs[kBias] == kNone && constant(other) != nullptr) {
      const auto& y = graph_.value(n.outputs[0]).dims;
      const auto& before = graph_.value(graph_.node(best->node).outputs[0]).dims;
      if (!y || !before || *y != *before) return;
      if (const ValueId bias = row(other, best->columns); bias != kNone && graph_.value(bias).dtype == graph_.value(best->inputs[1]).dtype) {
        best->inputs[kBias] = bias;
        return replace_after(id, *best);
      }
    }
    const Value &y = graph_.value(graph_.node(best->node).outputs[0]), &r = graph_.value(other);
    if (!y.dims || !r.dims || *y.dims != *r.dims || y.dtype != r.dtype) return;
    best->inputs[kAddend] = other;
    replace_after(id, *best);
  }

  void replace_after(NodeId last, const Product& p) {
    replace(last, p.inputs, p.attrs);
    if (graph_.value(graph_.node(p.node).outputs[0]).users.empty()) rw_.erase_node(p.node);
  }

  void take_activation(NodeId id) {
    const auto a = activation_node(graph_, id, is_state_);
    if (!a) return;
    auto p = product_behind(a->x);
    if (!p || p->attrs.count("activation") != 0) return;
    for (const auto& [key, value] : a->attrs) p->attrs[key] = value;
    replace_after(id, *p);
  }

  Graph& graph_;
  Rewriter& rw_;
  std::vector<char> is_state_;
  size_t made_ = 0;
};

}  // namespace

bool fuse_matmul(Rewriter& rewriter, PassContext&) { return Fuser(rewriter).run(); }

}  // namespace ds
