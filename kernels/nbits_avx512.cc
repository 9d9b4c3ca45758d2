// AVX-512 parts of nbits_panels.h. Raw loops only: no library code may be compiled for AVX-512 and leak out.
#include <immintrin.h>

#include "kernels/nbits_panels.h"

namespace ds::kernels {
namespace {

// How far ahead of the values in use weights are fetched: pages end the prefetcher's runs, and one core alone has to
// keep many lines under way to use the memory.
constexpr int64_t kAhead = 2048;

// Takes the values of 16 columns out of groups. The lower half of a group lies in the mantissa as it is, the upper
// half after a shift.
template <int kBits>
class Fields {
 public:
  static constexpr int kValues = 32 / kBits, kHalf = 16 / kBits;

  __attribute__((always_inline)) explicit Fields(__m512 zero) {
#pragma GCC unroll 8
    for (int j = 0; j < kHalf; ++j) origin_[j] = _mm512_add_ps(_mm512_castsi512_ps(magic(j)), zero);
  }

  // q - zero of value j; `half` is the group, shifted for the upper half of the values.
  __attribute__((always_inline)) __m512 value(__m512i half, int j) const {
    const int f = j % kHalf;
    const __m512i mask = _mm512_set1_epi32(((1 << kBits) - 1) << (kBits * f));
    return _mm512_sub_ps(_mm512_castsi512_ps(_mm512_ternarylogic_epi32(half, mask, magic(f), 0xea)), origin_[f]);  // (half & mask) | magic
  }

 private:
  static __attribute__((always_inline)) __m512i magic(int f) { return _mm512_set1_epi32((127 + 23 - kBits * f) << 23); }
  __m512 origin_[kHalf];
};

// The same one by one, for the last group of a block.
template <int kBits>
__attribute__((always_inline)) inline __m512 single(__m512i group, int64_t j, __m512 zero) {
  const __m512i shifted = _mm512_srl_epi32(group, _mm_cvtsi64_si128(j * kBits));
  return _mm512_sub_ps(_mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32((1 << kBits) - 1))), zero);
}

template <int kBits>
__attribute__((always_inline)) inline __m512 zero_of(const NBitsPanel& p, int64_t b) {
  if (p.zero == nullptr) return _mm512_set1_ps(1 << (kBits - 1));
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p.zero + b * kPanelColumns))));
}

template <int kBits, int kRows>
void dots_of(const NBitsPanel& p, const float* x, int64_t x_stride, float (*sums)[kPanelColumns]) {
  constexpr int kValues = Fields<kBits>::kValues;
  constexpr int kChains = kRows == 1 ? 4 : kRows <= 4 ? 2 : 1;  // sums side by side hide the latency of the additions
  const std::byte* w = p.data;
  __m512 total[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) total[r] = _mm512_setzero_ps();
  int64_t b = 0;
  for (int64_t k = 0; k < p.depth; k += p.block, ++b) {
    const int64_t n = p.depth - k < p.block ? p.depth - k : p.block;
    const __m512 zero = zero_of<kBits>(p, b);
    const Fields<kBits> fields(zero);
    __m512 acc[kRows][kChains];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < kChains; ++c) acc[r][c] = _mm512_setzero_ps();
    const float* a = x + k;
    int64_t i = 0;
    for (; i + kValues <= n; i += kValues, w += kPanelRowBytes) {
      _mm_prefetch(w + kAhead, _MM_HINT_T0);
      const __m512i low = _mm512_loadu_si512(w), high = _mm512_srli_epi32(low, 16);
#pragma GCC unroll 16
      for (int j = 0; j < kValues; ++j) {
        const __m512 q = fields.value(j < kValues / 2 ? low : high, j);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) acc[r][j % kChains] = _mm512_fmadd_ps(q, _mm512_set1_ps(a[r * x_stride + i + j]), acc[r][j % kChains]);
      }
    }
    if (i < n) {
      const __m512i group = _mm512_loadu_si512(w);
      w += kPanelRowBytes;
      for (int64_t j = 0; i + j < n; ++j) {
        const __m512 q = single<kBits>(group, j, zero);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) acc[r][0] = _mm512_fmadd_ps(q, _mm512_set1_ps(a[r * x_stride + i + j]), acc[r][0]);
      }
    }
    const __m512 scale = _mm512_loadu_ps(p.scale + b * kPanelColumns);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      __m512 sum = acc[r][0];
#pragma GCC unroll 4
      for (int c = 1; c < kChains; ++c) sum = _mm512_add_ps(sum, acc[r][c]);
      total[r] = _mm512_fmadd_ps(sum, scale, total[r]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(sums[r], total[r]);
}

template <int kBits>
void dots_rows(const NBitsPanel& p, int64_t rows, const float* x, int64_t x_stride, float (*sums)[kPanelColumns]) {
  using Dots = void (*)(const NBitsPanel&, const float*, int64_t, float (*)[kPanelColumns]);
  static constexpr Dots kTable[kNBitsRows] = {dots_of<kBits, 1>, dots_of<kBits, 2>, dots_of<kBits, 3>, dots_of<kBits, 4>,
                                              dots_of<kBits, 5>, dots_of<kBits, 6>, dots_of<kBits, 7>, dots_of<kBits, 8>};
  kTable[rows - 1](p, x, x_stride, sums);
}

void dots(const NBitsPanel& p, int64_t rows, const float* x, int64_t x_stride, float (*sums)[kPanelColumns]) {
  if (p.bits == 4) dots_rows<4>(p, rows, x, x_stride, sums);
  else if (p.bits == 8) dots_rows<8>(p, rows, x, x_stride, sums);
  else dots_rows<2>(p, rows, x, x_stride, sums);
}

template <int kBits>
void unpack_bits(const NBitsPanel& p, int64_t k0, int64_t k1, float* out) {
  constexpr int kValues = Fields<kBits>::kValues;
  const int64_t block_groups = (p.block + kValues - 1) / kValues;
  for (int64_t k = k0; k < k1;) {
    const int64_t b = k / p.block, first = k - b * p.block, end = (b + 1) * p.block < k1 ? (b + 1) * p.block : k1;
    const std::byte* w = p.data + (b * block_groups + first / kValues) * kPanelRowBytes;
    const __m512 zero = zero_of<kBits>(p, b), scale = _mm512_loadu_ps(p.scale + b * kPanelColumns);
    const Fields<kBits> fields(zero);
    for (; k + kValues <= end; k += kValues, w += kPanelRowBytes, out += kValues * kPanelColumns) {
      const __m512i low = _mm512_loadu_si512(w), high = _mm512_srli_epi32(low, 16);
#pragma GCC unroll 16
      for (int j = 0; j < kValues; ++j)
        _mm512_storeu_ps(out + j * kPanelColumns, _mm512_mul_ps(fields.value(j < kValues / 2 ? low : high, j), scale));
    }
    if (k == end) continue;
    const __m512i group = _mm512_loadu_si512(w);
    for (int64_t j = 0; k < end; ++k, ++j, out += kPanelColumns) _mm512_storeu_ps(out, _mm512_mul_ps(single<kBits>(group, j, zero), scale));
  }
}

void unpack(const NBitsPanel& p, int64_t k0, int64_t k1, float* out) {
  if (p.bits == 4) unpack_bits<4>(p, k0, k1, out);
  else if (p.bits == 8) unpack_bits<8>(p, k0, k1, out);
  else unpack_bits<2>(p, k0, k1, out);
}

template <int kBits, int kRows>
void rounded_of(const NBitsPanel& p, const NBitsRounded& x, float (*sums)[kPanelColumns]) {
  constexpr int kValues = 32 / kBits, kPlanes = 8 / kBits, kChains = kRows <= 4 ? 2 : 1;
  const std::byte* w = p.data;
  const int8_t* a = x.values;
  __m512 total[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) total[r] = _mm512_setzero_ps();
  int64_t b = 0;
  for (int64_t k = 0; k < p.depth; k += p.block, ++b) {
    const int64_t n = p.depth - k < p.block ? p.depth - k : p.block, groups = (n + kValues - 1) / kValues;
    __m512i acc[kRows][kChains];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
      for (int c = 0; c < kChains; ++c) acc[r][c] = _mm512_setzero_si512();
    const auto step = [&](int chain) __attribute__((always_inline)) {
      _mm_prefetch(w + kAhead, _MM_HINT_T0);
      const __m512i group = _mm512_loadu_si512(w);
#pragma GCC unroll 4
      for (int plane = 0; plane < kPlanes; ++plane) {
        __m512i q = plane == 0 ? group : _mm512_srli_epi32(group, static_cast<unsigned>(kBits * plane));
        if constexpr (kBits < 8) q = _mm512_and_si512(q, _mm512_set1_epi8(kBits == 4 ? 0x0f : 0x03));
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          int32_t four;
          __builtin_memcpy(&four, a + r * x.row_values + plane * 4, 4);
          acc[r][chain] = _mm512_dpbusd_epi32(acc[r][chain], q, _mm512_set1_epi32(four));
        }
      }
      w += kPanelRowBytes;
      a += kValues;
    };
    int64_t g = 0;
    for (; g + kChains <= groups; g += kChains) {
#pragma GCC unroll 2
      for (int c = 0; c < kChains; ++c) step(c);
    }
    if (g < groups) step(0);
    const __m512 scale = _mm512_loadu_ps(p.scale + b * kPanelColumns), zero = zero_of<kBits>(p, b);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      __m512i sum = acc[r][0];
      if constexpr (kChains == 2) sum = _mm512_add_epi32(sum, acc[r][1]);
      const __m512 real = _mm512_fnmadd_ps(zero, _mm512_set1_ps(x.sum[r * x.blocks + b]), _mm512_cvtepi32_ps(sum));
      total[r] = _mm512_fmadd_ps(real, _mm512_mul_ps(scale, _mm512_set1_ps(x.scale[r * x.blocks + b])), total[r]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(sums[r], total[r]);
}

template <int kBits>
void rounded_rows(const NBitsPanel& p, int64_t rows, const NBitsRounded& x, float (*sums)[kPanelColumns]) {
  using Dots = void (*)(const NBitsPanel&, const NBitsRounded&, float (*)[kPanelColumns]);
  static constexpr Dots kTable[kNBitsRows] = {rounded_of<kBits, 1>, rounded_of<kBits, 2>, rounded_of<kBits, 3>, rounded_of<kBits, 4>,
                                              rounded_of<kBits, 5>, rounded_of<kBits, 6>, rounded_of<kBits, 7>, rounded_of<kBits, 8>};
  kTable[rows - 1](p, x, sums);
}

void rounded_dots(const NBitsPanel& p, int64_t rows, const NBitsRounded& x, float (*sums)[kPanelColumns]) {
  if (p.bits == 4) rounded_rows<4>(p, rows, x, sums);
  else if (p.bits == 8) rounded_rows<8>(p, rows, x, sums);
  else rounded_rows<2>(p, rows, x, sums);
}

float round(int64_t n, const float* x, int8_t* q) {
  const auto mask_at = [&](int64_t i) { return static_cast<__mmask16>(n - i >= 16 ? 0xffff : (1u << (n - i)) - 1); };
  __m512 most = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 16) most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_maskz_loadu_ps(mask_at(i), x + i)));
  float lanes[16], largest = 0;
  _mm512_storeu_ps(lanes, most);
  for (float lane : lanes) largest = lane > largest ? lane : largest;
  const __m512 factor = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
  for (int64_t i = 0; i < n; i += 16) {
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask_at(i), x + i), factor));
    _mm512_mask_cvtsepi32_storeu_epi8(q + i, mask_at(i), rounded);
  }
  return largest / 127.0f;
}

}  // namespace

const NBitsPanelIsa& avx512_nbits() {
  static constexpr NBitsPanelIsa isa = {dots, unpack, rounded_dots, round};
  return isa;
}

}  // namespace ds::kernels
