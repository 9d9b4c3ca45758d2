// Operators of domain com.microsoft that onnxruntime's optimizer and exporters write, without those around
// attention: formulas over standard operators (OpDef::lower).
#include "libds/ops/microsoft.h"

#include <algorithm>

#include "libds/ops/lowering.h"
#include "libds/ops/register.h"

namespace ds {
namespace ops {

void add_microsoft(OpRegistry& registry, const char* name, std::array<int, 2> inputs, int outputs, InferFn infer, LowerFn lower) {
  OpDef def;
  def.domain = "com.microsoft";
  def.name = name;
  def.min_inputs = inputs[0];
  def.max_inputs = inputs[1];
  def.max_outputs = outputs;
  def.infer = std::move(infer);
  def.lower = std::move(lower);
  registry.add(std::move(def));
}

}  // namespace ops

namespace {

using ops::Lowering;
using ops::lower_as;

// --- activations ---------------------------------------------------------------------------------

void infer_gelu(InferContext& c) {  // (x, bias?)
  c.require_dtype(0, ops::kFloats);
  if (c.has_input(1) && c.dtype(1) != c.dtype(0)) c.error("x and bias differ in type: {} and {}", dtype_name(c.dtype(0)), dtype_name(c.dtype(1)));
  ops::infer_same_as_input(c);
}

void lower_gelu(Lowering& l, const char* approximate) {
  const ValueId x = l.has(1) ? l.emit("Add", {l.in(0), l.in(1)}) : l.in(0);
  l.set(0, l.emit("Gelu", {x}, {{"approximate", std::string(approximate)}}));
}

// `activation` and its parameters as nodes behind `x`.
ValueId activated(Lowering& l, ValueId x, const std::string& name, const std::vector<float>& p) {
  const auto with = [&](const char* op, std::initializer_list<const char*> attrs) {
    Attributes given;
    size_t i = 0;
    for (const char* attr : attrs) {
      if (i < p.size()) given.emplace(attr, p[i]);
      ++i;
    }
    return l.emit(op, {x}, std::move(given));
  };
  if (name.empty()) return x;
  if (name == "Relu" || name == "Tanh" || name == "Sigmoid" || name == "Softplus" || name == "Softsign") return with(name.c_str(), {});
  if (name == "LeakyRelu" || name == "Elu" || name == "ThresholdedRelu") return with(name.c_str(), {"alpha"});
  if (name == "HardSigmoid") return with("HardSigmoid", {"alpha", "beta"});
  if (name == "Clip" && p.size() == 2) return l.emit("Clip", {x, l.scalar(static_cast<double>(p[0]), l.dtype(x)), l.scalar(static_cast<double>(p[1]), l.dtype(x))});
  fail(ExitCode::kUnsupported, "activation '{}' with {} parameters is not supported", name, p.size());
}

Attributes without(Attributes attrs, std::initializer_list<const char*> names) {
  for (const char* name : names) attrs.erase(name);
  return attrs;
}

// --- products ------------------------------------------------------------------------------------

bool flag(const Node& n, const char* attr) { return n.attr_int(attr, 0) != 0; }

// The axis that transBatch moves in front of the last one is the first.
template <typename List>
List rotated(List x) {
  if (x.size() > 2) std::rotate(x.begin(), x.begin() + 1, x.end() - 1);
  return x;
}

void infer_fused_matmul(InferContext& c) {
  c.require_dtype(0, ops::kFloats);
  if (c.dtype(1) != c.dtype(0)) c.error("operands differ in type: {} and {}", dtype_name(c.dtype(0)), dtype_name(c.dtype(1)));
  if (!c.has_dims(0) || !c.has_dims(1)) return c.set_output(0, c.dtype(0));
  Dims a = c.dims(0), b = c.dims(1);
  if (a.empty() || b.empty()) c.error("operands must have at least one axis");
  if (flag(c.node(), "transBatchA")) a = rotated(a);
  if (flag(c.node(), "transBatchB")) b = rotated(b);
  const bool row = a.size() == 1, column = b.size() == 1;
  if (row) a.insert(a.begin(), Dim(1));
  if (column) b.push_back(Dim(1));
  if (!row && flag(c.node(), "transA")) std::swap(a[a.size() - 1], a[a.size() - 2]);
  if (!column && flag(c.node(), "transB")) std::swap(b[b.size() - 1], b[b.size() - 2]);
  if (a.back().known() && b[b.size() - 2].known() && a.back() != b[b.size() - 2])
    c.error("inner dimensions differ: {} times {}", c.graph().dims_string(c.dims(0)), c.graph().dims_string(c.dims(1)));
  Dims y = ops::broadcast_dims(c, Dims(a.begin(), a.end() - 2), Dims(b.begin(), b.end() - 2));
  if (!row) y.push_back(a[a.size() - 2]);
  if (!column) y.push_back(b.back());
  c.set_output(0, c.dtype(0), std::move(y));
}

bool lower_fused_matmul(Rewriter& rw, NodeId id) {
  Lowering l(rw, id);
  if (!l.dims(l.in(0)) || !l.dims(l.in(1))) return false;
  const auto operand = [&](size_t i, const char* batch) {
    std::vector<int64_t> perm(l.dims(l.in(i))->size());
    for (size_t k = 0; k < perm.size(); ++k) perm[k] = static_cast<int64_t>(k);
    if (!flag(l.node(), batch) || perm.size() < 3) return l.in(i);
    return l.emit("Transpose", {l.in(i)}, {{"perm", rotated(perm)}});
  };
  const auto transposes = [&](size_t i, const char* attr) { return int64_t{flag(l.node(), attr) && l.dims(l.in(i))->size() > 1}; };
  const ValueId a = operand(0, "transBatchA"), b = operand(1, "transBatchB");
  ValueId y = l.emit("BatchMatMul", {a, b}, {{"trans_a", transposes(0, "transA")}, {"trans_b", transposes(1, "transB")}});
  if (const float alpha = l.node().attr_float("alpha", 1.0f); alpha != 1.0f)
    y = l.emit("Mul", {y, l.scalar(static_cast<double>(alpha), l.dtype(y))});
  l.set(0, y);
  return true;
}

// The standard operator's inference, for a node that has its attributes and first inputs.
void infer_like(InferContext& c, const char* op) { OpRegistry::instance().find("", op)->infer(c); }

void lower_fused_gemm(Lowering& l) {
  const Node& n = l.node();
  std::vector<ValueId> inputs = {l.in(0), l.in(1)};
  if (l.has(2)) inputs.push_back(l.in(2));
  const ValueId y = l.emit("Gemm", inputs, without(n.attrs, {"activation", "activation_alpha", "activation_beta", "activation_gamma"}));
  std::vector<float> p;
  for (const char* attr : {"activation_alpha", "activation_beta", "activation_gamma"})
    if (n.has_attr(attr)) p.push_back(n.attr_float(attr, 0));
  l.set(0, activated(l, y, n.attr_string("activation", ""), p));
}

void lower_fused_conv(Lowering& l) {
  std::vector<ValueId> inputs = {l.in(0), l.in(1)};
  if (l.has(2)) inputs.push_back(l.in(2));
  ValueId y = l.emit("Conv", inputs, without(l.node().attrs, {"activation", "activation_params"}));
  if (l.has(3)) y = l.emit("Add", {y, l.in(3)});
  l.set(0, activated(l, y, l.node().attr_string("activation", ""), l.node().attr_floats("activation_params")));
}

// --- normalization -------------------------------------------------------------------------------

constexpr float kSkipEpsilon = 1e-12f;

// Mean and inverse deviation have one element a row.
void set_statistics(InferContext& c, std::initializer_list<size_t> outputs) {
  std::optional<Dims> kept = c.input(0).dims;
  if (kept && !kept->empty()) {
    const auto rank = static_cast<int64_t>(kept->size());
    for (int64_t i = ops::normalize_axis(c.node().attr_int("axis", -1), rank); i < rank; ++i) (*kept)[static_cast<size_t>(i)] = 1;
  }
  for (size_t i : outputs) c.set_output(i, DType::kF32, kept);
}

void infer_simplified(InferContext& c) {  // (x, scale) -> y, inv_std?
  c.require_dtype(0, ops::kFloats);
  if (!ops::mixes(c.dtype(1), c.dtype(0))) c.error("scale has type {}, x {}", dtype_name(c.dtype(1)), dtype_name(c.dtype(0)));
  c.set_output(0, c.dtype(1), c.input(0).dims);
  set_statistics(c, {1});
}

// 1 / sqrt(mean square + epsilon) over the axes from `axis` on.
ValueId inverse_root_mean_square(Lowering& l, ValueId x, int64_t axis, float epsilon) {
  const DType dtype = l.dtype(x) == DType::kF64 ? DType::kF64 : DType::kF32;
  const ValueId wide = l.cast(x, dtype);
  std::vector<int64_t> axes;
  const auto rank = static_cast<int64_t>(l.dims(x)->size());
  for (int64_t i = ops::normalize_axis(axis, rank); i < rank; ++i) axes.push_back(i);
  const ValueId square = l.emit("ReduceMean", {l.emit("Mul", {wide, wide}), l.ints(axes)});
  const ValueId root = l.emit("Sqrt", {l.emit("Add", {square, l.scalar(static_cast<double>(epsilon), dtype)})});
  return l.cast(l.emit("Reciprocal", {root}), DType::kF32);
}

bool lower_simplified(Rewriter& rw, NodeId id) {
  Lowering l(rw, id);
  const int64_t axis = l.node().attr_int("axis", -1);
  const float epsilon = l.node().attr_float("epsilon", 1e-5f);
  if (l.wants(1) && !l.dims(l.in(0))) return false;
  if (l.wants(1)) l.set(1, inverse_root_mean_square(l, l.in(0), axis, epsilon));
  l.set(0, l.emit("RMSNormalization", {l.in(0), l.in(1)}, {{"axis", axis}, {"epsilon", epsilon}}));
  return true;
}

void infer_skip(InferContext& c) {  // (x, skip, gamma, ...) -> y, mean?, inv_std?, sum?
  c.require_dtype(0, ops::kFloats);
  for (size_t i = 1; i < c.input_count(); ++i)
    if (c.has_input(i) && c.dtype(i) != c.dtype(0)) c.error("input {} has type {}, x {}", i, dtype_name(c.dtype(i)), dtype_name(c.dtype(0)));
  ops::infer_same_as_input(c);
  set_statistics(c, {1, 2});
  c.set_output(3, c.dtype(0), c.input(0).dims);
}

ValueId skip_sum(Lowering& l, size_t bias) {
  const ValueId x = l.emit("Add", {l.in(0), l.in(1)});
  return l.has(bias) ? l.emit("Add", {x, l.in(bias)}) : x;
}

void lower_skip_layer(Lowering& l) {  // (x, skip, gamma, beta?, bias?)
  const ValueId sum = skip_sum(l, 4);
  std::vector<ValueId> inputs = {sum, l.in(2)};
  if (l.has(3)) inputs.push_back(l.in(3));
  const size_t outputs = l.wants(1) || l.wants(2) ? 3 : 1;
  const auto y = l.emit_all("LayerNormalization", inputs, {{"epsilon", l.node().attr_float("epsilon", kSkipEpsilon)}}, outputs);
  for (size_t i = 0; i < outputs; ++i) l.set(i, y[i]);
  l.set(3, sum);
}

bool lower_skip_simplified(Rewriter& rw, NodeId id) {  // (x, skip, gamma, bias?)
  Lowering l(rw, id);
  const float epsilon = l.node().attr_float("epsilon", kSkipEpsilon);
  if (l.wants(1)) fail(ExitCode::kUnsupported, "output 1 (mean) is not supported: nothing computes it");
  if (l.wants(2) && !l.dims(l.in(0))) return false;
  const ValueId sum = skip_sum(l, 3);
  if (l.wants(2)) l.set(2, inverse_root_mean_square(l, sum, -1, epsilon));
  l.set(0, l.emit("RMSNormalization", {sum, l.in(2)}, {{"epsilon", epsilon}}));
  l.set(3, sum);
  return true;
}

enum Embed : size_t { kIds, kSegmentIds, kWords, kPositions, kSegments, kGamma, kBeta, kEmbedMask, kPositionIds };

void infer_embed(InferContext& c) {
  for (size_t i : {kIds, kSegmentIds, kEmbedMask, kPositionIds}) {
    c.require_dtype(i, {DType::kI32, DType::kI64});
    c.require_rank(i, 2);
  }
  for (size_t i : {kWords, kPositions, kGamma, kBeta})
    if (!c.has_input(i)) c.error("input {} is left out, but required", i);
  c.require_dtype(kWords, ops::kFloats);
  for (size_t i : {kWords, kPositions, kSegments}) c.require_rank(i, 2);
  if (c.has_input(kSegmentIds) != c.has_input(kSegments)) c.error("segment_ids and segment_embedding go together");
  if (!c.has_dims(kIds) || !c.has_dims(kWords)) {
    for (size_t i : {0, 2}) c.set_output(i, c.dtype(kWords));
    return c.set_output(1, DType::kI32);
  }
  const Dims y = {c.dims(kIds)[0], c.dims(kIds)[1], c.dims(kWords)[1]};
  for (size_t i : {0, 2}) c.set_output(i, c.dtype(kWords), y);
  c.set_output(1, DType::kI32, Dims{y[0]});
}

void lower_embed(Lowering& l) {
  ValueId sum = l.emit("Gather", {l.in(kWords), l.in(kIds)});
  ValueId positions;
  if (l.has(kPositionIds)) {
    positions = l.emit("Gather", {l.in(kPositions), l.in(kPositionIds)});
  } else {
    const ValueId length = l.emit("Shape", {l.in(kIds)}, {{"start", int64_t{1}}, {"end", int64_t{2}}});
    positions = l.emit("Slice", {l.in(kPositions), l.ints({0}), length, l.ints({0})});
  }
  sum = l.emit("Add", {sum, positions});
  if (l.has(kSegments)) sum = l.emit("Add", {sum, l.emit("Gather", {l.in(kSegments), l.in(kSegmentIds)})});
  l.set(0, l.emit("LayerNormalization", {sum, l.in(kGamma), l.in(kBeta)}, {{"epsilon", l.node().attr_float("epsilon", kSkipEpsilon)}}));
  l.set(2, sum);
  if (!l.wants(1)) return;
  ValueId count;  // how many tokens of each sample are real
  if (l.has(kEmbedMask)) {
    count = l.emit("ReduceSum", {l.cast(l.in(kEmbedMask), DType::kI32), l.ints({1})}, {{"keepdims", int64_t{0}}});
  } else {
    const ValueId batch = l.emit("Shape", {l.in(kIds)}, {{"end", int64_t{1}}});
    count = l.emit("ConstantOfShape", {batch}, {{"value", Tensor::of<int32_t>({1}, {0})}});
  }
  l.set(1, count);
}

}  // namespace

void register_microsoft_ops(OpRegistry& registry) {
  using ops::add_microsoft;
  add_microsoft(registry, "Gelu", {1, 1}, 1, infer_gelu, lower_as([](Lowering& l) { lower_gelu(l, "none"); }));
  add_microsoft(registry, "BiasGelu", {2, 2}, 1, infer_gelu, lower_as([](Lowering& l) { lower_gelu(l, "none"); }));
  add_microsoft(registry, "FastGelu", {1, 2}, 1, infer_gelu, lower_as([](Lowering& l) { lower_gelu(l, "tanh"); }));
  add_microsoft(registry, "QuickGelu", {1, 1}, 1, infer_gelu, lower_as([](Lowering& l) {
    l.set(0, l.emit("Swish", {l.in(0)}, {{"alpha", l.node().attr_float("alpha", 1.702f)}}));
  }));
  add_microsoft(registry, "FusedMatMul", {2, 2}, 1, infer_fused_matmul, lower_fused_matmul);
  add_microsoft(registry, "TransposeMatMul", {2, 2}, 1, infer_fused_matmul, lower_fused_matmul);
  add_microsoft(registry, "FusedGemm", {2, 3}, 1, [](InferContext& c) { infer_like(c, "Gemm"); }, lower_as(lower_fused_gemm));
  add_microsoft(registry, "FusedConv", {2, 4}, 1, [](InferContext& c) { infer_like(c, "Conv"); }, lower_as(lower_fused_conv));
  add_microsoft(registry, "SkipLayerNormalization", {3, 5}, 4, infer_skip, lower_as(lower_skip_layer));
  add_microsoft(registry, "SkipSimplifiedLayerNormalization", {3, 4}, 4, infer_skip, lower_skip_simplified);
  add_microsoft(registry, "EmbedLayerNormalization", {1, 9}, 3, infer_embed, lower_as(lower_embed));
  OpDef simplified;  // onnxruntime writes it into ONNX's own domain
  simplified.name = "SimplifiedLayerNormalization";
  simplified.min_inputs = simplified.max_inputs = 2;
  simplified.max_outputs = 2;
  simplified.infer = infer_simplified;
  simplified.lower = lower_simplified;
  registry.add(std::move(simplified));
  ops::register_microsoft_attention(registry);
}

}  // namespace ds
