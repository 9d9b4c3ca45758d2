#include "libds/ops/ml.h"

#include <numbers>

namespace ds::ops {

OpDef ml_op(std::string_view name, InferFn infer) {
  OpDef def;
  def.domain = kMlDomain;
  def.name = name;
  def.min_inputs = def.max_inputs = 1;
  def.stops_gradient = true;
  def.infer = std::move(infer);
  return def;
}

OpDef ml_lowered(std::string_view name, InferFn infer, LowerFn lower) {
  OpDef def = ml_op(name, std::move(infer));
  def.lower = std::move(lower);
  return def;
}

void require_ml_number(InferContext& c) { c.require_dtype(0, {DType::kF32, DType::kF64, DType::kI32, DType::kI64}); }

Dim rows_of(InferContext& c, int64_t features) {
  if (!c.has_dims(0)) return c.fresh_dim();
  const Dims dims = c.dims(0);
  if (dims.empty() || dims.size() > 2) c.error("input 0 ('{}') is {}, expected [N, F] or [F]", c.input(0).name, c.graph().dims_string(dims));
  if (features >= 0 && dims.back().known() && dims.back() != Dim(features))
    c.error("input 0 ('{}') has {} features, the attributes have {}", c.input(0).name, dims.back().raw, features);
  return dims.size() == 1 ? Dim(1) : dims[0];
}

ValueId as_matrix(Lowering& l, DType dtype) {
  const auto& dims = l.dims(l.in(0));
  const bool one_row = dims && dims->size() == 1;  // emitting a node moves what dims refers to
  const ValueId x = l.cast(l.in(0), dtype);
  return one_row ? l.emit("Unsqueeze", {x, l.ints({0})}) : x;
}

// --- classes and scores --------------------------------------------------------------------------

Tensor class_labels(const Node& n, const char* ints, const char* strings) {
  const std::vector<int64_t> numbers = n.attr_ints(ints);
  std::vector<std::string> words = n.attr_strings(strings);
  if (numbers.empty() == words.empty()) bad_data("needs one of the attributes {} and {}", ints, strings);
  if (words.empty()) return Tensor::vector<int64_t>(numbers);
  const auto count = static_cast<int64_t>(words.size());
  return Tensor::of_strings({count}, std::move(words));
}

void infer_classifier(InferContext& c, const Tensor& labels, Dim rows, int64_t columns) {
  c.set_output(0, labels.dtype(), Dims{rows});
  c.set_output(1, DType::kF32, Dims{rows, Dim(columns)});
}

void set_top_label(Lowering& l, const Tensor& labels, ValueId scores) {
  if (!l.wants(0)) return;
  const ValueId top = l.emit("ArgMax", {scores}, {{"axis", int64_t{1}}, {"keepdims", int64_t{0}}});
  l.set(0, l.emit("Gather", {l.constant(labels), top}, {{"axis", int64_t{0}}}));
}

void check_post_transform(const Node& n) {
  const std::string transform = n.attr_string("post_transform", "NONE");
  for (const char* known : {"NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"})
    if (transform == known) return;
  bad_data("post_transform '{}' is not known", transform);
}

namespace {

// Softmax over the scores that are not zero; those that are stay zero. A row of zeros becomes 0.5, as in ONNX's
// reference.
ValueId softmax_zero(Lowering& l, ValueId x) {
  const DType t = l.dtype(x);
  const ValueId axis = l.ints({1});
  const ValueId most = l.emit("ReduceMax", {x, axis});
  const ValueId is_zero = l.emit("LessOrEqual", {l.emit("Abs", {x}), l.scalar(1e-7, t)});
  const ValueId powers = l.emit("Where", {is_zero, l.scalar(0, t), l.emit("Exp", {l.emit("Sub", {x, most})})});
  const ValueId sum = l.emit("ReduceSum", {powers, axis});
  return l.emit("Where", {l.emit("Equal", {sum, l.scalar(0, t)}), l.scalar(0.5, t), l.emit("Div", {powers, sum})});
}

// The quantile of the normal distribution, sqrt(2) erfinv(2 x - 1), with Winitzki's formula for erfinv, which every
// implementation of this operator has. In f64: it cancels around 0.5.
ValueId probit(Lowering& l, ValueId x) {
  constexpr double a = 0.147;
  const auto f64 = [&](double v) { return l.scalar(v, DType::kF64); };
  const ValueId y = l.emit("Sub", {l.emit("Mul", {l.cast(x, DType::kF64), f64(2)}), f64(1)});
  const ValueId log = l.emit("Log", {l.emit("Sub", {f64(1), l.emit("Mul", {y, y})})});
  const ValueId v = l.emit("Add", {l.emit("Mul", {log, f64(0.5)}), f64(2 / (std::numbers::pi * a))});
  const ValueId root = l.emit("Sqrt", {l.emit("Sub", {l.emit("Mul", {v, v}), l.emit("Mul", {log, f64(1 / a)})})});
  const ValueId size = l.emit("Sqrt", {l.emit("Sub", {root, v})});
  return l.cast(l.emit("Mul", {l.emit("Mul", {l.emit("Sign", {y}), size}), f64(std::numbers::sqrt2)}), l.dtype(x));
}

}  // namespace

ValueId post_transformed(Lowering& l, ValueId scores, const std::string& transform) {
  if (transform == "LOGISTIC") return l.emit("Sigmoid", {scores});
  if (transform == "SOFTMAX") return l.emit("Softmax", {scores}, {{"axis", int64_t{1}}});
  if (transform == "SOFTMAX_ZERO") return softmax_zero(l, scores);
  if (transform == "PROBIT") return probit(l, scores);
  return scores;
}

ValueId two_scores(Lowering& l, ValueId score, bool probabilities) {
  const ValueId other = probabilities ? l.emit("Sub", {l.scalar(1, l.dtype(score)), score}) : l.emit("Neg", {score});
  return l.emit("Concat", {other, score}, {{"axis", int64_t{1}}});
}

}  // namespace ds::ops
