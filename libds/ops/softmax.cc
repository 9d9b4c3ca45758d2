// Softmax and LogSoftmax along one axis.
#include "kernels/softmax.h"
#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

struct Rows {
  int64_t outer = 1, n = 1, inner = 1;
};

Rows rows_of(const KernelQuery& q) {
  const Shape& shape = q.in(0).shape;
  const int64_t axis = ops::normalize_axis(q.node.attr_int("axis", -1), q.in(0).rank());
  Rows r;
  for (int64_t i = 0; i < q.in(0).rank(); ++i) (i < axis ? r.outer : i == axis ? r.n : r.inner) *= shape[static_cast<size_t>(i)];
  return r;
}

void infer_softmax(InferContext& c) {
  c.require_dtype(0, ops::kFloats);
  if (c.has_dims(0)) ops::normalize_axis(c.node().attr_int("axis", -1), static_cast<int64_t>(c.dims(0).size()));
  ops::infer_same_as_input(c);
}

KernelDef forward_kernel(bool log) {
  KernelDef k;
  k.name = "portable/softmax";
  k.in_place = {{0, 0}};
  k.create = [log](const KernelQuery& q) {
    return make_kernel([log, r = rows_of(q)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::softmax<T>(log, r.outer, r.n, r.inner, c.input(0).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  return k;
}

KernelDef grad_kernel(bool log) {
  KernelDef k;
  k.name = "portable/softmax_grad";
  k.in_place = {{1, 0}, {0, 0}};
  k.create = [log](const KernelQuery& q) {
    return make_kernel([log, r = rows_of(q)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::softmax_grad<T>(log, r.outer, r.n, r.inner, c.input(0).data<T>(), c.input(1).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  return k;
}

std::string declines_avx2_grad(const KernelQuery& q) {
  if (q.in(0).dtype != DType::kF32) return "needs f32";
  return ops::require(rows_of(q).inner == 1, "needs the last axis");
}

KernelDef avx2_kernel(bool log) {
  KernelDef k;
  k.name = "avx2/softmax";
  k.isa = Isa::kAvx2;
  k.in_place = {{0, 0}};
  k.decline = [](const KernelQuery& q) { return ops::require(q.in(0).dtype == DType::kF32, "needs f32"); };
  k.create = [log](const KernelQuery& q) {
    return make_kernel([log, r = rows_of(q)](const KernelContext& c) {
      if (r.inner != 1) return kernels::avx2::softmax_columns(log, r.outer, r.n, r.inner, c.input(0).data<float>(), c.output(0).mutable_data<float>());
      kernels::avx2::softmax(log, r.outer, r.n, c.input(0).data<float>(), c.output(0).mutable_data<float>());
    });
  };
  return k;
}

KernelDef avx2_grad_kernel(bool log) {
  KernelDef k;
  k.name = "avx2/softmax_grad";
  k.isa = Isa::kAvx2;
  k.in_place = {{1, 0}, {0, 0}};
  k.decline = declines_avx2_grad;
  k.create = [log](const KernelQuery& q) {
    return make_kernel([log, r = rows_of(q)](const KernelContext& c) {
      kernels::avx2::softmax_grad(log, r.outer, r.n, c.input(0).data<float>(), c.input(1).data<float>(), c.output(0).mutable_data<float>());
    });
  };
  return k;
}

void register_softmax(OpRegistry& registry, const char* name, bool log) {
  OpDef def;
  def.name = name;
  def.min_inputs = def.max_inputs = 1;
  def.infer = infer_softmax;
  const std::string grad_name = std::string(name) + "Grad";
  def.grad = [grad_name](GradContext& g) {
    const Attributes attrs = {{"axis", g.node().attr_int("axis", -1)}};
    g.set_d_input(0, g.emit(grad_name, {g.output(0), g.d_output(0)}, attrs));
  };
  def.kernels = {avx2_kernel(log), forward_kernel(log)};
  def.widens_halves = true;
  registry.add(std::move(def));

  OpDef grad;
  grad.domain = Graph::kInternalDomain;
  grad.name = grad_name;  // (y, d_y) -> d_x
  grad.min_inputs = grad.max_inputs = 2;
  grad.infer = infer_softmax;
  grad.kernels = {avx2_grad_kernel(log), grad_kernel(log)};
  grad.widens_halves = true;
  registry.add(std::move(grad));
}

}  // namespace

void register_softmax_ops(OpRegistry& registry) {
  register_softmax(registry, "Softmax", false);
  register_softmax(registry, "LogSoftmax", true);
}

}  // namespace ds
