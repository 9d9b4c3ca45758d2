#include "libds/passes/fuse_weight_only.h"

#include <optional>

namespace ds {
namespace {

class WeightOnlyFuser {
 public:
  explicit WeightOnlyFuser(Rewriter& rewriter) : rw_(rewriter), g_(rewriter.graph()), is_state_(state_values(g_)) {}

  bool run() {
    bool changed = false;
    for (NodeId id : g_.order()) {
      if (!g_.node(id).alive) continue;
      if (g_.node(id).is("MatMul") || g_.node(id).is("Gemm")) changed |= fuse(id);
    }
    rw_.insert_at_end();
    if (changed) rw_.remove_dead_nodes();
    return changed;
  }

 private:
  const Tensor* constant(ValueId id) const {
    if (id == kNone || is_state(id)) return nullptr;
    return g_.value(id).constant.get();
  }
  bool is_state(ValueId id) const { return static_cast<size_t>(id) < is_state_.size() && is_state_[static_cast<size_t>(id)]; }

  const Node* producer(ValueId id, std::string_view op) const {
    if (id == kNone || g_.value(id).producer == kNone) return nullptr;
    const Node& n = g_.node(g_.value(id).producer);
    return n.is(op) ? &n : nullptr;
  }

  struct Weights {
    ValueId w = kNone, scale = kNone, zero = kNone;
    int64_t depth = 0, columns = 0, block = 0;
    bool turned = false;  // w is [N, K]
  };

  // The constant behind a matrix that is dequantized, and perhaps transposed; `turned`: the product wants it transposed.
  std::optional<Weights> weights(ValueId id, bool turned) const {
    if (const Node* t = producer(id, "Transpose")) {
      if (t->attr_ints("perm", {1, 0}) != std::vector<int64_t>{1, 0}) return std::nullopt;
      turned = !turned;
      id = t->inputs[0];
    }
    const Node* dq = producer(id, "DequantizeLinear");
    if (dq == nullptr) return std::nullopt;
    const Tensor *w = constant(dq->input(0)), *scale = constant(dq->input(1)), *zero = constant(dq->input(2));
    if (w == nullptr || scale == nullptr || w->rank() != 2 || (dq->input(2) != kNone && zero == nullptr)) return std::nullopt;
    const DType type = w->dtype();
    if (type != DType::kI8 && type != DType::kU8 && type != DType::kI4 && type != DType::kU4) return std::nullopt;
    if (scale->dtype() != DType::kF32 || g_.value(id).dtype != DType::kF32) return std::nullopt;
    if (zero != nullptr && zero->shape() != scale->shape() && !(zero->numel() == 1 && scale->numel() == 1)) return std::nullopt;
    const int64_t depth_axis = turned ? 1 : 0, axis = dq->attr_int("axis", 1);
    Weights found{dq->input(0), dq->input(1), dq->input(2), w->dim(depth_axis), w->dim(1 - depth_axis), dq->attr_int("block_size", 0), turned};
    if (found.depth == 0 || found.columns == 0) return std::nullopt;
    if (axis != 0 && axis != 1 && axis != -1 && axis != -2) return std::nullopt;
    const bool along_depth = (axis + 2) % 2 == depth_axis;
    // One block is a whole column.
    if (found.block >= found.depth && along_depth && scale->numel() == found.columns) {
      found.block = 0;
      return found;
    }
    if (found.block == 0 && scale->numel() == 1) return found;
    if (found.block == 0) return !along_depth && scale->numel() == found.columns ? std::optional(found) : std::nullopt;
    // Blocks of whole bytes along the depth.
    const int64_t blocks = (found.depth + found.block - 1) / found.block;
    if (!along_depth || scale->numel() != blocks * found.columns || (is_packed(type) && found.block % 2 != 0)) return std::nullopt;
    return found;
  }

  // A constant that adds one value to each column.
  bool is_bias(ValueId id, int64_t columns) const {
    const Tensor* t = constant(id);
    return t != nullptr && t->dtype() == DType::kF32 && t->numel() == columns && t->rank() >= 1 && t->dim(-1) == columns;
  }

  // The Add of a constant vector behind a product that nobody else reads.
  NodeId bias_add(ValueId out, int64_t columns, size_t rank, ValueId& bias) const {
    const Value& v = g_.value(out);
    if (v.users.size() != 1 || g_.is_output(out)) return kNone;
    for (const State& s : g_.states())
      if (s.update == out) return kNone;
    const Node& add = g_.node(v.users[0]);
    if (!add.is("Add")) return kNone;
    const ValueId other = add.inputs[add.inputs[0] == out ? 1 : 0];
    if (!is_bias(other, columns) || static_cast<size_t>(constant(other)->rank()) > rank) return kNone;
    bias = other;
    return v.users[0];
  }

  bool fuse(NodeId id) {
    const Node n = g_.node(id);
    const bool gemm = n.op == "Gemm";
    if (gemm && (n.attr_int("transA", 0) != 0 || n.attr_float("alpha", 1) != 1 || n.attr_float("beta", 1) != 1)) return false;
    const Value& x = g_.value(n.input(0));
    if (x.dtype != DType::kF32 || !x.dims || x.dims->empty()) return false;
    const auto w = weights(n.input(1), gemm && n.attr_int("transB", 0) != 0);
    if (!w) return false;
    ValueId bias = kNone, out = n.outputs[0];
    if (gemm && n.input(2) != kNone) {
      if (!is_bias(n.input(2), w->columns)) return false;
      bias = n.input(2);
    } else if (const NodeId add = bias_add(out, w->columns, x.dims->size(), bias); add != kNone) {
      out = g_.node(add).outputs[0];
    }
    std::vector<ValueId> inputs = {n.input(0), w->w, w->scale, w->zero, bias};
    while (inputs.back() == kNone) inputs.pop_back();
    rw_.insert_before(id);
    rw_.replace_uses(out, rw_.emit("WeightOnlyMatMul", std::move(inputs), {{"block_size", w->block}, {"trans_b", static_cast<int64_t>(w->turned)}},
                                   n.name + "/weight_only"));
    return true;
  }

  Rewriter& rw_;
  Graph& g_;
  std::vector<char> is_state_;
};

}  // namespace

bool fuse_weight_only(Rewriter& rewriter, PassContext&) { return WeightOnlyFuser(rewriter).run(); }

}  // namespace ds
