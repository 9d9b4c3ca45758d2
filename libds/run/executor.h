// Executor: runs one graph at fixed input shapes, keeping its states between runs.
//
// Three implementations over the same kernel selection: PlanExecutor (static plan, planned memory), EagerExecutor
// (node by node, shapes and kernels decided on the way; takes what no plan can, such as data-dependent
// shapes), and PartsExecutor, which cuts a graph into parts for the two (run/parts_executor.h). With layouts off they
// agree bit for bit.
//
// An executor belongs to one thread at a time. It holds its arena for as long as it lives.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "libds/compile/compile.h"
#include "libds/ir/graph.h"
#include "libds/run/output_buffers.h"

namespace ds {

// Time per step, filled while attached to an executor (DS_LOG=profile, ds-bench --profile).
struct StepTime {
  const Graph* graph = nullptr;  // that `node` is of: the executor's or its plan's
  NodeId node = kNone;
  std::string kernel;
  double seconds = 0;
  int64_t runs = 0;
  Cost cost;  // of one run; nothing where the node ran eagerly
  int part = -1;  // of the graph, where it runs in parts (run/parts_executor.h)
};

class Executor {
 public:
  virtual ~Executor() = default;
  // Inputs in the order of graph.inputs(), outputs in that of graph.outputs(). Inputs are only read;
  // outputs are the caller's.
  virtual std::vector<Tensor> run(std::span<const Tensor> inputs) = 0;

  // Content of the states, in the order of graph.states(). Writing through the tensors changes the
  // state (checkpoint restore); the handles stay valid as long as the executor.
  const std::vector<Tensor>& states() const { return states_; }
  void set_states(std::span<const Tensor> contents);

  virtual void enable_profile() {}
  virtual std::vector<StepTime> profile() const { return {}; }

 protected:
  void init_states(const Graph& graph);
  std::vector<Tensor> states_;
};

// Memory of executors that never run at the same time: an arena as large as the largest needs, and results.
struct Arena {
  std::shared_ptr<Buffer> memory;
  OutputBuffers outputs;
};

// Runs `plan`; the arena (huge-page aligned when large) is allocated here, once, unless `shared` is large enough.
std::unique_ptr<Executor> make_plan_executor(std::shared_ptr<const Plan> plan, std::shared_ptr<Arena> shared = nullptr);

// Runs `graph` node by node. Shapes may change from run to run. Of `shared` it uses the memory for results.
std::unique_ptr<Executor> make_eager_executor(std::shared_ptr<const Graph> graph, const CompileOptions& options,
                                              std::shared_ptr<Arena> shared = nullptr);

// Runs one node on content, by the kernels an eager run would take.
std::vector<Tensor> evaluate_node(const Graph& graph, NodeId id, std::span<const Tensor> inputs);

// Throws kBadData unless the inputs fit the graph's interface in number, dtype and shape.
void check_inputs(const Graph& graph, std::span<const Tensor> inputs);

}  // namespace ds
