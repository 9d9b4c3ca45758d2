// Normalization of rows that files spell out in several nodes.
#pragma once

#include "libds/passes/pass.h"

namespace ds {

// d = x - mean(x); y = d / sqrt(mean(d^2) + epsilon), over trailing axes, becomes LayerNormalization, and
// x / sqrt(mean(x^2) + epsilon) RMSNormalization. The square is Pow or Mul, the quotient Div or a product with
// Reciprocal; scale and bias of the size of the normalized axes are taken along, before or after the
// product with d, also as x (scale/s) + (bias - mean (scale/s)), the way tf2onnx writes it. f32 only; equal up
// to rounding.
bool fuse_norm(Rewriter& rewriter, PassContext& context);

}  // namespace ds
