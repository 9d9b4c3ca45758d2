// Weights and biases of passes/quantize.h in integers.
#pragma once

#include "libds/passes/quantize.h"

namespace ds {

bool weights_finite(const Tensor& w);

// Replaces the constant weight (and bias) of a node by integers behind DequantizeLinear; the activation has parameters
// `x`. Returns the least and greatest weight scale.
TensorRange quantize_operands(Rewriter& rewriter, const QuantDecision& decision, const ActivationParams& x, bool reduce_range);

}  // namespace ds
