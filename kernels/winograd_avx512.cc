// Winograd's transforms on AVX-512: 16 channels at a time.
#include <immintrin.h>

#include "kernels/winograd_tiles.h"

namespace ds::kernels {
namespace {

struct Avx512 {
  using V = __m512;
  static constexpr int64_t kWidth = 16;

  static V load(const float* p) { return _mm512_loadu_ps(p); }
  static V load(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p); }
  static void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static V all(float x) { return _mm512_set1_ps(x); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static V fnma(V a, V b, V c) { return _mm512_fnmadd_ps(a, b, c); }
};

}  // namespace

const WinogradTransforms& avx512_winograd(int64_t out_tile) {
  return out_tile == 2 ? WinogradLoops<Avx512, 2>::transforms() : WinogradLoops<Avx512, 4>::transforms();
}

}  // namespace ds::kernels
