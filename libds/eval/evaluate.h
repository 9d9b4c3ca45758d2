// How good a model is on a data set.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "libds/data/dataset.h"
#include "libds/run/session.h"

namespace ds {

enum class EvalLoss { kCrossEntropy, kMse, kBce };

struct EvalOptions {
  EvalLoss loss = EvalLoss::kCrossEntropy;
  int64_t batch_size = 64;
  // Rows to use, in this order; empty: all.
  std::vector<int64_t> rows = {};
  // Called after each batch with the number of samples done.
  std::function<void(int64_t)> on_progress = {};
};

struct EvalResult {
  int64_t samples = 0;
  double loss = 0;                    // mean over the samples
  std::optional<double> top1, top5;   // kCrossEntropy; in 0 to 1. top5 with at least 6 classes
  std::optional<double> f1;           // kCrossEntropy: macro
  std::optional<double> accuracy;     // kBce: logit above 0 against target above 1/2
  std::optional<double> auc;          // kBce with one output a sample
  std::vector<int64_t> predicted;     // kCrossEntropy: class by row
};

// Compares the model's first output with the labels. A last batch that is smaller runs as it is
// where the model's batch dimension is open, and filled up by repeating its last row otherwise.
// Samples are summed in order: the result does not depend on the batch size beyond what the
// model's outputs do.
EvalResult evaluate(Session& session, const Feed& feed, const EvalOptions& options = {});

// First output for the given rows, [rows, ...].
Tensor predict(Session& session, const Feed& feed, std::span<const int64_t> rows, int64_t batch_size = 64);

}  // namespace ds
