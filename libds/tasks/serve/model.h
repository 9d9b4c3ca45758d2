// One model being served: a queue, and instances that take batches from it.
//
// An instance is a thread with a Session of its own; all share the weights. It asks the batcher
// (batcher.h) what to run, joins the requests' tensors along axis 0, runs them at a planned batch size
// (bucket.h) and hands each request its rows.
//
// Requests are joined only where that cannot change an answer: axis 0 of every input and output must
// be open, and a trial at load time must show that rows do not influence each other. When a joined
// batch fails, its requests run again one by one, so that a bad one fails alone.
//
// Threads: enqueue() and the reading functions from any thread; `done` is called on instance threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "libds/run/metrics.h"
#include "libds/run/session.h"
#include "libds/tasks/serve/batcher.h"
#include "libds/tasks/serve/protocol.h"

namespace ds::serve {

struct ModelOptions {
  int instances = 1;
  int threads = 1;  // of each instance
  Precision precision = Precision::kF32;
  std::shared_ptr<const CostTable> costs;  // run/session.h
  BatchPolicy batch;
  size_t max_queue = 256;                       // requests waiting
  size_t max_queue_bytes = size_t{512} << 20;   // bytes of their tensors
};

class ServedModel {
 public:
  // Checks that the model can be served, tries it out and starts the instances. Throws ds::Error with
  // the model's name in front.
  ServedModel(std::string name, std::shared_ptr<const Graph> graph, const ModelOptions& options);
  ~ServedModel();  // drains
  ServedModel(const ServedModel&) = delete;
  ServedModel& operator=(const ServedModel&) = delete;

  const ModelInfo& info() const { return info_; }
  // Whether requests may share a batch.
  bool joins_requests() const { return joins_; }

  // `done` is called once: later with the outputs, or at once with 503 when the queue is full or the
  // model is draining.
  void enqueue(InferRequest request, InferDone done);
  // Finishes what is queued, without waiting for company, and ends the instances.
  void drain();

  // Figures for /metrics.
  struct Stats {
    Histogram request_seconds{Histogram::time_bounds()};  // from arrival to the result
    Histogram queue_seconds{Histogram::time_bounds()};    // from arrival to the start of its batch
    Histogram batch_rows{Histogram::size_bounds()};
    std::atomic<int64_t> running{0};        // requests in batches under way
    std::atomic<double> flops{0};           // done by runs whose cost is known
    std::atomic<double> compute_seconds{0}; // spent in them
  };
  const Stats& stats() const { return stats_; }
  size_t queue_length() const;
  // Model FLOPs ÷ time ÷ peak over the latest runs (or since the start, while there are few); 0..1.
  double efficiency() const;

 private:
  struct Pending {
    InferRequest request;
    InferDone done;
    TimePoint arrived;
    size_t bytes = 0;
  };

  void check_interface(const Graph& graph);
  bool rows_are_independent(Session& session) const;
  void instance_loop(Session& session);
  void run_batch(Session& session, std::vector<Pending> batch);
  void run_requests(Session& session, std::vector<Pending>& batch);
  std::vector<Tensor> run_rows(Session& session, const std::vector<Tensor>& inputs);
  std::vector<Tensor> run_timed(Session& session, const std::vector<Tensor>& inputs);
  double flops_of(const std::vector<Shape>& shapes);
  uint64_t key_for(const InferRequest& request);

  ModelInfo info_;
  ModelOptions options_;
  bool joins_ = false;
  std::shared_ptr<const Graph> graph_;  // as loaded
  DType compute_dtype_ = DType::kF32;
  Stats stats_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Pending> queue_;               // guarded by mutex_; in order of arrival
  std::vector<QueuedRequest> queue_view_;    // the same, as decide() sees it
  size_t queued_bytes_ = 0;
  uint64_t next_key_ = 0;
  int idle_ = 0;
  bool draining_ = false;

  struct Run {
    double flops = 0, seconds = 0;
  };
  mutable std::mutex recent_mutex_;
  std::map<std::vector<Shape>, double> flops_of_shapes_;  // guarded by recent_mutex_
  std::vector<Run> recent_;  // ring of the latest runs
  size_t recent_next_ = 0;

  std::vector<std::unique_ptr<Session>> sessions_;
  std::vector<std::thread> threads_;
};

}  // namespace ds::serve
