// Runs bodies of control-flow nodes: each is a Session of its own, with the same settings as the graph
// around it.
#pragma once

#include <memory>

#include "libds/compile/compile.h"

namespace ds {

// A body that sees the same shapes again gets a plan for them; what it sees once runs node by node,
// so that a loop whose operands grow does not compile a plan per round.
std::shared_ptr<BodyRunner> make_body_runner(std::shared_ptr<const Graph> body, const CompileOptions& options);

}  // namespace ds
