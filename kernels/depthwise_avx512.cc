// Depthwise convolutions on AVX-512.
#include "kernels/depthwise_loops.h"
#include "kernels/finish_avx512.h"

namespace ds::kernels {
namespace {

struct Avx512 {
  using V = F16;
  using Lanes = __mmask16;
  static constexpr int64_t kWidth = 16;

  static Lanes first(int64_t n) { return static_cast<Lanes>((1u << n) - 1); }
  static V load(const float* p) { return _mm512_loadu_ps(p); }
  static V load(const float* p, Lanes lanes) { return _mm512_maskz_loadu_ps(lanes, p); }
  static void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static void store(float* p, V v, Lanes lanes) { _mm512_mask_storeu_ps(p, lanes, v); }
  static V fma(V a, V b, V c) { return kernels::fma(a, b, c); }
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V zero() { return _mm512_setzero_ps(); }
  static V activated(V v, const Epilogue& e) { return kernels::activated(v, e); }
  static constexpr FinishFn* finish = finish_avx512;
};

}  // namespace

void depthwise_avx512(const NhwcConv& s, const float* x, const float* packed, const Finish& finish) {
  Depthwise<Avx512>(s, x, packed, finish).run();
}

}  // namespace ds::kernels
