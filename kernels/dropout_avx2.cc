// Dropout with eight Philox counters side by side; the same mask as the portable kernel, bit for bit.
#include "kernels/dropout.h"

#include <cstdint>

#include "kernels/simd_avx2.h"
#include "libds/base/parallel.h"

namespace ds::kernels::avx2 {
namespace {

// Eight 32-bit lanes times a constant: low and high halves of the products.
inline void multiply(__m256i a, __m256i constant, __m256i& low, __m256i& high) {
  const __m256i even = _mm256_mul_epu32(a, constant), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), constant);
  low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0b10101010);
  high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0b10101010);
}

// Words 0 .. 3 of philox(key, stream, first + lane), as in base/random.cc.
inline void philox8(uint64_t key, uint64_t stream, uint64_t first, __m256i words[4]) {
  const __m256i mul0 = _mm256_set1_epi64x(0xD2511F53), mul1 = _mm256_set1_epi64x(0xCD9E8D57);
  alignas(32) uint32_t low[8], high[8];
  for (uint64_t k = 0; k < 8; ++k) {
    low[k] = static_cast<uint32_t>(first + k);
    high[k] = static_cast<uint32_t>((first + k) >> 32);
  }
  __m256i c0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(low)), c1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(high));
  __m256i c2 = _mm256_set1_epi32(static_cast<int>(static_cast<uint32_t>(stream)));
  __m256i c3 = _mm256_set1_epi32(static_cast<int>(static_cast<uint32_t>(stream >> 32)));
  auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    __m256i low0, high0, low1, high1;
    multiply(c0, mul0, low0, high0);
    multiply(c2, mul1, low1, high1);
    c0 = _mm256_xor_si256(_mm256_xor_si256(high1, c1), _mm256_set1_epi32(static_cast<int>(k0)));
    c2 = _mm256_xor_si256(_mm256_xor_si256(high0, c3), _mm256_set1_epi32(static_cast<int>(k1)));
    c1 = low1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

// From word-major (word k of counter b) to the order of the elements, 4 b + k: four vectors of eight.
inline void by_counter(const __m256i w[4], __m256i out[4]) {
  const __m256i a = _mm256_unpacklo_epi32(w[0], w[1]), b = _mm256_unpackhi_epi32(w[0], w[1]);
  const __m256i c = _mm256_unpacklo_epi32(w[2], w[3]), d = _mm256_unpackhi_epi32(w[2], w[3]);
  const __m256i r0 = _mm256_unpacklo_epi64(a, c), r1 = _mm256_unpackhi_epi64(a, c);  // counters 0 and 4, 1 and 5
  const __m256i r2 = _mm256_unpacklo_epi64(b, d), r3 = _mm256_unpackhi_epi64(b, d);  // 2 and 6, 3 and 7
  out[0] = _mm256_permute2x128_si256(r0, r1, 0x20);
  out[1] = _mm256_permute2x128_si256(r2, r3, 0x20);
  out[2] = _mm256_permute2x128_si256(r0, r1, 0x31);
  out[3] = _mm256_permute2x128_si256(r2, r3, 0x31);
}

}  // namespace

void dropout(int64_t n, const float* x, double ratio, uint64_t seed, uint64_t stream, uint64_t step, float* out) {
  const uint64_t key = dropout_key(seed, stream, step);
  const auto threshold = static_cast<uint32_t>(ratio * 4294967296.0);  // below: dropped
  const F8 factor = all(static_cast<float>(1.0 / (1.0 - ratio)));
  // Unsigned comparison: both sides moved by 2^31.
  const __m256i flip = _mm256_set1_epi32(INT32_MIN);
  const __m256i limit = _mm256_xor_si256(_mm256_set1_epi32(static_cast<int>(threshold)), flip);
  constexpr int64_t kGroup = 32;  // elements of eight counters
  parallel_for((n + kGroup - 1) / kGroup, 1 << 9, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      __m256i words[4], draws[4];
      philox8(key, stream, static_cast<uint64_t>(g * 8), words);
      by_counter(words, draws);
      for (int64_t v = 0; v < 4; ++v) {
        const int64_t i = g * kGroup + v * kWidth, left = n - i;
        if (left <= 0) break;
        const F8 dropped = _mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, _mm256_xor_si256(draws[v], flip)));
        if (left >= kWidth) store(out + i, _mm256_andnot_ps(dropped, load(x + i) * factor));
        else store(out + i, _mm256_andnot_ps(dropped, load(x + i, left) * factor), left);
      }
    }
  });
}

}  // namespace ds::kernels::avx2
