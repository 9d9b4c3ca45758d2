// Derivatives of activations, eight floats at a time.
#include "kernels/simd_avx2.h"
#include "kernels/unary.h"
#include "libds/base/parallel.h"

namespace ds::kernels::avx2 {
namespace {

constexpr int64_t kGrain = 1 << 13;  // elements worth a thread

constexpr float kSqrtHalf = 0.70710678f, kSqrtTwoOverPi = 0.79788456f, kInvSqrtTwoPi = 0.39894228f, kGeluCubic = 0.044715f;

template <typename Fn>
void map_grad(int64_t n, const float* v, const float* d_y, float* d_x, Fn f) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for_each_block(begin, end, [&](int64_t i, int64_t, auto get, auto put) { put(d_x + i, get(d_y + i) * f(get(v + i))); });
  });
}

inline F8 gelu_tanh_argument(F8 x) { return all(kSqrtTwoOverPi) * fma(all(kGeluCubic) * x * x, x, x); }

}  // namespace

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
