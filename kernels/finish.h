// What becomes of a finished block of f32 sums (kernels/packed_product.h): y = scale * activation(sum + bias + addend) + shift.
//
// Legend: sums [rows, columns], `stride` elements from row to row; y and addend [pixels, channels], row-major, f32 or
// bf16 (rounded to nearest even). addend may be y itself.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/epilogue.h"

namespace ds::kernels {

struct Finish {
  Epilogue epilogue;             // `add` is ignored: the addend says it
  const float* bias = nullptr;   // [channels]
  const void* addend = nullptr;
  void* y = nullptr;
  int64_t channels = 0;
  bool y_bf16 = false, addend_bf16 = false;
};

// The activations that need no exponential: small enough to stand in any loop.
constexpr bool is_simple(Activation a) {
  return a == Activation::kNone || a == Activation::kRelu || a == Activation::kClip || a == Activation::kHardSwish;
}

// The block at (row, column) of y.
using FinishFn = void(const Finish& f, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums, int64_t stride);
FinishFn finish_avx2;
FinishFn finish_avx512;  // call only where the CPU has AVX-512

}  // namespace ds::kernels
