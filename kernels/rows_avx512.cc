// Elementwise functions, alone (kernels/unary.h, binary.h) and on rows, sixteen floats at a time.
#include "kernels/rows_loops.h"
#include "kernels/simd_avx512.h"

namespace ds::kernels::avx512 {
namespace {

struct V {
  using F = F16;
  static constexpr int64_t kWidth = 16;
  static __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
  static F all(float x) { return all16(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static void store(float* p, F v, int64_t n) { _mm512_mask_storeu_ps(p, first(n), v); }
  static F fma(F a, F b, F c) { return kernels::fma(a, b, c); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }  // b where one is NaN
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F sqrt(F x) { return _mm512_sqrt_ps(x); }
  static F negative(F x) { return _mm512_xor_ps(all(-0.0f), x); }
  static F absolute(F x) { return _mm512_abs_ps(x); }
  static F floor(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  static F ceil(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC); }
  static F nearest(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F exp(F x) { return exp16(x); }
  static F expm1(F x) { return expm1_16(x); }  // of x <= 0
  static F log(F x) { return log16(x); }
  static F sigmoid(F x) { return sigmoid16(x); }
  static F tanh(F x) { return tanh16(x); }
  static F erf(F x) { return erf16(x); }
  static __mmask16 less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static __mmask16 less_or_equal(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
  static __mmask16 equal(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
  static __mmask16 is_nan(F x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q); }
  static F select(__mmask16 mask, F yes, F no) { return _mm512_mask_mov_ps(no, mask, yes); }
  // Sixteen bytes, 1 where the mask is set.
  static void store_flags(bool* p, __mmask16 mask) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_maskz_set1_epi8(mask, 1)); }
  static __mmask16 load_flags(const bool* p) {
    const __m128i flags = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm_test_epi8_mask(flags, flags);
  }
};

}  // namespace

void unary(Unary op, int64_t n, const float* x, float* out, double alpha, double beta) {
  unary_all<V>(op, n, x, out, static_cast<float>(alpha), static_cast<float>(beta));
}

void unary_row(Unary op, int64_t n, const float* x, float* out, float alpha, float beta) { unary_loops<V>(op, n, x, out, alpha, beta); }

void binary_row(Binary op, int64_t n, const float* a, int64_t step_a, const float* b, int64_t step_b, float* out) {
  binary_loops<V>(op, n, a, step_a, b, step_b, out);
}

void clip_row(int64_t n, const float* x, double low, double high, float* out) {
  clip_loops<V>(n, x, static_cast<float>(low), static_cast<float>(high), out);
}

void compare_row(Compare op, int64_t n, const float* a, int64_t step_a, const float* b, int64_t step_b, bool* out) {
  compare_loops<V>(op, n, a, step_a, b, step_b, out);
}

void select_row(int64_t n, const bool* condition, int64_t step_c, const float* a, int64_t step_a, const float* b, int64_t step_b, float* out) {
  select_loops<V>(n, condition, step_c, a, step_a, b, step_b, out);
}

}  // namespace ds::kernels::avx512
