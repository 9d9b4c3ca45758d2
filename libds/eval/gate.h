// Accuracy gate: may a changed model stand in for the one it was made from?
#pragma once

#include <memory>
#include <string>

#include "libds/ir/graph.h"

namespace ds {

struct GateOptions {
  std::string data;       // as open_dataset() takes it; must have labels
  std::string label_key;
  double max_drop = 0;    // percentage points of top-1 accuracy that may be lost
};

struct GateResult {
  int64_t samples = 0;
  double before = 0, after = 0;  // top-1 accuracy, 0 to 1
  double max_drop = 0;           // as asked, in percentage points

  double drop() const { return 100.0 * (before - after); }  // percentage points; negative: it got better
  // A drop of exactly max_drop passes, whatever rounding does to it.
  bool passed() const { return drop() <= max_drop + 1e-9; }
};

// Runs both models on all samples. Throws when the data does not fit them or has no labels.
GateResult run_gate(std::shared_ptr<const Graph> before, std::shared_ptr<const Graph> after, const GateOptions& options);

}  // namespace ds
