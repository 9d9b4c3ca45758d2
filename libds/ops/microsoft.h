// Operators of domain com.microsoft.
#pragma once

#include <array>

#include "libds/ir/op_def.h"

namespace ds::ops {

// An operator that is lowered, with `inputs` {least, most} inputs and at most `outputs` outputs.
void add_microsoft(OpRegistry& registry, const char* name, std::array<int, 2> inputs, int outputs, InferFn infer, LowerFn lower);

void register_microsoft_attention(OpRegistry& registry);

}  // namespace ds::ops
