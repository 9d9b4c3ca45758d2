// AVX2 parts of nbits.h. Raw loops only: no library code may be compiled for AVX2 and leak out.
#include "kernels/nbits.h"
#include "kernels/simd_avx2.h"

namespace ds::kernels {
namespace {

// Eight values from the low bits of `packed` up.
template <int kBits>
inline F8 spread(uint32_t packed) {
  const __m256i all_of_them = _mm256_set1_epi32(static_cast<int>(packed));
  const __m256i shifts = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(kBits));
  return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srlv_epi32(all_of_them, shifts), _mm256_set1_epi32((1 << kBits) - 1)));
}

template <int kBits>
inline F8 eight(const uint8_t* q) {
  if constexpr (kBits == 8) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q))));
  } else {
    uint32_t packed = 0;
    __builtin_memcpy(&packed, q, kBits);  // eight values take kBits bytes
    return spread<kBits>(packed);
  }
}

template <int kBits>
void unpack_bits(int64_t n, const uint8_t* q, float zero, float scale, float* out) {
  const F8 z = all(zero), s = all(scale);
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(out + i, _mm256_mul_ps(_mm256_sub_ps(eight<kBits>(q + i * kBits / 8), z), s));
  for (; i < n; ++i) out[i] = (static_cast<float>((q[i * kBits / 8] >> (i * kBits % 8)) & ((1 << kBits) - 1)) - zero) * scale;
}

void unpack(int bits, int64_t n, const uint8_t* q, float zero, float scale, float* out) {
  if (bits == 4) unpack_bits<4>(n, q, zero, scale, out);
  else if (bits == 8) unpack_bits<8>(n, q, zero, scale, out);
  else unpack_bits<2>(n, q, zero, scale, out);
}

inline float total(F8 v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

template <int kRows>
void dots_of(int64_t n, const float* x, int64_t x_stride, const float* w, int64_t w_stride, float sums[2][kNBitsColumns]) {
  F8 acc[kRows][kNBitsColumns];
  for (auto& row : acc)
    for (F8& a : row) a = _mm256_setzero_ps();
  for_each_block(0, n, [&](int64_t i, int64_t, auto&& get, auto&&) __attribute__((always_inline)) {
    F8 b[kNBitsColumns];
    for (int64_t c = 0; c < kNBitsColumns; ++c) b[c] = get(w + c * w_stride + i);
    for (int64_t r = 0; r < kRows; ++r) {
      const F8 a = get(x + r * x_stride + i);
      for (int64_t c = 0; c < kNBitsColumns; ++c) acc[r][c] = fma(a, b[c], acc[r][c]);
    }
  });
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t c = 0; c < kNBitsColumns; ++c) sums[r][c] = total(acc[r][c]);
}

void dots(int64_t rows, int64_t n, const float* x, int64_t x_stride, const float* w, int64_t w_stride, float sums[2][kNBitsColumns]) {
  if (rows == 2) dots_of<2>(n, x, x_stride, w, w_stride, sums);
  else dots_of<1>(n, x, x_stride, w, w_stride, sums);
}

}  // namespace

const NBitsIsa& avx2_nbits() {
  static constexpr NBitsIsa isa = {unpack, dots};
  return isa;
}

}  // namespace ds::kernels
