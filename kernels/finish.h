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
  bool bf16 = false;             // y and addend
};

// The block at (row, column) of y.
void finish_avx2(const Finish& f, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums, int64_t stride);
// Call only where the CPU has AVX-512.
void finish_avx512(const Finish& f, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums, int64_t stride);

}  // namespace ds::kernels
