// Post-training quantization as rewrites of a float graph: what to quantize, then QuantizeLinear/
// DequantizeLinear pairs around it. The result is plain ONNX (operator set 13 or newer).
//
// Scheme: weights signed 8-bit, symmetric, one scale per output channel; activations unsigned 8-bit with a zero
// point, one scale per tensor; biases 32-bit in the unit of the sums (Jacob et al., "Quantization and Training of
// Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018). Weights are stored as integers behind
// a DequantizeLinear. Relu and Clip behind an operator are covered by the quantization of their result.
//
// A float graph is planned once; calibration then gives a range for each of QuantPlan::observed.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "libds/ir/rewriter.h"

namespace ds {

struct QuantizeOptions {
  // Nodes left in float: patterns with * and ? over node names and operator types.
  std::vector<std::string> exclude;
  std::vector<NodeId> keep_float = {};  // the same by id
  // Weights within [-64, 64] instead of [-127, 127].
  bool reduce_range = false;
};

struct TensorRange {
  float low = 0, high = 0;
};

// What becomes of one operator.
struct QuantDecision {
  NodeId node = kNone;
  std::string name, op;
  bool quantized = false;
  std::string reason;        // why not
  ValueId input = kNone;     // activation read
  ValueId weight = kNone;    // constant operand, kNone for operators without
  ValueId bias = kNone;      // constant that becomes 32-bit
  ValueId result = kNone;    // float value after the activation that goes with the operator
  int64_t weight_axis = 0;   // output channels
  std::vector<ValueId> operands;  // activations that must be quantized for the operator to be
};

// A float tensor that gets a Q/DQ pair.
struct QuantTensor {
  ValueId value = kNone;
  ValueId same_as = kNone;  // shares the parameters of this tensor (MaxPool, Reshape); kNone: has its own
  bool all_uses = false;    // every reader gets the dequantized value, not only quantized operators
};

struct QuantPlan {
  QuantizeOptions options;
  std::vector<QuantDecision> decisions;  // of all operators that could be quantized, in execution order
  std::vector<QuantTensor> tensors;      // in execution order
  std::vector<ValueId> observed;         // tensors that need a range
};

// Precondition: batch normalization is folded (passes/fuse_conv.h).
QuantPlan plan_quantization(const Graph& graph, const QuantizeOptions& options);

struct ActivationParams {
  float scale = 1;
  int32_t zero = 0;
};
// u8 parameters whose range holds zero exactly.
ActivationParams activation_params(const TensorRange& range);

struct QuantResult {
  std::map<ValueId, ValueId> dequantized;     // planned tensor -> its dequantized value
  std::map<ValueId, ActivationParams> params; // by planned tensor
  std::map<NodeId, TensorRange> weight_scales; // least and greatest scale of a node's weights
};

// Inserts the pairs. `ranges` by observed tensor.
QuantResult apply_quantization(Rewriter& rewriter, const QuantPlan& plan, const std::map<ValueId, TensorRange>& ranges);

// Dynamic form of MatMul and Gemm: weights are stored in 8 bits, activations quantized at run time by
// DynamicQuantizeLinear. Returns one decision per MatMul, Gemm and Conv.
std::vector<QuantDecision> quantize_dynamic(Rewriter& rewriter, const QuantizeOptions& options);

// Whether `text` matches a pattern with * (any run of characters) and ? (any one).
bool matches_pattern(std::string_view pattern, std::string_view text);

}  // namespace ds
