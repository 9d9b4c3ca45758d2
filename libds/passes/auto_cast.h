// Which products are computed in bf16.
//
// bf16 products sum in f32; what is sensitive (normalisation, softmax, reductions, everything elementwise) stays in f32. A
// product gets constant weights in bf16; its other operand is rounded as it is read. Between convolutions values are
// stored in bf16 where all readers round them anyway, which changes no bit of what they compute.
//
// Attention at AMX multiplies in bf16 too: queries times the scale, keys, values and probabilities are rounded, sums and softmax are f32
// (ops::kProductsAttr, kernels/attention_amx.cc). Below AMX its products stay exact.
#pragma once

#include "libds/base/cpu.h"
#include "libds/passes/pass.h"

namespace ds {

// How much faster bf16 has to be, by the table of costs (base/cost_table.h), for Precision::kAuto to leave f32.
constexpr double kLeastBf16Gain = 1.2;

// Does nothing for Precision::kF32. kAuto: where the table of costs says that it pays, product by product: where rows are few and their
// number is known before the model is given its shapes, weights of half the size count, too. kBf16: everywhere.
// DS_LOG=precision tells for every product what it is computed in, and why.
bool auto_cast(Rewriter& rewriter, PassContext& context);

}  // namespace ds
