// Depthwise convolutions on AVX2.
#include "kernels/depthwise_loops.h"
#include "kernels/finish_avx2.h"

namespace ds::kernels {
namespace {

struct Avx2 {
  using V = F8;
  using Lanes = __m256i;
  static constexpr int64_t kWidth = 8;

  static Lanes first(int64_t n) { return lanes(n); }
  static V load(const float* p) { return kernels::load(p); }
  static V load(const float* p, Lanes lanes) { return _mm256_maskload_ps(p, lanes); }
  static void store(float* p, V v) { kernels::store(p, v); }
  static void store(float* p, V v, Lanes lanes) { _mm256_maskstore_ps(p, lanes, v); }
  static V fma(V a, V b, V c) { return kernels::fma(a, b, c); }
  static V add(V a, V b) { return a + b; }
  static V zero() { return _mm256_setzero_ps(); }
  static V activated(V v, const Epilogue& e) { return kernels::activated(v, e); }
  static constexpr FinishFn* finish = finish_avx2;
};

}  // namespace

void depthwise_avx2(const NhwcConv& s, const float* x, const float* packed, const Finish& finish) {
  Depthwise<Avx2>(s, x, packed, finish).run();
}

}  // namespace ds::kernels
