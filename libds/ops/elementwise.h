// Pieces shared by the elementwise families (binary, compare, unary, cast).
#pragma once

#include "kernels/broadcast.h"
#include "libds/ops/common.h"

namespace ds::ops {

// Iteration space of `operands` (indices of inputs) broadcast to output 0.
kernels::Broadcast broadcast_space(const KernelQuery& query, std::initializer_list<size_t> operands);
std::string rank_fits_broadcast(const KernelQuery& query);

// Throws unless all inputs from `first` on have one type.
void require_same_dtype(InferContext& context, size_t first = 0);

}  // namespace ds::ops
