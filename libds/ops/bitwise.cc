// Integers as bits: BitwiseAnd, BitwiseOr, BitwiseXor, BitwiseNot, BitShift; and BitCast.
#include "kernels/bitwise.h"

#include <cstring>

#include "libds/ir/type_text.h"
#include "libds/ops/elementwise.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::Bitwise;

void require_int(InferContext& c, size_t i) {
  if (!is_int(c.dtype(i)))
    c.error("input {} ('{}') has type {}, which this operator does not take", i, c.input(i).name, dtype_name(c.dtype(i)));
}

template <typename F>
void dispatch_int(DType dtype, F&& f) {
  dispatch_dtype(dtype, [&](auto tag) {
    using T = decltype(tag);
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) f(tag);
  });
}

void register_two(OpRegistry& registry, const char* name, std::function<Bitwise(const Node&)> op_of) {
  OpDef def;
  def.name = name;
  def.min_inputs = def.max_inputs = 2;
  def.stops_gradient = true;
  def.infer = [op_of](InferContext& c) {
    require_int(c, 0);
    ops::require_same_dtype(c);
    op_of(c.node());  // checks the attributes
    c.set_output(0, c.dtype(0), ops::broadcast_inputs(c));
  };
  KernelDef k;
  k.name = "portable/bitwise";
  k.in_place = {{0, 0}, {1, 0}};
  k.decline = ops::rank_fits_broadcast;
  k.create = [op_of](const KernelQuery& q) {
    return make_kernel([op = op_of(q.node), space = ops::broadcast_space(q, {0, 1})](const KernelContext& c) {
      dispatch_int(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::bitwise<T>(op, space, c.input(0).data<T>(), c.input(1).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

void register_not(OpRegistry& registry) {
  OpDef def;
  def.name = "BitwiseNot";
  def.min_inputs = def.max_inputs = 1;
  def.stops_gradient = true;
  def.infer = [](InferContext& c) {
    require_int(c, 0);
    ops::infer_same_as_input(c);
  };
  KernelDef k;
  k.name = "portable/bitwise_not";
  k.in_place = {{0, 0}};
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      dispatch_int(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::bitwise_not<T>(c.input(0).numel(), c.input(0).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

Bitwise direction_of(const Node& n) {
  const std::string direction = n.attr_string("direction", "");
  if (direction == "LEFT") return Bitwise::kShiftLeft;
  if (direction == "RIGHT") return Bitwise::kShiftRight;
  bad_data("direction is '{}', expected LEFT or RIGHT", direction);
}

void register_bit_cast(OpRegistry& registry) {
  OpDef def;
  def.name = "BitCast";
  def.min_inputs = def.max_inputs = 1;
  def.stops_gradient = true;
  def.infer = [](InferContext& c) {
    const DType dtype = dtype_of_number(c.node().attr_int("to", 0));
    if (dtype_bits(dtype) == 0 || dtype_bits(dtype) != dtype_bits(c.dtype(0)))
      c.error("the bits of {} are not those of a {}", dtype_name(c.dtype(0)), dtype_name(dtype));
    c.set_output(0, dtype, c.input(0).dims);
  };
  KernelDef k;
  k.name = "portable/bit_cast";
  k.takes_packed = true;
  k.in_place = {{0, 0}};
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      const Tensor &x = c.input(0), &out = c.output(0);
      if (out.dtype() == DType::kBool && x.dtype() != DType::kBool) {  // other bytes than 0 and 1 are no bool
        for (int64_t i = 0; i < x.numel(); ++i)
          out.mutable_data<bool>()[i] = static_cast<const uint8_t*>(x.raw())[i] != 0;
      } else if (x.raw() != out.raw() && x.bytes() > 0) {
        std::memcpy(out.mutable_raw(), x.raw(), x.bytes());
      }
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_bitwise_ops(OpRegistry& registry) {
  register_two(registry, "BitwiseAnd", [](const Node&) { return Bitwise::kAnd; });
  register_two(registry, "BitwiseOr", [](const Node&) { return Bitwise::kOr; });
  register_two(registry, "BitwiseXor", [](const Node&) { return Bitwise::kXor; });
  register_two(registry, "BitShift", direction_of);
  register_not(registry);
  register_bit_cast(registry);
}

}  // namespace ds
