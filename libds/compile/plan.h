// Plan: a graph at concrete shapes, with a kernel for every step and a place for every value.
//
// Made once per set of input shapes by compile(), then immutable and shared between executors.
// Everything a run needs is decided here: order, kernels, packed weights, arena offsets, which
// values share memory. Running it (run/plan_executor.h) is a loop.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "libds/ir/graph.h"
#include "libds/ir/kernel_def.h"
#include "libds/ir/op_def.h"

namespace ds {

// Where the bytes of a slot come from.
enum class Storage : uint8_t {
  kArena,     // planned offset in the executor's arena
  kConstant,  // initializer of the graph
  kInput,     // bound by the caller for one run
  kOutput,    // allocated for one run, handed to the caller
  kState,     // lives in the executor across runs
};

// One value of the plan. Views and in-place results share the bytes of a root slot.
struct Slot {
  ValueId value = kNone;
  TensorDesc desc;
  Storage storage = Storage::kArena;
  int root = -1;       // slot that owns the bytes; itself when it owns them
  size_t offset = 0;   // kArena roots: bytes into the arena
  int index = 0;       // kInput, kOutput, kState roots: position in the interface
  int first_step = 0;  // roots: first and last step that touch the bytes
  int last_step = 0;
};

struct Step {
  NodeId node = kNone;
  const KernelDef* def = nullptr;
  std::shared_ptr<Kernel> kernel;
  std::vector<int> inputs, outputs;  // slots; -1 where omitted
  size_t workspace_bytes = 0;
  size_t workspace_offset = 0;  // into the arena
  Cost cost;
};

struct Plan {
  std::shared_ptr<const Graph> graph;  // specialised to the shapes
  std::vector<Slot> slots;
  std::vector<Step> steps;
  std::vector<int> inputs, outputs;  // slots, in the graph's order
  std::vector<int> states, updates;  // slots, in the order of graph->states()
  size_t arena_bytes = 0;
  size_t live_peak_bytes = 0;  // most arena bytes alive at once: the lower bound of arena_bytes
  size_t output_bytes = 0;     // allocated per run for outputs
  // Weights kept in kernels' own layouts. What plans of a session share counts in the one that packed it.
  size_t packed_bytes = 0;
  size_t state_bytes = 0;
  int64_t flops = 0;
  // Bytes a run adds to the loaded, idle process.
  size_t planned_bytes() const { return arena_bytes + output_bytes + packed_bytes + state_bytes; }
};

// Text form: one line per step with kernel, offsets and sizes; then the totals.
std::string print_plan(const Plan& plan);

}  // namespace ds
