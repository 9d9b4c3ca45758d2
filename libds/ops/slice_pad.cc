// Slice and Pad, and their gradients SliceGrad and PadGrad.
#include <algorithm>
#include <cstring>
#include <limits>

#include "libds/ops/int_args.h"
#include "libds/ops/layouts.h"
#include "libds/ops/register.h"
#include "libds/ops/strided.h"

namespace ds {
namespace {

using kernels::StridedCopy;
using ops::copy;
using ops::copy_of;
using ops::int_arg;
using ops::IntArgs;
using ops::planned_kernel;
using ops::rank_fits;
using ops::RunFn;
using ops::strides_of;

// --- Slice ----------------------------------------------------------------------------------------

struct AxisSlice {
  int64_t start = 0, step = 1, count = 0;
};

// Start and end clamp to the axis, as the ONNX text says.
AxisSlice resolve_slice(int64_t dim, int64_t start, int64_t end, int64_t step) {
  if (step == 0) bad_data("step is zero");
  if (start < 0) start = std::max(start, -dim - 1) + dim;
  if (end < 0) end = std::max(end, -dim - 1) + dim;
  AxisSlice s;
  s.step = step;
  if (step > 0) {
    s.start = std::clamp<int64_t>(start, 0, dim);
    const int64_t stop = std::clamp<int64_t>(end, 0, dim);
    s.count = stop > s.start ? (stop - s.start - 1) / step + 1 : 0;
  } else {
    s.start = std::clamp<int64_t>(start, 0, std::max<int64_t>(dim - 1, 0));
    const int64_t stop = std::clamp<int64_t>(end, -1, dim - 1);
    const int64_t magnitude = step == std::numeric_limits<int64_t>::min() ? std::numeric_limits<int64_t>::max() : -step;
    s.count = s.start > stop ? (s.start - stop - 1) / magnitude + 1 : 0;
  }
  if (s.count <= 1) s.step = 1;  // keeps huge steps out of the stride arithmetic
  return s;
}

// All axes of a Slice of `shape`; axes and steps may be empty (defaults).
std::vector<AxisSlice> resolve_slices(const Shape& shape, const std::vector<int64_t>& starts, const std::vector<int64_t>& ends,
                                      std::vector<int64_t> axes, std::vector<int64_t> steps) {
  std::vector<AxisSlice> slices(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) slices[i].count = shape[i];
  if (axes.empty())
    for (size_t i = 0; i < starts.size(); ++i) axes.push_back(static_cast<int64_t>(i));
  if (steps.empty()) steps.assign(starts.size(), 1);
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
    bad_data("starts, ends, axes and steps have {}, {}, {} and {} entries", starts.size(), ends.size(), axes.size(), steps.size());
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<size_t>(ops::normalize_axis(axes[i], static_cast<int64_t>(shape.size())));
    slices[axis] = resolve_slice(shape[axis], starts[i], ends[i], steps[i]);
  }
  return slices;
}

void infer_slice(InferContext& c) {
  const auto starts = c.concrete_ints(1), ends = c.concrete_ints(2);
  const auto axes = c.concrete_ints(3), steps = c.concrete_ints(4);
  if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
  const Dims in = c.dims(0);
  if (in.empty()) c.error("a scalar cannot be sliced");
  Dims out = in;
  const bool axes_known = axes || !c.has_input(3);
  const size_t count = starts ? starts->size() : axes ? axes->size() : in.size();
  for (size_t i = 0; i < (axes_known ? count : in.size()); ++i) {
    const int64_t named = axes ? (i < axes->size() ? (*axes)[i] : 0) : static_cast<int64_t>(i);
    const auto axis = static_cast<size_t>(ops::normalize_axis(named, static_cast<int64_t>(in.size())));
    const int64_t step = steps && i < steps->size() ? (*steps)[i] : 1;
    const bool known = axes_known && starts && ends && (steps || !c.has_input(4));
    if (known && in[axis].known()) {
      out[axis] = resolve_slice(in[axis].raw, (*starts)[i], i < ends->size() ? (*ends)[i] : 0, step).count;
    } else if (known && i < ends->size() && (*starts)[i] == 0 && step == 1 && (*ends)[i] >= std::numeric_limits<int32_t>::max()) {
      out[axis] = in[axis];
    } else {
      out[axis] = c.fresh_dim();
    }
  }
  std::optional<Dims> ints;
  if (starts && ends && in.size() == 1 && in[0].known() && is_int(c.dtype(0))) {
    const AxisSlice s = resolve_slices({in[0].raw}, *starts, *ends, axes.value_or(std::vector<int64_t>{}),
                                       steps.value_or(std::vector<int64_t>{}))[0];
    if (const auto whole = c.ints(0)) {
      ints.emplace();
      for (int64_t i = 0; i < s.count; ++i) ints->push_back((*whole)[static_cast<size_t>(s.start + i * s.step)]);
    }
  }
  c.set_output(0, c.dtype(0), std::move(out));
  if (ints) c.set_output_ints(0, *ints);
}

// Element offset of the slice's first element, and the strides it walks the whole tensor with.
std::pair<int64_t, Shape> slice_strides(const Shape& whole, const std::vector<AxisSlice>& slices) {
  Shape strides = strides_of(whole);
  int64_t offset = 0;
  for (size_t i = 0; i < strides.size(); ++i) {
    offset += slices[i].start * strides[i];
    strides[i] *= slices[i].step;
  }
  return {offset, strides};
}

std::vector<AxisSlice> slices_of_attrs(const Node& node) {
  const auto starts = node.attr_ints("starts"), steps = node.attr_ints("steps"), counts = node.attr_ints("counts");
  std::vector<AxisSlice> slices(starts.size());
  for (size_t i = 0; i < starts.size(); ++i) slices[i] = {starts[i], steps[i], counts[i]};
  return slices;
}

void register_slice(OpRegistry& registry) {
  OpDef def;
  def.name = "Slice";
  def.moves_elements = true;
  def.min_inputs = 3;
  def.max_inputs = 5;
  def.shape_inputs = 0b11110;
  def.infer = infer_slice;
  def.grad = [](GradContext& g) {
    const Graph& graph = g.rewriter().graph();
    const auto ints = [&](size_t i) {
      const ValueId id = g.input(i);
      if (id == kNone) return std::vector<int64_t>{};
      const Value& v = graph.value(id);
      if (v.constant) return v.constant->to_ints();
      if (v.ints && all_known(*v.ints)) return concrete(*v.ints);
      fail(ExitCode::kUnsupported, "cannot differentiate: input {} ('{}') is not constant", i, v.name);
    };
    const Shape in = g.shape(g.input(0));
    std::vector<int64_t> starts, steps, counts;
    for (const AxisSlice& s : resolve_slices(in, ints(1), ints(2), ints(3), ints(4))) {
      starts.push_back(s.start);
      steps.push_back(s.step);
      counts.push_back(s.count);
    }
    g.set_d_input(0, g.emit("SliceGrad", {g.d_output(0)}, {{"dims", in}, {"starts", starts}, {"steps", steps}, {"counts", counts}}));
  };
  KernelDef k;
  k.name = "portable/slice";
  k.decline = rank_fits;
  k.preferred_layouts = ops::stay_channels_last;
  k.create = [](const KernelQuery& q) {
    return planned_kernel(q, 0b11110, [x = q.in(0), out = q.out(0).memory_shape()](const IntArgs& args) -> RunFn {
      const auto slices = resolve_slices(x.shape, int_arg(args, 1), int_arg(args, 2), int_arg(args, 3), int_arg(args, 4));
      const auto [first, strides] = slice_strides(x.memory_shape(), ops::in_memory_order(x, slices));
      return [space = copy_of(out, strides, strides_of(out)), offset = first](const KernelContext& c) {
        copy(space, c.input(0), offset, c.output(0), 0);
      };
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));

  OpDef grad;  // d_y -> d_x: zeros of shape `dims` with d_y written where the slice read
  grad.domain = Graph::kInternalDomain;
  grad.name = "SliceGrad";
  grad.min_inputs = grad.max_inputs = 1;
  grad.infer = [](InferContext& c) { c.set_output(0, c.dtype(0), to_dims(c.node().attr_ints("dims"))); };
  KernelDef gk;
  gk.name = "portable/slice_grad";
  gk.decline = rank_fits;
  gk.create = [](const KernelQuery& q) {
    const auto [offset, strides] = slice_strides(q.out(0).shape, slices_of_attrs(q.node));
    const StridedCopy space = copy_of(q.in(0).shape, strides_of(q.in(0).shape), strides);
    return make_kernel([space, offset = offset](const KernelContext& c) {
      std::memset(c.output(0).mutable_raw(), 0, c.output(0).bytes());
      copy(space, c.input(0), 0, c.output(0), offset);
    });
  };
  grad.kernels = {gk};
  registry.add(std::move(grad));
}

// --- Pad ----------------------------------------------------------------------------------------------

kernels::PadMode pad_mode(const Node& node) {
  const std::string mode = node.attr_string("mode", "constant");
  if (mode == "constant") return kernels::PadMode::kConstant;
  if (mode == "reflect") return kernels::PadMode::kReflect;
  if (mode == "edge") return kernels::PadMode::kEdge;
  if (mode == "wrap") return kernels::PadMode::kWrap;
  bad_data("unknown mode '{}'", mode);
}

// Begin and end of every axis from the pads and axes inputs.
std::pair<std::vector<int64_t>, std::vector<int64_t>> pads_of(size_t rank, const std::vector<int64_t>& pads,
                                                              std::vector<int64_t> axes, bool has_axes) {
  if (!has_axes)
    for (size_t i = 0; i < rank; ++i) axes.push_back(static_cast<int64_t>(i));
  if (pads.size() != 2 * axes.size()) bad_data("{} pads for {} axes", pads.size(), axes.size());
  std::vector<int64_t> begin(rank, 0), end(rank, 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<size_t>(ops::normalize_axis(axes[i], static_cast<int64_t>(rank)));
    begin[axis] = pads[i];
    end[axis] = pads[i + axes.size()];
  }
  return {begin, end};
}

void infer_pad(InferContext& c) {
  const kernels::PadMode mode = pad_mode(c.node());
  if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
  Dims out = c.dims(0);
  const auto pads = c.concrete_ints(1), axes = c.concrete_ints(3);
  if (c.has_input(2) && c.dtype(2) != c.dtype(0))
    c.error("the padding value has type {}, the data {}", dtype_name(c.dtype(2)), dtype_name(c.dtype(0)));
  if (!pads || (c.has_input(3) && !axes)) {
    for (Dim& d : out) d = c.fresh_dim();
    return c.set_output(0, c.dtype(0), std::move(out));
  }
  const auto [begin, end] = pads_of(out.size(), *pads, axes.value_or(std::vector<int64_t>{}), c.has_input(3));
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t sum = checked_add(begin[i], end[i]);
    if (sum == 0 && begin[i] == 0) continue;
    if (!out[i].known()) {
      out[i] = c.fresh_dim();
      continue;
    }
    const int64_t n = out[i].raw, padded = checked_add(n, sum);
    if (padded < 0) c.error("pads {} and {} crop axis {} of size {} below zero", begin[i], end[i], i, n);
    if (mode != kernels::PadMode::kConstant && n == 0 && padded > 0) c.error("axis {} is empty: nothing to repeat", i);
    out[i] = padded;
  }
  c.set_output(0, c.dtype(0), std::move(out));
}

void register_pad(OpRegistry& registry) {
  OpDef def;
  def.name = "Pad";
  def.moves_elements = true;
  def.min_inputs = 2;
  def.max_inputs = 4;
  def.shape_inputs = 0b1010;
  def.infer = infer_pad;
  def.grad = [](GradContext& g) {
    if (!g.needs(0)) return;
    const Graph& graph = g.rewriter().graph();
    const auto ints = [&](size_t i) {
      const ValueId id = g.input(i);
      if (id == kNone) return std::vector<int64_t>{};
      const Value& v = graph.value(id);
      if (v.constant) return v.constant->to_ints();
      if (v.ints && all_known(*v.ints)) return concrete(*v.ints);
      fail(ExitCode::kUnsupported, "cannot differentiate: input {} ('{}') is not constant", i, v.name);
    };
    const Shape in = g.shape(g.input(0));
    const auto [begin, end] = pads_of(in.size(), ints(1), ints(3), g.input(3) != kNone);
    g.set_d_input(0, g.emit("PadGrad", {g.d_output(0)},
                            {{"dims", in}, {"begin", begin}, {"mode", g.node().attr_string("mode", "constant")}}));
  };
  KernelDef k;
  k.name = "portable/pad";
  k.decline = rank_fits;
  k.preferred_layouts = ops::stay_channels_last;
  k.create = [](const KernelQuery& q) {
    return planned_kernel(q, 0b1010, [x = q.in(0), out = q.out(0).memory_shape(), mode = pad_mode(q.node),
                                      has_axes = q.in(3).defined()](const IntArgs& args) -> RunFn {
      const Shape in = x.memory_shape();
      const auto begin = ops::in_memory_order(x, pads_of(in.size(), int_arg(args, 1), int_arg(args, 3), has_axes).first);
      auto plan = std::make_shared<const kernels::Pad>(
          kernels::make_pad(static_cast<int>(in.size()), in.data(), out.data(), begin.data(), mode));
      return [plan](const KernelContext& c) {
        if (c.output(0).numel() == 0) return;
        kernels::pad(*plan, dtype_size(c.input(0).dtype()), c.input(0).raw(), c.has_input(2) ? c.input(2).raw() : nullptr,
                     c.output(0).mutable_raw());
      };
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));

  OpDef grad;  // d_y -> d_x of shape `dims`: the adjoint of Pad
  grad.domain = Graph::kInternalDomain;
  grad.name = "PadGrad";
  grad.min_inputs = grad.max_inputs = 1;
  grad.infer = [](InferContext& c) {
    c.require_dtype(0, ops::kFloats);
    c.set_output(0, c.dtype(0), to_dims(c.node().attr_ints("dims")));
  };
  KernelDef gk;
  gk.name = "portable/pad_grad";
  gk.create = [](const KernelQuery& q) {
    const std::vector<int64_t> begin = q.node.attr_ints("begin");
    auto plan = std::make_shared<const kernels::Pad>(kernels::make_pad(static_cast<int>(q.out(0).rank()), q.out(0).shape.data(),
                                                                       q.in(0).shape.data(), begin.data(), pad_mode(q.node)));
    return make_kernel([plan](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::pad_grad(*plan, c.output(0).numel(), c.input(0).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  grad.kernels = {gk};
  grad.widens_halves = true;
  registry.add(std::move(grad));
}

}  // namespace

void register_slice_pad_ops(OpRegistry& registry) {
  register_slice(registry);
  register_pad(registry);
}

}  // namespace ds
