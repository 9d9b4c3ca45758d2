// Products of tensors that are quantized by what they hold, with their scales: what onnxruntime's quantize_dynamic writes.
// For the run-time pipeline only.
#pragma once

#include "libds/passes/pass.h"

namespace ds {

// MatMulInteger(x, W) -> Cast -> Mul by a scale [-> Add of a constant row] becomes one ai.ds.QMatMul (ops/qfused.cc) whose
// x_scale and x_zero are operands: the same integers and the same floats. W is a constant matrix with one scale, or one per
// column; the scale of x is one value, known only at run time. DynamicQuantizeLinear stays, so that products that share
// their left operand quantize it once; fuse-qepilogue adds residuals and activations. ConvInteger of four axes becomes
// ai.ds.QConv in the same way, with transposes around it that move-transposes makes meet, and takes a BatchNormalization into
// its scales.
bool fuse_dynamic_quant(Rewriter& rewriter, PassContext& context);

}  // namespace ds
