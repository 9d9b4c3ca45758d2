// Reductions over axes (ReduceSum, ReduceMean, ...), ArgMax, ArgMin, CumSum, CumProd, TopK.
#include "kernels/reduce.h"

#include <numeric>

#include "libds/ops/common.h"
#include "libds/ops/int_args.h"
#include "libds/ops/layouts.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::Reduce;

template <typename F>
void dispatch_reducible(DType dtype, F&& f) {
  dispatch_dtype(dtype, [&](auto tag) {
    using T = decltype(tag);
    if constexpr (!std::is_same_v<T, bool>) f(tag);
  });
}

// Whether the types a kernel of this file is instantiated for include `t`.
bool reducible(DType t) { return is_float(t) || is_int(t); }

void require_reducible(InferContext& c, bool with_bool = false) {
  if (!reducible(c.dtype(0)) && !(with_bool && c.dtype(0) == DType::kBool))
    c.error("input 0 ('{}') has type {}, which this operator does not take", c.input(0).name, dtype_name(c.dtype(0)));
}

// --- reductions ----------------------------------------------------------------------------------

// The axes reduced, as a bit mask. No axes means all of them, or none with noop_with_empty_axes.
uint32_t axes_mask(const Node& n, const std::vector<int64_t>& axes, int64_t rank) {
  if (axes.empty()) return n.attr_int("noop_with_empty_axes", 0) != 0 ? 0u : (1u << rank) - 1u;
  uint32_t mask = 0;
  for (int64_t a : axes) mask |= 1u << ops::normalize_axis(a, rank);
  return mask;
}

void infer_reduce(Reduce op, InferContext& c) {
  require_reducible(c, op == Reduce::kMax || op == Reduce::kMin);
  const bool keep = c.node().attr_int("keepdims", 1) != 0;
  std::optional<std::vector<int64_t>> axes = c.has_input(1) ? c.concrete_ints(1) : std::vector<int64_t>{};
  if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
  const Dims in = c.dims(0);
  const auto rank = static_cast<int64_t>(in.size());
  if (rank > kernels::ReduceSpace::kMaxRank) c.error("rank {} is above 8", rank);
  if (!axes) {  // known at run time only
    if (!keep) return c.set_output(0, c.dtype(0));
    Dims out;
    for (size_t i = 0; i < in.size(); ++i) out.push_back(in[i] == Dim(1) ? Dim(1) : c.fresh_dim());
    return c.set_output(0, c.dtype(0), out);
  }
  const uint32_t mask = axes_mask(c.node(), *axes, rank);
  Dims out;
  for (size_t i = 0; i < in.size(); ++i) {
    if ((mask >> i & 1u) == 0) out.push_back(in[i]);
    else if (keep) out.emplace_back(1);
  }
  c.set_output(0, c.dtype(0), std::move(out));
}

// The axes of the memory that are reduced, from those of the tensor.
uint32_t memory_mask(const TensorDesc& d, uint32_t mask) {
  uint32_t placed = 0;
  for (int64_t i = 0; i < d.rank(); ++i) placed |= (mask >> i & 1u) << ops::memory_axis(d, i);
  return placed;
}

// Of the kernel that is as fast along outer axes: channels may be last where what is kept, in the order it then comes in, is a plain result or one with channels last.
void prefer_channels_last(const KernelQuery& q, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
  const TensorDesc& x = q.in(0);
  if (x.layout != Layout::kChannelsLast || (q.in(1).defined() && q.constant(1) == nullptr)) return;
  const uint32_t mask = axes_mask(q.node, q.in(1).defined() ? q.constant(1)->to_ints() : std::vector<int64_t>{}, x.rank());
  bool pixels_kept = false;
  for (int64_t i = 2; i < x.rank(); ++i) pixels_kept |= (mask >> i & 1u) == 0 && x.dim(i) != 1;
  const bool keep = q.node.attr_int("keepdims", 1) != 0, channels_kept = (mask & 2u) == 0;
  if (keep || ((mask & 3u) == 0 && q.out(0).rank() >= 3)) outputs[0] = Layout::kChannelsLast;
  else if (pixels_kept && channels_kept) return;
  inputs[0] = Layout::kChannelsLast;
}

KernelDef reduce_kernel(Reduce op) {
  KernelDef k;
  k.name = "portable/reduce";
  k.create = [op](const KernelQuery& q) {
    return ops::planned_kernel(q, 0b10, [op, x = q.in(0), shape = q.in(0).memory_shape(), node = q.node](const ops::IntArgs& args) -> ops::RunFn {
      const uint32_t mask = memory_mask(x, axes_mask(node, ops::int_arg(args, 1), x.rank()));
      const auto space = kernels::make_reduce_space(static_cast<int>(shape.size()), shape.data(), mask);
      return [op, space](const KernelContext& c) {
        if (c.input(0).dtype() == DType::kBool)
          return kernels::reduce<bool>(op, space, c.input(0).data<bool>(), c.output(0).mutable_data<bool>());
        dispatch_reducible(c.input(0).dtype(), [&](auto tag) {
          using T = decltype(tag);
          kernels::reduce<T>(op, space, c.input(0).data<T>(), c.output(0).mutable_data<T>());
        });
      };
    });
  };
  return k;
}

KernelDef avx2_reduce_kernel(Reduce op) {
  KernelDef k;
  k.name = "avx2/reduce";
  k.isa = Isa::kAvx2;
  k.preferred_layouts = prefer_channels_last;
  k.decline = [](const KernelQuery& q) { return ops::require(q.in(0).dtype == DType::kF32, "needs f32"); };
  k.create = [op](const KernelQuery& q) {
    return ops::planned_kernel(q, 0b10, [op, x = q.in(0), shape = q.in(0).memory_shape(), node = q.node](const ops::IntArgs& args) -> ops::RunFn {
      const uint32_t mask = memory_mask(x, axes_mask(node, ops::int_arg(args, 1), x.rank()));
      const auto space = kernels::make_reduce_space(static_cast<int>(shape.size()), shape.data(), mask);
      return [op, space](const KernelContext& c) {
        kernels::avx2::reduce(op, space, c.input(0).data<float>(), c.output(0).mutable_data<float>());
      };
    });
  };
  return k;
}

// What every gradient of a reduction starts from: shapes, and the operands with reduced axes kept as 1.
struct ReduceGrad {
  GradContext& g;
  ValueId x, y, d_y;  // y and d_y of `kept` shape
  Shape full, kept;
  int64_t count = 1;  // elements behind each output

  explicit ReduceGrad(GradContext& context) : g(context), x(g.input(0)), full(g.shape(x)), kept(full) {
    std::vector<int64_t> axes;
    if (g.input(1) != kNone) {
      const auto content = g.rewriter().graph().value(g.input(1)).constant;
      if (content == nullptr) fail(ExitCode::kUnsupported, "its axes are computed at run time");
      axes = content->to_ints();
    }
    const uint32_t mask = axes_mask(g.node(), axes, static_cast<int64_t>(full.size()));
    for (size_t i = 0; i < full.size(); ++i) {
      if ((mask >> i & 1u) == 0) continue;
      count *= full[i];
      kept[i] = 1;
    }
    y = reshape(g.output(0));
    d_y = reshape(g.d_output(0));
  }

  ValueId reshape(ValueId v) { return g.shape(v) == kept ? v : g.emit("Reshape", {v, g.ints(kept)}); }
  ValueId scalar(double v) { return g.scalar(v, g.dtype(x)); }
  ValueId cast(ValueId v) { return g.emit("Cast", {v}, {{"to", static_cast<int64_t>(g.dtype(x))}}); }
  ValueId sum(ValueId v) { return g.sum_to(v, kept); }
  void set(ValueId d) { g.set_d_input(0, g.shape(d) == full ? d : g.emit("Expand", {d, g.ints(full)})); }
};

// Equal extremes share the gradient.
void grad_extreme(ReduceGrad& r) {
  const ValueId chosen = r.cast(r.g.emit("Equal", {r.x, r.y}));
  r.set(r.g.emit("Mul", {chosen, r.g.emit("Div", {r.d_y, r.sum(chosen)})}));
}

// The product of all the others, also where one of them is zero (then only it has a gradient).
void grad_prod(ReduceGrad& r) {
  GradContext& g = r.g;
  const ValueId is_zero = g.emit("Equal", {r.x, r.scalar(0)});
  const ValueId zeros = r.sum(r.cast(is_zero));
  const ValueId nonzero = g.emit("Where", {is_zero, r.scalar(1), r.x});
  const ValueId axes = g.input(1);
  std::vector<ValueId> operands = {nonzero};
  if (axes != kNone) operands.push_back(axes);
  const ValueId product =
      g.emit("ReduceProd", operands, {{"keepdims", int64_t{1}}, {"noop_with_empty_axes", g.node().attr_int("noop_with_empty_axes", 0)}});
  const ValueId at_zero = g.emit("Where", {g.emit("Equal", {zeros, r.scalar(1)}), product, r.scalar(0)});
  const ValueId elsewhere = g.emit("Where", {g.emit("Equal", {zeros, r.scalar(0)}), g.emit("Div", {product, nonzero}), r.scalar(0)});
  r.set(g.emit("Mul", {r.d_y, g.emit("Where", {is_zero, at_zero, elsewhere})}));
}

void grad_l2(ReduceGrad& r) {
  // At the origin the norm has no derivative; 0 is the usual choice.
  const ValueId norm = r.g.emit("Where", {r.g.emit("Equal", {r.y, r.scalar(0)}), r.scalar(1), r.y});
  r.set(r.g.emit("Mul", {r.x, r.g.emit("Div", {r.d_y, norm})}));
}

GradFn reduce_gradient(Reduce op) {
  return [op](GradContext& g) {
    if (!g.needs(0)) return;
    ReduceGrad r(g);
    switch (op) {
      case Reduce::kSum: return r.set(r.d_y);
      case Reduce::kMean: return r.set(g.emit("Mul", {r.d_y, r.scalar(1.0 / static_cast<double>(r.count))}));
      case Reduce::kMax: case Reduce::kMin: return grad_extreme(r);
      case Reduce::kProd: return grad_prod(r);
      case Reduce::kL1: return r.set(g.emit("Mul", {r.d_y, g.emit("Sign", {r.x})}));
      case Reduce::kL2: return grad_l2(r);
      case Reduce::kSumSquare: return r.set(g.emit("Mul", {g.emit("Mul", {r.d_y, r.scalar(2)}), r.x}));
      case Reduce::kLogSum: return r.set(g.emit("Div", {r.d_y, g.emit("Exp", {r.y})}));
      case Reduce::kLogSumExp: return r.set(g.emit("Mul", {r.d_y, g.emit("Exp", {g.emit("Sub", {r.x, r.y})})}));
    }
  };
}

void register_reduce(OpRegistry& registry, const char* name, Reduce op) {
  OpDef def;
  def.name = name;
  def.min_inputs = 1;
  def.max_inputs = 2;
  def.shape_inputs = 0b10;
  def.infer = [op](InferContext& c) { infer_reduce(op, c); };
  def.grad = reduce_gradient(op);
  if (kernels::avx2::has_reduce(op)) def.kernels.push_back(avx2_reduce_kernel(op));
  def.kernels.push_back(reduce_kernel(op));
  registry.add(std::move(def));
}

// --- one axis ------------------------------------------------------------------------------------

// The input seen as [outer, n, inner] around an axis.
struct AxisSplit {
  int64_t outer = 1, n = 1, inner = 1;
  AxisSplit(const Shape& shape, int64_t axis) {
    axis = ops::normalize_axis(axis, static_cast<int64_t>(shape.size()));
    for (int64_t i = 0; i < static_cast<int64_t>(shape.size()); ++i)
      (i < axis ? outer : i == axis ? n : inner) *= shape[static_cast<size_t>(i)];
  }
};

KernelDef arg_extreme_by_vectors(const char* name, Isa isa, kernels::ArgExtremeFn* function, bool largest) {
  KernelDef k;
  k.name = name;
  k.isa = isa;
  k.decline = [](const KernelQuery& q) -> std::string {
    if (q.in(0).dtype != DType::kF32) return "needs f32";
    const AxisSplit s(q.in(0).shape, q.node.attr_int("axis", 0));
    return ops::require(s.inner > 1 && s.n > 0 && s.n <= 1 << 24, "needs an axis before the last");
  };
  k.create = [largest, function](const KernelQuery& q) {
    const AxisSplit s(q.in(0).shape, q.node.attr_int("axis", 0));
    return make_kernel([largest, function, last = q.node.attr_int("select_last_index", 0) != 0, s](const KernelContext& c) {
      function(largest, last, s.outer, s.n, s.inner, c.input(0).data<float>(), c.output(0).mutable_data<int64_t>());
    });
  };
  return k;
}

void register_arg_extreme(OpRegistry& registry, const char* name, bool largest) {
  OpDef def;
  def.name = name;
  def.min_inputs = def.max_inputs = 1;
  def.stops_gradient = true;
  def.infer = [](InferContext& c) {
    require_reducible(c);
    if (!c.has_dims(0)) return c.set_output(0, DType::kI64);
    Dims out = c.dims(0);
    const auto axis = static_cast<size_t>(ops::normalize_axis(c.node().attr_int("axis", 0), static_cast<int64_t>(out.size())));
    if (axis < out.size()) {
      if (out[axis] == Dim(0)) c.error("axis {} is empty", axis);
      if (c.node().attr_int("keepdims", 1) != 0) out[axis] = 1;
      else out.erase(out.begin() + static_cast<ptrdiff_t>(axis));
    }
    c.set_output(0, DType::kI64, std::move(out));
  };
  KernelDef k;
  k.name = "portable/arg_extreme";
  k.create = [largest](const KernelQuery& q) {
    const AxisSplit s(q.in(0).shape, q.node.attr_int("axis", 0));
    if (s.n == 0) bad_data("{}: the axis is empty", q.node.label());
    return make_kernel([largest, last = q.node.attr_int("select_last_index", 0) != 0, s](const KernelContext& c) {
      dispatch_reducible(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::arg_extreme<T>(largest, last, s.outer, s.n, s.inner, c.input(0).data<T>(), c.output(0).mutable_data<int64_t>());
      });
    });
  };
  def.kernels = {arg_extreme_by_vectors("avx512/arg_extreme", Isa::kAvx512, kernels::arg_extreme_avx512, largest),
                 arg_extreme_by_vectors("avx2/arg_extreme", Isa::kAvx2, kernels::arg_extreme_avx2, largest), k};
  registry.add(std::move(def));
}

// (x, axis: scalar) -> running sums or products along the axis; `run` gets the split of the axis.
KernelDef cumulative_kernel(const char* name, std::function<void(bool, bool, const AxisSplit&, const KernelContext&)> run) {
  KernelDef k;
  k.name = name;
  k.in_place = {{0, 0}};
  k.decline = [](const KernelQuery& q) {
    return ops::require(q.in(0).dtype != DType::kF16 && q.in(0).dtype != DType::kBF16, "16-bit float");
  };
  k.create = [run = std::move(run)](const KernelQuery& q) {
    const bool exclusive = q.node.attr_int("exclusive", 0) != 0, reverse = q.node.attr_int("reverse", 0) != 0;
    return ops::planned_kernel(q, 0b10, [=, shape = q.in(0).shape](const ops::IntArgs& args) -> ops::RunFn {
      const std::vector<int64_t> axis = ops::int_arg(args, 1);
      if (axis.size() != 1) bad_data("the axis has {} elements, expected 1", axis.size());
      return [=, s = AxisSplit(shape, axis[0])](const KernelContext& c) { run(exclusive, reverse, s, c); };
    });
  };
  return k;
}

template <typename F>
void dispatch_cumulative(DType dtype, F&& f) {
  dispatch_dtype(dtype, [&](auto tag) {
    if constexpr (std::is_arithmetic_v<decltype(tag)> && sizeof(tag) >= 4) f(tag);
  });
}

void infer_cumulative(InferContext& c) {
  c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16, DType::kI32, DType::kI64, DType::kU32, DType::kU64});
  c.require_dtype(1, {DType::kI32, DType::kI64});
  ops::infer_same_as_input(c);
}

void register_cumsum(OpRegistry& registry) {
  OpDef def;
  def.name = "CumSum";
  def.min_inputs = def.max_inputs = 2;
  def.infer = infer_cumulative;
  // y_i sums x_j over j <= i, so d_x_j sums d_y_i over i >= j: the same from the other end.
  def.grad = [](GradContext& g) {
    if (!g.needs(0)) return;
    Attributes attrs = g.node().attrs;
    attrs["reverse"] = int64_t{g.node().attr_int("reverse", 0) == 0};
    g.set_d_input(0, g.emit("CumSum", {g.d_output(0), g.input(1)}, attrs));
  };
  def.kernels = {cumulative_kernel("portable/cumsum", [](bool exclusive, bool reverse, const AxisSplit& s, const KernelContext& c) {
    dispatch_cumulative(c.input(0).dtype(), [&](auto tag) {
      using T = decltype(tag);
      kernels::cumulative_sum<T>(exclusive, reverse, s.outer, s.n, s.inner, c.input(0).data<T>(), c.output(0).mutable_data<T>());
    });
  })};
  registry.add(std::move(def));
}

void register_cumprod(OpRegistry& registry) {
  OpDef def;
  def.name = "CumProd";
  def.min_inputs = def.max_inputs = 2;
  def.infer = infer_cumulative;
  def.grad = [](GradContext& g) {
    const Attributes attrs = g.node().attrs;
    if (g.needs(0)) g.set_d_input(0, g.emit("CumProdGrad", {g.input(0), g.input(1), g.d_output(0)}, attrs));
  };
  def.kernels = {cumulative_kernel("portable/cumprod", [](bool exclusive, bool reverse, const AxisSplit& s, const KernelContext& c) {
    dispatch_cumulative(c.input(0).dtype(), [&](auto tag) {
      using T = decltype(tag);
      kernels::cumulative_product<T>(exclusive, reverse, s.outer, s.n, s.inner, c.input(0).data<T>(), c.output(0).mutable_data<T>());
    });
  })};
  registry.add(std::move(def));

  OpDef grad;
  grad.domain = Graph::kInternalDomain;
  grad.name = "CumProdGrad";  // (x, axis, d_y) -> d_x
  grad.min_inputs = grad.max_inputs = 3;
  grad.infer = [](InferContext& c) {
    c.require_dtype(0, {DType::kF32, DType::kF64});
    ops::infer_same_as_input(c);
  };
  KernelDef gk = cumulative_kernel("portable/cumprod_grad", [](bool exclusive, bool reverse, const AxisSplit& s, const KernelContext& c) {
    dispatch_float(c.input(0).dtype(), [&](auto tag) {
      using T = decltype(tag);
      kernels::cumulative_product_grad<T>(exclusive, reverse, s.outer, s.n, s.inner, c.input(0).data<T>(), c.input(2).data<T>(),
                                          c.output(0).mutable_data<T>());
    });
  });
  gk.in_place = {};
  grad.kernels = {gk};
  registry.add(std::move(grad));
}

void infer_top_k(InferContext& c) {
  require_reducible(c);
  std::optional<Dims> out;
  if (c.has_dims(0)) {
    out = c.dims(0);
    const auto axis = static_cast<size_t>(ops::normalize_axis(c.node().attr_int("axis", -1), static_cast<int64_t>(out->size())));
    if (axis >= out->size()) c.error("the input is a scalar");
    const auto k = c.ints(1);
    const Dim wanted = k && k->size() == 1 ? (*k)[0] : c.fresh_dim();
    if (const auto content = c.concrete_ints(1); content && (content->size() != 1 || (*content)[0] < 0))
      c.error("k must be one number of at least 0");
    const Dim there = (*out)[axis];
    if (wanted.known() && there.known() && wanted.raw > there.raw) c.error("k is {}, the axis has {} elements", wanted.raw, there.raw);
    (*out)[axis] = wanted;
  }
  c.set_output(0, c.dtype(0), out);
  c.set_output(1, DType::kI64, out);
}

void register_top_k(OpRegistry& registry) {
  OpDef def;
  def.name = "TopK";  // (x, k: one i64) -> values, indices. Always sorted, as sorted=0 allows any order.
  def.min_inputs = def.max_inputs = 2;
  def.min_outputs = 1;
  def.max_outputs = 2;
  def.shape_inputs = 0b10;
  def.infer = infer_top_k;
  def.grad = [](GradContext& g) {
    if (!g.needs(0) || g.d_output(0) == kNone) return;
    if (g.output(1) == kNone) fail(ExitCode::kUnsupported, "its indices are not computed");
    const ValueId zeros = g.emit("Expand", {g.scalar(0, g.dtype(g.input(0))), g.ints(g.shape(g.input(0)))});
    g.set_d_input(0, g.emit("ScatterElements", {zeros, g.output(1), g.d_output(0)}, {{"axis", g.node().attr_int("axis", -1)}}));
  };
  KernelDef k;
  k.name = "portable/top_k";
  k.create = [](const KernelQuery& q) {
    const int64_t axis = q.node.attr_int("axis", -1);
    const AxisSplit in(q.in(0).shape, axis);
    const AxisSplit out(q.out(0).shape, axis);
    const bool largest = q.node.attr_int("largest", 1) != 0;
    // Scratch: the order of one row, then indices that nobody asked for.
    const size_t row = static_cast<size_t>(in.n) * sizeof(int64_t);
    const size_t indices = static_cast<size_t>(checked_numel(q.out(0).shape)) * sizeof(int64_t);
    return make_kernel(
        [=](const KernelContext& c) {
          auto* scratch = reinterpret_cast<int64_t*>(c.workspace());
          int64_t* positions = c.has_output(1) ? c.output(1).mutable_data<int64_t>() : scratch + in.n;
          dispatch_reducible(c.input(0).dtype(), [&](auto tag) {
            using T = decltype(tag);
            kernels::top_k<T>(largest, in.outer, in.n, in.inner, out.n, c.input(0).data<T>(), c.output(0).mutable_data<T>(), positions, scratch);
          });
        },
        row + indices);
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_reduce_ops(OpRegistry& registry) {
  register_reduce(registry, "ReduceSum", Reduce::kSum);
  register_reduce(registry, "ReduceMean", Reduce::kMean);
  register_reduce(registry, "ReduceMax", Reduce::kMax);
  register_reduce(registry, "ReduceMin", Reduce::kMin);
  register_reduce(registry, "ReduceProd", Reduce::kProd);
  register_reduce(registry, "ReduceL1", Reduce::kL1);
  register_reduce(registry, "ReduceL2", Reduce::kL2);
  register_reduce(registry, "ReduceSumSquare", Reduce::kSumSquare);
  register_reduce(registry, "ReduceLogSum", Reduce::kLogSum);
  register_reduce(registry, "ReduceLogSumExp", Reduce::kLogSumExp);
  register_arg_extreme(registry, "ArgMax", true);
  register_arg_extreme(registry, "ArgMin", false);
  register_cumsum(registry);
  register_cumprod(registry);
  register_top_k(registry);
}

}  // namespace ds
