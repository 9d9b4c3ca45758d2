// Optimizer steps as operators: one node per parameter, whose outputs become states.
//
//   ai.ds.SgdUpdate(w, g, velocity, learning_rate [, mask]) -> (w', velocity')
//   ai.ds.AdamWUpdate(w, g, m, v, learning_rate, step [, mask]) -> (w', m', v')
//
// learning_rate is a scalar of w's type, step an i64 scalar from 0.
#include "kernels/optimizer.h"

#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

// Operands 0 .. moments + 1 and the mask share w's type and shape; every output has it.
InferFn infer_update(size_t moments, size_t mask) {
  return [=](InferContext& c) {
    c.require_dtype(0, {DType::kF32, DType::kF64});
    const auto like_parameter = [&](size_t i) {
      if (c.dtype(i) != c.dtype(0)) c.error("operand {} is {}, the parameter {}", i, dtype_name(c.dtype(i)), dtype_name(c.dtype(0)));
      if (c.has_dims(i) && c.has_dims(0) && c.dims(i) != c.dims(0)) c.error("operand {} has not the parameter's shape", i);
    };
    for (size_t i = 1; i <= moments + 1; ++i) like_parameter(i);
    if (c.has_input(mask)) like_parameter(mask);
    for (size_t i = 0; i <= moments; ++i) c.set_output(i, c.dtype(0), c.input(0).dims);
  };
}

template <typename T>
const T* optional_data(const KernelContext& c, size_t i) {
  return c.has_input(i) ? c.input(i).data<T>() : nullptr;
}

KernelDef sgd_kernel() {
  KernelDef k;
  k.name = "portable/sgd";
  k.in_place = {{0, 0}, {2, 1}};
  k.create = [](const KernelQuery& q) {
    const float momentum = q.node.attr_float("momentum", 0.9f), decay = q.node.attr_float("weight_decay", 0.0f);
    const bool nesterov = q.node.attr_int("nesterov", 0) != 0;
    return make_kernel([=](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        const kernels::Sgd<T> p{c.input(3).data<T>()[0], T(momentum), T(decay), nesterov};
        kernels::sgd_step<T>(p, c.input(0).numel(), c.input(0).data<T>(), c.input(1).data<T>(), c.input(2).data<T>(),
                             optional_data<T>(c, 4), c.output(0).mutable_data<T>(), c.output(1).mutable_data<T>());
      });
    });
  };
  return k;
}

KernelDef adamw_kernel() {
  KernelDef k;
  k.name = "portable/adamw";
  k.in_place = {{0, 0}, {2, 1}, {3, 2}};
  k.create = [](const KernelQuery& q) {
    const float beta1 = q.node.attr_float("beta1", 0.9f), beta2 = q.node.attr_float("beta2", 0.999f);
    const float epsilon = q.node.attr_float("epsilon", 1e-8f), decay = q.node.attr_float("weight_decay", 0.0f);
    return make_kernel([=](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        const kernels::AdamW<T> p{c.input(4).data<T>()[0], T(beta1), T(beta2), T(epsilon), T(decay), c.input(5).data<int64_t>()[0]};
        kernels::adamw_step<T>(p, c.input(0).numel(), c.input(0).data<T>(), c.input(1).data<T>(), c.input(2).data<T>(),
                               c.input(3).data<T>(), optional_data<T>(c, 6), c.output(0).mutable_data<T>(),
                               c.output(1).mutable_data<T>(), c.output(2).mutable_data<T>());
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
  sgd.infer = infer_update(1, 4);
  sgd.stops_gradient = true;
  sgd.kernels = {sgd_kernel()};
  registry.add(std::move(sgd));

  OpDef adamw;
  adamw.domain = Graph::kInternalDomain;
  adamw.name = "AdamWUpdate";
  adamw.min_inputs = 6;
  adamw.max_inputs = 7;
  adamw.min_outputs = adamw.max_outputs = 3;
  adamw.infer = infer_update(2, 6);
  adamw.stops_gradient = true;
  adamw.kernels = {adamw_kernel()};
  registry.add(std::move(adamw));
}

}  // namespace ds
