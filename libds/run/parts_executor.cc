#include "libds/run/parts_executor.h"

#include <algorithm>

#include "libds/base/log.h"
#include "libds/compile/partition.h"
#include "libds/run/session.h"

namespace ds {
namespace {

// "24 nodes by plan: x -> boxes, scores"
std::string describe(const Graph& graph, const Part& part) {
  std::vector<std::string> inputs, outputs;
  for (ValueId id : part.inputs) inputs.push_back(graph.value(id).name);
  for (ValueId id : part.outputs) outputs.push_back(graph.value(id).name);
  return fmt::format("{} nodes {}: {} -> {}", part.graph->node_count(), part.is_static ? "by plan" : "one by one", fmt::join(inputs, ", "),
                     fmt::join(outputs, ", "));
}

class PartsExecutor final : public Executor {
 public:
  PartsExecutor(std::shared_ptr<const Graph> graph, std::vector<Part> parts, const CompileOptions& options, std::shared_ptr<Arena> shared)
      : graph_(std::move(graph)) {
    values_.resize(graph_->value_capacity());
    std::vector<size_t> last(graph_->value_capacity(), 0);
    for (size_t i = 0; i < parts.size(); ++i)
      for (const auto* list : {&parts[i].inputs, &parts[i].outputs})
        for (ValueId id : *list) last[static_cast<size_t>(id)] = i;
    for (size_t i = 0; i < parts.size(); ++i) {
      log("plan", "part {}: {}", i, describe(*graph_, parts[i]));
      Running r{std::move(parts[i]), nullptr, nullptr, {}};
      if (r.part.is_static) {
        r.session = std::make_unique<Session>(r.part.graph, session_options(r.part, options, shared));
      } else {
        r.eager = make_eager_executor(r.part.graph, options, shared);
      }
      for (const auto* list : {&r.part.inputs, &r.part.outputs})
        for (ValueId id : *list)
          if (last[static_cast<size_t>(id)] == i && !graph_->is_output(id)) r.done.push_back(id);
      parts_.push_back(std::move(r));
    }
  }

  std::vector<Tensor> run(std::span<const Tensor> inputs) override {
    check_inputs(*graph_, inputs);
    for (size_t i = 0; i < inputs.size(); ++i) value(graph_->inputs()[i]) = inputs[i];
    try {
      for (Running& r : parts_) run_part(r);
    } catch (...) {
      forget_values();
      throw;
    }
    std::vector<Tensor> outputs;
    for (ValueId id : graph_->outputs()) outputs.push_back(graph_->value(id).is_constant() ? *graph_->value(id).constant : value(id));
    forget_values();
    return outputs;
  }

  void enable_profile() override {
    for (Running& r : parts_) r.session ? r.session->enable_profile() : r.eager->enable_profile();
  }

  std::vector<StepTime> profile() const override {
    std::vector<StepTime> all;
    for (size_t i = 0; i < parts_.size(); ++i) {
      for (StepTime& step : parts_[i].session ? parts_[i].session->profile() : parts_[i].eager->profile()) {
        step.part = static_cast<int>(i);
        all.push_back(std::move(step));
      }
    }
    return all;
  }

 private:
  struct Running {
    Part part;
    std::unique_ptr<Session> session;  // of a static part
    std::unique_ptr<Executor> eager;   // of a dynamic one
    std::vector<ValueId> done;         // values that no later part reads
  };

  SessionOptions session_options(const Part& part, const CompileOptions& options, const std::shared_ptr<Arena>& shared) const {
    SessionOptions session;
    session.pipeline.clear();  // the graph has been through its own
    session.threads = options.threads;
    session.layouts = options.layouts;
    session.isa = options.isa;
    session.packed = options.packed;
    session.arena = shared;
    const bool first = std::all_of(part.inputs.begin(), part.inputs.end(), [&](ValueId id) { return graph_->is_input(id); });
    session.plan_after = first ? 1 : 2;
    return session;
  }

  Tensor& value(ValueId id) { return values_[static_cast<size_t>(id)]; }

  void run_part(Running& r) {
    std::vector<Tensor> inputs;
    for (ValueId id : r.part.inputs) inputs.push_back(value(id));
    std::vector<Tensor> outputs = r.session ? r.session->run(inputs) : r.eager->run(inputs);
    for (size_t i = 0; i < outputs.size(); ++i) value(r.part.outputs[i]) = std::move(outputs[i]);
    for (ValueId id : r.done) value(id) = Tensor();
  }

  void forget_values() { std::fill(values_.begin(), values_.end(), Tensor()); }

  const std::shared_ptr<const Graph> graph_;
  std::vector<Running> parts_;
  std::vector<Tensor> values_;  // by value: what crosses between parts
};

}  // namespace

std::unique_ptr<Executor> make_parts_executor(std::shared_ptr<const Graph> graph, const Graph& specialised, const CompileOptions& options,
                                              std::shared_ptr<Arena> shared) {
  std::vector<Part> parts = cut_into_parts(*graph, specialised);
  if (parts.empty()) return nullptr;
  return std::make_unique<PartsExecutor>(std::move(graph), std::move(parts), options, std::move(shared));
}

}  // namespace ds
