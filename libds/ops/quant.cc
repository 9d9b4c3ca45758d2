// QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear. Their kernels are the definition in plain loops;
// graphs run fast through the fused operators of passes/fuse_qdq.h.
#include <algorithm>
#include <mutex>

#include "kernels/quant_any.h"
#include "libds/base/parallel.h"
#include "libds/ir/type_text.h"
#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::QuantSpace;

// Calls f with a value of the stored type.
template <typename F>
void dispatch_stored(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kU8: return f(uint8_t{});
    case DType::kI8: return f(int8_t{});
    case DType::kU16: return f(uint16_t{});
    case DType::kI16: return f(int16_t{});
    case DType::kI32: return f(int32_t{});
    default: bad_data("quantized type {} is not supported", dtype_name(dtype));
  }
}

QuantSpace quant_space(const Node& node, const Shape& x, const Shape& scale) {
  QuantSpace s;
  s.inner = checked_numel(x);
  s.block = node.attr_int("block_size", 0);
  if (s.block == 0 && checked_numel(scale) == 1) return s;
  const auto axis = static_cast<size_t>(ops::normalize_axis(node.attr_int("axis", 1), static_cast<int64_t>(x.size())));
  s.axis = x[axis];
  s.inner = 1;
  for (size_t i = 0; i < x.size(); ++i) (i < axis ? s.outer : i == axis ? s.axis : s.inner) *= i == axis ? 1 : x[i];
  return s;
}

// Scale (input 1) must be a scalar, one per position of the axis, or one per block; the zero point (input 2) alike.
void check_scale(InferContext& c) {
  if (c.dtype(1) == DType::kI32) fail(ExitCode::kUnsupported, "a scale of integers is not supported");
  c.require_dtype(1, {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E8M0});
  const int64_t block = c.node().attr_int("block_size", 0);
  if (block < 0) c.error("block_size is {}", block);
  if (c.has_input(2) && c.has_dims(1) && c.has_dims(2) && all_known(c.dims(1)) && all_known(c.dims(2)) && c.dims(1) != c.dims(2) &&
      checked_numel(concrete(c.dims(1))) != checked_numel(concrete(c.dims(2))))
    c.error("scale is {}, zero point {}", shape_string(concrete(c.dims(1))), shape_string(concrete(c.dims(2))));
  if (!c.has_dims(0) || !c.has_dims(1) || !all_known(c.dims(1))) return;
  const Dims x = c.dims(0);
  const Shape scale = concrete(c.dims(1));
  if (block == 0 && checked_numel(scale) == 1) return;
  const auto axis = static_cast<size_t>(ops::normalize_axis(c.node().attr_int("axis", 1), static_cast<int64_t>(x.size())));
  if (block == 0) {
    if (scale.size() != 1) c.error("scale is {}, expected a scalar or a vector", shape_string(scale));
    if (x[axis].known() && x[axis].raw != scale[0]) c.error("{} scales for axis {} of size {}", scale[0], axis, x[axis].raw);
    return;
  }
  if (scale.size() != x.size()) c.error("blocked scale has rank {}, the data {}", scale.size(), x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    if (!x[i].known()) continue;
    const int64_t expected = i == axis ? (x[i].raw + block - 1) / block : x[i].raw;
    if (scale[i] != expected) c.error("blocked scale has size {} on axis {}, expected {}", scale[i], i, expected);
  }
}

// A type given as an attribute; kUndefined when there is none.
DType type_attr(const Node& node, const char* key) {
  const int64_t given = node.attr_int(key, 0);
  if (given == 0) return DType::kUndefined;
  return with_context([&] { return fmt::format("attribute '{}'", key); }, [&] { return dtype_of_number(given); });
}

bool is_quantized(DType t) {
  return t == DType::kU8 || t == DType::kI8 || t == DType::kU16 || t == DType::kI16 || is_packed(t) || (is_float8(t) && t != DType::kF8E8M0);
}

// What loops of their own exist for: f32 scales, and stored integers of whole bytes.
std::string not_plain(const KernelQuery& q, DType stored) {
  if (q.in(1).dtype != DType::kF32) return "the scale is not f32";
  return ops::require(!is_packed(stored) && !is_float8(stored), "the stored type has no loop of its own");
}

// The precision of the division: the attribute, or the scale's type (a scale of exponents divides exactly).
DType division_type(const Node& node, DType scale) {
  const DType given = type_attr(node, "precision");
  if (given != DType::kUndefined) return given;
  return scale == DType::kF8E8M0 ? DType::kF32 : scale;
}

void infer_quantize(InferContext& c) {
  c.require_dtype(0, {DType::kF32, DType::kF16, DType::kBF16, DType::kI32});
  check_scale(c);
  const DType given = type_attr(c.node(), "output_dtype");
  const DType dtype = c.has_input(2) ? c.dtype(2) : given != DType::kUndefined ? given : DType::kU8;
  if (!is_quantized(dtype)) c.error("quantized type {} is not supported", dtype_name(dtype));
  if (given != DType::kUndefined && given != dtype) c.error("output_dtype is {}, the zero point {}", dtype_name(given), dtype_name(dtype));
  const DType precision = division_type(c.node(), c.dtype(1));
  if (precision != DType::kF32 && !is_half(precision)) c.error("precision {} is not supported", dtype_name(precision));
  c.set_output(0, dtype, c.input(0).dims);
}

void register_quantize(OpRegistry& registry) {
  OpDef def;
  def.name = "QuantizeLinear";
  def.min_inputs = 2;
  def.max_inputs = 3;
  def.infer = infer_quantize;
  KernelDef k;
  k.name = "portable/quantize";
  k.decline = [](const KernelQuery& q) {
    if (std::string reason = not_plain(q, q.out(0).dtype); !reason.empty()) return reason;
    if (division_type(q.node, q.in(1).dtype) != DType::kF32) return std::string("divides in 16 bits");
    return ops::require(!is_half(q.in(0).dtype), "16-bit floats");
  };
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = quant_space(q.node, q.in(0).shape, q.in(1).shape)](const KernelContext& c) {
      dispatch_stored(c.output(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        const T* zero = c.has_input(2) ? c.input(2).data<T>() : nullptr;
        const float* scale = c.input(1).data<float>();
        T* y = c.output(0).mutable_data<T>();
        if (c.input(0).dtype() == DType::kF32) kernels::quantize(s, c.input(0).data<float>(), scale, zero, y);
        else kernels::quantize(s, c.input(0).data<int32_t>(), scale, zero, y);
      });
    });
  };
  KernelDef one_scale = k;
  one_scale.name = "avx2/quantize";
  one_scale.isa = Isa::kAvx2;
  one_scale.decline = [portable = k.decline](const KernelQuery& q) {
    if (std::string reason = portable(q); !reason.empty()) return reason;
    const bool bytes = q.out(0).dtype == DType::kU8 || q.out(0).dtype == DType::kI8;
    return ops::require(bytes && q.in(0).dtype == DType::kF32 && q.in(1).numel() == 1, "not f32 to bytes with one scale");
  };
  one_scale.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      const Tensor& x = c.input(0);
      Tensor& y = c.output(0);
      const bool is_signed = y.dtype() == DType::kI8;
      kernels::QParams p = {c.input(1).data<float>()[0], 0};
      if (c.has_input(2)) p.zero = is_signed ? c.input(2).data<int8_t>()[0] : c.input(2).data<uint8_t>()[0];
      parallel_for(x.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
        if (is_signed) kernels::quantize_i8_avx2(end - begin, x.data<float>() + begin, p, y.mutable_data<int8_t>() + begin);
        else kernels::quantize_u8_avx2(end - begin, x.data<float>() + begin, p, y.mutable_data<uint8_t>() + begin);
      });
    });
  };
  KernelDef any;
  any.name = "portable/quantize_any";
  any.takes_packed = true;
  any.create = [](const KernelQuery& q) {
    return make_kernel([s = quant_space(q.node, q.in(0).shape, q.in(1).shape), precision = division_type(q.node, q.in(1).dtype),
                        saturate = q.node.attr_int("saturate", 1) != 0](const KernelContext& c) {
      const Tensor &x = c.input(0), &scale = c.input(1);
      kernels::quantize_any(s, x.dtype(), x.raw(), scale.dtype(), scale.raw(), c.has_input(2) ? c.input(2).raw() : nullptr, precision,
                            saturate, c.output(0).dtype(), c.output(0).mutable_raw());
    });
  };
  def.kernels = {one_scale, k, any};
  registry.add(std::move(def));
}

void infer_dequantize(InferContext& c) {
  if (c.dtype(0) != DType::kI32 && !is_quantized(c.dtype(0))) c.error("input 0 ('{}') has type {}, which this operator does not take", c.input(0).name, dtype_name(c.dtype(0)));
  check_scale(c);
  if (c.has_input(2) && c.dtype(2) != c.dtype(0))
    c.error("the zero point has type {}, the data {}", dtype_name(c.dtype(2)), dtype_name(c.dtype(0)));
  const DType given = type_attr(c.node(), "output_dtype");
  const DType dtype = given != DType::kUndefined ? given : c.dtype(1);
  if (dtype != DType::kF32 && !is_half(dtype)) c.error("the result cannot have type {}", dtype_name(dtype));
  c.set_output(0, dtype, c.input(0).dims);
}

void register_dequantize(OpRegistry& registry) {
  OpDef def;
  def.name = "DequantizeLinear";
  def.min_inputs = 2;
  def.max_inputs = 3;
  def.infer = infer_dequantize;
  KernelDef k;
  k.name = "portable/dequantize";
  k.decline = [](const KernelQuery& q) {
    if (std::string reason = not_plain(q, q.in(0).dtype); !reason.empty()) return reason;
    return ops::require(q.out(0).dtype == DType::kF32, "the result is not f32");
  };
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = quant_space(q.node, q.in(0).shape, q.in(1).shape)](const KernelContext& c) {
      dispatch_stored(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::dequantize(s, c.input(0).data<T>(), c.input(1).data<float>(), c.has_input(2) ? c.input(2).data<T>() : nullptr,
                            c.output(0).mutable_data<float>());
      });
    });
  };
  KernelDef any;
  any.name = "portable/dequantize_any";
  any.takes_packed = true;
  any.create = [](const KernelQuery& q) {
    return make_kernel([s = quant_space(q.node, q.in(0).shape, q.in(1).shape)](const KernelContext& c) {
      const Tensor &x = c.input(0), &scale = c.input(1);
      kernels::dequantize_any(s, x.dtype(), x.raw(), scale.dtype(), scale.raw(), c.has_input(2) ? c.input(2).raw() : nullptr,
                              c.output(0).dtype(), c.output(0).mutable_raw());
    });
  };
  def.kernels = {k, any};
  registry.add(std::move(def));
}

void register_dynamic_quantize(OpRegistry& registry) {
  OpDef dynamic;
  dynamic.name = "DynamicQuantizeLinear";  // x -> y, scale, zero point
  dynamic.min_inputs = dynamic.max_inputs = 1;
  dynamic.min_outputs = dynamic.max_outputs = 3;
  dynamic.infer = [](InferContext& c) {
    c.require_dtype(0, {DType::kF32});
    c.set_output(0, DType::kU8, c.input(0).dims);
    c.set_output(1, DType::kF32, Dims{});
    c.set_output(2, DType::kU8, Dims{});
  };
  KernelDef y;
  y.name = "portable/dynamic_quantize";
  y.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      kernels::dynamic_quantize(c.input(0).numel(), c.input(0).data<float>(), c.output(0).mutable_data<uint8_t>(),
                                c.output(1).mutable_data<float>(), c.output(2).mutable_data<uint8_t>());
    });
  };
  KernelDef vectors;
  vectors.name = "avx2/dynamic_quantize";
  vectors.isa = Isa::kAvx2;
  vectors.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      const Tensor& x = c.input(0);
      constexpr int64_t kGrain = 1 << 14;
      float low = 0, high = 0;
      std::mutex merging;
      parallel_for(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
        float least, most;
        kernels::value_range_avx2(end - begin, x.data<float>() + begin, &least, &most);
        const std::lock_guard lock(merging);
        low = std::min(low, least);
        high = std::max(high, most);
      });
      float scale;
      uint8_t zero;
      kernels::dynamic_params(low, high, &scale, &zero);
      if (c.has_output(1)) *c.output(1).mutable_data<float>() = scale;
      if (c.has_output(2)) *c.output(2).mutable_data<uint8_t>() = zero;
      parallel_for(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
        kernels::quantize_u8_avx2(end - begin, x.data<float>() + begin, {scale, zero}, c.output(0).mutable_data<uint8_t>() + begin);
      });
    });
  };
  dynamic.kernels = {vectors, y};
  registry.add(std::move(dynamic));
}

}  // namespace

void register_quant_ops(OpRegistry& registry) {
  register_quantize(registry);
  register_dequantize(registry);
  register_dynamic_quantize(registry);
}

}  // namespace ds
