#include "kernels/recurrent_cells_loops.h"
#include "kernels/simd_avx2.h"

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
  static V add(V a, V b) { return a + b; }
  static V sub(V a, V b) { return a - b; }
  static V mul(V a, V b) { return a * b; }
  static V fma(V a, V b, V c) { return kernels::fma(a, b, c); }
  static V sigmoid(V x) { return sigmoid8(x); }
  static V tanh(V x) { return tanh8(x); }
};

}  // namespace

const CellFunctions kCellsAvx2 = Cells<Avx2>::kFunctions;

}  // namespace ds::kernels
