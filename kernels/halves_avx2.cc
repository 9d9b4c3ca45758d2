#include "kernels/halves.h"

#include "kernels/simd_avx2.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kPiece = 1 << 14;  // elements worth a thread

inline __m128i load16(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline void store16(void* p, __m128i v) { _mm_storeu_si128(static_cast<__m128i*>(p), v); }

struct F16 {
  static __m256 widen(__m128i h) { return _mm256_cvtph_ps(h); }
  static __m128i narrow(__m256 x) {
    const __m128i h = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    // Every NaN becomes the same but for its sign.
    const __m128i magnitude = _mm_and_si128(h, _mm_set1_epi16(0x7fff));
    const __m128i nan = _mm_cmpgt_epi16(magnitude, _mm_set1_epi16(0x7c00));
    const __m128i quiet = _mm_or_si128(_mm_and_si128(h, _mm_set1_epi16(-0x8000)), _mm_set1_epi16(0x7e00));
    return _mm_blendv_epi8(h, quiet, nan);
  }
};

struct Bf16 {
  static __m256 widen(__m128i half) { return widen_bf16(half); }
  static __m128i narrow(__m256 x) { return narrow_to_bf16(x); }
};

template <typename Half>
void widen(int64_t n, const uint16_t* x, float* y) {
  parallel_for(n, kPiece, [&](int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + kWidth <= end; i += kWidth) _mm256_storeu_ps(y + i, Half::widen(load16(x + i)));
    if (i == end) return;
    alignas(32) uint16_t from[kWidth] = {};
    alignas(32) float to[kWidth];
    for (int64_t j = i; j < end; ++j) from[j - i] = x[j];
    _mm256_store_ps(to, Half::widen(load16(from)));
    for (int64_t j = i; j < end; ++j) y[j] = to[j - i];
  });
}

template <typename Half>
void narrow(int64_t n, const float* x, uint16_t* y) {
  parallel_for(n, kPiece, [&](int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + kWidth <= end; i += kWidth) store16(y + i, Half::narrow(_mm256_loadu_ps(x + i)));
    if (i == end) return;
    alignas(32) float from[kWidth] = {};
    alignas(32) uint16_t to[kWidth];
    for (int64_t j = i; j < end; ++j) from[j - i] = x[j];
    store16(to, Half::narrow(_mm256_load_ps(from)));
    for (int64_t j = i; j < end; ++j) y[j] = to[j - i];
  });
}

}  // namespace

void widen_avx2(int64_t n, const f16* x, float* y) { widen<F16>(n, reinterpret_cast<const uint16_t*>(x), y); }
void widen_avx2(int64_t n, const bf16* x, float* y) { widen<Bf16>(n, reinterpret_cast<const uint16_t*>(x), y); }
void narrow_avx2(int64_t n, const float* x, f16* y) { narrow<F16>(n, x, reinterpret_cast<uint16_t*>(y)); }
void narrow_avx2(int64_t n, const float* x, bf16* y) { narrow<Bf16>(n, x, reinterpret_cast<uint16_t*>(y)); }

}  // namespace ds::kernels
