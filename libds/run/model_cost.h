// Work of a model as its file states it, before any fusion: the same number whatever the runtime does.
#pragma once

#include <optional>
#include <span>

#include "libds/ir/graph.h"
#include "libds/ir/op_def.h"

namespace ds {

// FLOPs (a multiply-add is two) and operand bytes of one run at these input shapes. Nothing when some
// shape inside depends on content. Throws kBadData when the shapes do not fit the model.
std::optional<Cost> model_cost(const Graph& graph, std::span<const Shape> input_shapes);

}  // namespace ds
