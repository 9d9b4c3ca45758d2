// Elementwise operators: unary, binary with numpy broadcasting.
#include "kernels/elementwise.h"
#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using ops::broadcast_inputs;

void infer_arithmetic(InferContext& c) {
  c.require_dtype(0, {DType::kF32, DType::kF64, DType::kI32, DType::kI64});
  if (c.dtype(0) != c.dtype(1)) c.error("operands differ in type: {} and {}", dtype_name(c.dtype(0)), dtype_name(c.dtype(1)));
  c.set_output(0, c.dtype(0), broadcast_inputs(c));
}

kernels::Broadcast broadcast_of(const TensorDesc& a, const TensorDesc& b, const TensorDesc& out) {
  const auto pad = [&](const Shape& s) {
    Shape padded(out.shape.size() - s.size(), 1);
    padded.insert(padded.end(), s.begin(), s.end());
    return padded;
  };
  const Shape pa = pad(a.shape), pb = pad(b.shape);
  return kernels::make_broadcast(static_cast<int>(out.rank()), out.shape.data(), pa.data(), pb.data());
}

KernelDef binary_kernel(kernels::Binary op) {
  KernelDef k;
  k.name = "portable/binary";
  k.in_place = {{0, 0}, {1, 0}};
  k.decline = [](const KernelQuery& q) {
    return ops::require(q.out(0).rank() <= kernels::Broadcast::kMaxRank, "rank above 8");
  };
  k.create = [op](const KernelQuery& q) {
    const kernels::Broadcast space = broadcast_of(q.in(0), q.in(1), q.out(0));
    return make_kernel([op, space](const KernelContext& c) {
      dispatch_dtype(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, int32_t> || std::is_same_v<T, int64_t>)
          kernels::binary<T>(op, space, c.input(0).data<T>(), c.input(1).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  return k;
}

void grad_add(GradContext& g) {
  for (size_t i : {0, 1})
    if (g.needs(i)) g.set_d_input(i, g.sum_to(g.d_output(0), g.shape(g.input(i))));
}

void grad_mul(GradContext& g) {
  for (size_t i : {0, 1})
    if (g.needs(i)) g.set_d_input(i, g.sum_to(g.emit("Mul", {g.d_output(0), g.input(1 - i)}), g.shape(g.input(i))));
}

void register_binary(OpRegistry& registry, const char* name, kernels::Binary op, GradFn grad) {
  OpDef def;
  def.name = name;
  def.min_inputs = def.max_inputs = 2;
  def.infer = infer_arithmetic;
  def.grad = std::move(grad);
  def.kernels = {binary_kernel(op)};
  registry.add(std::move(def));
}

void register_relu(OpRegistry& registry) {
  OpDef def;
  def.name = "Relu";
  def.min_inputs = def.max_inputs = 1;
  def.infer = ops::infer_same_as_input;
  def.grad = [](GradContext& g) { g.set_d_input(0, g.emit("ReluGrad", {g.output(0), g.d_output(0)})); };
  KernelDef k;
  k.name = "portable/relu";
  k.in_place = {{0, 0}};
  k.layout_agnostic = true;
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::relu(c.input(0).numel(), c.input(0).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));

  OpDef grad;
  grad.domain = Graph::kInternalDomain;
  grad.name = "ReluGrad";  // (y, d_y) -> d_x
  grad.min_inputs = grad.max_inputs = 2;
  grad.infer = ops::infer_same_as_input;
  KernelDef gk;
  gk.name = "portable/relu_grad";
  gk.in_place = {{1, 0}};
  gk.layout_agnostic = true;
  gk.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::relu_grad(c.input(0).numel(), c.input(0).data<T>(), c.input(1).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  grad.kernels = {gk};
  registry.add(std::move(grad));
}

}  // namespace

void register_elementwise_ops(OpRegistry& registry) {
  register_binary(registry, "Add", kernels::Binary::kAdd, grad_add);
  register_binary(registry, "Mul", kernels::Binary::kMul, grad_mul);
  register_relu(registry);
}

}  // namespace ds
