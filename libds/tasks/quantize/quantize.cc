#include "libds/tasks/quantize/quantize.h"

#include <algorithm>
#include <cmath>

#include "libds/eval/evaluate.h"
#include "libds/passes/fuse_conv.h"
#include "libds/run/session.h"
#include "libds/tasks/quantize/calibrate.h"

namespace ds {
namespace {

constexpr int64_t kErrorSamples = 16;  // samples on which errors per node are measured
constexpr int kMostAttempts = 6;       // quantizations tried to pass the gate

struct Attempt {
  std::shared_ptr<Graph> graph;
  std::vector<NodeQuantization> nodes;
  std::vector<NodeId> ids;  // of `nodes`
};

double metric_of(const Graph& graph, const QuantizeRequest& r, const char* stage) {
  Session session(std::make_shared<Graph>(graph));
  const Feed feed(r.evaluation, input_specs(graph));
  EvalOptions options;
  options.loss = r.metric == "accuracy" || r.metric == "auc" ? EvalLoss::kBce : EvalLoss::kCrossEntropy;
  options.batch_size = r.batch_size;
  if (r.on_progress) options.on_progress = [&](int64_t done) { r.on_progress(stage, done, feed.size()); };
  const EvalResult result = evaluate(session, feed, options);
  const std::optional<double> value = r.metric == "top1" ? result.top1 : r.metric == "f1" ? result.f1 : r.metric == "accuracy" ? result.accuracy : result.auc;
  if (!value) bad_data("{}: metric {} cannot be computed for this model and data", r.evaluation->name(), r.metric);
  return *value;
}

Attempt quantize_static(const Graph& base, const QuantizeRequest& r, const QuantizeOptions& options,
                        std::map<ValueId, TensorRange>& ranges, int64_t samples) {
  const QuantPlan plan = plan_quantization(base, options);
  std::vector<ValueId> missing;  // later attempts quantize fewer tensors: their ranges are known
  for (ValueId id : plan.observed)
    if (ranges.count(id) == 0) missing.push_back(id);
  if (!missing.empty()) {
    const auto progress = [&](int64_t done, int64_t total) {
      if (r.on_progress) r.on_progress("calibrate", done, total);
    };
    ranges.merge(calibrate(base, missing, *r.calibration, samples, r.observer, progress));
  }
  Attempt a;
  a.graph = std::make_shared<Graph>(base);
  Rewriter rw(*a.graph);
  const QuantResult result = apply_quantization(rw, plan, ranges);
  std::vector<ValueId> reference, measured;
  std::vector<size_t> which;
  for (const QuantDecision& d : plan.decisions) {
    NodeQuantization n;
    n.name = d.name;
    n.op = d.op;
    n.quantized = d.quantized;
    n.reason = d.reason;
    if (d.quantized) {
      const auto dq = result.dequantized.find(d.result);
      reference.push_back(d.result);
      measured.push_back(dq == result.dequantized.end() ? d.result : dq->second);
      which.push_back(a.nodes.size());
      n.input = result.params.at(d.input);
      if (dq != result.dequantized.end()) n.result = result.params.at(d.result);
      if (const auto w = result.weight_scales.find(d.node); w != result.weight_scales.end()) n.weight_scale = w->second;
    }
    a.nodes.push_back(std::move(n));
    a.ids.push_back(d.node);
  }
  if (!reference.empty()) {
    const std::vector<double> ratio =
        signal_to_noise(base, reference, *a.graph, measured, *r.calibration, std::min(samples, kErrorSamples));
    for (size_t i = 0; i < which.size(); ++i) a.nodes[which[i]].sqnr_db = ratio[i];
  }
  return a;
}

Attempt quantize_dynamically(const Graph& model, const QuantizeOptions& options) {
  Attempt a;
  a.graph = std::make_shared<Graph>(model);
  Rewriter rw(*a.graph);
  for (const QuantDecision& d : quantize_dynamic(rw, options)) {
    NodeQuantization n;
    n.name = d.name;
    n.op = d.op;
    n.quantized = d.quantized;
    n.reason = d.reason;
    a.nodes.push_back(std::move(n));
    a.ids.push_back(d.node);
  }
  return a;
}

// The tenth of the quantized operators with weights whose results are furthest from the float ones.
std::vector<NodeId> worst_nodes(const Attempt& a) {
  std::vector<size_t> order;
  for (size_t i = 0; i < a.nodes.size(); ++i)
    if (a.nodes[i].quantized && a.nodes[i].weight_scale) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) {
    return a.nodes[x].sqnr_db.value_or(INFINITY) < a.nodes[y].sqnr_db.value_or(INFINITY);
  });
  order.resize((order.size() + 9) / 10);
  std::vector<NodeId> ids;
  for (size_t i : order) ids.push_back(a.ids[i]);
  return ids;
}

bool any_quantized(const Attempt& a) {
  return std::any_of(a.nodes.begin(), a.nodes.end(), [](const NodeQuantization& n) { return n.quantized; });
}

}  // namespace

QuantizeOutcome quantize(const Graph& model, const QuantizeRequest& r) {
  Graph base = model;
  int64_t samples = 0;
  if (!r.dynamic) {
    Rewriter rw(base);
    PassContext context;
    fold_into_conv(rw, context);
    rw.remove_dead_nodes();
    samples = r.calibration_samples > 0 ? std::min(r.calibration_samples, r.calibration->size()) : r.calibration->size();
    if (samples == 0) bad_data("{}: there is no calibration sample", r.calibration->name());
  }
  QuantizeOutcome outcome;
  outcome.samples = samples;
  outcome.metric = r.metric;
  if (r.evaluation) outcome.float_metric = metric_of(model, r, "evaluate float");
  std::map<ValueId, TensorRange> ranges;
  QuantizeOptions options = r.options;
  for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
    Attempt a = r.dynamic ? quantize_dynamically(base, options) : quantize_static(base, r, options, ranges, samples);
    if (!any_quantized(a)) {
      if (attempt > 0) break;
      const std::string why = a.nodes.empty() ? "it has no Conv, Gemm or MatMul"
                                              : fmt::format("node '{}' ({}): {}", a.nodes[0].name, a.nodes[0].op, a.nodes[0].reason);
      bad_data("nothing in the model can be quantized: {}", why);
    }
    const std::optional<double> metric = r.evaluation ? std::optional(metric_of(*a.graph, r, "evaluate int8")) : std::nullopt;
    const std::vector<NodeId> worst = worst_nodes(a);
    if (!outcome.graph || !metric || *metric > *outcome.quantized_metric) {
      outcome.graph = a.graph;
      outcome.nodes = std::move(a.nodes);
      outcome.quantized_metric = metric;
    }
    outcome.gate_passed = !r.max_drop || !metric || *outcome.float_metric - *outcome.quantized_metric <= *r.max_drop + 1e-12;
    if (outcome.gate_passed || worst.empty()) break;
    options.keep_float.insert(options.keep_float.end(), worst.begin(), worst.end());
  }
  return outcome;
}

}  // namespace ds
