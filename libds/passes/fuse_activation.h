// Activations that files spell out in several nodes.
#pragma once

#include "libds/passes/pass.h"

namespace ds {

// x * clip(x + 3, 0, 6) / 6, with the division before or after the product or as HardSigmoid(alpha 1/6),
// becomes HardSwish; and what fuse_gates.h says. Equal up to rounding.
bool fuse_activation(Rewriter& rewriter, PassContext& context);

}  // namespace ds
