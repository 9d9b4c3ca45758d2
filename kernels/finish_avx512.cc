#include "kernels/finish_avx512.h"

namespace ds::kernels {
namespace {

struct Floats {
  using T = float;
  static __m512 get(const T* p, __mmask16 m) { return _mm512_maskz_loadu_ps(m, p); }
  static bool put(T* p, __m512 v, __mmask16 m) {
    _mm512_mask_storeu_ps(p, m, v);
    return false;
  }
};

struct Bf16s {
  using T = uint16_t;
  static __m512 get(const T* p, __mmask16 m) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)), 16));
  }
  // As libds/base/half.h does it.
  static bool put(T* p, __m512 v, __mmask16 m) {
    const __m512i u = _mm512_castps_si512(v), high = _mm512_srli_epi32(u, 16);
    __m512i r = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), _mm512_and_si512(high, _mm512_set1_epi32(1)));
    r = _mm512_mask_or_epi32(_mm512_srli_epi32(r, 16), _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), high, _mm512_set1_epi32(0x40));
    _mm512_mask_cvtepi32_storeu_epi16(p, m, r);
    return false;
  }
};

struct F16s {
  using T = uint16_t;
  static __m512 get(const T* p, __mmask16 m) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p)); }
  // Whether anything saturated.
  static bool put(T* p, __m512 given, __mmask16 m) {
    const __m512 v = at_most(at_least(given, -kLargestF16), kLargestF16);
    _mm256_mask_storeu_epi16(p, m, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    return _mm512_mask_cmp_ps_mask(m, v, given, _CMP_NEQ_OQ) != 0;
  }
};

// A panel of 16 columns of every row after the other, its bias and scale in registers.
template <typename Element, typename Addend, Activation kActivation>
void finish_rows(const Finish& f, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums, int64_t stride) {
  const Epilogue e = f.epilogue;
  bool beyond = false;
  for (int64_t c = 0; c < columns; c += 16) {
    const auto mask = static_cast<__mmask16>(columns - c >= 16 ? 0xffff : (1u << (columns - c)) - 1);
    const __m512 scale = f.column_scale != nullptr ? _mm512_maskz_loadu_ps(mask, f.column_scale + column + c) : all16(1.0f);
    const __m512 bias = f.bias != nullptr ? _mm512_maskz_loadu_ps(mask, f.bias + column + c) : _mm512_setzero_ps();
    const int64_t at = row * f.channels + column + c;
    auto* y = static_cast<typename Element::T*>(f.y) + at;
    const auto* addend = f.addend != nullptr ? static_cast<const typename Addend::T*>(f.addend) + at : nullptr;
    const float* from = sums + c;
    for (int64_t r = 0; r < rows; ++r, from += stride, y += f.channels) {
      __m512 v = fma(_mm512_maskz_loadu_ps(mask, from), scale, bias);
      if (addend != nullptr) v = _mm512_add_ps(v, Addend::get(addend + r * f.channels, mask));
      beyond |= Element::put(y, activated_by<kActivation>(v, e), mask);
    }
  }
  if (beyond && f.beyond != nullptr) __atomic_store_n(f.beyond, true, __ATOMIC_RELAXED);
}

template <typename Element, typename Addend>
void finish_as(const Finish& f, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums, int64_t stride) {
  using A = Activation;
  const auto with = [&](auto function) { function(f, row, rows, column, columns, sums, stride); };
  switch (f.epilogue.activation) {
    case A::kNone: return with(finish_rows<Element, Addend, A::kNone>);
    case A::kRelu: return with(finish_rows<Element, Addend, A::kRelu>);
    case A::kClip: return with(finish_rows<Element, Addend, A::kClip>);
    case A::kHardSwish: return with(finish_rows<Element, Addend, A::kHardSwish>);
    case A::kSigmoid: return with(finish_rows<Element, Addend, A::kSigmoid>);
    case A::kSilu: return with(finish_rows<Element, Addend, A::kSilu>);
    case A::kGelu: return with(finish_rows<Element, Addend, A::kGelu>);
    case A::kGeluTanh: return with(finish_rows<Element, Addend, A::kGeluTanh>);
    case A::kTanh: return with(finish_rows<Element, Addend, A::kTanh>);
  }
}

}  // namespace

void finish_avx512(const Finish& f, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums, int64_t stride) {
  const auto with = [&](auto function) { function(f, row, rows, column, columns, sums, stride); };
  using S = StoredType;  // the two types of 16 bits do not meet
  if (f.y_type == S::kF16) return f.addend_type == S::kF16 ? with(finish_as<F16s, F16s>) : with(finish_as<F16s, Floats>);
  if (f.y_type == S::kBf16) return f.addend_type == S::kBf16 ? with(finish_as<Bf16s, Bf16s>) : with(finish_as<Bf16s, Floats>);
  if (f.addend_type == S::kF16) return with(finish_as<Floats, F16s>);
  f.addend_type == S::kBf16 ? with(finish_as<Floats, Bf16s>) : with(finish_as<Floats, Floats>);
}

}  // namespace ds::kernels
