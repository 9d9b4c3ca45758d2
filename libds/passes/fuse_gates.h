// Activations that multiply x by a gate: Gelu, Swish, Mish.
#pragma once

#include "libds/passes/pass.h"

namespace ds {

// Part of the pass fuse_activation. Becomes one node, in whatever order and association it is written:
//
//   Gelu         x/2 (1 + erf(x / sqrt 2))
//   Gelu (tanh)  x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), also as x sigmoid(2 sqrt(2/pi) (...))
//   Swish        x sigmoid(alpha x): SiLU with alpha 1, QuickGelu with 1.702
//   Mish         x tanh(softplus(x)), softplus also as log(1 + exp(x))
//
// Constants may be off by one part in a million, as files round them differently; f32 only.
bool fuse_gates(Rewriter& rewriter);

}  // namespace ds
