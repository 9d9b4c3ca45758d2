// Cast, CastLike and Identity.
#include "kernels/cast.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "kernels/halves.h"
#include "kernels/storage_types.h"
#include "libds/base/parallel.h"
#include "libds/ir/type_text.h"
#include "libds/ops/int_arith.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

// --- numbers -------------------------------------------------------------------------------------

// What the attributes say about 8-bit floats.
struct CastRules {
  bool saturate = true;
  kernels::PowerRounding rounding = kernels::PowerRounding::kUp;

  explicit CastRules(const Node& n) : saturate(n.attr_int("saturate", 1) != 0) {
    const std::string mode = n.attr_string("round_mode", "up");
    if (mode == "down") rounding = kernels::PowerRounding::kDown;
    else if (mode == "nearest") rounding = kernels::PowerRounding::kNearest;
    else if (mode != "up") bad_data("round_mode is '{}', expected up, down or nearest", mode);
  }
};

template <typename F>
bool dispatch_float8(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF8E4M3FN: return f(f8e4m3fn{}), true;
    case DType::kF8E4M3FNUZ: return f(f8e4m3fnuz{}), true;
    case DType::kF8E5M2: return f(f8e5m2{}), true;
    case DType::kF8E5M2FNUZ: return f(f8e5m2fnuz{}), true;
    default: return false;
  }
}

// A type that is only stored is read into, and written from, numbers of another: int32_t for the packed integers,
// else float.
bool is_stored(DType t) { return is_float8(t) || is_packed(t); }
bool is_packed_int(DType t) { return is_packed(t) && t != DType::kF4E2M1; }

constexpr int64_t kChunk = 2048;  // elements converted at a time, by way of a buffer

// Elements [begin, begin + n) of a stored type. Number: float or int32_t, see above.
void read_stored(const Tensor& x, int64_t begin, int64_t n, float* out) {
  const auto* bytes = static_cast<const uint8_t*>(x.raw());
  if (x.dtype() == DType::kF4E2M1) return kernels::unpack_f4(begin, n, bytes, out);
  if (x.dtype() == DType::kF8E8M0) return kernels::widen(n, static_cast<const f8e8m0*>(x.raw()) + begin, out);
  dispatch_float8(x.dtype(), [&](auto tag) { kernels::widen(n, static_cast<const decltype(tag)*>(x.raw()) + begin, out); });
}
void read_stored(const Tensor& x, int64_t begin, int64_t n, int32_t* out) {
  const bool is_signed = x.dtype() == DType::kI4 || x.dtype() == DType::kI2;
  kernels::unpack(static_cast<int>(dtype_bits(x.dtype())), is_signed, begin, n, static_cast<const uint8_t*>(x.raw()), out);
}
void write_stored(const float* x, int64_t begin, int64_t n, const CastRules& rules, const Tensor& out) {
  if (out.dtype() == DType::kF4E2M1) return kernels::pack_f4(begin, n, x, static_cast<uint8_t*>(out.mutable_raw()));
  if (out.dtype() == DType::kF8E8M0)
    return kernels::narrow_to_power(n, x, rules.saturate, rules.rounding, static_cast<f8e8m0*>(out.mutable_raw()) + begin);
  dispatch_float8(out.dtype(), [&](auto tag) {
    kernels::narrow(n, x, rules.saturate, static_cast<decltype(tag)*>(out.mutable_raw()) + begin);
  });
}
void write_stored(const int32_t* x, int64_t begin, int64_t n, const CastRules&, const Tensor& out) {
  kernels::pack(static_cast<int>(dtype_bits(out.dtype())), begin, n, x, static_cast<uint8_t*>(out.mutable_raw()));
}

// The numbers a chunk of `x` stands for, whatever its type, as Number.
template <typename Number>
void read_chunk(const Tensor& x, int64_t begin, int64_t n, Number* out) {
  if (!is_stored(x.dtype())) {
    dispatch_dtype(x.dtype(), [&](auto tag) {
      using From = decltype(tag);
      kernels::cast<From, Number>(n, x.data<From>() + begin, out);
    });
  } else if (is_packed_int(x.dtype())) {
    int32_t numbers[kChunk];
    read_stored(x, begin, n, numbers);
    kernels::cast<int32_t, Number>(n, numbers, out);
  } else {
    float numbers[kChunk];
    read_stored(x, begin, n, numbers);
    kernels::cast<float, Number>(n, numbers, out);
  }
}

void cast_numbers(const Tensor& x, const CastRules& rules, const Tensor& out) {
  if (!is_stored(x.dtype()) && !is_stored(out.dtype())) {
    dispatch_dtype(x.dtype(), [&](auto from) {
      using From = decltype(from);
      dispatch_dtype(out.dtype(), [&](auto to) {
        using To = decltype(to);
        kernels::cast<From, To>(x.numel(), x.data<From>(), out.mutable_data<To>());
      });
    });
    return;
  }
  const int64_t chunks = (x.numel() + kChunk - 1) / kChunk;
  parallel_for(chunks, 4, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      const int64_t begin = c * kChunk, n = std::min(kChunk, x.numel() - begin);
      if (!is_stored(out.dtype())) {
        dispatch_dtype(out.dtype(), [&](auto to) {
          using To = decltype(to);
          read_chunk<To>(x, begin, n, out.mutable_data<To>() + begin);
        });
      } else if (is_packed_int(out.dtype())) {
        int32_t numbers[kChunk];
        read_chunk(x, begin, n, numbers);
        write_stored(numbers, begin, n, rules, out);
      } else {
        float numbers[kChunk];
        read_chunk(x, begin, n, numbers);
        write_stored(numbers, begin, n, rules, out);
      }
    }
  });
}

// --- strings -------------------------------------------------------------------------------------

bool same_word(std::string_view text, std::string_view upper) {
  return std::equal(text.begin(), text.end(), upper.begin(), upper.end(),
                    [](char a, char b) { return std::toupper(static_cast<unsigned char>(a)) == b; });
}

// A number written in plain or scientific notation, or one of the words the specification names.
double number_in(const std::string& given) {
  std::string_view text = given;
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (same_word(text, "INF")) return kInfinity;
  if (same_word(text, "-INF")) return -kInfinity;
  if (same_word(text, "NAN")) return std::numeric_limits<double>::quiet_NaN();
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) return std::strtod(std::string(text).c_str(), nullptr);  // 0 or infinity
  if (error != std::errc() || end != text.data() + text.size()) bad_data("'{}' is not a number", given);
  return value;
}

// Whole numbers do not go through a double.
template <typename T>
T parse_as(const std::string& text) {
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    T value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size()) return value;
  }
  const double value = number_in(text);
  if constexpr (std::is_same_v<T, float>) {  // rounded once
    float single = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), single);
    if (error == std::errc() && end == text.data() + text.size() && std::isfinite(value)) return single;
  }
  T result;
  kernels::cast<double, T>(1, &value, &result);
  return result;
}

template <typename T>
std::string text_of(T value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value ? "1" : "0";
  } else if constexpr (std::is_integral_v<T>) {
    return fmt::format("{}", value);
  } else {
    const auto x = static_cast<std::conditional_t<std::is_same_v<T, double>, double, float>>(value);
    if (std::isnan(x)) return "NaN";
    if (std::isinf(x)) return x > 0 ? "INF" : "-INF";
    return fmt::format("{}", x);  // the shortest that reads back as the same number
  }
}

void cast_to_strings(const Tensor& x, const Tensor& out) {
  if (is_stored(x.dtype())) {
    const Tensor wide = Tensor::empty(DType::kF32, x.shape());
    cast_numbers(x, CastRules(Node()), wide);
    return cast_to_strings(wide, out);
  }
  dispatch_dtype(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    std::transform(x.data<T>(), x.data<T>() + x.numel(), out.strings().begin(), text_of<T>);
  });
}

void cast_from_strings(const Tensor& x, const CastRules& rules, const Tensor& out) {
  if (is_stored(out.dtype())) {
    const Tensor wide = Tensor::empty(DType::kF32, x.shape());
    cast_from_strings(x, rules, wide);
    return cast_numbers(wide, rules, out);
  }
  const auto texts = x.strings();
  dispatch_dtype(out.dtype(), [&](auto tag) {
    using T = decltype(tag);
    if constexpr (std::is_same_v<T, f16> || std::is_same_v<T, bf16>)
      std::transform(texts.begin(), texts.end(), out.mutable_data<T>(), [](const std::string& s) { return T(parse_as<float>(s)); });
    else
      std::transform(texts.begin(), texts.end(), out.mutable_data<T>(), parse_as<T>);
  });
}

// --- operators -----------------------------------------------------------------------------------

void copy_elements(const Tensor& x, const Tensor& out) {
  if (x.dtype() == DType::kString) std::copy(x.strings().begin(), x.strings().end(), out.strings().begin());
  else if (x.raw() != out.raw() && x.bytes() > 0) std::memcpy(out.mutable_raw(), x.raw(), x.bytes());
}

KernelDef cast_kernel() {
  KernelDef k;
  k.name = "portable/cast";
  k.takes_objects = k.takes_packed = true;
  k.create = [](const KernelQuery& q) {
    return make_kernel([rules = CastRules(q.node)](const KernelContext& c) {
      const Tensor &x = c.input(0), &out = c.output(0);
      if (x.dtype() == out.dtype()) copy_elements(x, out);
      else if (out.dtype() == DType::kString) cast_to_strings(x, out);
      else if (x.dtype() == DType::kString) cast_from_strings(x, rules, out);
      else cast_numbers(x, rules, out);
    });
  };
  return k;
}

// Between f32 and 16-bit floats.
KernelDef half_cast_kernel() {
  KernelDef k;
  k.name = "avx2/cast";
  k.isa = Isa::kAvx2;
  k.order_agnostic = true;
  k.decline = [](const KernelQuery& q) {
    const DType from = q.in(0).dtype, to = q.out(0).dtype;
    return ops::require((from == DType::kF32 && is_half(to)) || (is_half(from) && to == DType::kF32), "not between f32 and a 16-bit float");
  };
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      const Tensor &x = c.input(0), &out = c.output(0);
      if (x.dtype() == DType::kF16) kernels::widen_avx2(x.numel(), x.data<f16>(), out.mutable_data<float>());
      else if (x.dtype() == DType::kBF16) kernels::widen_avx2(x.numel(), x.data<bf16>(), out.mutable_data<float>());
      else if (out.dtype() == DType::kF16) kernels::narrow_avx2(x.numel(), x.data<float>(), out.mutable_data<f16>());
      else kernels::narrow_avx2(x.numel(), x.data<float>(), out.mutable_data<bf16>());
    });
  };
  return k;
}

void set_cast_output(InferContext& c, DType to) {
  if (is_container(c.dtype(0)) || is_container(to)) c.error("conversion from {} to {} is not supported", dtype_name(c.dtype(0)), dtype_name(to));
  CastRules(c.node());  // checks the attributes
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

void register_cast(OpRegistry& registry) {
  OpDef def;
  def.name = "Cast";
  def.min_inputs = def.max_inputs = 1;
  def.infer = [](InferContext& c) {
    set_cast_output(c, dtype_of_number(c.node().attr_int("to", 0)));
  };
  def.grad = grad_cast;
  def.kernels = {half_cast_kernel(), cast_kernel()};
  registry.add(std::move(def));

  OpDef like;
  like.name = "CastLike";
  like.min_inputs = like.max_inputs = 2;
  like.infer = [](InferContext& c) { set_cast_output(c, c.dtype(1)); };
  like.grad = grad_cast;
  like.kernels = {half_cast_kernel(), cast_kernel()};
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
      copy_elements(c.input(0), c.output(0));
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_cast_ops(OpRegistry& registry) {
  register_cast(registry);
  register_identity(registry);
}

}  // namespace ds
