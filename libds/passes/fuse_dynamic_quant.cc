#include "libds/passes/fuse_dynamic_quant.h"

#include <optional>

namespace ds {
namespace {

class Fuser {
 public:
  explicit Fuser(Rewriter& rewriter) : g_(rewriter.graph()), rw_(rewriter), is_state_(state_values(g_)) {}

  bool run() {
    bool changed = false;
    for (NodeId id : g_.order())
      if (g_.node(id).alive && g_.node(id).is("MatMulInteger")) changed |= fuse(id);
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
  // A constant of one value or, along the last axis, n.
  const Tensor* row(ValueId id, int64_t n) const {
    const Tensor* t = constant(id);
    const bool fits = t != nullptr && (t->numel() == 1 || (t->numel() == n && t->shape().back() == n));
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
  std::optional<Scales> scales(ValueId id, int64_t columns) const {
    if (g_.value(id).dtype != DType::kF32) return std::nullopt;
    if (row(id, columns) != nullptr) return Scales{kNone, id};
    if (const NodeId made = g_.value(id).producer; made != kNone && g_.node(made).is("Mul"))
      for (size_t side : {0, 1}) {
        const ValueId x = g_.node(made).inputs[side], w = g_.node(made).inputs[1 - side];
        if (is_one_float(x) && row(w, columns) != nullptr) return Scales{x, w};
      }
    return is_one(id) ? std::optional(Scales{id, kNone}) : std::nullopt;
  }

  ValueId or_one(ValueId scale) { return scale != kNone ? scale : rw_.add_constant("one", Tensor::scalar<float>(1)); }
  // As [n], or [] when it is one value.
  ValueId flat(ValueId id) {
    const Tensor& t = *constant(id);
    return t.rank() < 2 ? id : rw_.add_constant(g_.value(id).name + "/row", t.reshaped({t.numel()}));
  }

  bool fuse(NodeId id) {
    const Node n = g_.node(id);
    const Tensor* w = constant(n.input(1));
    if (w == nullptr || w->rank() != 2 || w->numel() == 0) return false;
    const int64_t columns = w->dim(1);
    if (n.input(2) != kNone && !is_one(n.input(2))) return false;
    if (n.input(3) != kNone && row(n.input(3), columns) == nullptr) return false;
    const Node* cast = only_user(n.outputs[0], "Cast");
    if (cast == nullptr || g_.value(cast->outputs[0]).dtype != DType::kF32) return false;
    const Node* mul = only_user(cast->outputs[0], "Mul");
    if (mul == nullptr || mul->inputs[0] == mul->inputs[1] || !same_dims(n.outputs[0], mul->outputs[0])) return false;
    const auto s = scales(other(*mul, cast->outputs[0]), columns);
    if (!s) return false;
    ValueId result = mul->outputs[0], bias = kNone;
    if (const Node* add = only_user(result, "Add"); add != nullptr && same_dims(result, add->outputs[0])) {
      const ValueId given = other(*add, result);
      if (const Tensor* t = row(given, columns); t != nullptr && t->dtype() == DType::kF32) {
        bias = flat(given);
        result = add->outputs[0];
      }
    }
    const NodeId last = g_.value(result).producer;
    std::vector<ValueId> inputs = {n.input(0), n.input(1), s->w == kNone ? or_one(kNone) : flat(s->w), n.input(3) == kNone ? kNone : flat(n.input(3)), kNone, bias, kNone,
                                   or_one(s->x), n.input(2)};
    while (inputs.back() == kNone) inputs.pop_back();
    rw_.insert_before(last);
    rw_.replace_uses(result, rw_.emit("QMatMul", std::move(inputs), {{"output", static_cast<int64_t>(DType::kF32)}}, n.name + "/q"));
    return true;
  }

  Graph& g_;
  Rewriter& rw_;
  std::vector<char> is_state_;
};

}  // namespace

bool fuse_dynamic_quant(Rewriter& rewriter, PassContext&) { return Fuser(rewriter).run(); }

}  // namespace ds
