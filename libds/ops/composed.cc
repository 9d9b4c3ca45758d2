// Operators that are short formulas over others: no kernel, no gradient of their own (OpDef::lower).
#include "libds/ops/int_arith.h"
#include "libds/ops/lowering.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using ops::Lowering;

constexpr std::initializer_list<DType> kFloats = {DType::kF32, DType::kF64, DType::kF16, DType::kBF16};

void add(OpRegistry& registry, const char* name, int min_inputs, int max_inputs, InferFn infer, LowerFn lower, bool stops_gradient = false) {
  OpDef def;
  def.name = name;
  def.min_inputs = min_inputs;
  def.max_inputs = max_inputs;
  def.infer = std::move(infer);
  def.lower = std::move(lower);
  def.stops_gradient = stops_gradient;
  registry.add(std::move(def));
}

void infer_float(InferContext& c) {
  c.require_dtype(0, kFloats);
  ops::infer_same_as_input(c);
}

// An axis attribute must fit the rank, where that is known.
void infer_along_axis(InferContext& c) {
  infer_float(c);
  if (c.has_dims(0)) ops::normalize_axis(c.node().attr_int("axis", -1), static_cast<int64_t>(c.dims(0).size()));
}

// 1 at the first maximum along the axis, 0 elsewhere.
void lower_hardmax(Lowering& l) {
  const ValueId x = l.in(0);
  const Attributes axis = {{"axis", l.node().attr_int("axis", -1)}};
  const ValueId at = l.emit("ArgMax", {x}, axis);
  l.set(0, l.emit("ScatterElements", {l.filled_like(x, 0, l.dtype(x)), at, l.filled_like(at, 1, l.dtype(x))}, axis));
}

// x + bias below -lambd, x - bias above lambd, 0 between. Integers are compared and moved as f64.
void lower_shrink(Lowering& l) {
  const DType given = l.dtype(l.in(0)), dtype = is_float(given) ? given : DType::kF64;
  const ValueId x = l.cast(l.in(0), dtype);
  const double lambd = static_cast<double>(l.node().attr_float("lambd", 0.5f));
  const ValueId bias = l.scalar(static_cast<double>(l.node().attr_float("bias", 0)), dtype);
  const ValueId above = l.emit("Where", {l.emit("Greater", {x, l.scalar(lambd, dtype)}), l.emit("Sub", {x, bias}), l.scalar(0, dtype)});
  const ValueId y = l.emit("Where", {l.emit("Less", {x, l.scalar(-lambd, dtype)}), l.emit("Add", {x, bias}), above});
  l.set(0, l.cast(y, given));
}

int64_t norm_order(const Node& n) {
  const int64_t p = n.attr_int("p", 2);
  if (p != 1 && p != 2) bad_data("p is {}, expected 1 or 2", p);
  return p;
}

// x / norm along the axis; where all is zero it stays zero.
void lower_lp_normalization(Lowering& l) {
  const ValueId x = l.in(0);
  const DType dtype = l.dtype(x);
  const ValueId norm = l.emit(norm_order(l.node()) == 1 ? "ReduceL1" : "ReduceL2", {x, l.ints({l.node().attr_int("axis", -1)})});
  const ValueId divisor = l.emit("Where", {l.emit("Equal", {norm, l.scalar(0, dtype)}), l.scalar(1, dtype), norm});
  l.set(0, l.emit("Div", {x, divisor}));
}

// (x - mean) / (standard deviation + 1e-9), computed in f32 or wider.
void lower_mean_variance_normalization(Lowering& l) {
  const DType given = l.dtype(l.in(0)), dtype = given == DType::kF64 ? given : DType::kF32;
  const ValueId x = l.cast(l.in(0), dtype), axes = l.ints(l.node().attr_ints("axes", {0, 2, 3}));
  const ValueId centered = l.emit("Sub", {x, l.emit("ReduceMean", {x, axes})});
  const ValueId deviation = l.emit("Sqrt", {l.emit("ReduceMean", {l.emit("Mul", {centered, centered}), axes})});
  l.set(0, l.cast(l.emit("Div", {centered, l.emit("Add", {deviation, l.scalar(1e-9, dtype)})}), given));
}

void infer_swiglu(InferContext& c) {
  infer_float(c);
  if (c.dtype(1) != c.dtype(0)) c.error("gate and value differ in type: {} and {}", dtype_name(c.dtype(0)), dtype_name(c.dtype(1)));
  if (c.has_dims(0) && c.has_dims(1) && all_known(c.dims(0)) && all_known(c.dims(1)) && c.dims(0) != c.dims(1))
    c.error("gate and value differ in shape: {} and {}", shape_string(concrete(c.dims(0))), shape_string(concrete(c.dims(1))));
}

void lower_swiglu(Lowering& l) {
  const ValueId gate = l.emit("Swish", {l.in(0)}, {{"alpha", l.node().attr_float("alpha", 1.0f)}});
  l.set(0, l.emit("Mul", {gate, l.in(1)}));
}

// --- NegativeLogLikelihoodLoss -------------------------------------------------------------------

void infer_nll(InferContext& c) {  // (x [N, C, d...], target [N, d...], weight? [C])
  c.require_dtype(0, kFloats);
  c.require_dtype(1, {DType::kI32, DType::kI64});
  if (c.has_input(2) && c.dtype(2) != c.dtype(0)) c.error("weight has type {}, the input {}", dtype_name(c.dtype(2)), dtype_name(c.dtype(0)));
  const std::string reduction = c.node().attr_string("reduction", "mean");
  if (reduction != "mean" && reduction != "sum" && reduction != "none") c.error("unknown reduction '{}'", reduction);
  if (c.has_dims(0) && c.dims(0).size() < 2) c.error("the input needs axes for sample and class");
  if (c.has_dims(0) && c.has_dims(1)) {
    Dims wanted = c.dims(0);
    wanted.erase(wanted.begin() + 1);
    bool fits = wanted.size() == c.dims(1).size();
    for (size_t i = 0; fits && i < wanted.size(); ++i)
      fits = !wanted[i].known() || !c.dims(1)[i].known() || wanted[i] == c.dims(1)[i];
    if (!fits) c.error("target is {}, expected {}", c.graph().dims_string(c.dims(1)), c.graph().dims_string(wanted));
  }
  if (reduction == "none") c.set_output(0, c.dtype(0), c.input(1).dims);
  else c.set_output(0, c.dtype(0), Dims{});
}

void lower_nll(Lowering& l) {
  const ValueId x = l.in(0), target = l.in(1);
  const DType dtype = l.dtype(x);
  const std::string reduction = l.node().attr_string("reduction", "mean");
  // An ignored target may be no class at all: class 0 stands in for it, with weight 0.
  ValueId label = target, weight = kNone;
  if (l.node().has_attr("ignore_index")) {
    const auto ignored = static_cast<double>(l.node().attr_int("ignore_index", 0));
    const ValueId skip = l.emit("Equal", {target, l.scalar(ignored, l.dtype(target))});
    label = l.emit("Where", {skip, l.scalar(0, l.dtype(target)), target});
    weight = l.emit("Where", {skip, l.scalar(0, dtype), l.has(2) ? l.emit("Gather", {l.in(2), label}) : l.scalar(1, dtype)});
  } else if (l.has(2)) {
    weight = l.emit("Gather", {l.in(2), label});
  }
  const ValueId picked = l.emit("GatherElements", {x, l.emit("Unsqueeze", {label, l.ints({1})})}, {{"axis", int64_t{1}}});
  ValueId loss = l.emit("Neg", {l.emit("Squeeze", {picked, l.ints({1})})});
  if (weight != kNone) loss = l.emit("Mul", {loss, weight});
  const auto total = [&](ValueId v) { return l.emit("ReduceSum", {v}, {{"keepdims", int64_t{0}}}); };
  if (reduction == "sum") loss = total(loss);
  if (reduction == "mean")
    loss = weight == kNone ? l.emit("ReduceMean", {loss}, {{"keepdims", int64_t{0}}}) : l.emit("Div", {total(loss), total(weight)});
  l.set(0, loss);
}

// --- Compress, CenterCropPad -----------------------------------------------------------------------

void infer_compress(InferContext& c) {  // (x, condition: bool [n])
  c.require_dtype(1, {DType::kBool});
  c.require_rank(1, 1);
  if (!c.node().has_attr("axis")) return c.set_output(0, c.dtype(0), Dims{c.fresh_dim()});
  if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
  Dims out = c.dims(0);
  out[static_cast<size_t>(ops::normalize_axis(c.node().attr_int("axis", 0), static_cast<int64_t>(out.size())))] = c.fresh_dim();
  c.set_output(0, c.dtype(0), std::move(out));
}

// The places where the condition holds, gathered.
void lower_compress(Lowering& l) {
  const bool along_axis = l.node().has_attr("axis");
  const ValueId all = l.ints({-1});
  const ValueId x = along_axis ? l.in(0) : l.emit("Reshape", {l.in(0), all});
  const ValueId places = l.emit("Reshape", {l.emit("NonZero", {l.in(1)}), all});
  l.set(0, l.emit("Gather", {x, places}, {{"axis", along_axis ? l.node().attr_int("axis", 0) : int64_t{0}}}));
}

std::vector<int64_t> crop_axes(const Node& n, int64_t rank) {
  std::vector<int64_t> all;
  for (int64_t i = 0; i < rank; ++i) all.push_back(i);
  return ops::normalize_axes(n.attr_ints("axes", all), rank);
}

void infer_center_crop_pad(InferContext& c) {  // (x, shape: sizes of the axes)
  c.require_dtype(1, {DType::kI32, DType::kI64});
  if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
  Dims out = c.dims(0);
  const std::vector<int64_t> axes = crop_axes(c.node(), static_cast<int64_t>(out.size()));
  const auto sizes = c.ints(1);
  if (sizes && sizes->size() != axes.size()) c.error("{} sizes for {} axes", sizes->size(), axes.size());
  for (size_t i = 0; i < axes.size(); ++i) out[static_cast<size_t>(axes[i])] = sizes ? (*sizes)[i] : c.fresh_dim();
  c.set_output(0, c.dtype(0), std::move(out));
}

// Slice away half of what is too much at each end, pad half of what is missing; odd ones: the smaller half first.
bool lower_center_crop_pad(Rewriter& rw, NodeId id) {
  Lowering l(rw, id);
  if (!l.dims(l.in(0))) return false;
  const std::vector<int64_t> axes = crop_axes(l.node(), static_cast<int64_t>(l.dims(l.in(0))->size()));
  const ValueId zero = l.ints({0}), two = l.ints({2}), axes_value = l.ints(axes);
  const ValueId wanted = l.cast(l.in(1), DType::kI64);
  const ValueId have = l.emit("Gather", {l.emit("Shape", {l.in(0)}), axes_value});
  const auto positive = [&](ValueId a, ValueId b) { return l.emit("Max", {l.emit("Sub", {a, b}), zero}); };
  const ValueId start = l.emit("Div", {positive(have, wanted), two});
  const ValueId kept = l.emit("Slice", {l.in(0), start, l.emit("Add", {start, l.emit("Min", {have, wanted})}), axes_value});
  const ValueId missing = positive(wanted, have), before = l.emit("Div", {missing, two});
  const ValueId pads = l.emit("Concat", {before, l.emit("Sub", {missing, before})}, {{"axis", int64_t{0}}});
  l.set(0, l.emit("Pad", {kept, pads, kNone, axes_value}));
  return true;
}

}  // namespace

void register_composed_ops(OpRegistry& registry) {
  using ops::lower_as;
  add(registry, "Hardmax", 1, 1, infer_along_axis, lower_as(lower_hardmax), true);
  add(registry, "Shrink", 1, 1, [](InferContext& c) {
    if (!is_float(c.dtype(0)) && !is_int(c.dtype(0))) c.error("type {} is not supported", dtype_name(c.dtype(0)));
    ops::infer_same_as_input(c);
  }, lower_as(lower_shrink));
  add(registry, "LpNormalization", 1, 1, [](InferContext& c) {
    norm_order(c.node());
    infer_along_axis(c);
  }, lower_as(lower_lp_normalization));
  add(registry, "MeanVarianceNormalization", 1, 1, [](InferContext& c) {
    infer_float(c);
    if (c.has_dims(0)) ops::normalize_axes(c.node().attr_ints("axes", {0, 2, 3}), static_cast<int64_t>(c.dims(0).size()));
  }, lower_as(lower_mean_variance_normalization));
  add(registry, "SwiGLU", 2, 2, infer_swiglu, lower_as(lower_swiglu));
  add(registry, "NegativeLogLikelihoodLoss", 2, 3, infer_nll, lower_as(lower_nll));
  add(registry, "Compress", 2, 2, infer_compress, lower_as(lower_compress));
  add(registry, "CenterCropPad", 2, 2, infer_center_crop_pad, lower_center_crop_pad);
}

}  // namespace ds
