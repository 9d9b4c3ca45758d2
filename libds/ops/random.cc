// Dropout: the identity at inference, and the internal training form
//   DropoutTrain(x, step: i64 scalar; ratio, seed, stream) -> y
// whose mask is a pure function of (seed, stream, step, element).
#include <algorithm>
#include <cstring>

#include "kernels/dropout.h"
#include "libds/base/random.h"
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
  def.stateful = true;  // training_mode
  def.infer = [](InferContext& c) {
    ops::infer_same_as_input(c);
    c.set_output(1, DType::kBool, c.input(0).dims);
  };
  // Training converts the operator first (passes/train_mode.h); what is left of it passes everything on.
  def.grad = [](GradContext& g) {
    if (!g.needs(0)) return;
    if (const ValueId training = g.input(2); training != kNone) {
      const auto content = g.rewriter().graph().value(training).constant;
      if (content == nullptr || content->to_ints().at(0) != 0) fail(ExitCode::kUnsupported, "draws a mask in its forward pass");
    }
    g.set_d_input(0, g.d_output(0));
  };
  KernelDef k;
  k.name = "portable/dropout";
  k.in_place = {{0, 0}};
  k.create = [](const KernelQuery& q) {
    const auto seed = static_cast<uint64_t>(q.node.attr_int("seed", 0)), stream = stream_of(q.node.name) + static_cast<uint64_t>(q.node.output(0));
    return make_kernel([seed, stream, run = uint64_t{0}](const KernelContext& c) mutable {
      const Tensor &x = c.input(0), &out = c.output(0);
      bool* mask = c.has_output(1) ? c.output(1).mutable_data<bool>() : nullptr;
      const double ratio = c.has_input(1) ? c.input(1).to_doubles().at(0) : 0.5;
      const bool training = c.has_input(2) && c.input(2).to_ints().at(0) != 0;
      if (training && !(ratio >= 0 && ratio < 1)) bad_data("ratio is {}, expected a number in [0, 1)", ratio);
      if (!training || ratio == 0) {
        if (x.raw() != out.raw() && x.bytes() > 0) std::memcpy(out.mutable_raw(), x.raw(), x.bytes());
        if (mask != nullptr) std::fill(mask, mask + x.numel(), true);
        return;
      }
      dispatch_float(x.dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::dropout<T>(x.numel(), x.data<T>(), ratio, seed, stream, run, out.mutable_data<T>());
        if (mask == nullptr) return;
        kernels::dropout_mask(x.numel(), ratio, seed, stream, run, mask);
      });
      ++run;
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
    c.require_dtype(0, ops::kFloats);
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
  def.widens_halves = true;
  def.kernels = {dropout_kernel<true>(), dropout_kernel<false>()};
  registry.add(std::move(def));
}

}  // namespace

void register_random_ops(OpRegistry& registry) {
  register_dropout(registry);
  register_dropout_train(registry);
}

}  // namespace ds
