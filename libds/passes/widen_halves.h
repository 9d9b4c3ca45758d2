// Models in 16-bit floats, computed in f32.
//
// Most kernels compute in f32. One operator of f16 or bf16 on its own is widened on the way in and rounded on the way out
// (ir/widened_kernel.h); a whole model of them would do so between every two. This pass widens where values enter and
// rounds where they leave the graph (or go into what keeps its type: bodies, operators that only move bytes of
// constants), so values in between are more exact than the file asks for, as onnxruntime's are on CPUs. What the
// file itself rounds and widens again at once (Cast to f16, Cast to f32) stays. Constants are widened when a kernel packs them.
#pragma once

#include "libds/passes/pass.h"

namespace ds {

bool widen_halves(Rewriter& rewriter, PassContext& context);

}  // namespace ds
