// ds-train: trains an ONNX model on a data set.
//
// One static plan of forward, backward and optimizer, run step after step; validation through a
// Session over the model with the current weights. Everything random (order of samples,
// augmentation, dropout) is a pure function of (seed, epoch, sample), so that a run that was killed
// and resumed ends in the same bits as one that was not.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "libds/data/loader.h"
#include "libds/tasks/train/schedule.h"
#include "libds/tasks/train/train_graph.h"

namespace ds {

struct TrainOptions {
  std::string model;          // path; "-" is standard input
  std::string output;         // path; "-" is standard output; empty: nothing is written
  bool external_data = false; // weights in a file beside the output
  std::string data;           // data set specification (data/dataset.h)
  std::string validation;     // the same; empty: --val-split of the training data, if any
  double validation_split = 0;
  std::string label_key;      // name of the label array or column; empty: the usual names
  std::string augment;        // "shift:2,flip"
  TrainGraphOptions graph;
  LearningRateSchedule schedule;  // base rate, shape, warm-up
  int epochs = 1;
  int64_t batch_size = 32;
  uint64_t seed = 0;
  int threads = 0;
  bool static_plan = true;    // false: eager execution of the same graph, the same bits
  // Dynamic magnitude pruning of the prunable weights, all of them ranked together.
  double target_sparsity = 0;
  SparsitySchedule sparsity;  // shape and the part of the training over which it rises
  std::string metrics;        // path of a JSONL file, appended to; empty: none
  std::string checkpoint_dir; // empty: none
  int64_t checkpoint_every = 0;  // steps; 0: once an epoch
  int keep_checkpoints = 2;
  bool resume = false;        // continue from the newest checkpoint; starts afresh when there is none
  bool keep_best = false;     // write the weights of the best validation instead of the last
};

// What happened, told as it happens; called from the training thread.
struct TrainProgress {
  int epoch = 0, epochs = 0;
  int64_t step = 0, steps = 0;  // of the whole training
  double loss = 0;              // mean over the epoch so far
  double learning_rate = 0;
};

struct EpochReport {
  int epoch = 0;
  double train_loss = 0, learning_rate = 0;
  std::optional<double> validation_loss, validation_top1;  // top1 for cross-entropy only
  double sparsity = 0;
  double samples_per_second = 0;
  double compute_efficiency = 0;
};

struct TrainResult {
  std::vector<EpochReport> epochs;
  size_t planned_bytes = 0;   // what the plan says a step adds to the loaded, idle process
  int64_t measured_bytes = 0; // what it added: peak resident memory over that of the idle process
  bool interrupted = false;  // stopped by `stop`; a checkpoint was written if a folder was given
};

struct TrainCallbacks {
  std::function<void(const TrainProgress&)> on_step;
  std::function<void(const EpochReport&)> on_epoch;
  std::function<void(const std::string&)> on_message;  // one line about the plan, the resume, ...
  const std::atomic<bool>* stop = nullptr;             // set by a signal handler
};

// Throws Error; nothing is written to `output` then.
TrainResult train(const TrainOptions& options, const TrainCallbacks& callbacks = {});

}  // namespace ds
