// Session: a model ready to run at any input shape.
//
// Applies a pipeline of rewrites once, then keeps one executor per set of input shapes (least
// recently used ones are dropped). A graph that no static plan can hold runs eagerly. A Session
// belongs to one thread at a time; several sessions may share one Graph.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "libds/passes/pipeline.h"
#include "libds/run/executor.h"

namespace ds {

struct SessionOptions {
  std::string pipeline = "inference";  // passes/pipeline.h; empty: run the graph as it is
  std::vector<std::string> disabled_passes = {}, dump_after = {};
  int threads = 0;         // 0: what the calling thread has (num_threads())
  bool static_plan = true; // false: always eager
  bool layouts = true;
  Isa isa = cpu_isa();     // most that kernels may use
  size_t cached_plans = 16;
  Precision precision = Precision::kF32;  // of products, passes/auto_cast.h
  int plan_after = 1;      // a plan is compiled when shapes come for the n-th time; until then, eager
};

// The options of the pipeline that a session with these options runs.
PipelineOptions pipeline_options(const SessionOptions& options);

class Session {
 public:
  // `graph` is not changed; the session works on copies that share its weights.
  explicit Session(std::shared_ptr<const Graph> graph, SessionOptions options = {});

  const Graph& graph() const { return *graph_; }
  // Inputs in the order of graph().inputs(); outputs in that of graph().outputs().
  std::vector<Tensor> run(std::span<const Tensor> inputs);
  // By name; every input must be there, others are an error.
  std::map<std::string, Tensor> run(const std::map<std::string, Tensor>& inputs);

  // Weights that kernels of all shapes have packed.
  const PackedCache& packed_weights() const { return *packed_; }
  // The plan for these input shapes (compiled if need be); null when the graph runs eagerly.
  std::shared_ptr<const Plan> plan(std::span<const Shape> input_shapes);
  // Why the latest run was eager; empty when it ran by a plan.
  const std::string& eager_reason() const { return eager_reason_; }
  void enable_profile();
  // Profile of the latest run's executor.
  std::vector<StepTime> profile() const;

 private:
  struct Entry {
    std::vector<Shape> shapes;
    int seen = 0;
    std::shared_ptr<const Plan> plan;
    std::shared_ptr<Executor> executor;
    std::string eager_reason;
  };
  Entry& entry(std::span<const Shape> shapes);
  void prepare(Entry& entry);

  std::shared_ptr<const Graph> graph_;  // after the pipeline
  SessionOptions options_;
  std::shared_ptr<PackedCache> packed_ = std::make_shared<PackedCache>();
  std::shared_ptr<Arena> arena_ = std::make_shared<Arena>();
  std::shared_ptr<const Plan> latest_;  // its kernels serve the next one where shapes allow
  std::list<Entry> entries_;  // most recently used first
  std::shared_ptr<Executor> eager_;  // one for all shapes
  std::string eager_reason_;
  bool profiling_ = false;
};

}  // namespace ds
