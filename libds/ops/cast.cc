// Cast, CastLike, BitCast and Identity.
#include "kernels/cast.h"

#include <cstring>

#include "libds/ops/int_arith.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

KernelDef cast_kernel() {
  KernelDef k;
  k.name = "portable/cast";
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      const Tensor& x = c.input(0);
      const Tensor& out = c.output(0);
      if (x.dtype() == out.dtype()) {
        if (x.raw() != out.raw() && x.bytes() > 0) std::memcpy(out.mutable_raw(), x.raw(), x.bytes());
        return;
      }
      dispatch_dtype(x.dtype(), [&](auto from) {
        using From = decltype(from);
        dispatch_dtype(out.dtype(), [&](auto to) {
          using To = decltype(to);
          kernels::cast<From, To>(x.numel(), x.data<From>(), out.mutable_data<To>());
        });
      });
    });
  };
  return k;
}

void set_cast_output(InferContext& c, DType to) {
  if (dtype_size(c.dtype(0)) == 0 || dtype_size(to) == 0)
    c.error("conversion from {} to {} is not supported", dtype_name(c.dtype(0)), dtype_name(to));
  c.set_output(0, to, c.input(0).dims);
  // Only widening or equal ranges: a dimension always fits i32 in practice, but not u8.
  if (is_int(c.dtype(0)) && (to == DType::kI64 || to == DType::kI32))
    ops::propagate_ints(c, [](InferContext&, std::span<const ops::IntElement> x) { return std::optional(x[0]); });
}

void grad_cast(GradContext& g) {
  if (!g.needs(0)) return;
  const auto back = static_cast<int64_t>(g.dtype(g.input(0)));
  g.set_d_input(0, g.emit("Cast", {g.d_output(0)}, {{"to", back}}));
}

// The same bits under another type of the same width.
void register_bit_cast(OpRegistry& registry) {
  OpDef def;
  def.name = "BitCast";
  def.min_inputs = def.max_inputs = 1;
  def.stops_gradient = true;
  def.infer = [](InferContext& c) {
    const int64_t to = c.node().attr_int("to", 0);
    if (to < 0 || to > INT32_MAX || !dtype_known(static_cast<int32_t>(to))) c.error("target type {} is not known", to);
    const auto target = static_cast<DType>(to);
    if (is_object(c.dtype(0)) || is_object(target) || dtype_bits(c.dtype(0)) != dtype_bits(target))
      c.error("{} and {} are not of the same width", dtype_name(c.dtype(0)), dtype_name(target));
    c.set_output(0, target, c.input(0).dims);
  };
  KernelDef k;
  k.name = "portable/bit_cast";
  k.takes_packed = true;
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      const auto* from = static_cast<const uint8_t*>(c.input(0).raw());
      auto* to = static_cast<uint8_t*>(c.output(0).mutable_raw());
      const size_t bytes = c.output(0).bytes();
      const bool truth = c.output(0).dtype() == DType::kBool;  // which has two values only
      for (size_t i = 0; truth && i < bytes; ++i) to[i] = from[i] != 0;
      if (!truth && bytes > 0) std::memcpy(to, from, bytes);
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

void register_cast(OpRegistry& registry) {
  OpDef def;
  def.name = "Cast";
  def.min_inputs = def.max_inputs = 1;
  def.infer = [](InferContext& c) {
    const int64_t to = c.node().attr_int("to", 0);
    if (to < 0 || to > INT32_MAX || !dtype_known(static_cast<int32_t>(to))) c.error("target type {} is not known", to);
    set_cast_output(c, static_cast<DType>(to));
  };
  def.grad = grad_cast;
  def.kernels = {cast_kernel()};
  registry.add(std::move(def));

  OpDef like;
  like.name = "CastLike";
  like.min_inputs = like.max_inputs = 2;
  like.infer = [](InferContext& c) { set_cast_output(c, c.dtype(1)); };
  like.grad = grad_cast;
  like.kernels = {cast_kernel()};
  registry.add(std::move(like));
}

void register_identity(OpRegistry& registry) {
  OpDef def;
  def.name = "Identity";
  def.min_inputs = def.max_inputs = 1;
  def.is_view = true;
  def.infer = [](InferContext& c) {
    ops::infer_same_as_input(c);
    if (c.input(0).ints) c.set_output_ints(0, *c.input(0).ints);
    else ops::propagate_ints(c, [](InferContext&, std::span<const ops::IntElement> x) { return std::optional(x[0]); });
  };
  def.grad = [](GradContext& g) { g.set_d_input(0, g.d_output(0)); };
  KernelDef k;
  k.name = "portable/identity";
  k.in_place = {{0, 0}};
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      if (c.input(0).raw() != c.output(0).raw() && c.input(0).bytes() > 0)
        std::memcpy(c.output(0).mutable_raw(), c.input(0).raw(), c.input(0).bytes());
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_cast_ops(OpRegistry& registry) {
  register_cast(registry);
  register_bit_cast(registry);
  register_identity(registry);
}

}  // namespace ds
