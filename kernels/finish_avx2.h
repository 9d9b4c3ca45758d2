// Eight sums at a time through an activation, for *_avx2.cc files only: internal linkage, raw loops.
#pragma once

#include "kernels/finish.h"
#include "kernels/simd_avx2.h"

namespace ds::kernels {
namespace {

template <Activation kActivation>
inline F8 activate(F8 x, const Epilogue& e) {
  if constexpr (kActivation == Activation::kRelu) return _mm256_max_ps(_mm256_setzero_ps(), x);  // NaN passes
  else if constexpr (kActivation == Activation::kClip) return at_most(at_least(x, e.low), e.high);
  else if constexpr (kActivation == Activation::kSigmoid) return sigmoid8(x);
  else if constexpr (kActivation == Activation::kHardSwish)
    return x * at_most(at_least(fma(x, all(1.0f / 6), all(0.5f)), 0.0f), 1.0f);
  else if constexpr (kActivation == Activation::kSilu) return x * sigmoid8(x);
  else if constexpr (kActivation == Activation::kGelu) return all(0.5f) * x * (all(1.0f) + erf8(x * all(0.70710678118654752440f)));
  else if constexpr (kActivation == Activation::kGeluTanh)
    return all(0.5f) * x * (all(1.0f) + tanh8(all(0.79788456080286535588f) * fma(all(0.044715f) * x * x, x, x)));
  else if constexpr (kActivation == Activation::kTanh) return tanh8(x);
  else return x;
}

// For simple activations, whichever the epilogue has.
inline F8 activated(F8 v, const Epilogue& e) {
  switch (e.activation) {
    case Activation::kRelu: v = activate<Activation::kRelu>(v, e); break;
    case Activation::kClip: v = activate<Activation::kClip>(v, e); break;
    case Activation::kHardSwish: v = activate<Activation::kHardSwish>(v, e); break;
    default: break;
  }
  const bool affine = e.scale != 1.0f || e.shift != 0.0f;
  return affine ? fma(v, all(e.scale), all(e.shift)) : v;
}

}  // namespace
}  // namespace ds::kernels
