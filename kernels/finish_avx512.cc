#include "kernels/finish_avx512.h"

namespace ds::kernels {
namespace {

// A panel of 16 columns of every row, its bias in a register.
template <Activation kActivation>
void finish_panel(const Finish& f, int64_t at, int64_t rows, __mmask16 mask, __m512 bias, const float* sums, int64_t stride) {
  Epilogue e = f.epilogue;
  e.activation = kActivation;  // so that the switch is gone from the loop
  float* y = static_cast<float*>(f.y) + at;
  const float* addend = f.addend != nullptr ? static_cast<const float*>(f.addend) + at : nullptr;
  for (int64_t r = 0; r < rows; ++r, sums += stride, y += f.channels) {
    __m512 v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, sums), bias);
    if (addend != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, addend + r * f.channels));
    _mm512_mask_storeu_ps(y, mask, activated(v, e));
  }
}

}  // namespace

void finish_avx512(const Finish& f, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums, int64_t stride) {
  const Activation a = f.epilogue.activation;
  if (f.bf16 || !is_simple(a)) return finish_avx2(f, row, rows, column, columns, sums, stride);
  for (int64_t i = 0; i < columns; i += 16) {
    const auto mask = static_cast<__mmask16>(columns - i >= 16 ? 0xffff : (1u << (columns - i)) - 1);
    const __m512 bias = f.bias != nullptr ? _mm512_maskz_loadu_ps(mask, f.bias + column + i) : _mm512_setzero_ps();
    const int64_t at = row * f.channels + column + i;
    switch (a) {
      case Activation::kRelu: finish_panel<Activation::kRelu>(f, at, rows, mask, bias, sums + i, stride); break;
      case Activation::kClip: finish_panel<Activation::kClip>(f, at, rows, mask, bias, sums + i, stride); break;
      case Activation::kHardSwish: finish_panel<Activation::kHardSwish>(f, at, rows, mask, bias, sums + i, stride); break;
      default: finish_panel<Activation::kNone>(f, at, rows, mask, bias, sums + i, stride); break;
    }
  }
}

}  // namespace ds::kernels
