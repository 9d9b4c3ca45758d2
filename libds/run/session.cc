#include "libds/run/session.h"

#include <algorithm>

#include "libds/base/log.h"
#include "libds/base/parallel.h"
#include "libds/ir/compact.h"
#include "libds/ir/lower.h"
#include "libds/ir/rewriter.h"
#include "libds/mem/transient_pages.h"
#include "libds/passes/pipeline.h"
#include "libds/run/parts_executor.h"

namespace ds {

PipelineOptions pipeline_options(const SessionOptions& options) {
  PipelineOptions passes;
  passes.disabled = options.disabled_passes;
  passes.dump_after = options.dump_after;
  passes.evaluate = evaluate_node;
  passes.precision = options.precision;
  passes.isa = options.isa;
  passes.costs = options.costs;
  return passes;
}

Session::Session(std::shared_ptr<const Graph> graph, SessionOptions options)
    : graph_(std::move(graph)), options_(std::move(options)),
      packed_(options_.packed ? options_.packed : std::make_shared<PackedCache>()),
      arena_(options_.arena ? options_.arena : std::make_shared<Arena>()) {
  const TransientPages pages;
  if (options_.threads == 0) options_.threads = num_threads();
  auto rewritten = std::make_shared<Graph>(*graph_);
  if (options_.pipeline.empty()) {
    Rewriter rw(*rewritten);
    if (lower_nodes(rw)) graph_ = std::move(rewritten);
    return;
  }
  run_pipeline(*rewritten, options_.pipeline, pipeline_options(options_));
  graph_ = std::make_shared<Graph>(compacted(*rewritten));  // every plan begins with a copy
}

Session::Entry& Session::entry(std::span<const Shape> shapes) {
  for (auto it = entries_.begin(); it != entries_.end(); ++it) {
    if (!std::equal(shapes.begin(), shapes.end(), it->shapes.begin(), it->shapes.end())) continue;
    if (it != entries_.begin()) new_in_a_row_ = 0;
    entries_.splice(entries_.begin(), entries_, it);
    return entries_.front();
  }
  ++new_in_a_row_;
  Entry e;
  e.shapes.assign(shapes.begin(), shapes.end());
  entries_.push_front(std::move(e));
  if (entries_.size() > options_.cached_plans) entries_.pop_back();
  return entries_.front();
}

CompileOptions Session::compile_options() const {
  CompileOptions compile_options;
  compile_options.threads = options_.threads;
  compile_options.layouts = options_.layouts;
  compile_options.body_plans = options_.static_plan;
  compile_options.isa = options_.isa;
  compile_options.packed = packed_;
  return compile_options;
}

std::string Session::why_no_plan_yet(const Entry& e) const {
  if (!options_.static_plan) return "eager execution was asked for";
  if (e.seen < options_.plan_after) return "these shapes are new";
  const bool stream = options_.new_in_a_row > 0 && new_in_a_row_ > options_.new_in_a_row;
  if (e.seen == 1 && stream && eager_alike_ && !profiling_) return "these shapes are new, as the latest were";
  return {};
}

namespace {

// Whether a run of the graph node by node gives the plan's bits and takes hardly longer: see session.h.
bool runs_alike_eagerly(const Plan& plan) {
  // A step costs its compilation about 10 us, in which a core does some hundred thousand FLOPs.
  constexpr int64_t kMostFlopsPerStep = 4'000'000;
  if (plan.flops > kMostFlopsPerStep * static_cast<int64_t>(plan.steps.size()) || !plan.states.empty()) return false;
  for (const Slot& s : plan.slots)
    if (s.desc.layout != Layout::kPlain) return false;
  return std::none_of(plan.steps.begin(), plan.steps.end(), [&](const Step& s) {
    const Node& n = plan.graph->node(s.node);
    return n.def->stateful || n.has_bodies();
  });
}

}  // namespace

void Session::plan_entry(Entry& e) {
  // What runs in parts at other shapes does so at these: to look again would cost each new set of shapes a copy of the graph.
  const auto in_parts = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& other) { return other.unplannable && parts_ != eager_; });
  if (in_parts != entries_.end()) {
    e.unplannable = true;
    e.eager_reason = in_parts->eager_reason;
    return;
  }
  auto specialised = std::make_shared<Graph>(*graph_);
  Rewriter rw(*specialised);
  specialize(rw, e.shapes, evaluate_node);
  const bool lowered = lower_nodes(rw);  // what could not be lowered without its rank
  if (lowered) specialize(rw, e.shapes, evaluate_node);
  PassContext context;
  remove_identities(rw, context);  // of sizes that only turned out to be the same
  e.eager_reason = unplannable_reason(*specialised);
  e.unplannable = !e.eager_reason.empty();
  if (e.unplannable) {
    if (!parts_) parts_ = make_parts_executor(graph_, *specialised, compile_options(), arena_);
    if (!parts_) parts_ = eager_executor();
    return;
  }
  CompileOptions with_previous = compile_options();
  with_previous.previous = latest_;
  e.plan = compile(std::move(specialised), with_previous);
  e.executor = make_plan_executor(e.plan, arena_);
  latest_ = e.plan;
  eager_alike_ = !lowered && runs_alike_eagerly(*latest_);
}

std::shared_ptr<Executor> Session::eager_executor() {
  if (!eager_) eager_ = make_eager_executor(graph_, compile_options(), arena_);
  return eager_;
}

// Gives the entry the executor it should have by now.
void Session::prepare(Entry& e) {
  ++e.seen;
  if (e.plan || e.unplannable) return;
  e.eager_reason = why_no_plan_yet(e);
  if (e.eager_reason.empty()) plan_entry(e);
  if (!e.plan) {
    log("plan", "no static plan: {}{}", e.eager_reason, e.unplannable && parts_ != eager_ ? " (runs in parts)" : "");
    e.executor = e.unplannable ? parts_ : eager_executor();
  }
  if (profiling_) e.executor->enable_profile();
}

std::shared_ptr<const Plan> Session::plan(std::span<const Shape> input_shapes) {
  Entry& e = entry(input_shapes);
  e.seen = std::max(e.seen, 1);  // who asks for a plan has a use for it
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
