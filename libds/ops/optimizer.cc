// Parameter updates, in place:
//   SgdUpdate(parameter, gradient, momentum, lr, mask?; momentum, weight_decay, nesterov) -> parameter', momentum'
//   AdamWUpdate(parameter, gradient, m, v, lr, step, mask?; beta1, beta2, epsilon, weight_decay) -> parameter', m', v'
// lr is a float scalar; step an i64 scalar counting from 0.
#include "kernels/optimizer.h"

#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

// Operands 1 .. state and the mask are like the parameter; outputs too.
void infer_update(InferContext& c, size_t state, size_t lr, size_t mask, size_t outputs) {
  c.require_dtype(0, {DType::kF32, DType::kF64});
  const auto same = [&](size_t i) {
    if (!c.has_input(i)) return;
    if (c.dtype(i) != c.dtype(0)) c.error("input {} has type {}, the parameter {}", i, dtype_name(c.dtype(i)), dtype_name(c.dtype(0)));
    if (c.has_dims(0) && c.has_dims(i) && c.dims(i) != c.dims(0))
      c.error("input {} ('{}') is {}, the parameter {}", i, c.input(i).name, c.graph().dims_string(c.dims(i)), c.graph().dims_string(c.dims(0)));
  };
  for (size_t i = 1; i <= state; ++i) same(i);
  same(mask);
  c.require_dtype(lr, {DType::kF32, DType::kF64});
  for (size_t i = 0; i < outputs; ++i) c.set_output(i, c.dtype(0), c.input(0).dims);
}

double scalar_of(const Tensor& t) {
  return t.dtype() == DType::kF32 ? static_cast<double>(*t.data<float>()) : *t.data<double>();
}

double attr(const Node& n, const char* name, float otherwise) { return static_cast<double>(n.attr_float(name, otherwise)); }

std::string needs_f32(const KernelQuery& q) { return ops::require(q.in(0).dtype == DType::kF32, "needs f32"); }

// The operands of a kernel as pointers; an absent mask is null.
template <typename T>
const T* in(const KernelContext& c, size_t i) { return c.has_input(i) ? c.input(i).data<T>() : nullptr; }
template <typename T>
T* out(const KernelContext& c, size_t i) { return c.output(i).mutable_data<T>(); }

kernels::Sgd sgd_of(const Node& n) {
  return {0, attr(n, "momentum", 0.0f), attr(n, "weight_decay", 0.0f), n.attr_int("nesterov", 0) != 0};
}

kernels::AdamW adamw_of(const Node& n) {
  return {0, attr(n, "beta1", 0.9f), attr(n, "beta2", 0.999f), attr(n, "epsilon", 1e-8f), attr(n, "weight_decay", 0.0f), 0};
}

template <bool kAvx2>
KernelDef sgd_kernel() {
  KernelDef k;
  k.name = kAvx2 ? "avx2/sgd" : "portable/sgd";
  k.in_place = {{0, 0}, {2, 1}};
  if (kAvx2) {
    k.isa = Isa::kAvx2;
    k.decline = needs_f32;
  }
  k.create = [](const KernelQuery& q) {
    return make_kernel([o = sgd_of(q.node)](const KernelContext& c) {
      kernels::Sgd now = o;
      now.lr = scalar_of(c.input(3));
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        const auto update = [&](auto f) { f(now, c.input(0).numel(), in<T>(c, 0), in<T>(c, 1), in<T>(c, 2), in<T>(c, 4), out<T>(c, 0), out<T>(c, 1)); };
        if constexpr (!kAvx2) update(kernels::sgd<T>);
        else if constexpr (std::is_same_v<T, float>) update(kernels::avx2::sgd);
      });
    });
  };
  return k;
}

template <bool kAvx2>
KernelDef adamw_kernel() {
  KernelDef k;
  k.name = kAvx2 ? "avx2/adamw" : "portable/adamw";
  k.in_place = {{0, 0}, {2, 1}, {3, 2}};
  if (kAvx2) {
    k.isa = Isa::kAvx2;
    k.decline = needs_f32;
  }
  k.create = [](const KernelQuery& q) {
    return make_kernel([o = adamw_of(q.node)](const KernelContext& c) {
      kernels::AdamW now = o;
      now.lr = scalar_of(c.input(4));
      now.step = *c.input(5).data<int64_t>();
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        const auto update = [&](auto f) {
          f(now, c.input(0).numel(), in<T>(c, 0), in<T>(c, 1), in<T>(c, 2), in<T>(c, 3), in<T>(c, 6), out<T>(c, 0), out<T>(c, 1), out<T>(c, 2));
        };
        if constexpr (!kAvx2) update(kernels::adamw<T>);
        else if constexpr (std::is_same_v<T, float>) update(kernels::avx2::adamw);
      });
    });
  };
  return k;
}

}  // namespace

void register_optimizer_ops(OpRegistry& registry) {
  OpDef sgd;
  sgd.domain = Graph::kInternalDomain;
  sgd.name = "SgdUpdate";
  sgd.min_inputs = 4;
  sgd.max_inputs = 5;
  sgd.min_outputs = sgd.max_outputs = 2;
  sgd.infer = [](InferContext& c) { infer_update(c, 2, 3, 4, 2); };
  sgd.stops_gradient = true;
  sgd.kernels = {sgd_kernel<true>(), sgd_kernel<false>()};
  registry.add(std::move(sgd));

  OpDef adamw;
  adamw.domain = Graph::kInternalDomain;
  adamw.name = "AdamWUpdate";
  adamw.min_inputs = 6;
  adamw.max_inputs = 7;
  adamw.min_outputs = adamw.max_outputs = 3;
  adamw.infer = [](InferContext& c) {
    c.require_dtype(5, {DType::kI64});
    infer_update(c, 3, 4, 6, 3);
  };
  adamw.stops_gradient = true;
  adamw.kernels = {adamw_kernel<true>(), adamw_kernel<false>()};
  registry.add(std::move(adamw));
}

}  // namespace ds
