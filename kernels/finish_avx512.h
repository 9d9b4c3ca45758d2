// Sixteen sums at a time through an epilogue, for *_avx512.cc files only: internal linkage, raw loops.
#pragma once

#include <immintrin.h>

#include "kernels/finish.h"

namespace ds::kernels {
namespace {

inline __m512 at_least(__m512 x, float bound) { return _mm512_max_ps(_mm512_set1_ps(bound), x); }  // NaN passes
inline __m512 at_most(__m512 x, float bound) { return _mm512_min_ps(_mm512_set1_ps(bound), x); }

// The activations that need no exponential; the others are left to finish_avx2().
inline bool is_simple(Activation a) {
  return a == Activation::kNone || a == Activation::kRelu || a == Activation::kClip || a == Activation::kHardSwish;
}

inline __m512 activated(__m512 v, const Epilogue& e) {
  switch (e.activation) {
    case Activation::kRelu: v = at_least(v, 0.0f); break;
    case Activation::kClip: v = at_most(at_least(v, e.low), e.high); break;
    case Activation::kHardSwish:
      v = _mm512_mul_ps(v, at_most(at_least(_mm512_fmadd_ps(v, _mm512_set1_ps(1.0f / 6), _mm512_set1_ps(0.5f)), 0.0f), 1.0f));
      break;
    default: break;
  }
  const bool affine = e.scale != 1.0f || e.shift != 0.0f;
  return affine ? _mm512_fmadd_ps(v, _mm512_set1_ps(e.scale), _mm512_set1_ps(e.shift)) : v;
}

}  // namespace
}  // namespace ds::kernels
