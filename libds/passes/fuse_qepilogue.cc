#include "libds/passes/fuse_qepilogue.h"

#include <algorithm>
#include <cmath>

#include "libds/passes/activation_node.h"

namespace ds {
namespace {

constexpr size_t kAddend = 6;

class Fuser {
 public:
  explicit Fuser(Rewriter& rewriter) : graph_(rewriter.graph()), rw_(rewriter), is_state_(state_values(graph_)) {}

  bool run() {
    for_each([&](NodeId id) { take_bytes(id); });
    for_each([&](NodeId id) { take_add(id); });
    for_each([&](NodeId id) { take_activation(id); });
    for_each([&](NodeId id) { take_quantize(id); });
    return made_ > 0;
  }

 private:
  // In the order of the list; nodes that the calls make are not visited.
  template <typename F>
  void for_each(F&& f) {
    for (NodeId id : graph_.order())
      if (graph_.node(id).alive) f(id);
  }

  // A product whose result has one reader, as the operands and attributes that its successor starts from.
  struct Product {
    NodeId node = kNone;
    std::string op;
    std::vector<ValueId> inputs;  // seven at least
    Attributes attrs;
    DType result = DType::kUndefined;
    bool has_addend() const { return inputs[kAddend] != kNone; }
    bool has_activation() const { return attrs.count("activation") != 0; }
  };
  std::optional<Product> product_behind(ValueId id) const {
    if (id == kNone || graph_.is_output(id)) return std::nullopt;
    const Value& v = graph_.value(id);
    if (v.producer == kNone || v.users.size() != 1) return std::nullopt;
    for (const State& s : graph_.states())
      if (s.update == id) return std::nullopt;
    const Node& n = graph_.node(v.producer);
    if (!n.is_internal("QConv") && !n.is_internal("QMatMul")) return std::nullopt;
    if (n.attr_int("relu", 0) != 0) return std::nullopt;  // of a float result: nothing may come before it any more
    Product p{v.producer, n.op, n.inputs, n.attrs, v.dtype};
    p.inputs.resize(std::max(p.inputs.size(), kAddend + 1), kNone);
    return p;
  }

  // Of the two products behind the operands of `add` that `fits` likes, the later: it then reads the result of the other.
  template <typename Fits>
  std::optional<std::pair<Product, size_t>> product_added_by(const Node& add, Fits&& fits) const {
    std::optional<std::pair<Product, size_t>> best;
    if (add.input(0) == add.input(1)) return best;
    for (size_t side : {0, 1}) {
      auto p = product_behind(add.input(side));
      if (!p || p->has_addend() || p->has_activation() || !fits(*p, side)) continue;
      const Value &y = graph_.value(add.input(side)), &other = graph_.value(add.input(1 - side));
      if (!y.dims || !other.dims || *y.dims != *other.dims || y.dtype != other.dtype) continue;
      if (best && !precedes(graph_, best->first.node, p->node)) continue;
      best.emplace(std::move(*p), side);
    }
    return best;
  }

  // Puts the product in place of `last`, its only reader.
  void replace(NodeId last, Product p) {
    while (p.inputs.back() == kNone) p.inputs.pop_back();
    rw_.insert_before(last);
    const std::string name = graph_.node(p.node).name;
    const ValueId y = rw_.emit(p.op, std::move(p.inputs), std::move(p.attrs), name);
    rw_.replace_uses(graph_.node(last).outputs[0], y);
    rw_.erase_node(last);
    rw_.erase_node(p.node);
    ++made_;
  }

  // QAdd.
  void take_bytes(NodeId id) {
    const Node n = graph_.node(id);
    if (!n.is_internal("QAdd")) return;
    const auto side_name = [](size_t side) { return std::string(side == 0 ? "a" : "b"); };
    auto found = product_added_by(n, [&](const Product& p, size_t side) {
      const auto zero = p.attrs.find("y_zero");
      const int64_t made = zero == p.attrs.end() ? 0 : std::get<int64_t>(zero->second);
      return made == n.attr_int(side_name(side) + "_zero", 0);  // else it is read as something else than it was made as
    });
    if (!found) return;
    auto& [p, side] = *found;
    const std::string own = side_name(side), other = side_name(1 - side);
    p.attrs["a_scale"] = n.attr_float(own + "_scale", 1);
    p.attrs["b_scale"] = n.attr_float(other + "_scale", 1);
    p.attrs["b_zero"] = n.attr_int(other + "_zero", 0);
    p.attrs["sum_scale"] = n.attr_float("y_scale", 1);
    p.attrs["sum_zero"] = n.attr_int("y_zero", 0);
    for (const char* bound : {"lo", "hi"})
      if (const auto it = n.attrs.find(bound); it != n.attrs.end()) p.attrs[std::string("sum_") + bound] = it->second;
    p.inputs[kAddend] = n.input(1 - side);
    replace(id, std::move(p));
  }

  void take_add(NodeId id) {
    const Node n = graph_.node(id);
    if (!n.is("Add")) return;
    auto found = product_added_by(n, [](const Product& p, size_t) { return p.result == DType::kF32; });
    if (!found) return;
    auto& [p, side] = *found;
    p.attrs["activation"] = std::string();
    p.inputs[kAddend] = n.input(1 - side);
    replace(id, std::move(p));
  }

  void take_activation(NodeId id) {
    const auto a = activation_node(graph_, id, is_state_);
    if (!a) return;
    auto p = product_behind(a->x);
    if (!p || p->result != DType::kF32) return;
    if (p->has_activation() && std::get<std::string>(p->attrs["activation"]) != "") return;
    for (const auto& [key, value] : a->attrs) p->attrs[key] = value;
    replace(id, std::move(*p));
  }

  const Tensor* constant(ValueId id) const {
    const bool state = id == kNone || (static_cast<size_t>(id) < is_state_.size() && is_state_[static_cast<size_t>(id)]);
    return state ? nullptr : graph_.value(id).constant.get();
  }

  // QuantizeLinear with one scale, after an activation or an addition; fuse_qdq has dealt with the others.
  void take_quantize(NodeId id) {
    const Node n = graph_.node(id);
    constexpr auto kF32 = static_cast<int64_t>(DType::kF32);
    if (!n.is("QuantizeLinear") || n.attr_int("block_size", 0) != 0) return;
    if (const int64_t precision = n.attr_int("precision", 0); precision != 0 && precision != kF32) return;
    const DType bytes = graph_.value(n.outputs[0]).dtype;
    const Tensor *scale = constant(n.input(1)), *zero = constant(n.input(2));
    if (bytes != DType::kU8 && bytes != DType::kI8) return;
    if (scale == nullptr || scale->numel() != 1 || scale->dtype() != DType::kF32) return;
    if (n.input(2) != kNone && (zero == nullptr || zero->numel() != 1)) return;
    const float step = scale->data<float>()[0];
    if (!(step > 0) || !std::isfinite(step) || !std::isnormal(1 / step)) return;
    auto p = product_behind(n.input(0));
    if (!p || p->result != DType::kF32 || !p->has_activation()) return;
    p->attrs["y_scale"] = step;
    p->attrs["y_zero"] = zero == nullptr ? int64_t{0} : zero->to_ints()[0];
    p->attrs["output"] = static_cast<int64_t>(bytes);
    replace(id, std::move(*p));
  }

  Graph& graph_;
  Rewriter& rw_;
  std::vector<char> is_state_;
  size_t made_ = 0;
};

}  // namespace

bool fuse_qepilogue(Rewriter& rewriter, PassContext&) { return Fuser(rewriter).run(); }

}  // namespace ds
