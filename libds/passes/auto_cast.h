// Which products are computed in bf16 or f16.
//
// bf16 products sum in f32, f16 products in f16 over short stretches of depth and those in f32; what is sensitive
// (normalisation, softmax, reductions, everything elementwise) stays in f32. A product gets constant weights in 16 bits; its
// other operand is rounded as it is read. Between products values are stored in 16 bits where all readers round them anyway.
//
// f16 has 11 bits of mantissa, 3 more than bf16, and ends at 65504. Nothing overflows: operands saturate when they are
// rounded, sums cannot leave the range (TileIsa::scale_columns), results are f32 or saturate too, and products with weights
// beyond the range stay in f32. What is left of the risk are activations beyond 65504, which become that.
#pragma once

#include "libds/base/cpu.h"
#include "libds/passes/pass.h"

namespace ds {

// How much faster bf16 products are than f32 on the CPU at a level of instructions: the built-in cost table. Nothing is
// measured when a model is compiled, so that the same command gives the same bits.
double bf16_speed(Isa isa);
// The same of f16.
double f16_speed(Isa isa);
constexpr double kLeastNarrowGain = 1.2;  // below this Precision::kAuto stays with f32

// What products are computed in: for kAuto the fastest of f32, bf16 and f16 on the CPU at this level.
DType product_type(Precision precision, Isa isa);

// Casts nothing where product_type() is f32; for kBf16 and kF16 all that can be, for kAuto what gains.
// DS_LOG=precision tells for every product what it is computed in, and why.
bool auto_cast(Rewriter& rewriter, PassContext& context);

}  // namespace ds
