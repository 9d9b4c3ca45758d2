// AVX2 parts of quant_pointwise.h. Raw loops only: no library code may be compiled for AVX2 and leak out.
#include <immintrin.h>

#include "kernels/quant_pointwise.h"

namespace ds::kernels {
namespace {

// Eight stored values to reals. Signed ones are read as unsigned ones that lie 128 higher.
class Reader {
 public:
  explicit Reader(const QBytesType& p)
      : flip_(_mm_set1_epi8(p.is_signed ? -128 : 0)), zero_(_mm256_set1_epi32(p.params.zero + (p.is_signed ? 128 : 0))), scale_(_mm256_set1_ps(p.params.scale)) {}
  __m256 eight(const uint8_t* x) const { return real(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x))); }
  __m256 all(uint8_t x) const { return real(_mm_set1_epi8(static_cast<char>(x))); }

 private:
  __m256 real(__m128i bytes) const {
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_cvtepu8_epi32(_mm_xor_si128(bytes, flip_)), zero_)), scale_);
  }
  __m128i flip_;
  __m256i zero_;
  __m256 scale_;
};

// Eight reals to stored values. max gives its second operand for NaN, the least value.
class Writer {
 public:
  explicit Writer(const QBytesType& p)
      : scale_(_mm256_set1_ps(p.params.scale)),
        lo_(_mm256_set1_ps(static_cast<float>(p.lo - p.params.zero))),
        hi_(_mm256_set1_ps(static_cast<float>(p.hi - p.params.zero))),
        zero_(_mm256_set1_epi32(p.params.zero)) {}
  void eight(__m256 v, uint8_t* y) const {
    const __m256 f = _mm256_min_ps(_mm256_max_ps(_mm256_div_ps(v, scale_), lo_), hi_);
    // The low byte of each is the result, signed or not.
    const __m256i stored = _mm256_add_epi32(_mm256_cvtps_epi32(f), zero_);
    const __m256i low = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i bytes = _mm256_shuffle_epi8(stored, low);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(y), _mm_or_si128(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
  }

 private:
  __m256 scale_, lo_, hi_;
  __m256i zero_;
};

template <QBinaryOp kOp>
inline __m256 applied(__m256 a, __m256 b) {
  switch (kOp) {
    case QBinaryOp::kAdd: return _mm256_add_ps(a, b);
    case QBinaryOp::kSub: return _mm256_sub_ps(a, b);
    case QBinaryOp::kMul: return _mm256_mul_ps(a, b);
    default: return _mm256_div_ps(a, b);
  }
}

template <QBinaryOp kOp>
void binary(const QBinaryRows& lines, const QBytesType& pa, const QBytesType& pb, const QBytesType& py) {
  const Reader read_a(pa), read_b(pb);
  const Writer write(py);
  const bool a_varies = lines.a_step != 0, b_varies = lines.b_step != 0;
  const int64_t whole = lines.n & ~int64_t{7};
  const auto rest = static_cast<size_t>(lines.n - whole);
  for (int64_t r = 0; r < lines.rows; ++r) {
    const uint8_t *a = lines.a + r * lines.a_row, *b = lines.b + r * lines.b_row;
    uint8_t* y = lines.y + r * lines.n;
    const __m256 all_a = read_a.all(*a), all_b = read_b.all(*b);
    for (int64_t i = 0; i < whole; i += 8)
      write.eight(applied<kOp>(a_varies ? read_a.eight(a + i) : all_a, b_varies ? read_b.eight(b + i) : all_b), y + i);
    if (rest == 0) continue;
    uint8_t last[3][8] = {};
    if (a_varies) __builtin_memcpy(last[0], a + whole, rest);
    if (b_varies) __builtin_memcpy(last[1], b + whole, rest);
    write.eight(applied<kOp>(a_varies ? read_a.eight(last[0]) : all_a, b_varies ? read_b.eight(last[1]) : all_b), last[2]);
    __builtin_memcpy(y + whole, last[2], rest);
  }
}

}  // namespace

void quant_affine_avx2(int64_t rows, int64_t n, const uint8_t* x, const QBytesType& px, const float* scale, const float* shift,
                       const QBytesType& py, uint8_t* y) {
  const Reader read(px);
  const Writer write(py);
  int64_t c = 0;
  // Few columns at a time, so that their scales stay in registers.
  for (; c + 32 <= n; c += 32) {
    __m256 a[4], b[4];
    for (int k = 0; k < 4; ++k) {
      a[k] = _mm256_loadu_ps(scale + c + 8 * k);
      b[k] = _mm256_loadu_ps(shift + c + 8 * k);
    }
    for (int64_t at = c; at < rows * n; at += n)
      for (int k = 0; k < 4; ++k) write.eight(_mm256_add_ps(_mm256_mul_ps(read.eight(x + at + 8 * k), a[k]), b[k]), y + at + 8 * k);
  }
  for (; c + 8 <= n; c += 8) {
    const __m256 a = _mm256_loadu_ps(scale + c), b = _mm256_loadu_ps(shift + c);
    for (int64_t at = c; at < rows * n; at += n) write.eight(_mm256_add_ps(_mm256_mul_ps(read.eight(x + at), a), b), y + at);
  }
  const auto rest = static_cast<size_t>(n - c);
  if (rest == 0) return;
  float last_scale[8] = {}, last_shift[8] = {};
  __builtin_memcpy(last_scale, scale + c, rest * sizeof(float));
  __builtin_memcpy(last_shift, shift + c, rest * sizeof(float));
  const __m256 a = _mm256_loadu_ps(last_scale), b = _mm256_loadu_ps(last_shift);
  for (int64_t at = c; at < rows * n; at += n) {
    uint8_t bytes[8] = {};
    __builtin_memcpy(bytes, x + at, rest);
    write.eight(_mm256_add_ps(_mm256_mul_ps(read.eight(bytes), a), b), bytes);
    __builtin_memcpy(y + at, bytes, rest);
  }
}

void quant_binary_avx2(const QBinaryRows& lines, const QBytesType& pa, const QBytesType& pb, const QBytesType& py) {
  switch (lines.op) {
    case QBinaryOp::kAdd: return binary<QBinaryOp::kAdd>(lines, pa, pb, py);
    case QBinaryOp::kSub: return binary<QBinaryOp::kSub>(lines, pa, pb, py);
    case QBinaryOp::kMul: return binary<QBinaryOp::kMul>(lines, pa, pb, py);
    case QBinaryOp::kDiv: return binary<QBinaryOp::kDiv>(lines, pa, pb, py);
  }
}

void byte_table_avx2(int64_t n, const uint8_t* x, const uint8_t* table, uint8_t* y) {
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
    __m256i found = _mm256_setzero_si256();
    for (int k = 0; k < 16; ++k) {
      const __m256i sixteen = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * k)));
      // Indices of these sixteen keep their low half and a clear top bit, all others get the top bit, which selects zero.
      const __m256i index = _mm256_adds_epu8(_mm256_xor_si256(v, _mm256_set1_epi8(static_cast<char>(16 * k))), _mm256_set1_epi8(0x70));
      found = _mm256_or_si256(found, _mm256_shuffle_epi8(sixteen, index));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i), found);
  }
  for (; i < n; ++i) y[i] = table[x[i]];
}

}  // namespace ds::kernels
