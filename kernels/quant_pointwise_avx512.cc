// AVX-512 parts of quant_pointwise.h. Raw loops only: no library code may be compiled for AVX-512 and leak out.
#include <immintrin.h>

#include "kernels/quant_pointwise.h"

namespace ds::kernels {
namespace {

inline __mmask16 first(int64_t n) { return static_cast<__mmask16>(n >= 16 ? 0xffff : (1u << n) - 1); }

// Stored values to reals, sixteen at a time. Signed ones are read as unsigned ones that lie 128 higher.
class Reader {
 public:
  explicit Reader(const QBytesType& p)
      : flip_(_mm_set1_epi8(p.is_signed ? -128 : 0)), zero_(_mm512_set1_epi32(p.params.zero + (p.is_signed ? 128 : 0))), scale_(_mm512_set1_ps(p.params.scale)) {}
  __m512 some(const uint8_t* x, __mmask16 mask) const { return real(_mm_maskz_loadu_epi8(mask, x)); }
  __m512 all(uint8_t x) const { return real(_mm_set1_epi8(static_cast<char>(x))); }

 private:
  __m512 real(__m128i bytes) const {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(_mm_xor_si128(bytes, flip_)), zero_)), scale_);
  }
  __m128i flip_;
  __m512i zero_;
  __m512 scale_;
};

// Reals to stored values. Divides by a product with the reciprocal and a correction, which rounds as division does
// (Markstein, "Computation of elementary functions on the IBM RISC System/6000", 1990), in a quarter of its time. Infinity
// must not meet its like, so that the quotient is bounded on the way as well; max gives its second operand for NaN, the least value.
template <bool kReciprocal>
class Writer {
 public:
  explicit Writer(const QBytesType& p)
      : scale_(_mm512_set1_ps(p.params.scale)),
        inverse_(_mm512_set1_ps(1.0f / p.params.scale)),
        lo_(_mm512_set1_ps(static_cast<float>(p.lo - p.params.zero))),
        hi_(_mm512_set1_ps(static_cast<float>(p.hi - p.params.zero))),
        zero_(_mm512_set1_epi32(p.params.zero)) {}
  void some(__m512 v, uint8_t* y, __mmask16 mask) const {
    __m512 f;
    if constexpr (kReciprocal) {
      // Bounds one wider than the result's: a quotient that is cut off here must not be corrected back into them.
      const __m512 near = _mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(v, inverse_), _mm512_sub_ps(lo_, _mm512_set1_ps(1))), _mm512_add_ps(hi_, _mm512_set1_ps(1)));
      f = _mm512_fmadd_ps(_mm512_fnmadd_ps(near, scale_, v), inverse_, near);
    } else {
      f = _mm512_div_ps(v, scale_);
    }
    f = _mm512_min_ps(_mm512_max_ps(f, lo_), hi_);
    _mm_mask_storeu_epi8(y, mask, _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(f), zero_)));  // the low byte, signed or not
  }

 private:
  __m512 scale_, inverse_, lo_, hi_;
  __m512i zero_;
};

// Where a reciprocal is a number to reckon with.
bool has_reciprocal(float scale) { return scale > 1e-30f && scale < 1e30f; }

template <bool kReciprocal>
void affine(int64_t rows, int64_t n, const uint8_t* x, const QBytesType& px, const float* scale, const float* shift, const QBytesType& py, uint8_t* y) {
  const Reader read(px);
  const Writer<kReciprocal> write(py);
  int64_t c = 0;
  for (; c + 32 <= n; c += 32) {
    const __m512 a[2] = {_mm512_loadu_ps(scale + c), _mm512_loadu_ps(scale + c + 16)}, b[2] = {_mm512_loadu_ps(shift + c), _mm512_loadu_ps(shift + c + 16)};
    for (int64_t at = c; at < rows * n; at += n)
      for (int k = 0; k < 2; ++k) write.some(_mm512_add_ps(_mm512_mul_ps(read.some(x + at + 16 * k, 0xffff), a[k]), b[k]), y + at + 16 * k, 0xffff);
  }
  for (; c < n; c += 16) {
    const __mmask16 mask = first(n - c);
    const __m512 a = _mm512_maskz_loadu_ps(mask, scale + c), b = _mm512_maskz_loadu_ps(mask, shift + c);
    for (int64_t at = c; at < rows * n; at += n) write.some(_mm512_add_ps(_mm512_mul_ps(read.some(x + at, mask), a), b), y + at, mask);
  }
}

template <QBinaryOp kOp>
inline __m512 applied(__m512 a, __m512 b) {
  switch (kOp) {
    case QBinaryOp::kAdd: return _mm512_add_ps(a, b);
    case QBinaryOp::kSub: return _mm512_sub_ps(a, b);
    case QBinaryOp::kMul: return _mm512_mul_ps(a, b);
    default: return _mm512_div_ps(a, b);
  }
}

template <QBinaryOp kOp, bool kReciprocal>
void binary(const QBinaryRows& lines, const QBytesType& pa, const QBytesType& pb, const QBytesType& py) {
  const Reader read_a(pa), read_b(pb);
  const Writer<kReciprocal> write(py);
  const bool a_varies = lines.a_step != 0, b_varies = lines.b_step != 0;
  for (int64_t r = 0; r < lines.rows; ++r) {
    const uint8_t *a = lines.a + r * lines.a_row, *b = lines.b + r * lines.b_row;
    uint8_t* y = lines.y + r * lines.n;
    const __m512 all_a = read_a.all(*a), all_b = read_b.all(*b);
    for (int64_t i = 0; i < lines.n; i += 16) {
      const __mmask16 mask = first(lines.n - i);
      write.some(applied<kOp>(a_varies ? read_a.some(a + i, mask) : all_a, b_varies ? read_b.some(b + i, mask) : all_b), y + i, mask);
    }
  }
}

template <QBinaryOp kOp>
void binary_by(const QBinaryRows& lines, const QBytesType& pa, const QBytesType& pb, const QBytesType& py) {
  has_reciprocal(py.params.scale) ? binary<kOp, true>(lines, pa, pb, py) : binary<kOp, false>(lines, pa, pb, py);
}

}  // namespace

void quant_affine_avx512(int64_t rows, int64_t n, const uint8_t* x, const QBytesType& px, const float* scale, const float* shift,
                         const QBytesType& py, uint8_t* y) {
  has_reciprocal(py.params.scale) ? affine<true>(rows, n, x, px, scale, shift, py, y) : affine<false>(rows, n, x, px, scale, shift, py, y);
}

void quant_binary_avx512(const QBinaryRows& lines, const QBytesType& pa, const QBytesType& pb, const QBytesType& py) {
  switch (lines.op) {
    case QBinaryOp::kAdd: return binary_by<QBinaryOp::kAdd>(lines, pa, pb, py);
    case QBinaryOp::kSub: return binary_by<QBinaryOp::kSub>(lines, pa, pb, py);
    case QBinaryOp::kMul: return binary_by<QBinaryOp::kMul>(lines, pa, pb, py);
    case QBinaryOp::kDiv: return binary_by<QBinaryOp::kDiv>(lines, pa, pb, py);
  }
}

// A table of 256 bytes is four registers.
__attribute__((target("avx512vbmi"))) void byte_table_avx512(int64_t n, const uint8_t* x, const uint8_t* table, uint8_t* y) {
  const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64), t2 = _mm512_loadu_si512(table + 128),
                t3 = _mm512_loadu_si512(table + 192);
  for (int64_t i = 0; i < n; i += 64) {
    const __mmask64 mask = n - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (n - i)) - 1;
    const __m512i v = _mm512_maskz_loadu_epi8(mask, x + i);
    const __m512i low = _mm512_permutex2var_epi8(t0, v, t1), high = _mm512_permutex2var_epi8(t2, v, t3);
    _mm512_mask_storeu_epi8(y + i, mask, _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), low, high));
  }
}

}  // namespace ds::kernels
