#include "kernels/binary.h"

#include <cmath>

#include "kernels/compute_type.h"

namespace ds::kernels {
namespace {

constexpr int64_t kGrain = 1 << 14, kGrainCostly = 1 << 11;  // elements worth a thread

// Signed overflow is undefined in C++; unsigned arithmetic of full width wraps for every integer type.
template <typename C, typename Op>
C wrapped(C x, C y, Op op) {
  if constexpr (std::is_integral_v<C>) return static_cast<C>(op(static_cast<uint64_t>(x), static_cast<uint64_t>(y)));
  else return op(x, y);
}

template <typename C>
C divide(C x, C y) {
  if constexpr (std::is_integral_v<C>) {
    if (y == C(0)) return C(0);
    if constexpr (std::is_signed_v<C>)
      if (y == C(-1)) return static_cast<C>(-static_cast<uint64_t>(x));  // the smallest number has no negative
    return static_cast<C>(x / y);
  } else {
    return x / y;
  }
}

template <typename C>
C truncated_mod(C x, C y) {
  if constexpr (std::is_integral_v<C>) {
    if (y == C(0)) return C(0);
    if constexpr (std::is_signed_v<C>)
      if (y == C(-1)) return C(0);
    return static_cast<C>(x % y);
  } else {
    return std::fmod(x, y);
  }
}

template <typename C>
C floored_mod(C x, C y) {
  const C r = truncated_mod(x, y);
  if constexpr (!std::is_integral_v<C>)
    if (r == C(0)) return std::copysign(C(0), y);
  return r != C(0) && (r < C(0)) != (y < C(0)) ? static_cast<C>(r + y) : r;
}

template <typename C>
C integer_power(C base, uint64_t exponent) {
  uint64_t result = 1, square = static_cast<uint64_t>(base);
  for (; exponent != 0; exponent >>= 1) {
    if (exponent & 1) result *= square;
    square *= square;
  }
  return static_cast<C>(result);
}

template <typename C, typename E>
C power_of(C x, E y) {
  if constexpr (std::is_integral_v<C> && std::is_integral_v<E>) {
    if (y >= E(0)) return integer_power(x, static_cast<uint64_t>(y));
    return x == C(1) ? C(1) : x == C(-1) ? (y % 2 == 0 ? C(1) : C(-1)) : C(0);
  } else {
    if (y == E(2)) return x * x;
    if (y == E(1)) return x;
    if constexpr (std::is_same_v<C, float> && std::is_same_v<E, float>) return std::pow(x, y);
    else return static_cast<C>(std::pow(static_cast<double>(x), static_cast<double>(y)));
  }
}

}  // namespace

template <typename T>
void binary(Binary op, const Broadcast& s, const T* a, const T* b, T* out) {
  using C = ComputeType<T>;
  const auto apply = [&](int64_t grain, auto f) {
    broadcast_binary(s, grain, a, b, out, [f](T x, T y) { return static_cast<T>(f(static_cast<C>(x), static_cast<C>(y))); });
  };
  switch (op) {
    case Binary::kAdd: return apply(kGrain, [](C x, C y) { return wrapped(x, y, [](auto p, auto q) { return p + q; }); });
    case Binary::kSub: return apply(kGrain, [](C x, C y) { return wrapped(x, y, [](auto p, auto q) { return p - q; }); });
    case Binary::kMul: return apply(kGrain, [](C x, C y) { return wrapped(x, y, [](auto p, auto q) { return p * q; }); });
    case Binary::kDiv: return apply(kGrain, [](C x, C y) { return divide(x, y); });
    case Binary::kMin: return apply(kGrain, [](C x, C y) { return x < y || x != x ? x : y; });
    case Binary::kMax: return apply(kGrain, [](C x, C y) { return x > y || x != x ? x : y; });
    case Binary::kMod: return apply(kGrainCostly, [](C x, C y) { return floored_mod(x, y); });
    case Binary::kFmod: return apply(kGrainCostly, [](C x, C y) { return truncated_mod(x, y); });
    case Binary::kPRelu:
      return apply(kGrain, [](C x, C y) { return x < C(0) ? wrapped(x, y, [](auto p, auto q) { return p * q; }) : x; });
  }
}

template <typename T, typename E>
void power(const Broadcast& s, const T* base, const E* exponent, T* out) {
  using C = ComputeType<T>;
  broadcast_binary(s, kGrainCostly, base, exponent, out,
                   [](T x, E y) { return static_cast<T>(power_of(static_cast<C>(x), y)); });
}

template <typename T>
void scale(int64_t n, const T* x, double factor, T* out) {
  using C = ComputeType<T>;
  const C f = static_cast<C>(factor);
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = static_cast<T>(static_cast<C>(x[i]) * f);
  });
}

#define DS_INSTANTIATE(T) template void binary(Binary, const Broadcast&, const T*, const T*, T*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double) DS_INSTANTIATE(f16) DS_INSTANTIATE(bf16)
DS_INSTANTIATE(int8_t) DS_INSTANTIATE(int16_t) DS_INSTANTIATE(int32_t) DS_INSTANTIATE(int64_t)
DS_INSTANTIATE(uint8_t) DS_INSTANTIATE(uint16_t) DS_INSTANTIATE(uint32_t) DS_INSTANTIATE(uint64_t)
#undef DS_INSTANTIATE

#define DS_INSTANTIATE(T)                                                          \
  template void power(const Broadcast&, const T*, const float*, T*);               \
  template void power(const Broadcast&, const T*, const double*, T*);              \
  template void power(const Broadcast&, const T*, const int32_t*, T*);             \
  template void power(const Broadcast&, const T*, const int64_t*, T*);             \
  template void power(const Broadcast&, const T*, const uint64_t*, T*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double) DS_INSTANTIATE(f16) DS_INSTANTIATE(bf16)
DS_INSTANTIATE(int32_t) DS_INSTANTIATE(int64_t)
#undef DS_INSTANTIATE

template void scale(int64_t, const float*, double, float*);
template void scale(int64_t, const double*, double, double*);
template void scale(int64_t, const f16*, double, f16*);
template void scale(int64_t, const bf16*, double, bf16*);

}  // namespace ds::kernels
