// 8-bit products made to do what follows them. For the run-time pipeline only, after fuse_qdq and fuse_activation.
#pragma once

#include "libds/passes/pass.h"

namespace ds {

// Into the epilogues of ai.ds.QConv and ai.ds.QMatMul (ops/qfused.cc) go
//   QAdd of an 8-bit result and another tensor: the same bits;
//   a residual Add, an activation and a QuantizeLinear with one scale, in this order, after a float result: equal to the
//   separate nodes up to rounding, which may move a quantized result by one step.
// Only what nobody else reads is taken along.
bool fuse_qepilogue(Rewriter& rewriter, PassContext& context);

}  // namespace ds
