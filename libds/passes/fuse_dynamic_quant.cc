#include "libds/passes/fuse_dynamic_quant.h"

#include <cmath>
#include <optional>
#include <string>
#include <vector>

namespace ds {
namespace {

class Fuser {
 public:
  explicit Fuser(Rewriter& rewriter) : g_(rewriter.graph()), rw_(rewriter), is_state_(state_values(g_)) {}

  bool run() {
    bool changed = false;
    for (NodeId id : g_.order()) {
      if (!g_.node(id).alive) continue;
      if (g_.node(id).is("MatMulInteger")) changed |= fuse_product(id);
      else if (g_.node(id).is("ConvInteger")) changed |= fuse_conv(id);
    }
    if (changed) rw_.remove_dead_nodes();
    return changed;
  }

 private:
  const Tensor* constant(ValueId id) const {
    const bool state = id == kNone || (static_cast<size_t>(id) < is_state_.size() && is_state_[static_cast<size_t>(id)]);
    return state ? nullptr : g_.value(id).constant.get();
  }
  bool is_one_float(ValueId id) const { return g_.value(id).dtype == DType::kF32 && is_one(id); }
  bool is_one(ValueId id) const {
    const auto& dims = g_.value(id).dims;
    return dims && all_known(*dims) && checked_numel(concrete(*dims)) == 1;
  }
  // A constant of one value or of `n` along the axis that is `axis` from the end.
  const Tensor* row(ValueId id, int64_t n, size_t axis) const {
    const Tensor* t = constant(id);
    if (t == nullptr || t->numel() == 1) return t;
    const bool fits = t->numel() == n && t->shape().size() >= axis && t->shape()[t->shape().size() - axis] == n;
    return fits ? t : nullptr;
  }

  // The only reader of a value that is no output of the graph, when it is an `op`.
  const Node* only_user(ValueId id, std::string_view op) const {
    const Value& v = g_.value(id);
    if (v.users.size() != 1 || g_.is_output(id)) return nullptr;
    for (const State& s : g_.states())
      if (s.update == id) return nullptr;
    const Node& n = g_.node(v.users[0]);
    return n.is(op) ? &n : nullptr;
  }
  static ValueId other(const Node& n, ValueId id) { return n.inputs[0] == id ? n.inputs[1] : n.inputs[0]; }
  bool same_dims(ValueId a, ValueId b) const { return g_.value(a).dims && g_.value(b).dims && *g_.value(a).dims == *g_.value(b).dims; }

  struct Scales {
    ValueId x = kNone, w = kNone;  // kNone: 1
  };
  // Takes a scale of the sums apart.
  std::optional<Scales> scales(ValueId id, int64_t columns, size_t axis) const {
    if (g_.value(id).dtype != DType::kF32) return std::nullopt;
    if (row(id, columns, axis) != nullptr) return Scales{kNone, id};
    if (const NodeId made = g_.value(id).producer; made != kNone && g_.node(made).is("Mul"))
      for (size_t side : {0, 1}) {
        const ValueId x = g_.node(made).inputs[side], w = g_.node(made).inputs[1 - side];
        if (is_one_float(x) && row(w, columns, axis) != nullptr) return Scales{x, w};
      }
    return is_one(id) ? std::optional(Scales{id, kNone}) : std::nullopt;
  }

  ValueId or_one(ValueId scale) { return scale != kNone ? scale : rw_.add_constant("one", Tensor::scalar<float>(1)); }
  // As [n], or [] when it is one value.
  ValueId flat(ValueId id) {
    const Tensor& t = *constant(id);
    return t.rank() < 2 ? id : rw_.add_constant(g_.value(id).name + "/row", t.reshaped({t.numel()}));
  }

  // What follows integer sums: Cast -> Mul by a scale [-> Add of a constant row] [-> BatchNormalization], the last as
  // y * factor + offset.
  struct Tail {
    Scales scales;
    ValueId bias = kNone, result = kNone;
    std::vector<double> factor, offset;
  };
  std::optional<Tail> tail_of(ValueId sums, int64_t columns, size_t axis) const {
    const Node* cast = only_user(sums, "Cast");
    if (cast == nullptr || g_.value(cast->outputs[0]).dtype != DType::kF32) return std::nullopt;
    const Node* mul = only_user(cast->outputs[0], "Mul");
    if (mul == nullptr || mul->inputs[0] == mul->inputs[1] || !same_dims(sums, mul->outputs[0])) return std::nullopt;
    const auto s = scales(other(*mul, cast->outputs[0]), columns, axis);
    if (!s) return std::nullopt;
    Tail t{*s, kNone, mul->outputs[0], {}, {}};
    if (const Node* add = only_user(t.result, "Add"); add != nullptr && same_dims(t.result, add->outputs[0])) {
      const ValueId given = other(*add, t.result);
      if (const Tensor* bias = row(given, columns, axis); bias != nullptr && bias->dtype() == DType::kF32) {
        t.bias = given;
        t.result = add->outputs[0];
      }
    }
    if (axis == 3) take_batch_norm(t, columns);
    return t;
  }

  void take_batch_norm(Tail& t, int64_t channels) const {
    const Node* n = only_user(t.result, "BatchNormalization");
    if (n == nullptr || n->attr_int("training_mode", 0) != 0 || n->outputs.size() != 1) return;
    std::vector<double> values[4];
    for (size_t i = 0; i < 4; ++i) {
      const Tensor* c = constant(n->input(i + 1));
      if (c == nullptr || c->numel() != channels) return;
      values[i] = c->to_doubles();
    }
    const auto epsilon = static_cast<double>(n->attr_float("epsilon", 1e-5f));
    for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
      t.factor.push_back(values[0][c] / std::sqrt(values[3][c] + epsilon));
      t.offset.push_back(values[1][c] - values[2][c] * t.factor[c]);
    }
    t.result = n->outputs[0];
  }

  // values * factor + offset, per channel; values may be one, or none (kNone: `otherwise`).
  ValueId scaled(ValueId values, double otherwise, const std::vector<double>& factor, const std::vector<double>* offset, const std::string& name) {
    Tensor made = Tensor::empty(DType::kF32, {static_cast<int64_t>(factor.size())});
    const std::vector<double> given = values == kNone ? std::vector<double>{otherwise} : constant(values)->to_doubles();
    for (size_t c = 0; c < factor.size(); ++c)
      made.mutable_data<float>()[c] = static_cast<float>(given[given.size() == 1 ? 0 : c] * factor[c] + (offset != nullptr ? (*offset)[c] : 0));
    return rw_.add_constant(name, std::move(made));
  }

  // x, the bytes, and their scale and zero point before the operands that n and t give.
  std::vector<ValueId> operands(const Node& n, const Tail& t, ValueId x, ValueId scale, ValueId zero) {
    ValueId w_scale = t.scales.w == kNone ? or_one(kNone) : flat(t.scales.w), bias = t.bias == kNone ? kNone : flat(t.bias);
    if (!t.factor.empty()) {
      bias = scaled(bias, 0, t.factor, &t.offset, n.name + "/bias");
      w_scale = scaled(w_scale, 1, t.factor, nullptr, n.name + "/scale");
    }
    std::vector<ValueId> inputs = {x, n.input(1), w_scale, n.input(3) == kNone ? kNone : flat(n.input(3)), kNone, bias, kNone, or_one(scale), zero};
    while (inputs.back() == kNone) inputs.pop_back();
    return inputs;
  }

  bool fuse_product(NodeId id) {
    const Node n = g_.node(id);
    const Tensor* w = constant(n.input(1));
    if (w == nullptr || w->rank() != 2 || w->numel() == 0) return false;
    if (n.input(2) != kNone && !is_one(n.input(2))) return false;
    if (n.input(3) != kNone && row(n.input(3), w->dim(1), 1) == nullptr) return false;
    const auto t = tail_of(n.outputs[0], w->dim(1), 1);
    if (!t) return false;
    rw_.insert_before(g_.value(t->result).producer);
    std::vector<ValueId> inputs = operands(n, *t, n.input(0), t->scales.x, n.input(2));
    rw_.replace_uses(t->result, rw_.emit("QMatMul", std::move(inputs), {{"output", static_cast<int64_t>(DType::kF32)}}, n.name + "/q"));
    return true;
  }

  // x is turned before it is quantized, so that its transpose meets that of the convolution before.
  bool fuse_conv(NodeId id) {
    const Node n = g_.node(id);
    const Tensor* w = constant(n.input(1));
    const Value& x = g_.value(n.input(0));
    if (w == nullptr || w->rank() != 4 || w->numel() == 0 || x.producer == kNone) return false;
    const Node made = g_.node(x.producer);
    if (!made.is("DynamicQuantizeLinear") || made.outputs.size() != 3 || n.input(2) != made.outputs[2]) return false;
    if (n.input(3) != kNone && row(n.input(3), w->dim(0), 1) == nullptr) return false;
    const auto t = tail_of(n.outputs[0], w->dim(0), 3);
    if (!t || t->scales.x != made.outputs[1]) return false;
    rw_.insert_before(g_.value(t->result).producer);
    const ValueId turned = rw_.emit("Transpose", {made.inputs[0]}, {{"perm", std::vector<int64_t>{0, 2, 3, 1}}}, g_.value(made.inputs[0]).name + "/nhwc");
    const NodeId again = rw_.add_node("DynamicQuantizeLinear", {turned}, {}, made.name + "/nhwc", 3);
    const std::vector<ValueId> q = g_.node(again).outputs;
    Attributes attrs = {{"output", static_cast<int64_t>(DType::kF32)}};
    for (const char* key : {"strides", "pads", "dilations", "auto_pad", "group", "kernel_shape"})
      if (const auto it = n.attrs.find(key); it != n.attrs.end()) attrs.insert(*it);
    const ValueId y = rw_.emit("QConv", operands(n, *t, q[0], q[1], q[2]), std::move(attrs), n.name + "/q");
    rw_.replace_uses(t->result, rw_.emit("Transpose", {y}, {{"perm", std::vector<int64_t>{0, 3, 1, 2}}}, n.name + "/nchw"));
    return true;
  }

  Graph& g_;
  Rewriter& rw_;
  std::vector<char> is_state_;
};

}  // namespace

bool fuse_dynamic_quant(Rewriter& rewriter, PassContext&) { return Fuser(rewriter).run(); }

}  // namespace ds
