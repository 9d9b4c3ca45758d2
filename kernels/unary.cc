#include "kernels/unary.h"

#include "kernels/compute_type.h"
#include "kernels/unary_math.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

// Elements worth a thread: few for functions that call the math library.
int64_t grain_of(Unary op) {
  switch (op) {
    case Unary::kRelu: case Unary::kNeg: case Unary::kAbs: case Unary::kSign: case Unary::kLeakyRelu:
    case Unary::kThresholdedRelu: case Unary::kHardSigmoid: case Unary::kHardSwish: return 1 << 14;
    default: return 1 << 11;
  }
}

template <typename T, typename F>
void map(int64_t n, int64_t grain, const T* x, T* out, F f) {
  parallel_for(n, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = f(x[i]);
  });
}

}  // namespace

bool derivative_uses_output(Unary op) {
  return op == Unary::kRelu || op == Unary::kSigmoid || op == Unary::kTanh || op == Unary::kExp || op == Unary::kSqrt ||
         op == Unary::kReciprocal || op == Unary::kTan;
}

template <typename T>
void unary(Unary op, int64_t n, const T* x, T* out, double alpha, double beta) {
  using C = ComputeType<T>;
  const C a = static_cast<C>(alpha), b = static_cast<C>(beta);
  with_unary(op, [&](auto constant) {
    map(n, grain_of(op), x, out,
        [a, b](T v) { return static_cast<T>(unary_value<decltype(constant)::value, C>(static_cast<C>(v), a, b)); });
  });
}

template <typename T>
void unary_grad(Unary op, int64_t n, const T* operand, const T* d_y, T* d_x, double alpha, double beta) {
  const T a = static_cast<T>(alpha), b = static_cast<T>(beta);
  with_unary(op, [&](auto constant) {
    if constexpr (has_derivative(decltype(constant)::value)) {
      parallel_for(n, grain_of(op), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          d_x[i] = d_y[i] * unary_derivative<decltype(constant)::value, T>(operand[i], a, b);
      });
    }
  });
}

template <typename T>
void integer_unary(Unary op, int64_t n, const T* x, T* out) {
  constexpr int64_t kGrain = 1 << 14;
  const auto negated = [](T v) { return static_cast<T>(-static_cast<uint64_t>(v)); };
  switch (op) {
    case Unary::kNeg: return map(n, kGrain, x, out, negated);
    case Unary::kAbs: return map(n, kGrain, x, out, [negated](T v) { return v < T(0) ? negated(v) : v; });
    case Unary::kSign: return map(n, kGrain, x, out, [](T v) { return static_cast<T>((v > T(0)) - (v < T(0))); });
    default: return map(n, kGrain, x, out, [](T v) { return v < T(0) ? T(0) : v; });
  }
}

template <typename T>
void clip(int64_t n, const T* x, T low, T high, T* out) {
  using C = ComputeType<T>;
  const C l = static_cast<C>(low), h = static_cast<C>(high);
  map(n, 1 << 14, x, out, [l, h](T v) {
    const C c = static_cast<C>(v);
    const C raised = c < l ? l : c;
    return static_cast<T>(raised > h ? h : raised);
  });
}

template <typename T>
void clip_grad(int64_t n, const T* x, const T* d_y, T low, T high, T* d_x) {
  parallel_for(n, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) d_x[i] = x[i] >= low && x[i] <= high ? d_y[i] : T(0);
  });
}

#define DS_INSTANTIATE(T)                                               \
  template void unary(Unary, int64_t, const T*, T*, double, double);    \
  template void clip(int64_t, const T*, T, T, T*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double) DS_INSTANTIATE(f16) DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

#define DS_INSTANTIATE(T)                                                                    \
  template void unary_grad(Unary, int64_t, const T*, const T*, T*, double, double);          \
  template void clip_grad(int64_t, const T*, const T*, T, T, T*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double)
#undef DS_INSTANTIATE

#define DS_INSTANTIATE(T)                                           \
  template void integer_unary(Unary, int64_t, const T*, T*);        \
  template void clip(int64_t, const T*, T, T, T*);
DS_INSTANTIATE(int8_t) DS_INSTANTIATE(int16_t) DS_INSTANTIATE(int32_t) DS_INSTANTIATE(int64_t)
DS_INSTANTIATE(uint8_t) DS_INSTANTIATE(uint16_t) DS_INSTANTIATE(uint32_t) DS_INSTANTIATE(uint64_t)
#undef DS_INSTANTIATE

}  // namespace ds::kernels
