// Quantized operators of onnxruntime (domain com.microsoft), written in terms of ONNX's: what works on scaled bytes
// becomes DequantizeLinear -> operator -> QuantizeLinear, which passes/fuse_qdq.h then runs on the bytes; what
// multiplies integers becomes MatMulInteger and a scale.
#include <algorithm>

#include "libds/ops/lowering.h"
#include "libds/ops/register.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

using ops::Lowering;
using Ints = std::vector<int64_t>;

constexpr std::initializer_list<DType> kBytes = {DType::kU8, DType::kI8};

void add(OpRegistry& registry, const char* name, int min_inputs, int max_inputs, InferFn infer, LowerFn lower) {
  OpDef def;
  def.domain = "com.microsoft";
  def.name = name;
  def.min_inputs = min_inputs;
  def.max_inputs = max_inputs;
  def.infer = std::move(infer);
  def.lower = std::move(lower);
  def.stops_gradient = true;  // what rounds has none, and says so where it is written out
  registry.add(std::move(def));
}

// Inputs `at` (of 8 bits), at + 1 (its scale) and at + 2 (its zero point, or none) are one quantized tensor.
void check_quantized(InferContext& c, size_t at) {
  c.require_dtype(at, kBytes);
  c.require_dtype(at + 1, {DType::kF32});
  if (c.has_input(at + 2) && c.dtype(at + 2) != c.dtype(at))
    c.error("the zero point of input {} has type {}, the input {}", at, dtype_name(c.dtype(at + 2)), dtype_name(c.dtype(at)));
}

// The scale and zero point of a result: one value each.
void check_result(InferContext& c, size_t scale, DType dtype) {
  c.require_dtype(scale, {DType::kF32});
  c.require_dtype(scale + 1, {dtype});
  for (size_t i : {scale, scale + 1})
    if (c.has_dims(i) && all_known(c.dims(i)) && checked_numel(concrete(c.dims(i))) != 1) c.error("the scale and zero point of the result must be one value");
}

// Without the omitted inputs at the end.
std::vector<ValueId> trimmed(std::vector<ValueId> inputs) {
  while (!inputs.empty() && inputs.back() == kNone) inputs.pop_back();
  return inputs;
}

ValueId dequantized(Lowering& l, size_t at, Attributes attrs = {}) {
  return l.emit("DequantizeLinear", trimmed({l.in(at), l.in(at + 1), l.in(at + 2)}), std::move(attrs));
}

// `real` with the scale at input `scale`, the zero point behind it, as `dtype`.
ValueId quantized(Lowering& l, ValueId real, size_t scale, DType dtype) {
  if (l.has(scale + 1)) return l.emit("QuantizeLinear", {real, l.in(scale), l.in(scale + 1)});
  return l.emit("QuantizeLinear", {real, l.in(scale)}, {{"output_dtype", static_cast<int64_t>(dtype)}});
}

Attributes attrs_of(const Node& n, std::initializer_list<const char*> keys) {
  Attributes attrs;
  for (const char* key : keys)
    if (const auto it = n.attrs.find(key); it != n.attrs.end()) attrs.insert(*it);
  return attrs;
}

// Channels last to channels second, and back.
Ints channels_second(size_t rank) {
  Ints perm = {0, static_cast<int64_t>(rank) - 1};
  for (size_t i = 1; i + 1 < rank; ++i) perm.push_back(static_cast<int64_t>(i));
  return perm;
}
Ints channels_last(size_t rank) {
  Ints perm = {0};
  for (size_t i = 2; i < rank; ++i) perm.push_back(static_cast<int64_t>(i));
  perm.push_back(1);
  return perm;
}

// --- one operand, elementwise -------------------------------------------------------------------

void infer_unary(InferContext& c) {  // x, scale, zero?, y scale, y zero?
  check_quantized(c, 0);
  check_result(c, 3, c.dtype(0));
  ops::infer_same_as_input(c);
}

// Real arithmetic by `op` between the two scales.
LowerFn lower_unary(const char* op, std::initializer_list<const char*> keys) {
  return ops::lower_as([op, keys = std::vector<const char*>(keys)](Lowering& l) {
    Attributes attrs;
    for (const char* key : keys) attrs.merge(attrs_of(l.node(), {key}));
    l.set(0, quantized(l, l.emit(op, {dequantized(l, 0)}, std::move(attrs)), 3, l.dtype(l.in(0))));
  });
}

// Before opset 13, an attribute here, all axes from `axis` on are one.
void lower_softmax(Lowering& l) {
  const ValueId x = dequantized(l, 0);
  const int64_t axis = l.node().attr_int("axis", -1);
  ValueId y;
  if (l.node().attr_int("opset", 13) < 13) {
    const ValueId flat = l.emit("Softmax", {l.emit("Flatten", {x}, {{"axis", axis}})}, {{"axis", int64_t{-1}}});
    y = l.emit("Reshape", {flat, l.emit("Shape", {x})});
  } else {
    y = l.emit("Softmax", {x}, {{"axis", axis}});
  }
  l.set(0, quantized(l, y, 3, l.dtype(l.in(0))));
}

// --- several operands ---------------------------------------------------------------------------

void infer_binary(InferContext& c) {  // a, scale, zero?, b, scale, zero?, y scale, y zero?
  check_quantized(c, 0);
  check_quantized(c, 3);
  if (c.dtype(3) != c.dtype(0)) c.error("operands differ in type: {} and {}", dtype_name(c.dtype(0)), dtype_name(c.dtype(3)));
  check_result(c, 6, c.dtype(0));
  if (!c.has_dims(0) || !c.has_dims(3)) return c.set_output(0, c.dtype(0));
  c.set_output(0, c.dtype(0), ops::broadcast_dims(c, Dims(c.dims(0)), Dims(c.dims(3))));
}

LowerFn lower_binary(const char* op) {
  return ops::lower_as([op](Lowering& l) {
    const ValueId a = dequantized(l, 0), b = dequantized(l, 3);
    l.set(0, quantized(l, l.emit(op, {a, b}), 6, l.dtype(l.in(0))));
  });
}

void infer_concat(InferContext& c) {  // y scale, y zero, then (x, scale, zero) each
  if (c.input_count() < 5 || (c.input_count() - 2) % 3 != 0) c.error("has {} inputs, expected two and three for each operand", c.input_count());
  c.require_dtype(1, kBytes);
  check_result(c, 0, c.dtype(1));
  for (size_t i = 2; i < c.input_count(); i += 3) check_quantized(c, i);
  if (!c.node().has_attr("axis")) c.error("axis is missing");
  std::optional<Dims> y;
  for (size_t i = 2; i < c.input_count(); i += 3) {
    if (!c.has_dims(i)) return c.set_output(0, c.dtype(1));
    const Dims x = c.dims(i);
    const auto axis = static_cast<size_t>(ops::normalize_axis(c.node().attr_int("axis", 0), static_cast<int64_t>(x.size())));
    if (!y) {
      y = x;
      continue;
    }
    if (x.size() != y->size()) c.error("operands differ in rank");
    for (size_t d = 0; d < x.size(); ++d) {
      Dim& to = (*y)[d];
      if (d == axis) to = to.known() && x[d].known() ? Dim(checked_add(to.raw, x[d].raw)) : c.fresh_dim();
      else if (!to.known()) to = x[d];
      else if (x[d].known() && x[d] != to) c.error("operands differ on axis {}: {} and {}", d, to.raw, x[d].raw);
    }
  }
  c.set_output(0, c.dtype(1), std::move(y));
}

void lower_concat(Lowering& l) {
  std::vector<ValueId> parts;
  for (size_t i = 2; i < l.node().inputs.size(); i += 3) parts.push_back(dequantized(l, i));
  const ValueId y = l.emit("Concat", std::move(parts), attrs_of(l.node(), {"axis"}));
  l.set(0, quantized(l, y, 0, l.dtype(l.in(1))));
}

// --- pooling ------------------------------------------------------------------------------------

bool is_channels_last(const Node& n) { return n.attr_int("channels_last", 0) != 0; }

void infer_pool(InferContext& c) {  // x, scale, zero?, y scale, y zero?
  check_quantized(c, 0);
  check_result(c, 3, c.dtype(0));
  if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
  Dims y = c.dims(0);
  if (y.size() < 3 || y.size() > 5) c.error("input has rank {}, expected 3 to 5", y.size());
  const size_t first = is_channels_last(c.node()) ? 1 : 2, spatial = y.size() - 2;
  if (c.node().op == "QLinearGlobalAveragePool") {
    for (size_t i = 0; i < spatial; ++i) y[first + i] = Dim(1);
  } else {
    const Ints kernel = c.node().attr_ints("kernel_shape");
    if (kernel.size() != spatial) c.error("kernel_shape has {} values, the input {} spatial axes", kernel.size(), spatial);
    const ops::Window window = ops::window_of(c.node(), kernel);
    for (size_t i = 0; i < spatial; ++i) y[first + i] = ops::output_dim(c, window, i, y[first + i]);
  }
  c.set_output(0, c.dtype(0), std::move(y));
}

bool lower_pool(Rewriter& rw, NodeId id) {
  Lowering l(rw, id);
  const bool last = is_channels_last(l.node());
  const auto& dims = l.dims(l.in(0));
  if (last && !dims) return false;
  const size_t rank = dims ? dims->size() : 0;
  ValueId x = dequantized(l, 0);
  if (last) x = l.emit("Transpose", {x}, {{"perm", channels_second(rank)}});
  ValueId y = l.node().op == "QLinearGlobalAveragePool"
                  ? l.emit("GlobalAveragePool", {x})
                  : l.emit("AveragePool", {x}, attrs_of(l.node(), {"auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"}));
  if (last) y = l.emit("Transpose", {y}, {{"perm", channels_last(rank)}});
  l.set(0, quantized(l, y, 3, l.dtype(l.in(0))));
  return true;
}

// --- products -----------------------------------------------------------------------------------

// Shape of the numpy product of a and b.
std::optional<Dims> product_dims(InferContext& c, size_t ai, size_t bi) {
  if (!c.has_dims(ai) || !c.has_dims(bi)) return std::nullopt;
  const Dims a = c.dims(ai), b = c.dims(bi);
  if (a.size() < 2 || b.size() < 2) c.error("operands need at least two axes");
  const Dim inner = a.back(), other = b[b.size() - 2];
  if (inner.known() && other.known() && inner != other) c.error("inner sizes differ: {} and {}", inner.raw, other.raw);
  Dims out = ops::broadcast_dims(c, Dims(a.begin(), a.end() - 2), Dims(b.begin(), b.end() - 2));
  out.push_back(a[a.size() - 2]);
  out.push_back(b.back());
  return out;
}

void require_one(InferContext& c, size_t i, const char* what) {
  if (c.has_dims(i) && all_known(c.dims(i)) && checked_numel(concrete(c.dims(i))) != 1)
    fail(ExitCode::kUnsupported, "{} has several values, which is not supported", what);
}

// sums * (a_scale * b_scale) + bias, as `dtype`.
ValueId scaled(Lowering& l, ValueId sums, ValueId a_scale, ValueId b_scale, ValueId bias, DType dtype) {
  const ValueId scale = l.emit("Mul", {l.cast(a_scale, DType::kF32), l.cast(b_scale, DType::kF32)});
  ValueId y = l.emit("Mul", {l.cast(sums, DType::kF32), scale});
  if (bias != kNone) y = l.emit("Add", {y, l.cast(bias, DType::kF32)});
  return l.cast(y, dtype);
}

void infer_product_to_float(InferContext& c) {  // a, b, a scale, b scale, a zero?, b zero?, bias?
  for (size_t i : {0, 1}) {
    c.require_dtype(i, kBytes);
    c.require_dtype(i + 4, {c.dtype(i)});
  }
  c.require_dtype(2, {DType::kF32, DType::kF16});
  c.require_dtype(3, {c.dtype(2)});
  c.require_dtype(6, {c.dtype(2)});
  require_one(c, 2, "the scale of a");
  c.set_output(0, c.dtype(2), product_dims(c, 0, 1));
}

void lower_product_to_float(Lowering& l) {
  const ValueId sums = l.emit("MatMulInteger", trimmed({l.in(0), l.in(1), l.in(4), l.in(5)}));
  l.set(0, scaled(l, sums, l.in(2), l.in(3), l.in(6), l.dtype(l.in(2))));
}

void infer_dynamic_product(InferContext& c) {  // a, b, b scale, b zero?, bias?
  c.require_dtype(0, {DType::kF32});
  c.require_dtype(1, kBytes);
  c.require_dtype(2, {DType::kF32});
  c.require_dtype(3, {c.dtype(1)});
  c.require_dtype(4, {DType::kF32});
  c.set_output(0, DType::kF32, product_dims(c, 0, 1));
}

bool lower_dynamic_product(Rewriter& rw, NodeId id) {
  Lowering l(rw, id);
  const NodeId made = rw.add_node("DynamicQuantizeLinear", {l.in(0)}, {}, l.node().name, 3);
  const std::vector<ValueId> a = rw.graph().node(made).outputs;  // bytes, scale, zero point
  const ValueId sums = l.emit("MatMulInteger", trimmed({a[0], l.in(1), a[2], l.in(3)}));
  l.set(0, scaled(l, sums, a[1], l.in(2), l.in(4), DType::kF32));
  return true;
}

// a, scale, zero, b, scale, zero, c?, y scale?, y zero?: alpha * a * b + c, where c counts in a_scale * b_scale * alpha.
void infer_qgemm(InferContext& c) {
  check_quantized(c, 0);
  check_quantized(c, 3);
  require_one(c, 1, "the scale of a");
  require_one(c, 2, "the zero point of a");
  c.require_dtype(6, {DType::kI32});
  if (c.has_input(7) != c.has_input(8)) c.error("the result has {}", c.has_input(7) ? "a scale, but no zero point" : "a zero point, but no scale");
  c.require_dtype(8, kBytes);
  if (c.has_input(7)) check_result(c, 7, c.dtype(8));
  const DType dtype = c.has_input(8) ? c.dtype(8) : DType::kF32;
  c.require_rank(0, 2);
  c.require_rank(3, 2);
  if (!c.has_dims(0) || !c.has_dims(3)) return c.set_output(0, dtype);
  const size_t a = c.node().attr_int("transA", 0) != 0 ? 1 : 0, b = c.node().attr_int("transB", 0) != 0 ? 1 : 0;
  const Dim inner = c.dims(0)[1 - a], other = c.dims(3)[b];
  if (inner.known() && other.known() && inner != other) c.error("inner sizes differ: {} and {}", inner.raw, other.raw);
  c.set_output(0, dtype, Dims{c.dims(0)[a], c.dims(3)[1 - b]});
}

bool lower_qgemm(Rewriter& rw, NodeId id) {
  Lowering l(rw, id);
  const Graph& g = rw.graph();
  const auto constant = [&](ValueId v) { return v == kNone ? nullptr : g.value(v).constant.get(); };
  const int64_t trans_a = l.node().attr_int("transA", 0), trans_b = l.node().attr_int("transB", 0);
  ValueId a_scale = l.in(1);
  if (const float alpha = l.node().attr_float("alpha", 1); alpha != 1) {
    const Tensor* s = constant(a_scale);
    a_scale = s != nullptr ? l.constant(Tensor::scalar<float>(s->data<float>()[0] * alpha))
                           : l.emit("Mul", {a_scale, l.scalar(static_cast<double>(alpha), DType::kF32)});
  }
  const ValueId a = l.emit("DequantizeLinear", trimmed({l.in(0), a_scale, l.in(2)}));
  const ValueId b = dequantized(l, 3, {{"axis", int64_t{trans_b != 0 ? 0 : 1}}});
  std::vector<ValueId> inputs = {a, b};
  if (const ValueId bias = l.in(6); bias != kNone) {
    const Tensor *sa = constant(a_scale), *sb = constant(l.in(4));
    const bool vector = l.dims(bias) && l.dims(bias)->size() == 1;
    if (vector && constant(bias) != nullptr && sa != nullptr && sb != nullptr) {  // a form that stays in integers
      Tensor step = Tensor::empty(DType::kF32, sb->numel() == 1 ? Shape{} : Shape{sb->numel()});
      for (int64_t i = 0; i < step.numel(); ++i) step.mutable_data<float>()[i] = sa->data<float>()[0] * sb->data<float>()[i];
      inputs.push_back(l.emit("DequantizeLinear", {bias, l.constant(std::move(step))}, {{"axis", int64_t{0}}}));
    } else {
      inputs.push_back(l.emit("Mul", {l.cast(bias, DType::kF32), l.emit("Mul", {a_scale, l.in(4)})}));
    }
  }
  const ValueId y = l.emit("Gemm", std::move(inputs), {{"transA", trans_a}, {"transB", trans_b}});
  l.set(0, l.has(8) ? quantized(l, y, 7, l.dtype(l.in(8))) : y);
  return true;
}

}  // namespace

void register_contrib_quant_ops(OpRegistry& registry) {
  for (const char* name : {"QuantizeLinear", "DequantizeLinear"}) {  // ONNX's, before it knew 16 and 4 bits
    OpDef def = *registry.find("", name);
    def.domain = "com.microsoft";
    def.kernels.clear();
    def.stops_gradient = true;
    def.lower = ops::lower_as([](Lowering& l) { l.set(0, l.emit(l.node().op, l.node().inputs, l.node().attrs)); });
    registry.add(std::move(def));
  }
  add(registry, "QLinearSigmoid", 4, 5, infer_unary, lower_unary("Sigmoid", {}));
  add(registry, "QLinearLeakyRelu", 4, 5, infer_unary, lower_unary("LeakyRelu", {"alpha"}));
  add(registry, "QLinearSoftmax", 5, 5, infer_unary, ops::lower_as(lower_softmax));
  add(registry, "QLinearAdd", 7, 8, infer_binary, lower_binary("Add"));
  add(registry, "QLinearMul", 7, 8, infer_binary, lower_binary("Mul"));
  add(registry, "QLinearConcat", 5, -1, infer_concat, ops::lower_as(lower_concat));
  add(registry, "QLinearGlobalAveragePool", 5, 5, infer_pool, lower_pool);
  add(registry, "QLinearAveragePool", 4, 5, infer_pool, lower_pool);
  add(registry, "MatMulIntegerToFloat", 4, 7, infer_product_to_float, ops::lower_as(lower_product_to_float));
  add(registry, "DynamicQuantizeMatMul", 3, 5, infer_dynamic_product, lower_dynamic_product);
  add(registry, "QGemm", 6, 9, infer_qgemm, lower_qgemm);
}

}  // namespace ds
