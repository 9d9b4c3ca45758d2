#include "libds/passes/fuse_qdq.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "libds/ops/common.h"
#include "libds/passes/fuse_qpointwise.h"

namespace ds {
namespace {

class QuantFuser : QPointwiseFuser {
 public:
  QuantFuser(Rewriter& rw, const Evaluate& evaluate) : QPointwiseFuser(rw, evaluate) {}

  bool run() {
    sink_dequantize();
    for (NodeId id : g_.order()) {
      if (!g_.node(id).alive) continue;
      rw_.insert_before(id);
      const std::string op = g_.node(id).domain.empty() ? g_.node(id).op : std::string();
      bool done = false;
      if (op == "Conv") done = fuse_conv(id);
      else if (op == "Gemm" || op == "MatMul") done = fuse_product(id);
      else if (op == "QLinearConv") done = fuse_qlinear_conv(id);
      else if (op == "QLinearMatMul") done = fuse_qlinear_matmul(id);
      else if (op == "Add") done = fuse_add(id);
      else if (op == "MaxPool") done = fuse_max_pool(id);
      else if (op == "GlobalAveragePool") done = fuse_global_average(id);
      else if (op == "Concat") done = fuse_concat(id);
      else if (op == "QuantizeLinear") done = fuse_quantize(id);
      changed_ |= done;
    }
    rw_.insert_at_end();
    if (changed_) rw_.remove_dead_nodes();
    return changed_;
  }

 private:
  // What follows an operator: an activation and a quantization that its epilogue can take over.
  struct Tail {
    ValueId result = kNone;  // value that the fused operator replaces
    bool relu = false;       // of a float result
    std::optional<TensorParams> params;  // none: float result
    int64_t lo = 0, hi = 0;  // bounds of a quantized result: its type's, or those of Relu or Clip
  };

  Tail tail_of(ValueId out) const {
    Tail t{out, false, std::nullopt, 0, 0};
    double low = -INFINITY, high = INFINITY;
    ValueId at = out;
    if (const auto user = only_user(at)) {
      const Node& n = g_.node(*user);
      if (n.is("Relu")) {
        low = 0;
        at = n.outputs[0];
        t.result = at;
        t.relu = true;
      } else if (n.is("Clip")) {
        const Tensor *a = constant(n.input(1)), *b = constant(n.input(2));
        if ((n.input(1) == kNone || a != nullptr) && (n.input(2) == kNone || b != nullptr)) {
          if (a != nullptr) low = a->to_doubles().at(0);
          if (b != nullptr) high = b->to_doubles().at(0);
          at = n.outputs[0];
        }
      }
    }
    const auto user = only_user(at);
    if (!user) return t;
    const Node& q = g_.node(*user);
    if (!is_plain_quantize(q) || q.inputs[0] != at) return t;
    t.params = params(q.input(1), q.input(2), g_.value(q.outputs[0]).dtype);
    if (!t.params) return t;
    t.result = q.outputs[0];
    // Quantizing is monotonic: the bounds of the activation, quantized, bound the result.
    const bool is_signed = t.params->dtype == DType::kI8;
    t.lo = is_signed ? -128 : 0;
    t.hi = is_signed ? 127 : 255;
    const auto stored = [&](double real) { return quantize_float(static_cast<float>(real), *t.params); };
    if (low > -INFINITY) t.lo = std::max<int64_t>(t.lo, stored(low));
    if (high < INFINITY) t.hi = std::min<int64_t>(t.hi, stored(high));
    return t;
  }

  static void set_tail(Attributes& attrs, const Tail& t) {
    if (t.params) {
      set_params(attrs, "y", *t.params);
      attrs["lo"] = t.lo;
      attrs["hi"] = t.hi;
    }
    attrs["relu"] = static_cast<int64_t>(t.relu && !t.params);
    attrs["output"] = static_cast<int64_t>(t.params ? t.params->dtype : DType::kF32);
  }

  // --- weights ---

  struct Weights {
    ValueId w = kNone, scale = kNone, zero = kNone;
  };
  // Constant 8-bit weights with one scale, or one per position of `axis`.
  std::optional<Weights> weights(ValueId w, ValueId scale, ValueId zero, int64_t axis, int64_t given_axis) const {
    const Tensor *t = constant(w), *s = constant(scale), *z = constant(zero);
    if (t == nullptr || s == nullptr || s->dtype() != DType::kF32) return std::nullopt;
    if (t->dtype() != DType::kI8 && t->dtype() != DType::kU8) return std::nullopt;
    if (zero != kNone && z == nullptr) return std::nullopt;
    const int64_t channels = t->dim(axis);
    if (s->numel() != 1) {
      if (given_axis < 0) given_axis += t->rank();
      if (s->numel() != channels || given_axis != axis) return std::nullopt;
    }
    if (z != nullptr && z->numel() != 1 && z->numel() != channels) return std::nullopt;
    return Weights{w, scale, zero};
  }
  std::optional<Weights> dequantized_weights(ValueId id, int64_t axis) const {
    const Node* dq = plain_dequantize(id);
    if (dq == nullptr) return std::nullopt;
    return weights(dq->input(0), dq->input(1), dq->input(2), axis, dq->attr_int("axis", 1));
  }

  struct Bias {
    ValueId integer = kNone, real = kNone;
  };
  // A bias in the unit of the sums where its scale is theirs, else in float. False: neither can be had.
  bool bias_of(ValueId id, const TensorParams& x, const Weights& w, int64_t channels, Bias& bias) {
    if (id == kNone) return true;
    if (const Tensor* t = constant(id)) {
      if (t->dtype() != DType::kF32 || (t->numel() != channels && t->numel() != 1)) return false;
      bias.real = id;
      return true;
    }
    const Node* dq = plain_dequantize(id);
    if (dq == nullptr || constant(dq->inputs[0]) == nullptr || constant(dq->input(1)) == nullptr) return false;
    if (!is_int(constant(dq->inputs[0])->dtype()) || constant(dq->input(1))->dtype() != DType::kF32) return false;
    if (dq->input(2) != kNone && constant(dq->input(2)) == nullptr) return false;
    const Tensor& stored = *constant(dq->inputs[0]);
    if (stored.numel() != channels) return false;
    const std::vector<double> scale = constant(dq->input(1))->to_doubles(), w_scale = constant(w.scale)->to_doubles();
    if (scale.size() != 1 && static_cast<int64_t>(scale.size()) != channels) return false;
    const std::vector<double> zero = dq->input(2) == kNone ? std::vector<double>{0} : constant(dq->input(2))->to_doubles();
    if (zero.size() != 1 && static_cast<int64_t>(zero.size()) != channels) return false;
    bool same = stored.dtype() == DType::kI32;
    for (size_t i = 0; i < static_cast<size_t>(channels); ++i) {
      const double expected = static_cast<double>(x.scale) * w_scale[w_scale.size() == 1 ? 0 : i];
      same = same && zero[zero.size() == 1 ? 0 : i] == 0 && std::abs(scale[scale.size() == 1 ? 0 : i] - expected) <= 1e-6 * expected;
    }
    if (same) {
      bias.integer = dq->inputs[0];
      return true;
    }
    const std::vector<double> values = stored.to_doubles();
    Tensor real = Tensor::empty(DType::kF32, {channels});
    for (size_t i = 0; i < values.size(); ++i)
      real.mutable_data<float>()[i] = static_cast<float>(values[i] - zero[zero.size() == 1 ? 0 : i]) * static_cast<float>(scale[scale.size() == 1 ? 0 : i]);
    bias.real = rw_.add_constant(g_.value(id).name + "/real", std::move(real));
    return true;
  }

  static std::vector<ValueId> product_inputs(ValueId x, const Weights& w, const Bias& b) {
    std::vector<ValueId> inputs = {x, w.w, w.scale, w.zero, b.integer, b.real};
    while (inputs.back() == kNone) inputs.pop_back();
    return inputs;
  }

  static Attributes window_attrs(const Node& n) {
    Attributes attrs;
    for (const char* key : {"strides", "pads", "dilations", "auto_pad", "group", "kernel_shape", "ceil_mode"})
      if (const auto it = n.attrs.find(key); it != n.attrs.end()) attrs.insert(*it);
    return attrs;
  }

  // --- operators ---

  bool fuse_conv(NodeId id) {
    const Node n = g_.node(id);
    const auto x = operand(n.input(0));
    if (!x || !has_rank(n.input(0), 4)) return false;
    const auto w = dequantized_weights(n.input(1), 0);
    if (!w || constant(w->w)->rank() != 4) return false;
    Bias bias;
    if (!bias_of(n.input(2), x->params, *w, constant(w->w)->dim(0), bias)) return false;
    const Tail tail = tail_of(n.outputs[0]);
    return emit_conv(n, *x, *w, bias, tail);
  }

  bool emit_conv(const Node& n, const Operand& x, const Weights& w, const Bias& bias, const Tail& tail) {
    Attributes attrs = window_attrs(n);
    set_params(attrs, "x", x.params);
    set_tail(attrs, tail);
    replace_nhwc(tail.result, rw_.emit("QConv", product_inputs(nhwc(x.bytes), w, bias), std::move(attrs), n.name + "/q"));
    return true;
  }

  bool fuse_product(NodeId id) {
    const Node n = g_.node(id);
    const bool gemm = n.op == "Gemm", turned = gemm && n.attr_int("transB", 0) != 0;
    if (gemm && (n.attr_int("transA", 0) != 0 || n.attr_float("alpha", 1) != 1 || n.attr_float("beta", 1) != 1)) return false;
    const auto x = operand(n.input(0));
    if (!x || !g_.value(n.input(0)).dims || g_.value(n.input(0)).dims->size() < 2) return false;
    const Node* dq = producer(n.input(1), "DequantizeLinear");
    if (dq == nullptr || !has_rank(n.input(1), 2)) return false;
    const auto w = dequantized_weights(n.input(1), turned ? 0 : 1);
    if (!w) return false;
    const int64_t channels = constant(w->w)->dim(turned ? 0 : 1);
    Bias bias;
    if (gemm && !bias_of(n.input(2), x->params, *w, channels, bias)) return false;
    if (bias.real != kNone && constant(bias.real)->rank() > 1 && constant(bias.real)->dim(0) != 1) return false;
    ValueId out = n.outputs[0];
    // MatMul + Add of a bias vector.
    if (const auto user = gemm ? std::nullopt : only_user(out)) {
      const Node& add = g_.node(*user);
      if (add.is("Add")) {
        const ValueId other = add.inputs[0] == out ? add.inputs[1] : add.inputs[0];
        const auto& dims = g_.value(other).dims;
        if (dims && dims->size() == 1 && (*dims)[0] == Dim(channels) && bias_of(other, x->params, *w, channels, bias)) out = add.outputs[0];
      }
    }
    emit_product(n, *x, *w, bias, tail_of(out), turned);
    return true;
  }

  void emit_product(const Node& n, const Operand& x, const Weights& w, const Bias& bias, const Tail& tail, bool turned) {
    Attributes attrs = {{"trans_b", static_cast<int64_t>(turned)}};
    set_params(attrs, "x", x.params);
    set_tail(attrs, tail);
    // The bias of a fused Add stands later in the list than the product: constants have no place in it.
    replace(tail.result, rw_.emit("QMatMul", product_inputs(x.bytes, w, bias), std::move(attrs), n.name + "/q"));
  }

  // Tail of an operator whose result is quantized as it is.
  Tail quantized_tail(ValueId out, const TensorParams& p) const {
    const bool is_signed = p.dtype == DType::kI8;
    return Tail{out, false, p, is_signed ? -128 : 0, is_signed ? 127 : 255};
  }

  bool fuse_qlinear_conv(NodeId id) {
    const Node n = g_.node(id);
    const auto x = params(n.input(1), n.input(2), g_.value(n.input(0)).dtype);
    const auto y = params(n.input(6), n.input(7), g_.value(n.outputs[0]).dtype);
    const auto w = weights(n.input(3), n.input(4), n.input(5), 0, 0);
    if (!x || !y || !w || !has_rank(n.input(0), 4) || constant(w->w)->rank() != 4) return false;
    if (n.input(8) != kNone && constant(n.input(8)) == nullptr) return false;
    return emit_conv(n, {n.input(0), *x}, *w, {n.input(8), kNone}, quantized_tail(n.outputs[0], *y));
  }

  bool fuse_qlinear_matmul(NodeId id) {
    const Node n = g_.node(id);
    const auto x = params(n.input(1), n.input(2), g_.value(n.input(0)).dtype);
    const auto y = params(n.input(6), n.input(7), g_.value(n.outputs[0]).dtype);
    const Tensor* b = constant(n.input(3));
    if (!x || !y || b == nullptr || b->rank() != 2) return false;
    const auto w = weights(n.input(3), n.input(4), n.input(5), 1, 1);
    if (!w) return false;
    emit_product(n, {n.input(0), *x}, *w, {}, quantized_tail(n.outputs[0], *y), false);
    return true;
  }

  bool fuse_add(NodeId id) {
    const Node n = g_.node(id);
    const auto a = operand(n.input(0)), b = operand(n.input(1));
    if (!a || !b || a->params.dtype != b->params.dtype) return false;
    const auto &da = g_.value(a->bytes).dims, &db = g_.value(b->bytes).dims;
    if (!da || !db || *da != *db) return false;
    const Tail tail = tail_of(n.outputs[0]);
    if (!tail.params || tail.params->dtype != a->params.dtype) return false;
    Attributes attrs;
    set_params(attrs, "a", a->params);
    set_params(attrs, "b", b->params);
    set_tail(attrs, tail);
    const bool last = da->size() == 4 && (is_nhwc(a->bytes) || is_nhwc(b->bytes));
    const ValueId x = last ? nhwc(a->bytes) : a->bytes, y = last ? nhwc(b->bytes) : b->bytes;
    const ValueId sum = rw_.emit("QAdd", {x, y}, std::move(attrs), n.name + "/q");
    if (last) replace_nhwc(tail.result, sum);
    else replace(tail.result, sum);
    return true;
  }

  bool fuse_max_pool(NodeId id) {
    const Node n = g_.node(id);
    const auto x = operand(n.input(0));
    if (!x || !has_rank(n.input(0), 4) || n.output(1) != kNone) return false;
    const Tail tail = tail_of(n.outputs[0]);
    if (!tail.params) return false;
    Attributes attrs = window_attrs(n);
    // The order of stored values is that of real ones.
    ValueId y = rw_.emit("QMaxPool", {nhwc(x->bytes)}, std::move(attrs), n.name + "/q");
    replace_nhwc(tail.result, requantized(y, x->params, *tail.params, tail.lo, tail.hi));
    return true;
  }

  bool fuse_global_average(NodeId id) {
    const Node n = g_.node(id);
    const auto x = operand(n.input(0));
    if (!x || !has_rank(n.input(0), 4)) return false;
    const Tail tail = tail_of(n.outputs[0]);
    if (!tail.params || tail.params->dtype != x->params.dtype) return false;
    if (tail.lo > (x->params.dtype == DType::kI8 ? -128 : 0) || tail.hi < (x->params.dtype == DType::kI8 ? 127 : 255)) return false;
    Attributes attrs;
    set_params(attrs, "x", x->params);
    set_params(attrs, "y", *tail.params);
    replace_nhwc(tail.result, rw_.emit("QGlobalAveragePool", {nhwc(x->bytes)}, std::move(attrs), n.name + "/q"));
    return true;
  }

  bool fuse_concat(NodeId id) {
    const Node n = g_.node(id);
    std::vector<Operand> parts;
    bool last = true;
    for (ValueId in : n.inputs) {
      const auto x = operand(in);
      if (!x || !g_.value(in).dims) return false;
      last = last && has_rank(in, 4) && is_nhwc(x->bytes);
      parts.push_back(*x);
    }
    const Tail tail = tail_of(n.outputs[0]);
    if (!tail.params) return false;
    const auto rank = static_cast<int64_t>(g_.value(n.inputs[0]).dims->size());
    int64_t axis = ops::normalize_axis(n.attr_int("axis", 0), rank);
    if (last) axis = std::vector<int64_t>{0, 3, 1, 2}[static_cast<size_t>(axis)];
    std::vector<ValueId> inputs;
    for (const Operand& x : parts) inputs.push_back(requantized(last ? nhwc(x.bytes) : x.bytes, x.params, *tail.params, tail.lo, tail.hi));
    const ValueId y = rw_.emit("Concat", inputs, {{"axis", axis}}, n.name + "/q");
    if (last) replace_nhwc(tail.result, y);
    else replace(tail.result, y);
    return true;
  }

  // Moves per-tensor DequantizeLinear below operators that only move elements: these then move bytes, and a
  // QuantizeLinear behind them meets its inverse.
  void sink_dequantize() {
    static constexpr std::string_view kMoves[] = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice",
                                                  "Gather", "DepthToSpace", "SpaceToDepth", "Expand", "Tile", "Identity"};
    for (NodeId id : g_.order()) {
      const Node n = g_.node(id);
      if (!n.domain.empty() || std::find(std::begin(kMoves), std::end(kMoves), n.op) == std::end(kMoves)) continue;
      const auto x = operand(n.input(0));
      if (!x || constant(x->bytes) != nullptr) continue;
      const Node dq = *producer(n.input(0), "DequantizeLinear");
      rw_.insert_before(id);
      std::vector<ValueId> inputs = n.inputs;
      inputs[0] = x->bytes;
      const ValueId moved = rw_.emit(n.op, inputs, n.attrs, n.name + "/q");
      std::vector<ValueId> dq_inputs = dq.inputs;
      dq_inputs[0] = moved;
      replace(n.outputs[0], rw_.emit("DequantizeLinear", dq_inputs, dq.attrs, n.name + "/dq"));
      changed_ = true;
    }
  }

  bool changed_ = false;
};

}  // namespace

bool fuse_qdq(Rewriter& rewriter, PassContext& context) { return QuantFuser(rewriter, context.evaluate).run(); }

bool dequantize_weights(Rewriter& rw, PassContext& context) {
  if (!context.evaluate) return false;
  Graph& g = rw.graph();
  bool changed = false;
  const std::vector<char> is_state = state_values(g);
  for (NodeId id : g.order()) {
    const Node& n = g.node(id);
    if (!n.is("DequantizeLinear") || is_packed(g.value(n.inputs[0]).dtype)) continue;
    std::vector<Tensor> inputs;
    for (ValueId in : n.inputs) {
      const Tensor* content = in == kNone ? nullptr : g.value(in).constant.get();
      const bool known = in == kNone || (content != nullptr && !is_state[static_cast<size_t>(in)]);
      if (!known) break;
      inputs.push_back(in == kNone ? Tensor() : *content);
    }
    if (inputs.size() != n.inputs.size()) continue;
    const ValueId out = n.outputs[0];
    rw.replace_uses(out, rw.add_constant(g.value(out).name + "/real", context.evaluate(g, id, inputs)[0]));
    changed = true;
  }
  if (changed) rw.remove_dead_nodes();
  return changed;
}

}  // namespace ds
