// What becomes of a finished block of f32 sums (kernels/packed_product.h): y = scale * activation(sum * column_scale + bias + addend)
// + shift.
//
// Legend: sums [rows, columns], `stride` elements from row to row; y and addend [pixels, channels], row-major, f32, bf16 or
// f16 (rounded to nearest even, f16 with saturation: libds/base/half.h). addend may be y itself.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/epilogue.h"
#include "libds/base/half.h"  // of it only the constant

namespace ds::kernels {

enum class StoredType { kF32, kBf16, kF16 };

struct Finish {
  Epilogue epilogue;             // `add` is ignored: the addend says it
  const float* column_scale = nullptr;  // [channels]; null: 1
  const float* bias = nullptr;          // [channels]
  const void* addend = nullptr;
  void* y = nullptr;
  int64_t channels = 0;
  StoredType y_type = StoredType::kF32, addend_type = StoredType::kF32;
  bool* beyond = nullptr;  // set (atomically) where a result saturates; by finish_avx512
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
