// Attention with eight exponentials at a time.
#include "kernels/attention_loops.h"
#include "kernels/simd_avx2.h"

namespace ds::kernels::avx2 {
namespace {

struct Avx2Math {
  static float row_max(int64_t n, const float* x) {
    float highest = x[0];
    int64_t i = 0;
    if (n >= kWidth) {
      F8 m = load(x);
      F8 odd = _mm256_cmp_ps(m, m, _CMP_UNORD_Q);
      for (i = kWidth; i + kWidth <= n; i += kWidth) {
        const F8 v = load(x + i);
        odd = _mm256_or_ps(odd, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        m = _mm256_max_ps(v, m);
      }
      highest = _mm256_movemask_ps(odd) != 0 ? __builtin_nanf("") : horizontal_max(m);
    }
    for (; i < n; ++i) highest = x[i] > highest || x[i] != x[i] ? x[i] : highest;
    return highest;
  }
  static double exp_shifted(int64_t n, float* x, float shift) {
    const F8 s = all(shift);
    DoubleSum sum;
    for_each_block(0, n, [&](int64_t i, int64_t count, auto get, auto put) {
      F8 e = exp8(get(x + i) - s);
      put(x + i, e);
      if (count < kWidth) e = _mm256_and_ps(e, _mm256_castsi256_ps(lanes(count)));
      sum.add(e);
    });
    return sum.total();
  }
  static void softcap(int64_t n, float* x, float cap) {
    const F8 c = all(cap);
    for_each_block(0, n, [&](int64_t i, int64_t, auto get, auto put) { put(x + i, c * tanh8(get(x + i) / c)); });
  }
};

}  // namespace

void attention(const Attention& a, const AttentionOperands<float>& o, int parts, float* scratch) {
  run_attention<float, Avx2Math>(a, o, parts, scratch);
}

}  // namespace ds::kernels::avx2
