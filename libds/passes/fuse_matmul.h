// Matrix products made to do what follows them. For the run-time pipeline only.
#pragma once

#include "libds/passes/pass.h"

namespace ds {

// MatMul or Gemm with a constant matrix on the right + constant row (bias) + residual Add + activation becomes
// ai.ds.FusedMatMul. Only what nobody else reads is taken along. Equal to the separate nodes up to rounding.
bool fuse_matmul(Rewriter& rewriter, PassContext& context);

}  // namespace ds
