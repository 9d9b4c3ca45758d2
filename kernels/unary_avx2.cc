// Activations and their derivatives, eight floats at a time.
#include "kernels/simd_avx2.h"
#include "kernels/simd_log_avx2.h"
#include "kernels/unary.h"
#include "libds/base/parallel.h"

namespace ds::kernels::avx2 {
namespace {

constexpr int64_t kGrain = 1 << 13;  // elements worth a thread

constexpr float kSqrtHalf = 0.70710678f, kSqrtTwoOverPi = 0.79788456f, kInvSqrtTwoPi = 0.39894228f, kGeluCubic = 0.044715f;

template <typename Fn>
void map(int64_t n, const float* x, float* out, Fn f) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for_each_block(begin, end, [&](int64_t i, int64_t, auto get, auto put) { put(out + i, f(get(x + i))); });
  });
}

template <typename Fn>
void map_grad(int64_t n, const float* v, const float* d_y, float* d_x, Fn f) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for_each_block(begin, end, [&](int64_t i, int64_t, auto get, auto put) { put(d_x + i, get(d_y + i) * f(get(v + i))); });
  });
}

inline F8 clamp01(F8 x) { return at_least(at_most(x, 1.0f), 0.0f); }
inline F8 gelu_tanh_argument(F8 x) { return all(kSqrtTwoOverPi) * fma(all(kGeluCubic) * x * x, x, x); }

}  // namespace

bool has_unary(Unary op) {
  switch (op) {
    case Unary::kRelu: case Unary::kSigmoid: case Unary::kTanh: case Unary::kExp: case Unary::kSqrt: case Unary::kReciprocal:
    case Unary::kNeg: case Unary::kAbs: case Unary::kErf: case Unary::kLeakyRelu: case Unary::kHardSigmoid:
    case Unary::kHardSwish: case Unary::kGelu: case Unary::kGeluTanh: case Unary::kMish: case Unary::kSwish:
    case Unary::kElu: case Unary::kCelu: case Unary::kSelu: case Unary::kThresholdedRelu: case Unary::kSoftplus:
    case Unary::kSoftsign: case Unary::kFloor: case Unary::kCeil: case Unary::kRound: case Unary::kSign:
      return true;
    default: return false;
  }
}

void unary(Unary op, int64_t n, const float* x, float* out, double alpha, double beta) {
  const F8 a = all(static_cast<float>(alpha)), b = all(static_cast<float>(beta)), zero = all(0.0f), one = all(1.0f), half = all(0.5f);
  switch (op) {
    case Unary::kRelu: return map(n, x, out, [=](F8 v) { return _mm256_max_ps(zero, v); });
    case Unary::kSigmoid: return map(n, x, out, [](F8 v) { return sigmoid8(v); });
    case Unary::kTanh: return map(n, x, out, [](F8 v) { return tanh8(v); });
    case Unary::kExp: return map(n, x, out, [](F8 v) { return exp8(v); });
    case Unary::kSqrt: return map(n, x, out, [](F8 v) { return _mm256_sqrt_ps(v); });
    case Unary::kReciprocal: return map(n, x, out, [=](F8 v) { return one / v; });
    case Unary::kNeg: return map(n, x, out, [](F8 v) { return _mm256_xor_ps(all(-0.0f), v); });
    case Unary::kAbs: return map(n, x, out, [](F8 v) { return absolute(v); });
    case Unary::kErf: return map(n, x, out, [](F8 v) { return erf8(v); });
    case Unary::kLeakyRelu: return map(n, x, out, [=](F8 v) { return select(less(v, zero), a * v, v); });
    case Unary::kHardSigmoid: return map(n, x, out, [=](F8 v) { return clamp01(a * v + b); });
    case Unary::kHardSwish: return map(n, x, out, [=](F8 v) { return v * clamp01(v / all(6.0f) + half); });
    case Unary::kGelu: return map(n, x, out, [=](F8 v) { return half * v * (one + erf8(v * all(kSqrtHalf))); });
    case Unary::kGeluTanh: return map(n, x, out, [=](F8 v) { return half * v * (one + tanh8(gelu_tanh_argument(v))); });
    case Unary::kMish:
      // tanh(log(1 + e)) = (e^2 + 2 e) / (e^2 + 2 e + 2), e = exp(x); 1 to float precision beyond 20.
      return map(n, x, out, [=](F8 v) {
        const F8 e = exp8(at_most(v, 20.0f)), s = fma(e, e, e + e);
        return v * (s / (s + all(2.0f)));
      });
    case Unary::kSwish: return map(n, x, out, [=](F8 v) { return v * sigmoid8(a * v); });
    case Unary::kElu: return map(n, x, out, [=](F8 v) { return select(less(v, zero), a * expm1_8(v), v); });
    case Unary::kCelu:
      return map(n, x, out, [=](F8 v) { return select(less(v, zero), a * expm1_8(v / a), v); });
    case Unary::kSelu: return map(n, x, out, [=](F8 v) { return b * select(less(zero, v), v, a * expm1_8(v)); });
    case Unary::kThresholdedRelu: return map(n, x, out, [=](F8 v) { return _mm256_andnot_ps(_mm256_cmp_ps(v, a, _CMP_LE_OQ), v); });
    case Unary::kSoftplus: return map(n, x, out, [](F8 v) { return softplus8(v); });
    case Unary::kSoftsign: return map(n, x, out, [=](F8 v) { return v / (one + absolute(v)); });
    case Unary::kFloor: return map(n, x, out, [](F8 v) { return _mm256_floor_ps(v); });
    case Unary::kCeil: return map(n, x, out, [](F8 v) { return _mm256_ceil_ps(v); });
    case Unary::kRound:  // halves to even
      return map(n, x, out, [](F8 v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); });
    case Unary::kSign:  // zeros and NaN stay
      return map(n, x, out, [=](F8 v) { return select(_mm256_cmp_ps(v, zero, _CMP_NEQ_OQ), _mm256_or_ps(one, sign_of(v)), v); });
    default: return;
  }
}

bool has_unary_grad(Unary op) {
  switch (op) {
    case Unary::kRelu: case Unary::kSigmoid: case Unary::kTanh: case Unary::kExp: case Unary::kErf: case Unary::kLeakyRelu:
    case Unary::kHardSwish: case Unary::kGelu: case Unary::kGeluTanh: case Unary::kSwish:
      return true;
    default: return false;
  }
}

void unary_grad(Unary op, int64_t n, const float* operand, const float* d_y, float* d_x, double alpha, double) {
  const F8 a = all(static_cast<float>(alpha)), zero = all(0.0f), one = all(1.0f), half = all(0.5f);
  switch (op) {
    case Unary::kRelu:
      // A select, not a product: an infinite gradient of a dead unit is still zero.
      return parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
        for_each_block(begin, end, [&](int64_t i, int64_t, auto get, auto put) {
          put(d_x + i, _mm256_and_ps(less(zero, get(operand + i)), get(d_y + i)));
        });
      });
    case Unary::kSigmoid: return map_grad(n, operand, d_y, d_x, [=](F8 y) { return y * (one - y); });
    case Unary::kTanh: return map_grad(n, operand, d_y, d_x, [=](F8 y) { return one - y * y; });
    case Unary::kExp: return map_grad(n, operand, d_y, d_x, [](F8 y) { return y; });
    case Unary::kErf: return map_grad(n, operand, d_y, d_x, [](F8 v) { return all(1.12837917f) * exp8(-(v * v)); });
    case Unary::kLeakyRelu: return map_grad(n, operand, d_y, d_x, [=](F8 v) { return select(less(v, zero), a, one); });
    case Unary::kHardSwish:
      return map_grad(n, operand, d_y, d_x, [=](F8 v) {
        const F8 inside = v / all(3.0f) + half;
        return select(less(all(-3.0f), v), select(less(v, all(3.0f)), inside, one), zero);
      });
    case Unary::kGelu:
      return map_grad(n, operand, d_y, d_x, [=](F8 v) {
        return half * (one + erf8(v * all(kSqrtHalf))) + v * all(kInvSqrtTwoPi) * exp8(all(-0.5f) * v * v);
      });
    case Unary::kGeluTanh:
      return map_grad(n, operand, d_y, d_x, [=](F8 v) {
        const F8 t = tanh8(gelu_tanh_argument(v));
        const F8 inner = all(kSqrtTwoOverPi) * fma(all(3 * kGeluCubic) * v, v, one);
        return half * (one + t) + half * v * (one - t * t) * inner;
      });
    case Unary::kSwish:
      return map_grad(n, operand, d_y, d_x, [=](F8 v) {
        const F8 s = sigmoid8(a * v);
        return fma(a * v * s, one - s, s);
      });
    default: return;
  }
}

}  // namespace ds::kernels::avx2
