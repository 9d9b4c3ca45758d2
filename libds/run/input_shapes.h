// Concrete input shapes for a model with symbolic dimensions, as command lines give them.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "libds/ir/graph.h"

namespace ds {

struct InputShapes {
  std::vector<Shape> shapes;  // in the order of graph.inputs()
  bool assumed = false;       // some dimension was neither fixed nor given, and taken as 1
};

// Each of `given` is an input's shape, "name:1x3x224x224" or "name:[1,3,224,224]", or the size of a
// symbolic dimension, "batch:8". An input's shape wins over its dimensions. Throws kUsage for names
// the model does not have and for text that is no shape.
InputShapes resolve_input_shapes(const Graph& graph, std::span<const std::string> given);

// The same for several rounds: a name given again is its shape in the next round. A name with fewer shapes than
// there are rounds keeps its last one. One round at least.
std::vector<std::vector<std::string>> shape_rounds(std::span<const std::string> given);

}  // namespace ds
