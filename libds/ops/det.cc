// Det: determinants of the matrices in the last two axes.
#include "kernels/det.h"

#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

void check_square(InferContext& c) {
  if (!c.has_dims(0)) return;
  const Dims& x = c.dims(0);
  if (x.size() < 2) c.error("needs at least two axes");
  const Dim rows = x[x.size() - 2], columns = x.back();
  if (rows.known() && columns.known() && rows != columns) c.error("matrices of {} rows and {} columns are not square", rows.raw, columns.raw);
}

}  // namespace

void register_det_ops(OpRegistry& registry) {
  OpDef def;
  def.name = "Det";
  def.min_inputs = def.max_inputs = 1;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16});
    check_square(c);
    if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
    c.set_output(0, c.dtype(0), Dims(c.dims(0).begin(), c.dims(0).end() - 2));
  };
  def.grad = [](GradContext& g) {
    if (g.needs(0)) g.set_d_input(0, g.emit("DetGrad", {g.input(0), g.d_output(0)}));
  };
  KernelDef k;
  k.name = "portable/det";
  k.decline = [](const KernelQuery& q) { return ops::require(q.in(0).dtype == DType::kF32 || q.in(0).dtype == DType::kF64, "needs f32 or f64"); };
  k.create = [](const KernelQuery& q) {
    return make_kernel([batch = q.out(0).numel(), m = q.in(0).dim(-1)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::det<T>(batch, m, c.input(0).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));

  OpDef grad;
  grad.domain = Graph::kInternalDomain;
  grad.name = "DetGrad";  // (x, d_y) -> d_x
  grad.min_inputs = grad.max_inputs = 2;
  grad.infer = [](InferContext& c) {
    c.require_dtype(0, {DType::kF32, DType::kF64});
    ops::infer_same_as_input(c);
  };
  KernelDef gk;
  gk.name = "portable/det_grad";
  gk.create = [](const KernelQuery& q) {
    return make_kernel([batch = q.in(1).numel(), m = q.in(0).dim(-1)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::det_grad<T>(batch, m, c.input(0).data<T>(), c.input(1).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  grad.kernels = {gk};
  registry.add(std::move(grad));
}

}  // namespace ds
