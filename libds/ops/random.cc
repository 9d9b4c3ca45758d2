// Dropout: the identity at inference, and the internal training form
//   DropoutTrain(x, step: i64 scalar; ratio, seed, stream) -> y
// whose mask is a pure function of (seed, stream, step, element).
#include <cstring>

#include "kernels/dropout.h"
#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

void register_dropout(OpRegistry& registry) {
  OpDef def;
  def.name = "Dropout";  // (x, ratio?, training_mode?) -> y, mask?
  def.min_inputs = 1;
  def.max_inputs = 3;
  def.max_outputs = 2;
  def.infer = [](InferContext& c) {
    ops::infer_same_as_input(c);
    c.set_output(1, DType::kBool, c.input(0).dims);
  };
  def.grad = [](GradContext& g) {
    if (g.needs(0)) g.set_d_input(0, g.d_output(0));
  };
  KernelDef k;
  k.name = "portable/dropout";
  k.in_place = {{0, 0}};
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      // Random numbers belong to training, which converts this operator first (passes/train_mode.h).
      if (c.has_input(2) && *c.input(2).data<bool>()) fail(ExitCode::kUnsupported, "training_mode is true in a model that is not being trained");
      const Tensor& x = c.input(0);
      if (x.raw() != c.output(0).raw() && x.bytes() > 0) std::memcpy(c.output(0).mutable_raw(), x.raw(), x.bytes());
      if (c.has_output(1) && x.numel() > 0) std::memset(c.output(1).mutable_raw(), 1, static_cast<size_t>(x.numel()));
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

template <bool kAvx2>
KernelDef dropout_kernel() {
  KernelDef k;
  k.name = kAvx2 ? "avx2/dropout_train" : "portable/dropout_train";
  k.in_place = {{0, 0}};
  if (kAvx2) {
    k.isa = Isa::kAvx2;
    k.decline = [](const KernelQuery& q) { return ops::require(q.in(0).dtype == DType::kF32, "needs f32"); };
  }
  k.create = [](const KernelQuery& q) {
    const double ratio = static_cast<double>(q.node.attr_float("ratio", 0.5f));
    const auto seed = static_cast<uint64_t>(q.node.attr_int("seed", 0)), stream = static_cast<uint64_t>(q.node.attr_int("stream", 0));
    return make_kernel([ratio, seed, stream](const KernelContext& c) {
      const auto step = static_cast<uint64_t>(*c.input(1).data<int64_t>());
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        const auto draw = [&](auto f) { f(c.input(0).numel(), c.input(0).data<T>(), ratio, seed, stream, step, c.output(0).mutable_data<T>()); };
        if constexpr (!kAvx2) draw(kernels::dropout<T>);
        else if constexpr (std::is_same_v<T, float>) draw(kernels::avx2::dropout);
      });
    });
  };
  return k;
}

void register_dropout_train(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "DropoutTrain";
  def.min_inputs = def.max_inputs = 2;
  def.stateful = true;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, {DType::kF32, DType::kF64});
    c.require_dtype(1, {DType::kI64});
    const float ratio = c.node().attr_float("ratio", 0.5f);
    if (!(ratio >= 0.0f && ratio < 1.0f)) c.error("ratio is {}, expected a number in [0, 1)", ratio);
    ops::infer_same_as_input(c);
  };
  // y = mask x, so d_x = mask d_y: the same operator draws the same mask again.
  def.grad = [](GradContext& g) {
    const Attributes attrs = g.node().attrs;
    g.set_d_input(0, g.emit("DropoutTrain", {g.d_output(0), g.input(1)}, attrs));
  };
  def.kernels = {dropout_kernel<true>(), dropout_kernel<false>()};
  registry.add(std::move(def));
}

}  // namespace

void register_random_ops(OpRegistry& registry) {
  register_dropout(registry);
  register_dropout_train(registry);
}

}  // namespace ds
