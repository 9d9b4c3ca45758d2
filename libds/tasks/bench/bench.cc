#include "libds/tasks/bench/bench.h"

#include <sys/stat.h>
#include <sys/utsname.h>

#include <algorithm>
#include <set>

#include "libds/base/clock.h"
#include "libds/base/cost_file.h"
#include "libds/base/cpu.h"
#include "libds/base/error.h"
#include "libds/base/parallel.h"
#include "libds/base/process.h"
#include "libds/data/dataset.h"
#include "libds/data/npz.h"
#include "libds/eval/evaluate.h"
#include "libds/ir/onnx_import.h"
#include "libds/run/device.h"
#include "libds/run/executor.h"
#include "libds/run/model_cost.h"
#include "libds/run/peak.h"
#include "libds/run/random_inputs.h"
#include "libds/run/session.h"
#include "libds/tasks/bench/sweep.h"

namespace ds::bench {
namespace {

constexpr int64_t kMinRounds = 5;
constexpr int64_t kMaxRounds = 100'000;
constexpr int64_t kVaryRepeats = 3;     // runs after the first at each size
constexpr int64_t kMaxProfileRuns = 50;
constexpr double kProfileSeconds = 1;   // a row

int64_t count_nonzero(const Tensor& tensor) {
  int64_t count = 0;
  dispatch_dtype(tensor.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for (const T x : tensor.span<T>()) {
      if constexpr (std::is_same_v<T, f16> || std::is_same_v<T, bf16>) count += static_cast<float>(x) != 0.0f;
      else count += x != T{};
    }
  });
  return count;
}

// A row made ready to be timed.
struct Contender {
  std::shared_ptr<Graph> graph;  // as loaded
  std::unique_ptr<Session> session;
  std::vector<Tensor> inputs;
  std::vector<std::vector<Shape>> shapes;  // with --vary: of each step
};

struct Setup {
  const BenchOptions& options;
  std::vector<Vary> vary;
  std::shared_ptr<const Dataset> dataset;
  NamedTensors arrays;  // of --input
  std::function<void(const std::string&)> note;  // says each line once, however many rows have it
};

void describe(const Contender& c, RowReport& report) {
  struct stat info {};
  const std::string& path = report.settings.model;
  if (path != "-" && ::stat(path.c_str(), &info) == 0) report.file_bytes = info.st_size;
  for (ValueId id : c.graph->initializers()) {
    const Tensor t = c.graph->value(id).constant->transient();
    report.parameters += t.numel();
    report.parameter_bytes += static_cast<int64_t>(t.bytes());
    report.nonzero_parameters += count_nonzero(t);
  }
  report.dtype = dtype_name(compute_dtype(*c.graph));
}

void make_inputs(Contender& c, RowReport& report, const Setup& setup) {
  const Graph& graph = *c.graph;
  const BenchOptions& options = setup.options;
  if (setup.dataset) {
    const Feed feed(setup.dataset, input_specs(graph));
    int64_t batch = report.settings.batch > 0 ? report.settings.batch : 1;
    for (ValueId id : graph.inputs()) {
      const auto& dims = graph.value(id).dims;
      if (dims && !dims->empty() && (*dims)[0].known()) batch = (*dims)[0].raw;
    }
    if (batch > feed.size()) bad_data("a batch of {} is more than the {} samples of {}", batch, feed.size(), setup.dataset->name());
    c.inputs = feed.range(0, batch).inputs;
  } else if (!options.input.empty()) {
    for (ValueId id : graph.inputs()) {
      const std::string& name = graph.value(id).name;
      const auto at = std::find_if(setup.arrays.begin(), setup.arrays.end(), [&](const auto& named) { return named.first == name; });
      if (at == setup.arrays.end()) bad_data("{} has no array for input '{}'", options.input, name);
      c.inputs.push_back(at->second);
    }
    check_inputs(graph, c.inputs);
  } else {
    const size_t steps = setup.vary.empty() ? 1 : setup.vary[0].sizes.size();
    for (size_t step = 0; step < steps; ++step)
      c.shapes.push_back(choose_shapes(graph, report.settings.model, options.shapes, report.settings.batch, setup.vary, step,
                                       step == 0 ? setup.note : nullptr));
    c.inputs = random_inputs(graph, c.shapes[0], options.seed);
  }
  for (size_t i = 0; i < c.inputs.size(); ++i) report.inputs.emplace_back(graph.value(graph.inputs()[i]).name, c.inputs[i].shape());
  if (!c.inputs.empty() && c.inputs[0].rank() > 0) report.batch = c.inputs[0].dim(0);
}

// Compiles and runs for the first time, watching how memory grows. With --vary nothing is planned or run: every
// shape shall be new.
void warm_up(Contender& c, RowReport& report, const Setup& setup) {
  std::vector<Shape> shapes;
  for (const Tensor& t : c.inputs) shapes.push_back(t.shape());
  if (setup.vary.empty())
    if (const std::optional<Cost> cost = model_cost(*c.graph, shapes)) report.flops = cost->flops;
  trim_heap();
  const int64_t idle = resident_bytes();
  const bool fresh_peak = reset_peak_resident();
  SessionOptions session_options;
  apply(map_device({"cpu", true, report.settings.precision, report.settings.threads, setup.options.costs}), session_options);
  session_options.static_plan = setup.options.static_plan;
  set_num_threads(report.settings.threads);
  double start = now_seconds();
  c.session = std::make_unique<Session>(c.graph, session_options);
  std::shared_ptr<const Plan> plan;
  if (setup.vary.empty()) plan = c.session->plan(shapes);
  report.compile_seconds = now_seconds() - start;
  if (!setup.vary.empty()) return;
  start = now_seconds();
  c.session->run(c.inputs);
  report.first_run_seconds = now_seconds() - start;
  c.session->run(c.inputs);
  report.measured_bytes = std::max<int64_t>(0, (fresh_peak ? peak_resident_bytes() : resident_bytes()) - idle);
  report.planned = plan != nullptr;
  report.eager_reason = c.session->eager_reason();
  if (plan) report.planned_bytes = static_cast<int64_t>(plan->planned_bytes());
  for (int64_t i = 0; i < setup.options.warmup; ++i) c.session->run(c.inputs);
}

double timed_run(Contender& c, std::span<const Tensor> inputs) {
  const double start = now_seconds();
  const std::vector<Tensor> outputs = c.session->run(inputs);
  return now_seconds() - start;
}

// A team of another size is put together at its first parallel region: not the row's fault.
class TeamSettler {
 public:
  void before(Contender& c, int threads) {
    if (threads_ != 0 && threads != threads_) c.session->run(c.inputs);
    threads_ = threads;
  }

 private:
  int threads_ = 0;
};

void time_rounds(std::vector<Contender>& contenders, BenchReport& report, const BenchOptions& options) {
  const size_t n = contenders.size();
  const double end = now_seconds() + options.duration * static_cast<double>(n);
  TeamSettler settler;
  for (int64_t round = 0;; ++round) {
    if (options.iterations > 0 ? round >= options.iterations
                               : round >= kMaxRounds || (round >= kMinRounds && now_seconds() >= end))
      break;
    for (size_t k = 0; k < n; ++k) {
      const size_t m = (static_cast<size_t>(round) + k) % n;
      settler.before(contenders[m], report.rows[m].settings.threads);
      report.rows[m].seconds.push_back(timed_run(contenders[m], contenders[m].inputs));
    }
    report.rounds = round + 1;
  }
}

// Walks through the sizes: at each, every row runs for the first time and a few times more; then all sizes again.
void time_varied(std::vector<Contender>& contenders, BenchReport& report, const Setup& setup) {
  const size_t n = contenders.size(), steps = setup.vary[0].sizes.size();
  for (RowReport& r : report.rows) {
    r.vary.emplace();
    for (const Vary& v : setup.vary) {
      r.vary->dims.push_back(v.dim);
      r.vary->sizes.push_back(v.sizes);
    }
  }
  for (const bool first_time : {true, false}) {
    for (size_t step = 0; step < steps; ++step) {
      for (size_t k = 0; k < n; ++k) {
        const size_t m = (step + k) % n;
        Contender& c = contenders[m];
        RowReport& r = report.rows[m];
        set_num_threads(r.settings.threads);
        const std::vector<Tensor> inputs = random_inputs(*c.graph, c.shapes[step], setup.options.seed);
        const double seconds = timed_run(c, inputs);
        if (!first_time) {
          r.vary->return_seconds.push_back(seconds);
          continue;
        }
        r.vary->first_seconds.push_back(seconds);
        std::vector<double> again;
        for (int64_t i = 0; i < (setup.options.iterations > 0 ? setup.options.iterations : kVaryRepeats); ++i)
          again.push_back(timed_run(c, inputs));
        r.vary->repeat_seconds.push_back(percentile(again, 0.5));
        r.eager_reason = c.session->eager_reason();
        r.planned = r.eager_reason.empty();
      }
    }
  }
  for (RowReport& r : report.rows) r.seconds = r.vary->first_seconds;
  report.rounds = static_cast<int64_t>(steps);
}

Peaks& peaks_at(BenchReport& report, int threads) {
  for (Peaks& p : report.peaks)
    if (p.threads == threads) return p;
  report.peaks.push_back({.threads = threads});
  return report.peaks.back();
}

// Runs again with every step timed: that costs a little, so it is not what the rounds show.
void take_profile(Contender& c, RowReport& r, BenchReport& report) {
  std::vector<Shape> shapes;
  for (const Tensor& t : c.inputs) shapes.push_back(t.shape());
  c.session->plan(shapes);
  Peaks& peaks = peaks_at(report, r.settings.threads);
  peaks.f32 = peak_flops(DType::kF32, r.settings.threads);
  if (r.dtype == dtype_name(DType::kI8)) peaks.i8 = peak_flops(DType::kI8, r.settings.threads);
  if (r.settings.precision != "fp32") {
    peaks.bf16 = peak_flops(DType::kBF16, r.settings.threads);
    peaks.f16 = peak_flops(DType::kF16, r.settings.threads);
  }
  peaks.bandwidth = peak_bandwidth(r.settings.threads);
  set_num_threads(r.settings.threads);
  c.session->run(c.inputs);
  c.session->enable_profile();
  const auto runs = std::clamp<int64_t>(static_cast<int64_t>(kProfileSeconds / std::max(1e-9, r.time.p50)), 3, kMaxProfileRuns);
  for (int64_t i = 0; i < runs; ++i) c.session->run(c.inputs);
  Profile profile = make_profile(c.session->profile(), {peaks.f32, peaks.i8, peaks.bandwidth, peaks.bf16, peaks.f16});
  if (!profile.steps.empty()) r.profile = std::move(profile);
}

void summarize_row(const Contender& c, RowReport& r, BenchReport& report, uint64_t seed) {
  r.time = summarize(r.seconds);
  const auto per_sample = [](const RowReport& row) {
    std::vector<double> out = row.seconds;
    for (double& x : out) x /= static_cast<double>(std::max<int64_t>(1, row.batch));
    return out;
  };
  r.ratio = paired_ratio(per_sample(report.rows[0]), per_sample(r), seed);
  if (!r.flops || *r.flops <= 0) return;
  const DType dtype = compute_dtype(*c.graph);
  Peaks& peaks = peaks_at(report, r.settings.threads);
  (dtype == DType::kI8 ? peaks.i8 : peaks.f32) = peak_flops(dtype, r.settings.threads);
  r.flops_per_second = static_cast<double>(*r.flops) / r.time.p50;
  r.efficiency = compute_efficiency(static_cast<double>(*r.flops), r.time.p50, dtype, r.settings.threads);
}

void measure_accuracy(Contender& c, RowReport& r, const std::shared_ptr<const Dataset>& dataset) {
  const Feed feed(dataset, input_specs(*c.graph));
  EvalOptions eval;
  eval.batch_size = r.settings.batch > 0 ? r.settings.batch : 64;
  const EvalResult result = evaluate(*c.session, feed, eval);
  r.top1 = result.top1;
  r.loss = result.loss;
  r.samples = result.samples;
}

void describe_machine(BenchReport& report) {
  report.version = DS_VERSION;
  report.cpu = cpu_description();
  struct utsname system {};
  if (::uname(&system) == 0) report.os = fmt::format("{} {} {}", system.sysname, system.release, system.machine);
  report.date = utc_date();
}

void check(const BenchOptions& options) {
  if (options.models.empty()) fail(ExitCode::kUsage, "no model to time");
  if (!options.input.empty() && (!options.data.empty() || !options.shapes.empty() || !options.vary.empty() || !options.batches.empty()))
    fail(ExitCode::kUsage, "--input is of one shape: --data, --shape, --vary and --batch do not go with it");
  if (!options.data.empty() && !options.shapes.empty()) fail(ExitCode::kUsage, "--shape is for random inputs; with --data the data decides");
  if (!options.data.empty() && !options.vary.empty()) fail(ExitCode::kUsage, "--vary is for random inputs; with --data the data decides");
  if (options.profile && !options.vary.empty()) fail(ExitCode::kUsage, "--profile is of one shape and does not go with --vary");
  for (const std::string& precision : options.precisions) parse_precision(precision);
}

}  // namespace

const Peaks& BenchReport::peaks_of(int threads) const {
  static const Peaks none;
  for (const Peaks& p : peaks)
    if (p.threads == threads) return p;
  return none;
}

BenchReport run_bench(const BenchOptions& options) {
  check(options);
  Setup setup{options, parse_varies(options.vary), nullptr, {}, nullptr};
  std::set<std::string> said;
  if (options.note)
    setup.note = [&](const std::string& line) {
      if (said.insert(line).second) options.note(line);
    };
  BenchReport report;
  describe_machine(report);
  report.seed = options.seed;
  report.static_plan = options.static_plan;
  report.data = options.input.empty() ? options.data : options.input;
  report.random_inputs = report.data.empty();
  const bool automatic = std::find(options.precisions.begin(), options.precisions.end(), "auto") != options.precisions.end();
  if (automatic || !options.costs.empty()) report.costs = named_costs(options.costs);
  if (!options.data.empty()) {
    DatasetOptions dataset_options;
    dataset_options.label_key = options.label_key;
    setup.dataset = open_dataset(options.data, dataset_options);
  } else if (!options.input.empty()) {
    setup.arrays = read_npz(options.input);
  } else if (options.note) {
    options.note(fmt::format("no --data: inputs are random numbers (seed {})", options.seed));
  }

  for (RowSettings& settings : expand_sweep(options)) report.rows.emplace_back().settings = std::move(settings);
  std::vector<Contender> contenders(report.rows.size());
  for (size_t m = 0; m < contenders.size(); ++m) {
    RowReport& r = report.rows[m];
    // Standard input can be read only once; files are loaded for each row, so that each row's cost is its own.
    const bool again = m > 0 && r.settings.model == "-" && report.rows[m - 1].settings.model == "-";
    const double start = now_seconds();
    contenders[m].graph = again ? contenders[m - 1].graph : load_model(r.settings.model);
    r.load_seconds = again ? report.rows[m - 1].load_seconds : now_seconds() - start;
  }
  const auto for_each_row = [&](auto&& action) {
    for (size_t m = 0; m < contenders.size(); ++m)
      with_context([&] { return report.rows[m].settings.model; }, [&] { action(contenders[m], report.rows[m]); });
  };
  for_each_row([&](Contender& c, RowReport& r) {
    describe(c, r);
    make_inputs(c, r, setup);
    warm_up(c, r, setup);
  });
  if (setup.vary.empty()) time_rounds(contenders, report, options);
  else time_varied(contenders, report, setup);
  for_each_row([&](Contender& c, RowReport& r) { summarize_row(c, r, report, options.seed); });
  if (options.profile) for_each_row([&](Contender& c, RowReport& r) { take_profile(c, r, report); });
  if (setup.dataset && setup.dataset->has_labels())
    for_each_row([&](Contender& c, RowReport& r) { measure_accuracy(c, r, setup.dataset); });
  return report;
}

}  // namespace ds::bench
