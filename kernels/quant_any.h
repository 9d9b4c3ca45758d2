// QuantizeLinear and DequantizeLinear for every pair of types that ONNX allows: integers of 2 to 32 bits, floats
// of 4 and 8, with scales in f32, f16, bf16 or e8m0. Works through chunks of floats that stay in L1; the common
// pairs have loops of their own (quant.h).
// Threads: parallel_for; results do not depend on it.
#pragma once

#include <cstdint>

#include "kernels/quant.h"
#include "libds/base/dtype.h"

namespace ds::kernels {

// x: f32, f16, bf16 or i32. The operands are rounded to `precision` (f32, f16, bf16), and so is the quotient.
// `zero` has type y_type and may be null. `saturate`: of 8-bit floats. A NaN becomes the least integer.
void quantize_any(const QuantSpace& s, DType x_type, const void* x, DType scale_type, const void* scale, const void* zero,
                  DType precision, bool saturate, DType y_type, void* y);

// y: f32, f16 or bf16; computed in f32 and rounded once. `zero` has type x_type and may be null.
void dequantize_any(const QuantSpace& s, DType x_type, const void* x, DType scale_type, const void* scale, const void* zero,
                    DType y_type, void* y);

// Elements [at, at + n) of `data` as floats: exact for all types of 16 bits and fewer, i32 is rounded.
void load_floats(DType type, const void* data, int64_t at, int64_t n, float* out);

}  // namespace ds::kernels
