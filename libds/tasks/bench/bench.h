// ds-bench: models side by side, in one process, on the same inputs.
//
// All models are loaded and planned first; then rounds are timed, each running every model once (A B C,
// B C A, C A B, ... so that none is always first), and ratios are taken within rounds. Accuracy, sizes
// and memory are measured outside the timed part.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "libds/base/dtype.h"
#include "libds/mem/tensor.h"
#include "libds/tasks/bench/timing_stats.h"

namespace ds::bench {

struct BenchOptions {
  std::vector<std::string> models;
  std::string data;                 // dataset for inputs and accuracy; empty: random inputs
  std::string label_key;            // see data/dataset.h
  std::vector<std::string> shapes;  // see run/input_shapes.h
  int64_t batch = 0;                // size of an open first axis; 0: not given
  int64_t iterations = 0;           // rounds; 0: by time
  double duration = 3;              // seconds of timing per model, when iterations is 0
  int64_t warmup = 3;               // untimed runs of each model
  int threads = 1;
  uint64_t seed = 0;                // of random inputs and of the bootstrap
  bool static_plan = true;
  // Called for each line worth telling the user (dimensions assumed, random inputs).
  std::function<void(const std::string&)> note = {};
};

struct ModelReport {
  std::string path;
  int64_t file_bytes = 0;   // external data included where the file's folder holds it under the graph's names
  int64_t parameters = 0, nonzero_parameters = 0, parameter_bytes = 0;
  std::string dtype;        // of most of the arithmetic: "f32", "i8"
  std::vector<std::pair<std::string, Shape>> inputs;  // as timed
  int64_t batch = 1;        // first axis of the first input
  std::optional<int64_t> flops;          // of one run; absent when shapes depend on content
  std::vector<double> seconds;           // of each round
  TimingSummary time;
  PairedRatio ratio;                     // to the first model
  std::optional<double> flops_per_second;   // at the median time
  std::optional<double> efficiency;         // of the measured peak at `dtype`, 0-1
  int64_t planned_bytes = 0;   // arena, outputs, packed weights, states
  int64_t measured_bytes = 0;  // growth of resident memory from loaded and idle to the peak of the first runs
  bool planned = false;        // false: ran eagerly
  std::string eager_reason;
  std::optional<double> top1, loss;      // with labelled data
  int64_t samples = 0;                   // they were taken over
};

struct BenchReport {
  std::string cpu;
  int threads = 1;
  uint64_t seed = 0;
  bool random_inputs = true;
  std::string data;
  int64_t rounds = 0;
  double peak_f32 = 0, peak_i8 = 0;  // measured operations per second; 0 where no model needed it
  std::vector<ModelReport> models;
};

// Throws ds::Error naming the model's file.
BenchReport run_bench(const BenchOptions& options);

// A table for people; the same figures as JSON (man/ds-bench.schema.json).
std::string bench_text(const BenchReport& report);
std::string bench_json(const BenchReport& report);

}  // namespace ds::bench
