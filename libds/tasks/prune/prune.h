// What ds-prune does: load, choose, rewrite, report.
//
// Unstructured pruning zeroes the smallest weights and leaves every shape alone; structured pruning
// removes whole channels and leaves a smaller ordinary model. Both change nothing else: names,
// metadata and nodes stay, nothing is folded or fused. What was done is recorded in the model's metadata
// under "ds.prune".
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "libds/eval/gate.h"
#include "libds/ir/graph.h"
#include "libds/passes/sparsify.h"

namespace ds {

struct PruneOptions {
  bool structured = false;
  double target_sparsity = 0.5;  // unstructured: fraction of the prunable weights that are zero afterwards
  SparsityScope scope = SparsityScope::kGlobal;
  double target_flops = 0.5;     // structured: fraction of the FLOPs that is left at most
  int64_t channel_multiple = 0;  // structured: 0 is automatic (passes/select_channels.h)
  std::vector<std::string> exclude;  // shell wildcards on node and weight names
  std::vector<std::string> shapes;   // for FLOPs: as resolve_input_shapes takes them
};

struct PrunedLayer {
  std::string node, op, weight;  // weight: name of the initializer
  Shape shape_before, shape_after;
  int64_t zeros_before = 0, zeros_after = 0;
  size_t bytes_before = 0, bytes_after = 0;
  int64_t channels_before = 0, channels_after = 0;  // output channels
  std::string kept_because;  // why its output channels cannot shrink (structured), or it was left alone; else empty
};

struct PruneReport {
  PruneOptions options;
  std::vector<PrunedLayer> layers;  // weights of Conv, ConvTranspose, Gemm and MatMul, in graph order
  int64_t parameters_before = 0, parameters_after = 0;  // elements of all float initializers
  int64_t prunable = 0, zeros = 0;                      // of the weights masks apply to, afterwards
  size_t bytes_before = 0, bytes_after = 0;             // of all initializers
  int64_t flops_before = 0, flops_after = 0;            // structured: one run at `shapes`
  bool shapes_assumed = false;                          // some dimension was taken as 1
  std::optional<GateResult> gate;                       // filled in by the caller who asked for it

  double sparsity() const { return prunable > 0 ? static_cast<double>(zeros) / static_cast<double>(prunable) : 0.0; }
  double flops_ratio() const { return flops_before > 0 ? static_cast<double>(flops_after) / static_cast<double>(flops_before) : 1.0; }
};

// Changes `graph`. Throws kUnsupported when a target cannot be met or nothing can be pruned.
PruneReport prune(Graph& graph, const PruneOptions& options);

// One JSON object (schema in man/ds-prune.1), and a table for people.
std::string prune_report_json(const PruneReport& report);
std::string prune_report_text(const PruneReport& report);

}  // namespace ds
