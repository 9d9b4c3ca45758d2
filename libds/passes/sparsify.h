// Magnitude pruning: which weights are smallest, as masks of ones and zeros.
//
// Shared by ds-prune, which applies the masks to a file, and by training, which keeps them in its
// graph. Deterministic: exactly round(target · elements) weights are masked, ties go to the tensor
// that comes first and in it to the lower index.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "libds/ir/rewriter.h"

namespace ds {

enum class SparsityScope {
  kGlobal,  // one threshold for all weights together
  kLayer,   // every tensor reaches the target by itself
};

// A constant that a Conv, ConvTranspose, Gemm or MatMul multiplies by (perhaps through Transpose, Cast
// or a QuantizeLinear/DequantizeLinear pair), with the first node that does.
struct WeightOperand {
  NodeId node = kNone;
  ValueId weight = kNone;
};

// In graph order, each weight once; of any dtype.
std::vector<WeightOperand> weight_operands(const Graph& graph);

// The float ones among them that are fit for magnitude pruning: of rank two or more, not an embedding (operand of a
// Gather as well), and neither the weight's nor the node's name matches `exclude` (shell wildcards).
std::vector<WeightOperand> prunable_weights(const Graph& graph, const std::vector<std::string>& exclude = {});

// Masks of the weights' dtypes and shapes: 0 where |w| is among the smallest `target` (0 to 1) of the
// elements, else 1. Throws kBadData on NaN and on a target outside [0, 1].
std::vector<Tensor> magnitude_masks(std::span<const Tensor> weights, double target, SparsityScope scope);

// Masks that keep the zeros of already pruned weights: 0 where w is zero, else 1.
std::vector<Tensor> zero_masks(std::span<const Tensor> weights);

// weight · mask, with plain zeros where the mask is zero.
Tensor masked(const Tensor& weight, const Tensor& mask);

int64_t count_zeros(const Tensor& tensor);

}  // namespace ds
