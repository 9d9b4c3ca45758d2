#include "kernels/recurrent_cells_loops.h"
#include "kernels/simd_avx512.h"

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
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V sub(V a, V b) { return _mm512_sub_ps(a, b); }
  static V mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V fma(V a, V b, V c) { return kernels::fma(a, b, c); }
  static V sigmoid(V x) { return sigmoid16(x); }
  static V tanh(V x) { return tanh16(x); }
};

}  // namespace

const CellFunctions kCellsAvx512 = Cells<Avx512>::kFunctions;

}  // namespace ds::kernels
