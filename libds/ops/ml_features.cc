// Preparing features (ai.onnx.ml): Scaler, Normalizer, Binarizer, Imputer, ArrayFeatureExtractor, FeatureVectorizer,
// all lowered to standard operators.
#include <algorithm>
#include <cmath>

#include "libds/ops/ml.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using ops::Lowering;

// Lists of one element per feature, or one for all, as broadcast along the last axis.
void check_per_feature(InferContext& c, size_t length, const char* name) {
  if (length <= 1 || !c.has_dims(0)) return;
  const Dims& dims = c.dims(0);
  if (dims.empty() || (dims.back().known() && dims.back() != Dim(static_cast<int64_t>(length))))
    c.error("{} has {} elements, input 0 ('{}') is {}", name, length, c.input(0).name, c.graph().dims_string(dims));
}

// f64 is computed in f64, everything else in f32; results are f32.
ValueId widened(Lowering& l) { return l.cast(l.in(0), l.dtype(l.in(0)) == DType::kF64 ? DType::kF64 : DType::kF32); }

ValueId floats(Lowering& l, const std::vector<float>& values, DType dtype) { return l.constant(Tensor::vector<float>(values).cast(dtype)); }

void infer_f32_like(InferContext& c) {
  ops::require_ml_number(c);
  c.set_output(0, DType::kF32, c.has_dims(0) ? std::optional(c.dims(0)) : std::nullopt);
}

// --- Scaler: (x - offset) scale ---------------------------------------------------------------------

void infer_scaler(InferContext& c) {
  for (const char* name : {"offset", "scale"}) check_per_feature(c, c.node().attr_floats(name).size(), name);
  infer_f32_like(c);
}

void lower_scaler(Lowering& l) {
  ValueId x = widened(l);
  const DType t = l.dtype(x);
  const std::vector<float> offset = l.node().attr_floats("offset"), scale = l.node().attr_floats("scale");
  if (!offset.empty()) x = l.emit("Sub", {x, floats(l, offset, t)});
  if (!scale.empty()) x = l.emit("Mul", {x, floats(l, scale, t)});
  l.set(0, l.cast(l.emit("Identity", {x}), DType::kF32));
}

// --- Normalizer: rows divided by a norm, unless that is zero -----------------------------------------

void infer_normalizer(InferContext& c) {
  const std::string norm = c.node().attr_string("norm", "MAX");
  if (norm != "MAX" && norm != "L1" && norm != "L2") c.error("norm '{}' is not known", norm);
  ops::rows_of(c);
  infer_f32_like(c);
}

void lower_normalizer(Lowering& l) {
  const std::string norm = l.node().attr_string("norm", "MAX");
  const ValueId x = widened(l);
  const char* reduce = norm == "MAX" ? "ReduceMax" : norm == "L1" ? "ReduceL1" : "ReduceL2";
  const ValueId by = l.emit(reduce, {x, l.ints({-1})});
  const DType t = l.dtype(x);
  const ValueId is_zero = l.emit("Equal", {by, l.scalar(0, t)});
  l.set(0, l.cast(l.emit("Div", {x, l.emit("Where", {is_zero, l.scalar(1, t), by})}), DType::kF32));
}

// --- Binarizer: 1 where x > threshold, else 0 --------------------------------------------------------

void infer_like_x(InferContext& c) {
  ops::require_ml_number(c);
  ops::infer_same_as_input(c);
}

void lower_binarizer(Lowering& l) {
  const DType t = l.dtype(l.in(0));
  const ValueId x = t == DType::kF32 ? l.in(0) : l.cast(l.in(0), DType::kF64);
  const auto threshold = static_cast<double>(l.node().attr_float("threshold", 0.0f));
  l.set(0, l.cast(l.emit("Greater", {x, l.scalar(threshold, l.dtype(x))}), t));
}

// --- Imputer: one value replaced by another -----------------------------------------------------------

struct Replacement {
  Tensor from, to;  // to: [1] or [F]
  bool nan = false;
};

Replacement replacement(const Node& n, DType dtype) {
  const std::vector<float> floats = n.attr_floats("imputed_value_floats");
  const std::vector<int64_t> ints = n.attr_ints("imputed_value_int64s");
  if (floats.empty() == ints.empty()) bad_data("needs one of the attributes imputed_value_floats and imputed_value_int64s");
  if (is_float(dtype) == floats.empty()) bad_data("its input is {}, the values to put in are {}", dtype_name(dtype), floats.empty() ? "integers" : "floats");
  if (floats.empty()) return {Tensor::scalar<int64_t>(n.attr_int("replaced_value_int64", 0)).cast(dtype), Tensor::vector<int64_t>(ints).cast(dtype), false};
  const float from = n.attr_float("replaced_value_float", 0.0f);
  return {Tensor::scalar<float>(from).cast(dtype), Tensor::vector<float>(floats).cast(dtype), std::isnan(from)};
}

void infer_imputer(InferContext& c) {
  ops::require_ml_number(c);
  check_per_feature(c, static_cast<size_t>(replacement(c.node(), c.dtype(0)).to.numel()), "the list of values to put in");
  ops::infer_same_as_input(c);
}

void lower_imputer(Lowering& l) {
  const ValueId x = l.in(0);
  const Replacement r = replacement(l.node(), l.dtype(x));
  const ValueId missing = r.nan ? l.emit("IsNaN", {x}) : l.emit("Equal", {x, l.constant(r.from)});
  const ValueId to = r.to.numel() == 1 ? l.constant(r.to.reshaped({})) : l.constant(r.to);
  l.set(0, l.emit("Where", {missing, to, x}));
}

// --- ArrayFeatureExtractor: features by number ---------------------------------------------------------

void infer_extractor(InferContext& c) {
  c.require_dtype(0, {DType::kF32, DType::kF64, DType::kI64, DType::kI32, DType::kString});
  c.require_dtype(1, {DType::kI64});
  if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
  Dims dims = c.dims(0);
  if (dims.empty()) c.error("input 0 ('{}') is a scalar", c.input(0).name);
  if (dims.size() == 1) dims.insert(dims.begin(), Dim(1));
  dims.back() = c.has_dims(1) && all_known(c.dims(1)) ? Dim(checked_numel(concrete(c.dims(1)))) : c.fresh_dim();
  c.set_output(0, c.dtype(0), std::move(dims));
}

void lower_extractor(Lowering& l) {
  const ValueId indices = l.emit("Reshape", {l.in(1), l.ints({-1})});
  const auto& dims = l.dims(l.in(0));
  const ValueId x = dims && dims->size() == 1 ? l.emit("Unsqueeze", {l.in(0), l.ints({0})}) : l.in(0);
  l.set(0, l.emit("Gather", {x, indices}, {{"axis", int64_t{-1}}}));
}

// --- FeatureVectorizer: matrices side by side, each cut or filled up with zeros to its width ------------

void infer_vectorizer(InferContext& c) {
  const std::vector<int64_t> widths = c.node().attr_ints("inputdimensions");
  if (widths.size() != c.input_count()) c.error("inputdimensions has {} elements for {} inputs", widths.size(), c.input_count());
  int64_t total = 0;
  Dim rows = c.fresh_dim();
  for (size_t i = 0; i < widths.size(); ++i) {
    c.require_dtype(i, {DType::kF32, DType::kF64, DType::kI32, DType::kI64});
    if (widths[i] < 0) c.error("inputdimensions holds {}", widths[i]);
    total = checked_add(total, widths[i]);
    if (!c.has_dims(i)) continue;
    const Dims& dims = c.dims(i);
    if (dims.empty() || dims.size() > 2) c.error("input {} ('{}') is {}, expected [N, C] or [C]", i, c.input(i).name, c.graph().dims_string(dims));
    const Dim own = dims.size() == 1 ? Dim(1) : dims[0];
    if (own.known() && rows.known() && own != rows) c.error("input {} ('{}') has {} rows, others {}", i, c.input(i).name, own.raw, rows.raw);
    if (!rows.known()) rows = own;
  }
  c.set_output(0, DType::kF32, Dims{rows, Dim(total)});
}

void lower_vectorizer(Lowering& l) {
  const std::vector<int64_t> widths = l.node().attr_ints("inputdimensions");
  std::vector<ValueId> parts;
  for (size_t i = 0; i < widths.size(); ++i) {
    ValueId x = l.cast(l.in(i), DType::kF32);
    const std::optional<Dims> dims = l.dims(x);
    if (dims && dims->size() == 1) x = l.emit("Unsqueeze", {x, l.ints({0})});
    const bool known = dims && dims->back().known();
    const int64_t lacking = known ? std::max<int64_t>(0, widths[i] - dims->back().raw) : widths[i];
    if (lacking > 0) x = l.emit("Pad", {x, l.ints({0, 0, 0, lacking})});
    if (!known || dims->back().raw > widths[i]) x = l.emit("Slice", {x, l.ints({0}), l.ints({widths[i]}), l.ints({1})});
    parts.push_back(x);
  }
  l.set(0, l.emit("Concat", std::move(parts), {{"axis", int64_t{1}}}));
}

}  // namespace

void register_ml_feature_ops(OpRegistry& registry) {
  registry.add(ops::ml_lowered("Scaler", infer_scaler, ops::lower_as(lower_scaler)));
  registry.add(ops::ml_lowered("Normalizer", infer_normalizer, ops::lower_as(lower_normalizer)));
  registry.add(ops::ml_lowered("Binarizer", infer_like_x, ops::lower_as(lower_binarizer)));
  registry.add(ops::ml_lowered("Imputer", infer_imputer, ops::lower_as(lower_imputer)));
  OpDef extractor = ops::ml_lowered("ArrayFeatureExtractor", infer_extractor, ops::lower_as(lower_extractor));
  extractor.min_inputs = extractor.max_inputs = 2;
  registry.add(std::move(extractor));
  OpDef vectorizer = ops::ml_lowered("FeatureVectorizer", infer_vectorizer, ops::lower_as(lower_vectorizer));
  vectorizer.max_inputs = -1;
  registry.add(std::move(vectorizer));
}

}  // namespace ds
