// GridSample and AffineGrid, with their gradients.
//
// Legend: x [N, C, in...], grid [N, out..., D], y [N, C, out...]; theta [N, D, D+1]; D = 2 or 3.
#include "kernels/grid_sample.h"

#include <algorithm>

#include "libds/ops/common.h"
#include "libds/ops/int_args.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::GridMode;
using kernels::GridPadding;

std::string whole_float(const KernelQuery& q) { return ops::require(!is_half(q.in(0).dtype), "16-bit float"); }

kernels::GridSample grid_attrs(const Node& n) {
  kernels::GridSample s;
  const std::string mode = n.attr_string("mode", "linear"), padding = n.attr_string("padding_mode", "zeros");
  if (mode == "nearest") s.mode = GridMode::kNearest;
  else if (mode == "linear") s.mode = GridMode::kLinear;
  else if (mode == "cubic") s.mode = GridMode::kCubic;
  else bad_data("mode '{}' is unknown", mode);
  if (padding == "zeros") s.padding = GridPadding::kZeros;
  else if (padding == "border") s.padding = GridPadding::kBorder;
  else if (padding == "reflection") s.padding = GridPadding::kReflection;
  else bad_data("padding_mode '{}' is unknown", padding);
  s.align_corners = n.attr_int("align_corners", 0) != 0;
  return s;
}

kernels::GridSample grid_shape(const KernelQuery& q) {
  const Shape &x = q.in(0).shape, &grid = q.in(1).shape;
  kernels::GridSample s = grid_attrs(q.node);
  s.batch = x[0];
  s.channels = x[1];
  s.axes = static_cast<int>(x.size()) - 2;
  std::copy(x.begin() + 2, x.end(), s.in.end() - s.axes);
  s.points = 1;
  for (size_t i = 1; i + 1 < grid.size(); ++i) s.points *= grid[i];
  return s;
}

void infer_grid_sample(InferContext& c) {
  c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16});
  c.require_dtype(1, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16});
  grid_attrs(c.node());
  if (!c.has_dims(0) || !c.has_dims(1)) return c.set_output(0, c.dtype(0));
  const Dims x = c.dims(0), grid = c.dims(1);
  if (x.size() != 4 && x.size() != 5) c.error("input has rank {}, expected 4 or 5", x.size());
  c.require_rank(1, x.size());
  if (grid.back().known() && grid.back().raw != static_cast<int64_t>(x.size()) - 2)
    c.error("points of {} numbers do not fit {} spatial axes", grid.back().raw, x.size() - 2);
  if (x[0].known() && grid[0].known() && x[0] != grid[0]) c.error("batch sizes are {} and {}", x[0].raw, grid[0].raw);
  for (size_t i = 2; i < x.size(); ++i)
    if (x[i] == Dim(0)) c.error("spatial axis {} is empty", i);
  Dims y = {x[0].known() ? x[0] : grid[0], x[1]};
  y.insert(y.end(), grid.begin() + 1, grid.end() - 1);
  c.set_output(0, c.dtype(0), y);
}

// The grid in x's type: it may have another one.
template <typename T>
const T* grid_of(const Tensor& grid, Tensor& held) {
  if (grid.dtype() == dtype_of<T>()) return grid.data<T>();
  held = grid.cast(dtype_of<T>());
  return held.data<T>();
}

void register_grid_sample(OpRegistry& registry) {
  OpDef def;
  def.name = "GridSample";
  def.min_inputs = def.max_inputs = 2;
  def.infer = infer_grid_sample;
  def.grad = [](GradContext& g) {
    if (g.d_output(0) == kNone || (!g.needs(0) && !g.needs(1))) return;
    const Attributes attrs = g.node().attrs;
    const ValueId x = g.input(0), grid = g.input(1), d_y = g.d_output(0);
    if (g.dtype(x) != g.dtype(grid)) fail(ExitCode::kUnsupported, "a grid of another type than the input has no gradient here");
    if (g.needs(0)) g.set_d_input(0, g.emit("GridSampleGradX", {x, grid, d_y}, attrs));
    if (g.needs(1)) g.set_d_input(1, g.emit("GridSampleGradGrid", {x, grid, d_y}, attrs));
  };
  def.cost = [](const KernelQuery& q) {
    const kernels::GridSample s = grid_attrs(q.node);
    const int64_t taps = s.mode == GridMode::kNearest ? 1 : s.mode == GridMode::kLinear ? 2 : 4;
    int64_t each = 1;
    for (int64_t i = 2; i < q.in(0).rank(); ++i) each *= taps;
    return Cost{checked_mul(2 * each, q.out(0).numel()), static_cast<int64_t>(q.in(0).bytes() + q.in(1).bytes() + q.out(0).bytes())};
  };
  KernelDef k;
  k.name = "portable/grid_sample";
  k.decline = whole_float;
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = grid_shape(q)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        Tensor held;
        kernels::grid_sample<T>(s, c.input(0).data<T>(), grid_of<T>(c.input(1), held), c.output(0).mutable_data<T>());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));

  // (x, grid, d_y) -> d_x, and d_grid.
  for (const bool of_grid : {false, true}) {
    OpDef grad;
    grad.domain = Graph::kInternalDomain;
    grad.name = of_grid ? "GridSampleGradGrid" : "GridSampleGradX";
    grad.min_inputs = grad.max_inputs = 3;
    grad.infer = [of_grid](InferContext& c) { c.set_output(0, c.dtype(0), c.input(of_grid ? 1 : 0).dims); };
    KernelDef gk;
    gk.name = of_grid ? "portable/grid_sample_grad_grid" : "portable/grid_sample_grad_x";
    gk.decline = whole_float;
    gk.create = [of_grid](const KernelQuery& q) {
      return make_kernel([s = grid_shape(q), of_grid](const KernelContext& c) {
        dispatch_float(c.input(0).dtype(), [&](auto tag) {
          using T = decltype(tag);
          const T *x = c.input(0).data<T>(), *grid = c.input(1).data<T>(), *d_y = c.input(2).data<T>();
          T* out = c.output(0).mutable_data<T>();
          if (of_grid) kernels::grid_sample_grad_grid<T>(s, x, grid, d_y, out);
          else kernels::grid_sample_grad_x<T>(s, grid, d_y, out);
        });
      });
    };
    grad.kernels = {gk};
    registry.add(std::move(grad));
  }
}

// --- AffineGrid -----------------------------------------------------------------------------------

// Spatial sizes from the content of `size` [N, C, spatial...].
Shape spatial_of(const std::vector<int64_t>& size) {
  if (size.size() != 4 && size.size() != 5) bad_data("size has {} numbers, expected 4 or 5", size.size());
  for (int64_t n : size)
    if (n < 0) bad_data("size has the value {}", n);
  return Shape(size.begin() + 2, size.end());
}

void infer_affine_grid(InferContext& c) {
  c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16});
  c.require_dtype(1, {DType::kI64});
  if (c.has_dims(0)) c.require_rank(0, 3);
  const auto size = c.ints(1);
  if (!size) {
    if (!c.has_dims(1) || !c.dims(1)[0].known()) return c.set_output(0, c.dtype(0));
    const int64_t rank = c.dims(1)[0].raw;
    if (rank != 4 && rank != 5) c.error("size has {} numbers, expected 4 or 5", rank);
    Dims y;
    for (int64_t i = 0; i + 2 < rank; ++i) y.push_back(c.fresh_dim());
    y.insert(y.begin(), c.fresh_dim());
    y.push_back(rank - 2);
    return c.set_output(0, c.dtype(0), y);
  }
  if (size->size() != 4 && size->size() != 5) c.error("size has {} numbers, expected 4 or 5", size->size());
  const auto axes = static_cast<int64_t>(size->size()) - 2;
  if (c.has_dims(0)) {
    const Dims& theta = c.dims(0);
    for (int64_t i = 1; i < 3; ++i) {
      const Dim d = theta[static_cast<size_t>(i)];
      if (d.known() && d.raw != axes + i - 1) c.error("theta has {} on axis {}, expected {}", d.raw, i, axes + i - 1);
    }
    if (theta[0].known() && (*size)[0].known() && theta[0] != (*size)[0]) c.error("theta has {} matrices, size asks for {}", theta[0].raw, (*size)[0].raw);
  }
  Dims y = {(*size)[0]};
  y.insert(y.end(), size->begin() + 2, size->end());
  y.push_back(axes);
  c.set_output(0, c.dtype(0), y);
}

void grad_affine_grid(GradContext& g) {
  if (!g.needs(0) || g.d_output(0) == kNone) return;
  const Shape y = g.shape(g.output(0)), size(y.begin() + 1, y.end() - 1);
  const auto axes = static_cast<int64_t>(size.size());
  const int64_t points = checked_numel(size);
  Tensor base = Tensor::empty(DType::kF64, {points, axes + 1});
  kernels::affine_base<double>(static_cast<int>(axes), size.data(), g.node().attr_int("align_corners", 0) != 0, base.mutable_data<double>());
  const ValueId constant = g.rewriter().add_constant(g.node().name + ".base", base.cast(g.dtype(g.output(0))));
  const ValueId flat = g.emit("Reshape", {g.d_output(0), g.ints({y[0], points, axes})});
  const ValueId turned = g.emit("Transpose", {flat}, {{"perm", std::vector<int64_t>{0, 2, 1}}});
  g.set_d_input(0, g.emit("MatMul", {turned, constant}));
}

void register_affine_grid(OpRegistry& registry) {
  OpDef def;
  def.name = "AffineGrid";
  def.min_inputs = def.max_inputs = 2;
  def.infer = infer_affine_grid;
  def.grad = grad_affine_grid;
  def.shape_inputs = 0b10;
  KernelDef k;
  k.name = "portable/affine_grid";
  k.decline = whole_float;
  k.create = [](const KernelQuery& q) {
    const bool align = q.node.attr_int("align_corners", 0) != 0;
    return ops::planned_kernel(q, 0b10, [align, batch = q.in(0).dim(0)](const ops::IntArgs& args) -> ops::RunFn {
      const Shape size = spatial_of(ops::int_arg(args, 1));
      return [=](const KernelContext& c) {
        if (c.output(0).numel() == 0) return;
        dispatch_float(c.input(0).dtype(), [&](auto tag) {
          using T = decltype(tag);
          kernels::affine_grid<T>(batch, static_cast<int>(size.size()), size.data(), align, c.input(0).data<T>(), c.output(0).mutable_data<T>());
        });
      };
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_grid_sample_ops(OpRegistry& registry) {
  register_grid_sample(registry);
  register_affine_grid(registry);
}

}  // namespace ds
