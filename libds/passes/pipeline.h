// Pipelines: named orders of passes.
//
//   inference  everything that makes a graph run faster with the same results
//   train      only what is safe on a training graph: nothing is fused or folded
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libds/passes/pass.h"

namespace ds {

struct PipelineOptions {
  std::vector<std::string> disabled;    // names of passes to leave out
  std::vector<std::string> dump_after;  // print the graph after these passes
  bool verify = false;                  // verify_graph after every pass; also on when DS_VERIFY is set and not "0"
  Evaluate evaluate;
  Precision precision = Precision::kF32;
  Isa isa = cpu_isa();
  std::shared_ptr<const CostTable> costs = {};  // see PassContext
  // Where dumps go: (pass, text). Empty: standard error.
  std::function<void(std::string_view, const std::string&)> dump;
};

// Every pass there is, once, in the order of its first use.
std::vector<const Pass*> all_passes();
std::vector<std::string_view> pipeline_names();
// Passes of a pipeline in order; throws kUsage for a name nobody knows.
std::vector<const Pass*> pipeline_passes(std::string_view pipeline);

// Runs the pipeline; returns the names of the passes that changed something. Throws kUsage when
// `disabled` or `dump_after` hold a name that is no pass; an error inside a pass gains its name.
std::vector<std::string> run_pipeline(Graph& graph, std::string_view pipeline, const PipelineOptions& options = {});

}  // namespace ds
