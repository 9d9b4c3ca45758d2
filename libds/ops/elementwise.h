// Pieces shared by the elementwise families (binary, compare, unary, cast).
#pragma once

#include <span>
#include "kernels/broadcast.h"
#include "kernels/unary.h"
#include "libds/ops/common.h"

namespace ds::ops {

// Iteration space of `operands` (indices of inputs) broadcast to output 0.
kernels::Broadcast broadcast_space(const KernelQuery& query, std::span<const size_t> operands);
kernels::Broadcast broadcast_space(const KernelQuery& query, std::initializer_list<size_t> operands);
std::string rank_fits_broadcast(const KernelQuery& query);

// Throws unless all inputs from `first` on have one type.
void require_same_dtype(InferContext& context, size_t first = 0);

// A function of one operand as kernels/unary.h has it.
struct UnaryFunction {
  kernels::Unary op;
  int parameters = 0;  // of alpha and beta, how many it has
  double alpha = 0, beta = 0;
};
// What a node of ai.onnx computes; nullopt where it is no such function. Throws where its attributes are wrong.
std::optional<UnaryFunction> unary_function(const Node& node);
// By the operator's name, with default parameters; "GeluTanh" too.
std::optional<UnaryFunction> unary_named(std::string_view name);

}  // namespace ds::ops
