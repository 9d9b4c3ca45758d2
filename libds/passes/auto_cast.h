// Which products are computed in bf16.
//
// bf16 products sum in f32; what is sensitive (normalisation, softmax, reductions, everything elementwise) stays in f32. A
// product gets constant weights in bf16; its other operand is rounded as it is read. Between convolutions values are
// stored in bf16 where all readers round them anyway, which changes no bit of what they compute.
#pragma once

#include "libds/base/cpu.h"
#include "libds/passes/pass.h"

namespace ds {

// How much faster bf16 products are than f32 on the CPU at a level of instructions: the built-in cost table. Nothing is
// measured when a model is compiled, so that the same command gives the same bits.
double bf16_speed(Isa isa);
constexpr double kLeastBf16Gain = 1.2;  // below this Precision::kAuto stays with f32

// Does nothing for Precision::kF32. kAuto: where bf16_speed says that it pays. kBf16: everywhere.
// DS_LOG=precision tells for every product what it is computed in, and why.
bool auto_cast(Rewriter& rewriter, PassContext& context);

}  // namespace ds
