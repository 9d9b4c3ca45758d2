// Transposes and views that cancel or can be one.
#pragma once

#include "libds/passes/pass.h"

namespace ds {

// Two transposes in a row become one, or none. A transpose whose result reaches another one through elementwise
// operators only is moved behind them, so that the two meet; a second operand is transposed the other way when it
// is a constant or loses a transpose by that. Same bits.
bool move_transposes(Rewriter& rewriter, PassContext& context);

// Of views in a row (Reshape, Flatten, Squeeze, Unsqueeze) the last alone, as a Reshape of what the first read,
// or none where that has the shape already. Same bits.
bool merge_views(Rewriter& rewriter, PassContext& context);

}  // namespace ds
