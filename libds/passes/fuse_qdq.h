// Runs quantized models on 8-bit integers: DequantizeLinear -> operator -> QuantizeLinear becomes one internal
// operator (ops/qfused.cc), with the rescaling, bias and activation in its epilogue.
//
//   Conv, Gemm, MatMul (constant 8-bit weights; bias, Relu and Clip folded; float result when nothing quantizes it)
//   Add, MaxPool, GlobalAveragePool, Concat, pointwise functions and arithmetic (passes/fuse_qpointwise.h), and operators that
//   only move elements, which then move bytes
//   QLinearConv and QLinearMatMul with constant weights
//
// Spatial operators work on [N, H, W, C] activations; Transpose nodes stand at the borders of a chain of them, so
// that a ResNet is transposed once at each end. Everything else keeps its Q/DQ nodes and runs in float.
//
// Results: sums are exact, rounding happens once, at the QuantizeLinear. Against float arithmetic on the dequantized
// values the quantized result may differ by one step where that arithmetic rounds the other way.
// For graphs about to run only; what is saved stays plain ONNX.
#pragma once

#include "libds/passes/pass.h"

namespace ds {

// Tables of pointwise functions need context.evaluate.
bool fuse_qdq(Rewriter& rewriter, PassContext& context);

// Weights that no fused operator took are dequantized once, not in every run; but those of less than a byte, whose point
// is that they are small. Needs context.evaluate.
bool dequantize_weights(Rewriter& rewriter, PassContext& context);

}  // namespace ds
