// Sixteen sums at a time through an epilogue, for *_avx512.cc files only: internal linkage, raw loops.
#pragma once

#include "kernels/finish.h"
#include "kernels/simd_avx512.h"

namespace ds::kernels {
namespace {

inline F16 scaled(F16 v, const Epilogue& e) {
  const bool affine = e.scale != 1.0f || e.shift != 0.0f;
  return affine ? fma(v, all16(e.scale), all16(e.shift)) : v;
}

// For simple activations, whichever the epilogue has.
inline F16 activated(F16 v, const Epilogue& e) {
  switch (e.activation) {
    case Activation::kRelu: v = at_least(v, 0.0f); break;
    case Activation::kClip: v = at_most(at_least(v, e.low), e.high); break;
    case Activation::kHardSwish: v = _mm512_mul_ps(v, at_most(at_least(fma(v, all16(1.0f / 6), all16(0.5f)), 0.0f), 1.0f)); break;
    default: break;
  }
  return scaled(v, e);
}

// For one known when the loop is compiled.
template <Activation kActivation>
inline F16 activated_by(F16 v, Epilogue e) {
  if constexpr (kActivation == Activation::kSigmoid) return scaled(sigmoid16(v), e);
  else if constexpr (kActivation == Activation::kSilu) return scaled(_mm512_mul_ps(v, sigmoid16(v)), e);
  else if constexpr (kActivation == Activation::kTanh) return scaled(tanh16(v), e);
  else if constexpr (kActivation == Activation::kGelu) {
    const F16 half = _mm512_mul_ps(v, all16(0.5f)), erf = erf16(_mm512_mul_ps(v, all16(0.70710678118654752440f)));
    return scaled(_mm512_mul_ps(half, _mm512_add_ps(all16(1.0f), erf)), e);
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    const F16 cubed = _mm512_mul_ps(_mm512_mul_ps(_mm512_mul_ps(all16(0.044715f), v), v), v);
    const F16 tanh = tanh16(_mm512_mul_ps(all16(0.79788456080286535588f), _mm512_add_ps(cubed, v)));
    return scaled(_mm512_mul_ps(_mm512_mul_ps(v, all16(0.5f)), _mm512_add_ps(all16(1.0f), tanh)), e);
  } else {
    e.activation = kActivation;  // so that the switch is gone
    return activated(v, e);
  }
}

}  // namespace
}  // namespace ds::kernels
