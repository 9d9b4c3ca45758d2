// Elementwise operators in a chain or a tree run in one loop.
#pragma once

#include "libds/passes/pass.h"

namespace ds {

// Operators whose results only each other read become one ai.ds.FusedElementwise (ops/fused_elementwise.cc), which goes
// through memory once. Taken in: functions of one operand, arithmetic, Clip, comparisons, logic and Where in f32, with
// results of one shape; operands may be broadcast. What a caller sees is never an intermediate. For the end of the
// pipeline: products, normalization and attention have taken their parts by then.
bool fuse_elementwise(Rewriter& rewriter, PassContext& context);

}  // namespace ds
