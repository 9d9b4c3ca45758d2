#include "libds/run/session.h"

#include "libds/base/log.h"
#include "libds/base/parallel.h"
#include "libds/ir/lower.h"
#include "libds/ir/rewriter.h"
#include "libds/passes/pipeline.h"

namespace ds {

PipelineOptions pipeline_options(const SessionOptions& options) {
  PipelineOptions passes;
  passes.disabled = options.disabled_passes;
  passes.dump_after = options.dump_after;
  passes.evaluate = evaluate_node;
  passes.precision = options.precision;
  passes.isa = options.isa;
  return passes;
}

Session::Session(std::shared_ptr<const Graph> graph, SessionOptions options)
    : graph_(std::move(graph)), options_(std::move(options)) {
  if (options_.threads == 0) options_.threads = num_threads();
  auto rewritten = std::make_shared<Graph>(*graph_);
  if (options_.pipeline.empty()) {
    Rewriter rw(*rewritten);
    if (lower_nodes(rw)) graph_ = std::move(rewritten);
    return;
  }
  run_pipeline(*rewritten, options_.pipeline, pipeline_options(options_));
  graph_ = std::move(rewritten);
}

Session::Entry& Session::entry(std::span<const Shape> shapes) {
  for (auto it = entries_.begin(); it != entries_.end(); ++it) {
    if (!std::equal(shapes.begin(), shapes.end(), it->shapes.begin(), it->shapes.end())) continue;
    entries_.splice(entries_.begin(), entries_, it);
    return entries_.front();
  }
  Entry e;
  e.shapes.assign(shapes.begin(), shapes.end());
  entries_.push_front(std::move(e));
  if (entries_.size() > options_.cached_plans) entries_.pop_back();
  return entries_.front();
}

// Gives the entry the executor it should have by now.
void Session::prepare(Entry& e) {
  ++e.seen;
  if (e.plan || (e.executor && e.seen != options_.plan_after)) return;
  CompileOptions compile_options;
  compile_options.threads = options_.threads;
  compile_options.layouts = options_.layouts;
  compile_options.body_plans = options_.static_plan;
  compile_options.isa = options_.isa;
  compile_options.packed = packed_;
  if (!options_.static_plan) {
    e.eager_reason = "eager execution was asked for";
  } else if (e.seen < options_.plan_after) {
    e.eager_reason = "these shapes are new";
  } else {
    auto specialised = std::make_shared<Graph>(*graph_);
    Rewriter rw(*specialised);
    specialize(rw, e.shapes, evaluate_node);
    if (lower_nodes(rw)) specialize(rw, e.shapes, evaluate_node);  // what could not be lowered without its rank
    PassContext context;
    if (!options_.pipeline.empty()) remove_identities(rw, context);  // of sizes that only turned out to be the same
    e.eager_reason = unplannable_reason(*specialised);
    if (e.eager_reason.empty()) {
      compile_options.previous = latest_;
      e.plan = compile(std::move(specialised), compile_options);
      e.executor = make_plan_executor(e.plan, arena_);
      latest_ = e.plan;
    }
  }
  if (!e.plan) {
    log("plan", "no static plan: {}", e.eager_reason);
    if (!eager_) eager_ = make_eager_executor(graph_, compile_options);
    e.executor = eager_;
  }
  if (profiling_) e.executor->enable_profile();
}

std::shared_ptr<const Plan> Session::plan(std::span<const Shape> input_shapes) {
  Entry& e = entry(input_shapes);
  prepare(e);
  return e.plan;
}

std::vector<Tensor> Session::run(std::span<const Tensor> inputs) {
  // What is given for an optional input may be the content: then it is there.
  std::vector<Tensor> wrapped;
  for (size_t i = 0; i < inputs.size() && i < graph_->inputs().size(); ++i) {
    if (graph_->value(graph_->inputs()[i]).dtype != DType::kOptional || !inputs[i].defined() || inputs[i].dtype() == DType::kOptional) continue;
    if (wrapped.empty()) wrapped.assign(inputs.begin(), inputs.end());
    wrapped[i] = Tensor::optional_of(inputs[i]);
  }
  if (!wrapped.empty()) inputs = wrapped;
  check_inputs(*graph_, inputs);
  if (num_threads() != options_.threads) set_num_threads(options_.threads);
  std::vector<Shape> shapes;
  for (const Tensor& t : inputs) shapes.push_back(t.shape());
  Entry& e = entry(shapes);
  prepare(e);
  eager_reason_ = e.eager_reason;
  return e.executor->run(inputs);
}

std::map<std::string, Tensor> Session::run(const std::map<std::string, Tensor>& inputs) {
  std::vector<Tensor> ordered;
  for (ValueId id : graph_->inputs()) {
    const std::string& name = graph_->value(id).name;
    const auto it = inputs.find(name);
    if (it == inputs.end()) bad_data("input '{}' is missing", name);
    ordered.push_back(it->second);
  }
  if (inputs.size() > ordered.size()) {
    for (const auto& [name, tensor] : inputs) {
      const ValueId id = graph_->find_value(name);
      if (id == kNone || !graph_->is_input(id)) bad_data("the model has no input '{}'", name);
    }
  }
  const std::vector<Tensor> results = run(ordered);
  std::map<std::string, Tensor> named;
  for (size_t i = 0; i < results.size(); ++i) named.emplace(graph_->value(graph_->outputs()[i]).name, results[i]);
  return named;
}

void Session::enable_profile() {
  profiling_ = true;
  for (Entry& e : entries_) e.executor->enable_profile();
}

std::vector<StepTime> Session::profile() const {
  return entries_.empty() ? std::vector<StepTime>() : entries_.front().executor->profile();
}

}  // namespace ds
