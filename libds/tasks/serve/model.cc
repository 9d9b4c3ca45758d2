#include "libds/tasks/serve/model.h"

#include <cmath>
#include <cstring>
#include <optional>

#include "libds/base/error.h"
#include "libds/base/log.h"
#include "libds/base/random.h"
#include "libds/passes/pipeline.h"
#include "libds/run/executor.h"
#include "libds/run/model_cost.h"
#include "libds/run/peak.h"
#include "libds/tasks/serve/bucket.h"

namespace ds::serve {
namespace {

constexpr size_t kRecentRuns = 64;
constexpr double kJoinTolerance = 1e-3;  // relative; far above rounding, far below mixing of rows

double seconds_between(TimePoint from, TimePoint to) { return std::chrono::duration<double>(to - from).count(); }

TensorSpec spec_of(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  TensorSpec spec{value.name, value.dtype, value.dims.has_value(), {}};
  if (value.dims)
    for (const Dim& d : *value.dims) spec.shape.push_back(d.known() ? d.raw : -1);
  return spec;
}

bool open_first_axis(const TensorSpec& spec) { return spec.ranked && !spec.shape.empty() && spec.shape[0] < 0; }

// Numbers that are valid almost anywhere: floats in [0, 1), integers 0 or 1 (indices, masks).
Tensor sample_tensor(DType dtype, const Shape& shape, Random& random) {
  Tensor tensor = Tensor::empty(dtype, shape);
  dispatch_dtype(dtype, [&](auto tag) {
    using T = decltype(tag);
    T* out = tensor.mutable_data<T>();
    for (int64_t i = 0; i < tensor.numel(); ++i) {
      if constexpr (std::is_same_v<T, bool>) out[i] = random.below(2) != 0;
      else if constexpr (std::is_integral_v<T>) out[i] = static_cast<T>(random.below(2));
      else out[i] = T(static_cast<float>(random.uniform()));
    }
  });
  return tensor;
}

bool close(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.shape() != b.shape()) return false;
  const std::vector<double> x = a.to_doubles(), y = b.to_doubles();
  double scale = 0;
  for (double v : x)
    if (std::isfinite(v)) scale = std::max(scale, std::fabs(v));
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::isnan(x[i]) && std::isnan(y[i])) continue;
    if (x[i] == y[i]) continue;
    if (!(std::fabs(x[i] - y[i]) <= kJoinTolerance * std::max(scale, 1e-6))) return false;
  }
  return true;
}

// Rows of several tensors one after the other; a single one is passed through.
Tensor concat_rows(const std::vector<Tensor>& parts) {
  if (parts.size() == 1) return parts[0];
  Shape shape = parts[0].shape();
  shape[0] = 0;
  for (const Tensor& part : parts) shape[0] += part.dim(0);
  Tensor joined = Tensor::empty(parts[0].dtype(), shape, Tier::kActivations);
  auto* out = static_cast<std::byte*>(joined.mutable_raw());
  for (const Tensor& part : parts) {
    if (part.bytes() > 0) std::memcpy(out, part.raw(), part.bytes());
    out += part.bytes();
  }
  return joined;
}

// `rows` extended to `bucket` rows by repeating the last: a real row cannot fail where itself did not.
Tensor pad_rows(const Tensor& rows, int64_t bucket) {
  const int64_t have = rows.dim(0);
  if (have == bucket) return rows;
  Shape shape = rows.shape();
  shape[0] = bucket;
  Tensor padded = Tensor::empty(rows.dtype(), shape, Tier::kActivations);
  const size_t row = rows.bytes() / static_cast<size_t>(have);
  auto* out = static_cast<std::byte*>(padded.mutable_raw());
  const auto* in = static_cast<const std::byte*>(rows.raw());
  if (rows.bytes() > 0) std::memcpy(out, in, rows.bytes());
  for (int64_t r = have; r < bucket && row > 0; ++r)
    std::memcpy(out + static_cast<size_t>(r) * row, in + static_cast<size_t>(have - 1) * row, row);
  return padded;
}

std::vector<Shape> shapes_of(const std::vector<Tensor>& tensors) {
  std::vector<Shape> shapes;
  for (const Tensor& t : tensors) shapes.push_back(t.shape());
  return shapes;
}

int status_of(ExitCode code) {
  switch (code) {
    case ExitCode::kBadData: return 400;
    case ExitCode::kUnsupported: return 501;
    case ExitCode::kOsError: return 503;
    default: return 500;
  }
}

void add_to(std::atomic<double>& total, double amount) { total.fetch_add(amount, std::memory_order_relaxed); }

}  // namespace

ServedModel::ServedModel(std::string name, std::shared_ptr<const Graph> graph, const ModelOptions& options)
    : options_(options), graph_(std::move(graph)) {
  info_.name = std::move(name);
  with_context([&] { return fmt::format("model '{}'", info_.name); }, [&] {
    check_interface(*graph_);
    compute_dtype_ = compute_dtype(*graph_);
    peak_flops(compute_dtype_, options_.threads);  // now, not while a client waits
    // Rewritten once, so that the instances share what the passes make of the weights.
    SessionOptions session_options;
    session_options.precision = options.precision;
    session_options.costs = options.costs;
    auto prepared = std::make_shared<Graph>(*graph_);
    run_pipeline(*prepared, session_options.pipeline, pipeline_options(session_options));
    session_options.pipeline.clear();
    session_options.threads = options_.threads;
    for (int i = 0; i < options_.instances; ++i) sessions_.push_back(std::make_unique<Session>(prepared, session_options));
    bool open = true;
    for (const TensorSpec& spec : info_.inputs) open = open && open_first_axis(spec);
    for (const TensorSpec& spec : info_.outputs) open = open && open_first_axis(spec);
    if (open && !info_.inputs.empty()) info_.max_batch_size = options_.batch.max_batch_size;
    joins_ = rows_are_independent(*sessions_[0]);
    // The others get ready too, so that the first client to meet one does not wait for its plan.
    for (size_t i = 1; i < sessions_.size(); ++i) rows_are_independent(*sessions_[i]);
  });
  for (auto& session : sessions_) threads_.emplace_back([this, s = session.get()] { instance_loop(*s); });
}

ServedModel::~ServedModel() { drain(); }

void ServedModel::check_interface(const Graph& graph) {
  for (ValueId id : graph.inputs()) info_.inputs.push_back(spec_of(graph, id));
  for (ValueId id : graph.outputs()) info_.outputs.push_back(spec_of(graph, id));
  if (!graph.states().empty()) fail(ExitCode::kUnsupported, "a model with state cannot be served: requests would share it");
  for (const auto* specs : {&info_.inputs, &info_.outputs})
    for (const TensorSpec& spec : *specs)
      if (v2_dtype_name(spec.dtype).empty())
        fail(ExitCode::kUnsupported, "'{}' has type {}, which cannot be served", spec.name, dtype_name(spec.dtype));
}

// Tries the model on random rows, open dimensions other than the first being 1: once to see that it runs
// (an error is the caller's to know), and for joining two rows together against each alone.
bool ServedModel::rows_are_independent(Session& session) const {
  const bool batched = info_.max_batch_size > 0;
  Random random(1);
  std::vector<Tensor> both;
  for (const TensorSpec& spec : info_.inputs) {
    if (!spec.ranked) return false;
    Shape shape = spec.shape;
    for (size_t d = 0; d < shape.size(); ++d) {
      if (shape[d] >= 0) continue;
      shape[d] = d == 0 && batched ? 2 : 1;
    }
    both.push_back(sample_tensor(spec.dtype, shape, random));
  }
  try {
    if (!batched) {
      session.run(both);
      return false;
    }
    const std::vector<Tensor> joined = session.run(both);
    for (int64_t row = 0; row < 2; ++row) {
      std::vector<Tensor> alone;
      for (const Tensor& t : both) alone.push_back(t.rows(row, row + 1).clone());
      const std::vector<Tensor> single = session.run(alone);
      for (size_t o = 0; o < single.size(); ++o) {
        const bool splits = joined[o].rank() > 0 && joined[o].dim(0) == 2 && single[o].rank() > 0 && single[o].dim(0) == 1;
        if (splits && close(joined[o].rows(row, row + 1), single[o])) continue;
        if (&session == sessions_[0].get())  // once is enough
          warn("model '{}': rows of a batch influence each other in output '{}': requests are not joined", info_.name,
             info_.outputs[o].name);
        return false;
      }
    }
    return true;
  } catch (const Error& error) {
    if (error.code() == ExitCode::kUnsupported) throw;
    // The content or the open dimensions do not suit the model: that says nothing about real requests.
    log("serve", "model '{}': trial run failed, requests are joined by the declared batch axis: {}", info_.name, error.what());
    return batched;
  }
}

size_t ServedModel::queue_length() const {
  std::lock_guard lock(mutex_);
  return queue_.size();
}

// Requests that agree in everything but axis 0 get the same key. Compared with what is queued, not
// hashed: two shapes must never meet by accident. Called with mutex_ held.
uint64_t ServedModel::key_for(const InferRequest& request) {
  if (!joins_) return next_key_++;
  for (size_t q = queue_.size(); q-- > 0;) {
    bool same = true;
    for (size_t i = 0; same && i < request.inputs.size(); ++i) {
      const Shape &a = request.inputs[i].shape(), &b = queue_[q].request.inputs[i].shape();
      same = a.size() == b.size() && std::equal(a.begin() + 1, a.end(), b.begin() + 1);
    }
    if (same) return queue_view_[q].key;
  }
  return next_key_++;
}

void ServedModel::enqueue(InferRequest request, InferDone done) {
  size_t bytes = 0;
  for (const Tensor& t : request.inputs) bytes += t.bytes();
  std::string refused;
  {
    std::lock_guard lock(mutex_);
    if (draining_) {
      refused = "the server is shutting down";
    } else if (queue_.size() >= options_.max_queue || (!queue_.empty() && queued_bytes_ + bytes > options_.max_queue_bytes)) {
      refused = fmt::format("queue is full ({} requests)", queue_.size());
    } else {
      const TimePoint now = Clock::now();
      const int64_t rows = info_.max_batch_size > 0 ? request.inputs[0].dim(0) : 1;
      const uint64_t key = key_for(request);
      queue_view_.push_back({now, rows, key});
      queue_.push_back({std::move(request), std::move(done), now, bytes});
      queued_bytes_ += bytes;
    }
  }
  if (refused.empty()) return wake_.notify_one();
  InferResult result;
  result.status = 503;
  result.retry_after_s = 1;
  result.error = fmt::format("model '{}': {}", info_.name, refused);
  done(std::move(result));
}

void ServedModel::drain() {
  {
    std::lock_guard lock(mutex_);
    draining_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void ServedModel::instance_loop(Session& session) {
  std::unique_lock lock(mutex_);
  ++idle_;
  for (;;) {
    const Decision decision = decide(QueueView{queue_view_, idle_, draining_}, Clock::now(), options_.batch);
    if (decision.take.empty()) {
      if (draining_ && queue_.empty()) return;
      if (decision.wake) wake_.wait_until(lock, *decision.wake);
      else wake_.wait(lock);
      continue;
    }
    std::vector<Pending> batch;
    for (size_t i : decision.take) {
      batch.push_back(std::move(queue_[i]));
      queued_bytes_ -= batch.back().bytes;
    }
    for (size_t n = decision.take.size(); n-- > 0;) {
      queue_.erase(queue_.begin() + static_cast<ptrdiff_t>(decision.take[n]));
      queue_view_.erase(queue_view_.begin() + static_cast<ptrdiff_t>(decision.take[n]));
    }
    --idle_;
    const bool others_can_help = !queue_.empty() && idle_ > 0;
    lock.unlock();
    if (others_can_help) wake_.notify_one();
    run_batch(session, std::move(batch));
    lock.lock();
    ++idle_;
  }
}

// Runs `batch` and answers every request in it, whatever happens.
void ServedModel::run_batch(Session& session, std::vector<Pending> batch) {
  const TimePoint start = Clock::now();
  for (const Pending& p : batch) stats_.queue_seconds.observe(seconds_between(p.arrived, start));
  stats_.running += static_cast<int64_t>(batch.size());
  const auto requests = static_cast<int64_t>(batch.size());
  try {
    run_requests(session, batch);
  } catch (const std::exception& problem) {
    log("serve", "model '{}': batch of {} failed: {}", info_.name, requests, problem.what());
    for (Pending& pending : batch) {
      if (!pending.done) continue;
      InferResult result;
      std::vector<Pending> alone;
      alone.push_back(std::move(pending));
      try {
        if (requests == 1) throw;
        run_requests(session, alone);
        continue;
      } catch (const Error& error) {
        result.status = status_of(error.code());
        result.error = error.what();
      } catch (const std::bad_alloc&) {
        result.status = 503;
        result.error = "out of memory";
      } catch (const std::exception& error) {
        result.status = 500;
        result.error = fmt::format("internal error: {}", error.what());
      }
      result.error = fmt::format("model '{}': {}", info_.name, result.error);
      if (result.status == 503) result.retry_after_s = 1;
      if (alone[0].done) alone[0].done(std::move(result));  // empty: `done` itself was what failed
    }
  }
  stats_.running -= requests;
}

// Joins, runs, splits, and calls `done` of each request that is answered. An exception leaves
// unanswered ones with their `done` in place.
void ServedModel::run_requests(Session& session, std::vector<Pending>& batch) {
  std::vector<Tensor> inputs;
  if (batch.size() == 1) {
    inputs = batch[0].request.inputs;
  } else {
    for (size_t i = 0; i < info_.inputs.size(); ++i) {
      std::vector<Tensor> parts;
      for (const Pending& p : batch) parts.push_back(p.request.inputs[i]);
      inputs.push_back(concat_rows(parts));
    }
  }
  const bool batched = info_.max_batch_size > 0;
  stats_.batch_rows.observe(batched ? static_cast<double>(inputs[0].dim(0)) : 1.0);
  const std::vector<Tensor> outputs = joins_ ? run_rows(session, inputs) : run_timed(session, inputs);
  int64_t row = 0;
  const TimePoint end = Clock::now();
  for (Pending& p : batch) {
    InferResult result;
    if (batch.size() == 1) {
      result.outputs = outputs;
    } else {
      const int64_t rows = p.request.inputs[0].dim(0);
      for (const Tensor& t : outputs) result.outputs.push_back(t.rows(row, row + rows));
      row += rows;
    }
    stats_.request_seconds.observe(seconds_between(p.arrived, end));
    InferDone done = std::move(p.done);
    p.done = nullptr;
    done(std::move(result));
  }
}

// Runs rows that do not influence each other at batch sizes there are plans for.
std::vector<Tensor> ServedModel::run_rows(Session& session, const std::vector<Tensor>& inputs) {
  const int64_t rows = inputs[0].dim(0);
  std::vector<BatchPart> parts = batch_parts(rows, info_.max_batch_size);
  // Without a static plan nothing is prepared for a batch size: as it is.
  std::vector<Shape> shapes = shapes_of(inputs);
  for (Shape& shape : shapes) shape[0] = parts[0].bucket;
  if (session.plan(shapes) == nullptr) parts = {{rows, rows}};
  std::vector<std::vector<Tensor>> by_output(info_.outputs.size());
  int64_t begin = 0;
  for (const BatchPart& part : parts) {
    std::vector<Tensor> slice;
    for (const Tensor& t : inputs) slice.push_back(pad_rows(t.rows(begin, begin + part.rows), part.bucket));
    begin += part.rows;
    const std::vector<Tensor> results = run_timed(session, slice);
    for (size_t o = 0; o < results.size(); ++o) {
      if (results[o].rank() == 0 || results[o].dim(0) != part.bucket)
        fail(ExitCode::kUnsupported, "output '{}' has shape {} for a batch of {}: its rows cannot be told apart",
             info_.outputs[o].name, shape_string(results[o].shape()), part.bucket);
      by_output[o].push_back(results[o].rows(0, part.rows));
    }
  }
  std::vector<Tensor> outputs;
  for (const auto& pieces : by_output) outputs.push_back(concat_rows(pieces));
  return outputs;
}

// Model FLOPs at these shapes; 0 when they cannot be told.
double ServedModel::flops_of(const std::vector<Shape>& shapes) {
  constexpr size_t kMostShapes = 256;  // clients choose the shapes: no more than this is remembered
  {
    std::lock_guard lock(recent_mutex_);
    const auto it = flops_of_shapes_.find(shapes);
    if (it != flops_of_shapes_.end()) return it->second;
  }
  const std::optional<Cost> cost = model_cost(*graph_, shapes);
  const double flops = cost ? static_cast<double>(cost->flops) : 0;
  std::lock_guard lock(recent_mutex_);
  if (flops_of_shapes_.size() >= kMostShapes) flops_of_shapes_.clear();
  return flops_of_shapes_[shapes] = flops;
}

std::vector<Tensor> ServedModel::run_timed(Session& session, const std::vector<Tensor>& inputs) {
  const std::vector<Shape> shapes = shapes_of(inputs);
  session.plan(shapes);  // compiled outside the timing
  const TimePoint start = Clock::now();
  std::vector<Tensor> outputs = session.run(inputs);
  const double seconds = seconds_between(start, Clock::now());
  const double flops = flops_of(shapes);
  if (flops > 0) {
    add_to(stats_.flops, flops);
    add_to(stats_.compute_seconds, seconds);
    std::lock_guard lock(recent_mutex_);
    if (recent_.size() < kRecentRuns) recent_.push_back({flops, seconds});
    else recent_[recent_next_++ % kRecentRuns] = {flops, seconds};
  }
  return outputs;
}

double ServedModel::efficiency() const {
  double flops = 0, seconds = 0;
  {
    std::lock_guard lock(recent_mutex_);
    for (const Run& run : recent_) {
      flops += run.flops;
      seconds += run.seconds;
    }
  }
  return compute_efficiency(flops, seconds, compute_dtype_, options_.threads);
}

}  // namespace ds::serve
