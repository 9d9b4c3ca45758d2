// Elementwise functions, alone (kernels/unary.h, binary.h) and on rows, eight floats at a time.
#include "kernels/rows_loops.h"
#include "kernels/simd_avx2.h"

namespace ds::kernels::avx2 {
namespace {

struct V {
  using F = F8;
  static constexpr int64_t kWidth = kernels::kWidth;
  static F all(float x) { return kernels::all(x); }
  static F load(const float* p) { return kernels::load(p); }
  static F load(const float* p, int64_t n) { return kernels::load(p, n); }
  static void store(float* p, F v) { kernels::store(p, v); }
  static void store(float* p, F v, int64_t n) { kernels::store(p, v, n); }
  static F fma(F a, F b, F c) { return kernels::fma(a, b, c); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }  // b where one is NaN
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F sqrt(F x) { return _mm256_sqrt_ps(x); }
  static F negative(F x) { return _mm256_xor_ps(all(-0.0f), x); }
  static F absolute(F x) { return kernels::absolute(x); }
  static F floor(F x) { return _mm256_floor_ps(x); }
  static F ceil(F x) { return _mm256_ceil_ps(x); }
  static F nearest(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F exp(F x) { return exp8(x); }
  static F expm1(F x) { return expm1_8(x); }  // of x <= 0
  static F log(F x) { return log8(x); }
  static F sigmoid(F x) { return sigmoid8(x); }
  static F tanh(F x) { return tanh8(x); }
  static F erf(F x) { return erf8(x); }
  static F less(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  static F less_or_equal(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
  static F equal(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
  static F is_nan(F x) { return _mm256_cmp_ps(x, x, _CMP_UNORD_Q); }
  static F select(F mask, F yes, F no) { return _mm256_blendv_ps(no, yes, mask); }
  // Eight bytes, 1 where the mask is set.
  static void store_flags(bool* p, F mask) {
    const __m256i m = _mm256_castps_si256(mask);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_and_si128(_mm_packs_epi16(words, words), _mm_set1_epi8(1)));
  }
  static F load_flags(const bool* p) {
    const __m256i flags = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(flags, _mm256_setzero_si256()));
  }
};

}  // namespace

bool has_unary(Unary op) { return has_unary_loops(op); }

bool has_binary(Binary op) { return has_binary_loops(op); }

void unary(Unary op, int64_t n, const float* x, float* out, double alpha, double beta) {
  unary_all<V>(op, n, x, out, static_cast<float>(alpha), static_cast<float>(beta));
}

void binary(Binary op, const Broadcast& s, const float* a, const float* b, float* out) {
  constexpr int64_t kGrain = 1 << 14;  // elements worth a thread
  const int64_t step_a = row_step(s, 0), step_b = row_step(s, 1);
  with_binary<V>(op, [&](auto f) {
    for_each_row(s, kGrain, [&](const int64_t* offsets, int64_t at, int64_t n) {
      zip_row<V>(n, a + offsets[0], step_a, b + offsets[1], step_b, out + at, f);
    });
  });
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

}  // namespace ds::kernels::avx2
