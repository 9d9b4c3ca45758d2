// Session: a model ready to run at any input shape.
//
// Applies a pipeline of rewrites once, then keeps one executor per set of input shapes (least
// recently used ones are dropped). A graph that no static plan can hold as a whole runs in parts, with plans
// for those that have one (run/parts_executor.h). A Session belongs to one thread at a time; several sessions may
// share one Graph.
//
// Where every call brings another shape (a key-value cache that grows step by step), compiling costs
// more than a small graph's arithmetic. So when SessionOptions::new_in_a_row times in a row the shapes changed
// to some that no kept plan is for, further such shapes run eagerly first, and get a plan when they come again.
// This holds only where eager execution gives the same bits (the latest plan is all in plain layouts, without
// states, random numbers or bodies) and where a plan has little to win (few FLOPs for its steps). Shapes
// are counted and nothing is timed: the same calls take the same ways.
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
  std::shared_ptr<const CostTable> costs = {};  // that Precision::kAuto goes by; null: the built-in table
  int plan_after = 1;      // a plan is compiled when shapes come for the n-th time; until then, eager
  int new_in_a_row = 2;    // so many new shapes in a row, and the next ones run eagerly (see above); 0: never
  // Weights in kernels' layouts and memory, shared with sessions that never run at the same time; null: its own.
  std::shared_ptr<PackedCache> packed = nullptr;
  std::shared_ptr<Arena> arena = nullptr;
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
  // The plan for these input shapes (compiled if need be); null when the graph runs eagerly or in parts.
  std::shared_ptr<const Plan> plan(std::span<const Shape> input_shapes);
  // Why the latest run was not by one plan; empty when it was.
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
    bool unplannable = false;
  };
  Entry& entry(std::span<const Shape> shapes);  // keeps count of new ones
  void prepare(Entry& entry);
  // Why the entry has no plan yet; empty when it is time for one.
  std::string why_no_plan_yet(const Entry& entry) const;
  // Compiles the entry's plan, if the graph has one at these shapes; else it may get an executor in parts.
  void plan_entry(Entry& entry);
  CompileOptions compile_options() const;
  std::shared_ptr<Executor> eager_executor();

  std::shared_ptr<const Graph> graph_;  // after the pipeline
  SessionOptions options_;
  std::shared_ptr<PackedCache> packed_;
  std::shared_ptr<Arena> arena_;
  std::shared_ptr<const Plan> latest_;  // its kernels serve the next one where shapes allow
  bool eager_alike_ = false;  // new shapes may as well run eagerly, going by latest_
  int new_in_a_row_ = 0;      // changes of shapes to new ones since the latest to known ones
  std::list<Entry> entries_;  // most recently used first
  std::shared_ptr<Executor> eager_;  // one for all shapes
  std::shared_ptr<Executor> parts_;  // for what no plan holds as a whole; eager_ where parts gain nothing
  std::string eager_reason_;
  bool profiling_ = false;
};

}  // namespace ds
