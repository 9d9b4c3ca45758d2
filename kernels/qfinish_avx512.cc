// Sums of 8-bit products to floats, through an epilogue, and on to floats or bytes (QRescale::real): sixteen at a time.
#include "kernels/finish_avx512.h"
#include "kernels/qgemm.h"

namespace ds::kernels {
namespace {

struct Panel {
  int64_t rows;
  __mmask16 mask;
  const int32_t* sums;
  int64_t stride;
  const QRescale& q;
  char* out;
  int64_t out_stride;
};

// Sixteen channels or fewer of every row after the other: everything that depends on the channel stays in registers.
template <bool kBytes, Activation kActivation>
void finish_panel(const Panel& p) {
  const QRescale& q = p.q;
  const Epilogue e = q.real ? q.epilogue : Epilogue{};
  const __m512i bias = q.bias != nullptr ? _mm512_maskz_loadu_epi32(p.mask, q.bias) : _mm512_setzero_si512(), zero = _mm512_set1_epi32(q.zero);
  const bool shifts = q.float_bias != nullptr;
  const F16 multiplier = _mm512_maskz_loadu_ps(p.mask, q.multiplier), shift = shifts ? _mm512_maskz_loadu_ps(p.mask, q.float_bias) : all16(0.0f);
  const F16 lo = all16(static_cast<float>(q.lo - q.zero)), hi = all16(static_cast<float>(q.hi - q.zero)), inverse = all16(q.inverse_scale);
  const auto* addend = static_cast<const float*>(q.addend);
  const int32_t* sums = p.sums;
  char* out = p.out;
  for (int64_t r = 0; r < p.rows; ++r, sums += p.stride, out += p.out_stride) {
    F16 v = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_maskz_loadu_epi32(p.mask, sums), bias)), multiplier);
    if (shifts) v = _mm512_add_ps(v, shift);  // two roundings, as elsewhere
    if (addend != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(p.mask, addend + r * q.addend_stride));
    v = activated_by<kActivation>(v, e);
    if constexpr (kBytes) {
      const __m512i y = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(v, inverse), lo), hi));
      _mm512_mask_cvtepi32_storeu_epi8(out, p.mask, _mm512_add_epi32(y, zero));
    } else {
      _mm512_mask_storeu_ps(out, p.mask, v);
    }
  }
}

template <bool kBytes>
void finish_by(Activation activation, const Panel& p) {
  using A = Activation;
  switch (activation) {
    case A::kNone: return finish_panel<kBytes, A::kNone>(p);
    case A::kRelu: return finish_panel<kBytes, A::kRelu>(p);
    case A::kClip: return finish_panel<kBytes, A::kClip>(p);
    case A::kSigmoid: return finish_panel<kBytes, A::kSigmoid>(p);
    case A::kHardSwish: return finish_panel<kBytes, A::kHardSwish>(p);
    case A::kSilu: return finish_panel<kBytes, A::kSilu>(p);
    case A::kGelu: return finish_panel<kBytes, A::kGelu>(p);
    case A::kGeluTanh: return finish_panel<kBytes, A::kGeluTanh>(p);
    case A::kTanh: return finish_panel<kBytes, A::kTanh>(p);
  }
}

}  // namespace

void qrescale_real_avx512(int64_t rows, int64_t n, const int32_t* sums, int64_t stride, const QRescale& q, void* out, int64_t out_stride) {
  const Activation activation = q.real ? q.epilogue.activation : q.relu ? Activation::kRelu : Activation::kNone;
  const bool floats = q.output == QOutput::kF32;
  for (int64_t c = 0; c < n; c += 16) {
    const auto mask = static_cast<__mmask16>(n - c >= 16 ? 0xffff : (1u << (n - c)) - 1);
    const QRescale part = at_block(q, 0, c);
    const Panel panel = {rows, mask, sums + c, stride, part, static_cast<char*>(out) + c * (floats ? 4 : 1), out_stride};
    floats ? finish_by<false>(activation, panel) : finish_by<true>(activation, panel);
  }
}

}  // namespace ds::kernels
