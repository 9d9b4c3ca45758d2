// f32 from and to 16-bit floats, many at a time; the values of libds/base/half.h (a signalling NaN may become quiet).
// Threads: parallel_for.
#pragma once

#include <cstdint>

#include "libds/base/half.h"

namespace ds::kernels {

void widen_avx2(int64_t n, const f16* x, float* y);
void widen_avx2(int64_t n, const bf16* x, float* y);
void narrow_avx2(int64_t n, const float* x, f16* y);
void narrow_avx2(int64_t n, const float* x, bf16* y);

}  // namespace ds::kernels
