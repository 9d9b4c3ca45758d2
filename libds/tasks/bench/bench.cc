#include "libds/tasks/bench/bench.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>

#include "libds/base/cpu.h"
#include "libds/base/error.h"
#include "libds/base/parallel.h"
#include "libds/base/process.h"
#include "libds/data/dataset.h"
#include "libds/eval/evaluate.h"
#include "libds/ir/onnx_import.h"
#include "libds/run/input_shapes.h"
#include "libds/run/model_cost.h"
#include "libds/run/peak.h"
#include "libds/run/random_inputs.h"
#include "libds/run/session.h"

namespace ds::bench {
namespace {

constexpr int64_t kMinRounds = 5;
constexpr int64_t kMaxRounds = 100'000;

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

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

// A model made ready to be timed.
struct Contender {
  std::shared_ptr<Graph> graph;  // as loaded
  std::unique_ptr<Session> session;
  std::vector<Tensor> inputs;
};

void describe(const Contender& c, ModelReport& report) {
  struct stat info {};
  if (report.path != "-" && ::stat(report.path.c_str(), &info) == 0) report.file_bytes = info.st_size;
  for (ValueId id : c.graph->initializers()) {
    const Tensor t = c.graph->value(id).constant->transient();
    report.parameters += t.numel();
    report.parameter_bytes += static_cast<int64_t>(t.bytes());
    report.nonzero_parameters += count_nonzero(t);
  }
  report.dtype = dtype_name(compute_dtype(*c.graph));
}

// Input shapes: --shape, then --batch for an open first axis, then 1 (said aloud).
std::vector<Shape> choose_shapes(const Graph& graph, const BenchOptions& options, const std::string& path) {
  InputShapes chosen = resolve_input_shapes(graph, options.shapes);
  bool assumed = chosen.assumed;
  if (options.batch > 0 && chosen.assumed) {
    // Which sizes were assumed shows in a second look with the batch's own symbols given.
    std::vector<std::string> given = options.shapes;
    for (ValueId id : graph.inputs()) {
      const Value& v = graph.value(id);
      if (!v.dims || v.dims->empty() || (*v.dims)[0].known()) continue;
      const std::string& name = graph.symbol_name((*v.dims)[0].symbol_id());
      const std::string size = fmt::format("{}:{}", name, options.batch);
      if (name.empty() || std::find(given.begin(), given.end(), size) != given.end()) continue;
      const bool already = std::any_of(options.shapes.begin(), options.shapes.end(),
                                       [&](const std::string& s) { return s.rfind(name + ":", 0) == 0; });
      if (!already) given.push_back(size);
    }
    chosen = resolve_input_shapes(graph, given);
    assumed = chosen.assumed;
    // Anonymous first dimensions have no name to give a size to.
    for (size_t i = 0; i < chosen.shapes.size(); ++i) {
      const Value& v = graph.value(graph.inputs()[i]);
      const bool own_shape = std::any_of(options.shapes.begin(), options.shapes.end(),
                                         [&](const std::string& s) { return s.rfind(v.name + ":", 0) == 0; });
      if (own_shape || !v.dims || v.dims->empty() || (*v.dims)[0].known()) continue;
      if (graph.symbol_name((*v.dims)[0].symbol_id()).empty()) chosen.shapes[i][0] = options.batch;
    }
  }
  if (assumed && options.note) {
    std::vector<std::string> at;
    for (size_t i = 0; i < chosen.shapes.size(); ++i)
      at.push_back(fmt::format("{}:{}", graph.value(graph.inputs()[i]).name, shape_string(chosen.shapes[i])));
    options.note(fmt::format("{}: dimensions that were not given are taken as 1: {}", path, fmt::join(at, " ")));
  }
  return chosen.shapes;
}

void make_inputs(Contender& c, ModelReport& report, const BenchOptions& options, const std::shared_ptr<const Dataset>& dataset) {
  const Graph& graph = *c.graph;
  if (dataset) {
    const Feed feed(dataset, input_specs(graph));
    int64_t batch = options.batch > 0 ? options.batch : 1;
    for (ValueId id : graph.inputs()) {
      const auto& dims = graph.value(id).dims;
      if (dims && !dims->empty() && (*dims)[0].known()) batch = (*dims)[0].raw;
    }
    if (batch > feed.size()) bad_data("a batch of {} is more than the {} samples of {}", batch, feed.size(), dataset->name());
    c.inputs = feed.range(0, batch).inputs;
  } else {
    c.inputs = random_inputs(graph, choose_shapes(graph, options, report.path), options.seed);
  }
  for (size_t i = 0; i < c.inputs.size(); ++i) report.inputs.emplace_back(graph.value(graph.inputs()[i]).name, c.inputs[i].shape());
  if (!c.inputs.empty() && c.inputs[0].rank() > 0) report.batch = c.inputs[0].dim(0);
}

// Compiles and runs for the first time, watching how memory grows.
void warm_up(Contender& c, ModelReport& report, const BenchOptions& options) {
  std::vector<Shape> shapes;
  for (const Tensor& t : c.inputs) shapes.push_back(t.shape());
  if (const std::optional<Cost> cost = model_cost(*c.graph, shapes)) report.flops = cost->flops;
  trim_heap();
  const int64_t idle = resident_bytes();
  const bool fresh_peak = reset_peak_resident();
  SessionOptions session_options;
  session_options.threads = options.threads;
  session_options.static_plan = options.static_plan;
  c.session = std::make_unique<Session>(c.graph, session_options);
  const std::shared_ptr<const Plan> plan = c.session->plan(shapes);
  c.session->run(c.inputs);
  c.session->run(c.inputs);
  report.measured_bytes = std::max<int64_t>(0, (fresh_peak ? peak_resident_bytes() : resident_bytes()) - idle);
  report.planned = plan != nullptr;
  report.eager_reason = c.session->eager_reason();
  if (plan) report.planned_bytes = static_cast<int64_t>(plan->planned_bytes());
  for (int64_t i = 0; i < options.warmup; ++i) c.session->run(c.inputs);
}

void time_rounds(std::vector<Contender>& contenders, BenchReport& report, const BenchOptions& options) {
  const size_t n = contenders.size();
  const double end = now_seconds() + options.duration * static_cast<double>(n);
  for (int64_t round = 0;; ++round) {
    if (options.iterations > 0 ? round >= options.iterations
                               : round >= kMaxRounds || (round >= kMinRounds && now_seconds() >= end))
      break;
    for (size_t k = 0; k < n; ++k) {
      const size_t m = (static_cast<size_t>(round) + k) % n;
      const double start = now_seconds();
      const std::vector<Tensor> outputs = contenders[m].session->run(contenders[m].inputs);
      report.models[m].seconds.push_back(now_seconds() - start);
    }
    report.rounds = round + 1;
  }
}

}  // namespace

BenchReport run_bench(const BenchOptions& options) {
  if (options.models.empty()) fail(ExitCode::kUsage, "no model to time");
  if (!options.data.empty() && !options.shapes.empty()) fail(ExitCode::kUsage, "--shape is for random inputs; with --data the data decides");
  set_num_threads(options.threads);
  BenchReport report;
  report.cpu = cpu_description();
  report.threads = options.threads;
  report.seed = options.seed;
  report.data = options.data;
  report.random_inputs = options.data.empty();
  std::shared_ptr<const Dataset> dataset;
  if (!options.data.empty()) {
    DatasetOptions dataset_options;
    dataset_options.label_key = options.label_key;
    dataset = open_dataset(options.data, dataset_options);
  } else if (options.note) {
    options.note(fmt::format("no --data: inputs are random numbers (seed {})", options.seed));
  }

  std::vector<Contender> contenders(options.models.size());
  report.models.resize(options.models.size());
  for (size_t m = 0; m < contenders.size(); ++m) {
    report.models[m].path = options.models[m];
    contenders[m].graph = load_model(options.models[m]);
  }
  for (size_t m = 0; m < contenders.size(); ++m) {
    ModelReport& r = report.models[m];
    with_context([&] { return r.path; }, [&] {
      describe(contenders[m], r);
      make_inputs(contenders[m], r, options, dataset);
      warm_up(contenders[m], r, options);
    });
  }
  time_rounds(contenders, report, options);

  for (size_t m = 0; m < contenders.size(); ++m) {
    ModelReport& r = report.models[m];
    r.time = summarize(r.seconds);
    r.ratio = paired_ratio(report.models[0].seconds, r.seconds, options.seed);
    const DType dtype = compute_dtype(*contenders[m].graph);
    const double peak = peak_flops(dtype, options.threads);
    (dtype == DType::kI8 ? report.peak_i8 : report.peak_f32) = peak;
    if (r.flops && *r.flops > 0) {
      r.flops_per_second = static_cast<double>(*r.flops) / r.time.p50;
      r.efficiency = compute_efficiency(static_cast<double>(*r.flops), r.time.p50, dtype, options.threads);
    }
    if (!dataset || !dataset->has_labels()) continue;
    with_context([&] { return r.path; }, [&] {
      const Feed feed(dataset, input_specs(*contenders[m].graph));
      EvalOptions eval;
      eval.batch_size = options.batch > 0 ? options.batch : 64;
      const EvalResult result = evaluate(*contenders[m].session, feed, eval);
      r.top1 = result.top1;
      r.loss = result.loss;
      r.samples = result.samples;
    });
  }
  return report;
}

}  // namespace ds::bench
