// Products with weights that are stored in 4 or 8 bits, but not quantized activations: MatMul or Gemm whose right operand is
// DequantizeLinear of a constant becomes ai.ds.WeightOnlyMatMul (ops/nbits.cc), which reads the packed weights. Decoding
// is bound by that reading, and the weights in f32 are 4 to 8 times as many bytes.
//
//   one scale, one a column, or blocks along the depth; with or without zero points; a Transpose in between
//   the bias of a Gemm, or of an Add of a constant vector
//
// The product is that of the dequantized weights, in f32: equal up to rounding. Runs after fuse_qdq, which takes products
// of quantized activations. For graphs about to run only; what is saved stays plain ONNX.
#pragma once

#include "libds/passes/pass.h"

namespace ds {

bool fuse_weight_only(Rewriter& rewriter, PassContext& context);

}  // namespace ds
