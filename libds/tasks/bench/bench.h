// ds-bench: models and settings side by side, in one process, on the same inputs.
//
// What is timed is a list of rows: every model at every batch, thread count and precision asked for. All
// rows are loaded and planned first; then rounds are timed, each running every row once (A B C, B C A,
// C A B, ... so that none is always first), and ratios are taken within rounds. Accuracy, sizes, memory and
// profiles are measured outside the timed part.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libds/base/cost_table.h"
#include "libds/base/dtype.h"
#include "libds/mem/tensor.h"
#include "libds/tasks/bench/profile.h"
#include "libds/tasks/bench/timing_stats.h"

namespace ds::bench {

struct BenchOptions {
  std::vector<std::string> models;
  std::string data;                 // dataset for inputs and accuracy; empty: random inputs
  std::string label_key;            // see data/dataset.h
  std::string input;                // an .npz file of the very inputs of a run, keyed by name
  std::vector<std::string> shapes;  // see run/input_shapes.h
  // The sweep: rows are the cross product of models and these.
  std::vector<std::string> precisions = {"fp32"};
  std::string costs = {};              // table of costs for "auto", see run/device.h
  std::vector<int64_t> threads = {1};  // 0: all that the machine offers
  std::vector<int64_t> batches;        // sizes of an open first axis; empty: not given
  std::vector<std::string> vary;       // sizes to walk through instead of repeating one, see sweep.h
  int64_t iterations = 0;           // rounds; 0: by time
  double duration = 3;              // seconds of timing per row, when iterations is 0
  int64_t warmup = 3;               // untimed runs of each row
  uint64_t seed = 0;                // of random inputs and of the bootstrap
  bool static_plan = true;
  bool profile = false;
  // Called for each line worth telling the user (dimensions assumed, random inputs).
  std::function<void(const std::string&)> note = {};
};

struct RowSettings {
  std::string model;  // path as given
  std::string precision = "fp32";
  int threads = 1;
  int64_t batch = 0;  // 0: not given
};

// What --vary measured; element i belongs to sizes[i].
struct VaryReport {
  std::vector<std::string> dims;
  std::vector<std::vector<int64_t>> sizes;  // of each dimension
  std::vector<double> first_seconds;        // the first run at these shapes, planning included
  std::vector<double> repeat_seconds;       // the same again, at once: median of a few
  std::vector<double> return_seconds;       // after all other sizes
};

struct BaselineChange {
  double p50 = 0;     // the baseline's, in seconds
  double change = 0;  // of the median, as a part of the baseline's: 0.1 is 10 % slower
  bool regressed = false;
};

struct RowReport {
  RowSettings settings;
  int64_t file_bytes = 0;   // external data included where the file's folder holds it under the graph's names
  int64_t parameters = 0, nonzero_parameters = 0, parameter_bytes = 0;
  std::string dtype;        // of most of the arithmetic: "f32", "i8"
  std::vector<std::pair<std::string, Shape>> inputs;  // as timed; with --vary the first
  int64_t batch = 1;        // first axis of the first input
  double load_seconds = 0;       // file to graph
  double compile_seconds = 0;    // graph to plan: rewrites, kernels, packed weights, memory plan
  double first_run_seconds = 0;  // the run after that
  std::optional<int64_t> flops;          // of one run; absent when shapes vary or depend on content
  std::vector<double> seconds;           // of each round; with --vary of the first run at each size
  TimingSummary time;
  PairedRatio ratio;                     // of time per sample, to the first row
  std::optional<double> flops_per_second;   // at the median time
  std::optional<double> efficiency;         // of the measured peak at `dtype`, 0-1
  int64_t planned_bytes = 0;   // arena, outputs, packed weights, states
  int64_t measured_bytes = 0;  // growth of resident memory from loaded and idle to the peak of the first runs
  bool planned = false;        // false: ran eagerly
  std::string eager_reason;
  std::optional<double> top1, loss;      // with labelled data
  int64_t samples = 0;                   // they were taken over
  std::optional<VaryReport> vary;
  std::optional<Profile> profile;
  std::optional<BaselineChange> baseline;
};

// Measured peaks at one number of threads; 0 where no row needed them.
struct Peaks {
  int threads = 1;
  double f32 = 0, i8 = 0, bf16 = 0, f16 = 0;  // operations per second
  double bandwidth = 0;    // bytes per second
};

struct BenchReport {
  std::string version, date, os;  // of ds; UTC, ISO 8601; kernel
  std::string cpu;
  uint64_t seed = 0;
  bool static_plan = true;
  bool random_inputs = true;
  std::string data;
  int64_t rounds = 0;
  std::shared_ptr<const CostTable> costs;  // that "auto" went by; null: the built-in table
  std::vector<Peaks> peaks;
  std::vector<RowReport> rows;

  const Peaks& peaks_of(int threads) const;
};

// Throws ds::Error naming the model's file.
BenchReport run_bench(const BenchOptions& options);

enum class Format { kTable, kJson, kCsv, kMarkdown };

// A table for people, the same in Markdown, one line of comma-separated values a row (RFC 4180), or all
// figures as JSON (man/ds-bench.schema.json). `profile`: whether tables hold the profile, too.
std::string bench_output(const BenchReport& report, Format format, bool profile);
std::string bench_json(const BenchReport& report);
// A page that needs nothing but a browser.
std::string bench_html(const BenchReport& report);

}  // namespace ds::bench
