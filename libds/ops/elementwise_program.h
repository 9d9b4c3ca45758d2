// The program of an ai.ds.FusedElementwise: a chain (kernels/chain.h) as text, a step a line.
//
//   Sigmoid x0          t0: a function of operand 0
//   Mul x0 t0           t1: of two values
//   Clip t1 0 6         t2: bounds are numbers
//   LeakyRelu t2 0.1    t3: so are attributes, in the operator's order
//   Where x1 t3 -1      the last line is the output
//
// x<i> is operand i, t<k> the result of line k, anything else a number. A name is that of the operator of ai.onnx; of
// Gelu there is GeluTanh too. Min, Max, Sum and Mean of many operands are many lines.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/chain.h"
#include "libds/ir/graph.h"

namespace ds::ops {

// Throws (bad data) where a line is wrong, an operand or a limit of kernels::Chain is exceeded.
kernels::Chain parse_program(const std::vector<std::string>& lines, size_t operands);

// Whether the node can be lines of a program; its operands and attributes must be as known as that needs. `fixed` gives
// the content of a constant, null where it may change.
using Content = std::function<const Tensor*(ValueId)>;
bool fits_program(const Node& node, const Graph& graph, const Content& fixed);

// Appends the lines of such a node, where `name` says how its operands are called: x0, t3, 0.5.
void write_program(const Node& node, const Content& fixed, const std::function<std::string(ValueId)>& name, std::vector<std::string>& lines);

// The number as a line has it.
std::string program_number(double x);

}  // namespace ds::ops
