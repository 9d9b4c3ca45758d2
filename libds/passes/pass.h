// Pass: a named rewrite of a whole graph.
//
// Passes are for graphs about to run; what train, prune and quantize save is never touched by them.
// A new pass is a function declared here, a row in the table of pipeline.cc and a before/after test.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "libds/base/cost_table.h"
#include "libds/base/cpu.h"
#include "libds/ir/rewriter.h"

namespace ds {

// Runs one node on content. Passes sit below the executor, so this is handed in (run/executor.h:
// evaluate_node).
using Evaluate = std::function<std::vector<Tensor>(const Graph&, NodeId, std::span<const Tensor>)>;

// What products are computed in: f32 exactly, bf16 or f16 wherever it can be, or the one of them that pays, where one does
// (passes/auto_cast.h).
enum class Precision : uint8_t { kF32, kAuto, kBf16, kF16 };

struct PassContext {
  Evaluate evaluate;  // empty: passes that need it do nothing
  Precision precision = Precision::kF32;
  Isa isa = Isa::kPortable;  // the graph will run at
  std::shared_ptr<const CostTable> costs = {};  // that Precision::kAuto goes by; null: the built-in table

  const CostTable& cost_table() const { return costs ? *costs : builtin_costs(); }
};

struct Pass {
  std::string_view name;
  std::string_view description;
  bool (*run)(Rewriter&, PassContext&);  // whether anything changed
};

// Erases nodes whose results nobody uses.
bool remove_dead_code(Rewriter& rewriter, PassContext& context);

// Writes operators that have no kernels in terms of others (ir/lower.h).
bool lower_operators(Rewriter& rewriter, PassContext& context);

// Removes nodes that return their input: Identity, Dropout outside training, Cast to the same type,
// reshapes and transposes that change nothing, Concat of one, Expand to the same shape.
bool remove_identities(Rewriter& rewriter, PassContext& context);

// Computes nodes whose operands are all known. Left alone: DequantizeLinear (8-bit weights stay 8-bit),
// nodes with random numbers or side effects, states, and results more than 1 MiB larger than the operands.
bool fold_constants(Rewriter& rewriter, PassContext& context);

// Merges nodes that compute the same from the same operands.
bool merge_common_subexpressions(Rewriter& rewriter, PassContext& context);

// By value id: whether it is a state, whose initializer is only its first content.
std::vector<char> state_values(const Graph& graph);

// Whether `a` runs before `b`, or is it.
bool precedes(const Graph& graph, NodeId a, NodeId b);

}  // namespace ds
