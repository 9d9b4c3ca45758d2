// Which products are computed in bf16 or f16.
//
// bf16 products sum in f32, f16 products in f16 over short stretches of depth and those in f32; what is sensitive
// (normalisation, softmax, reductions, everything elementwise) stays in f32. A product gets constant weights in 16 bits; its
// other operand is rounded as it is read. Between products values are stored in 16 bits where all readers round them anyway.
//
// f16 has 11 bits of mantissa, 3 more than bf16, and ends at 65504. Nothing overflows: operands saturate when they are
// rounded, sums cannot leave the range (TileIsa::scale_columns), results are f32 or saturate too, and products with weights
// beyond the range stay in f32. What is left of the risk are activations beyond 65504, which become that.
//
// Attention at AMX multiplies in bf16 too: queries times the scale, keys, values and probabilities are rounded, sums and softmax are f32
// (ops::kProductsAttr, kernels/attention_amx.cc). Below AMX its products stay exact.
#pragma once

#include "libds/base/cpu.h"
#include "libds/passes/pass.h"

namespace ds {

// How much faster 16 bits have to be, by the table of costs (base/cost_table.h), for Precision::kAuto to leave f32.
constexpr double kLeastNarrowGain = 1.2;

// What products are computed in: for kAuto the fastest of f32, bf16 and f16 at this level, by the rates alone or for a left
// operand of so many rows. f32_gain: how many times as fast as the rate says f32 is, where it takes fewer products.
DType product_type(Precision precision, Isa isa, const CostTable& costs, std::optional<int64_t> rows = std::nullopt, double f32_gain = 1);

// Does nothing for Precision::kF32. kAuto: where the table of costs says that it pays, product by product: where rows are few and their
// number is known before the model is given its shapes, weights of half the size count, too. kBf16 and kF16: everywhere.
// DS_LOG=precision tells for every product what it is computed in, and why.
bool auto_cast(Rewriter& rewriter, PassContext& context);

}  // namespace ds
