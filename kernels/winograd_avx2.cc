// Winograd's transforms on AVX2: 8 channels at a time.
#include "kernels/simd_avx2.h"
#include "kernels/winograd_tiles.h"

namespace ds::kernels {
namespace {

struct Avx2 {
  using V = F8;
  static constexpr int64_t kWidth = 8;

  static V load(const float* p) { return kernels::load(p); }
  static V load(const float* p, int64_t n) { return kernels::load(p, n); }
  static void store(float* p, V v) { kernels::store(p, v); }
  static V all(float x) { return kernels::all(x); }
  static V fma(V a, V b, V c) { return kernels::fma(a, b, c); }
  static V fnma(V a, V b, V c) { return _mm256_fnmadd_ps(a, b, c); }
};

}  // namespace

const WinogradTransforms& avx2_winograd(int64_t out_tile) {
  return out_tile == 2 ? WinogradLoops<Avx2, 2>::transforms() : WinogradLoops<Avx2, 4>::transforms();
}

}  // namespace ds::kernels
