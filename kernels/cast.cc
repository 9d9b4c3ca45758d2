#include "kernels/cast.h"

#include <limits>

#include "kernels/compute_type.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

template <typename From, typename To>
To convert(From value) {
  const auto x = static_cast<ComputeType<From>>(value);
  using X = std::remove_const_t<decltype(x)>;
  if constexpr (std::is_same_v<To, bool>) {
    return x != X(0);
  } else if constexpr (is_half_v<To>) {
    return To(static_cast<float>(x));
  } else if constexpr (std::is_floating_point_v<X> && std::is_integral_v<To>) {
    // The limits as floats: the upper one may round up to 2^k, which is already out of range.
    constexpr X kLow = static_cast<X>(std::numeric_limits<To>::min()), kHigh = static_cast<X>(std::numeric_limits<To>::max());
    if (!(x > kLow)) return x != x ? To(0) : std::numeric_limits<To>::min();
    if (x >= kHigh) return std::numeric_limits<To>::max();
    return static_cast<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

}  // namespace

template <typename From, typename To>
void cast(int64_t n, const From* x, To* out) {
  parallel_for(n, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = convert<From, To>(x[i]);
  });
}

#define DS_TO(From, To) template void cast(int64_t, const From*, To*);
#define DS_FROM(From)                                                                                        \
  DS_TO(From, float) DS_TO(From, double) DS_TO(From, f16) DS_TO(From, bf16) DS_TO(From, bool)                \
  DS_TO(From, int8_t) DS_TO(From, int16_t) DS_TO(From, int32_t) DS_TO(From, int64_t)                         \
  DS_TO(From, uint8_t) DS_TO(From, uint16_t) DS_TO(From, uint32_t) DS_TO(From, uint64_t)
DS_FROM(float) DS_FROM(double) DS_FROM(f16) DS_FROM(bf16) DS_FROM(bool)
DS_FROM(int8_t) DS_FROM(int16_t) DS_FROM(int32_t) DS_FROM(int64_t)
DS_FROM(uint8_t) DS_FROM(uint16_t) DS_FROM(uint32_t) DS_FROM(uint64_t)
#undef DS_FROM
#undef DS_TO

}  // namespace ds::kernels
