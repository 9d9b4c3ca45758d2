#include "libds/tasks/serve/server.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <future>
#include <set>

#include "libds/base/error.h"
#include "libds/base/file.h"
#include "libds/base/log.h"
#include "libds/base/parallel.h"
#include "libds/ir/onnx_import.h"
#include "libds/run/metrics.h"
#include "libds/tasks/serve/v2.h"

namespace ds::serve {
namespace {

struct NamedPath {
  std::string name, path;
};

// "m/net.onnx" -> net; "digits=m/net.onnx" -> digits; "-" -> model.
NamedPath named_path(const std::string& text) {
  const size_t equals = text.find('=');
  const bool named = equals != std::string::npos && equals > 0 && text.find('/') > equals;
  NamedPath result{named ? text.substr(0, equals) : "", named ? text.substr(equals + 1) : text};
  if (result.name.empty()) result.name = result.path == "-" ? "model" : std::filesystem::path(result.path).stem().string();
  if (result.name.empty() || result.name.find('/') != std::string::npos)
    fail(ExitCode::kUsage, "'{}' gives no name for a model: write NAME=PATH", text);
  return result;
}

}  // namespace

Server::Server(const ServeOptions& options) : options_(options) {
  if (options_.models.empty()) fail(ExitCode::kUsage, "no model to serve");
  if (options_.instances < 1) fail(ExitCode::kUsage, "--instances must be at least 1");
  if (options_.batch.max_batch_size < 1) fail(ExitCode::kUsage, "--max-batch-size must be at least 1");
  std::vector<NamedPath> paths;
  std::set<std::string> names;
  for (const std::string& text : options_.models) {
    paths.push_back(named_path(text));
    if (!names.insert(paths.back().name).second)
      fail(ExitCode::kUsage, "two models are named '{}': write NAME=PATH", paths.back().name);
  }
  // The port first: it is the cheaper one to fail.
  http_ = std::make_unique<HttpServer>(options_.host, options_.port, options_.limits, options_.io_threads,
                                       [this](HttpRequest request, HttpReply reply) {
                                         handle_v2(*this, std::move(request), std::move(reply));
                                       });
  ModelOptions model_options;
  model_options.instances = options_.instances;
  const int instances = options_.instances * static_cast<int>(paths.size());
  model_options.precision = options_.precision;
  model_options.costs = options_.costs;
  model_options.threads = options_.threads > 0 ? options_.threads : std::max(1, available_threads() / instances);
  model_options.batch = options_.batch;
  model_options.max_queue = options_.max_queue;
  for (const NamedPath& p : paths) {
    std::shared_ptr<const Graph> graph = load_model(p.path);
    models_[p.name] = with_context([&] { return p.path; },
                                   [&] { return std::make_unique<ServedModel>(p.name, graph, model_options); });
  }
}

Server::~Server() { drain(); }

void Server::start() {
  http_->start();
  ready_ = true;
}

bool Server::drain() {
  ready_ = false;
  // Queued requests run at once, without waiting for company, while connections wait for their answers.
  std::thread models([this] {
    for (auto& [name, model] : models_) model->drain();
  });
  const bool finished = http_->drain(options_.drain_time);
  models.join();
  return finished;
}

std::vector<std::string> Server::model_names() const {
  std::vector<std::string> names;
  for (const auto& [name, model] : models_) names.push_back(name);
  return names;
}

const ModelInfo* Server::find(std::string_view model) const {
  const auto it = models_.find(model);
  return it == models_.end() ? nullptr : &it->second->info();
}

void Server::infer(const ModelInfo& model, InferRequest request, InferDone done) {
  models_.find(model.name)->second->enqueue(std::move(request), std::move(done));
}

void Server::count_request(std::string_view model, int status) {
  std::lock_guard lock(counts_mutex_);
  ++counts_[{std::string(model), status}];
}

std::string Server::metrics_text() const {
  MetricsWriter out;
  write_memory_metrics(out);
  auto per_model = [&](std::string_view name, std::string_view type, std::string_view help, auto&& write) {
    out.family(name, type, help);
    for (const auto& [model_name, model] : models_) write(MetricLabels{{"model", model_name}}, *model);
  };
  per_model("ds_compute_efficiency", "gauge", "Model FLOPs / time / measured peak at that type, over the latest runs (0-1).",
            [&](const MetricLabels& labels, const ServedModel& m) { out.sample(labels, m.efficiency()); });
  per_model("ds_compute_flops_total", "counter", "Model FLOPs done by planned runs.",
            [&](const MetricLabels& labels, const ServedModel& m) { out.sample(labels, m.stats().flops); });
  per_model("ds_compute_seconds_total", "counter", "Time spent in planned runs.",
            [&](const MetricLabels& labels, const ServedModel& m) { out.sample(labels, m.stats().compute_seconds); });
  out.family("ds_requests_total", "counter", "Finished inference requests by HTTP status.");
  {
    std::lock_guard lock(counts_mutex_);
    for (const auto& [key, count] : counts_)
      out.sample({{"model", key.first}, {"status", std::to_string(key.second)}}, static_cast<double>(count));
  }
  per_model("ds_request_seconds", "histogram", "Time from a request's arrival in the queue to its result.",
            [&](const MetricLabels& labels, const ServedModel& m) { out.histogram(labels, m.stats().request_seconds); });
  per_model("ds_queue_seconds", "histogram", "Time from a request's arrival in the queue to the start of its batch.",
            [&](const MetricLabels& labels, const ServedModel& m) { out.histogram(labels, m.stats().queue_seconds); });
  per_model("ds_batch_size", "histogram", "Rows of the batches that were run.",
            [&](const MetricLabels& labels, const ServedModel& m) { out.histogram(labels, m.stats().batch_rows); });
  per_model("ds_queue_length", "gauge", "Requests waiting.",
            [&](const MetricLabels& labels, const ServedModel& m) { out.sample(labels, static_cast<double>(m.queue_length())); });
  per_model("ds_running_requests", "gauge", "Requests in batches under way.",
            [&](const MetricLabels& labels, const ServedModel& m) { out.sample(labels, static_cast<double>(m.stats().running)); });
  out.family("ds_connections", "gauge", "Open HTTP connections.");
  out.sample({}, http_->connections());
  return out.text();
}

int serve(const ServeOptions& options) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  // The first signal after the start asks for a drain. One while models are loading, and a second one,
  // come from somebody who does not want to wait.
  struct Stop {
    std::atomic<bool> started{false};
    std::promise<int> first;
  };
  auto stop = std::make_shared<Stop>();
  std::thread([signals, stop] {
    for (bool asked = false;; asked = true) {
      int signal = 0;
      sigwait(&signals, &signal);
      if (asked || !stop->started) ::_exit(128 + signal);
      stop->first.set_value(signal);
    }
  }).detach();

  Server server(options);
  stop->started = true;
  server.start();
  if (!options.port_file.empty()) write_file_atomic(options.port_file, fmt::format("{}\n", server.port()));
  if (!options.quiet)
    fmt::print(stderr, "ds-serve: listening on http://{} ({})\n", server.address(), fmt::join(server.model_names(), ", "));

  const int signal = stop->first.get_future().get();
  if (!options.quiet)
    fmt::print(stderr, "ds-serve: {}: finishing requests under way\n", signal == SIGTERM ? "terminated" : "interrupted");
  if (!server.drain()) warn("some requests were cut off after {} ms", options.drain_time.count());
  return static_cast<int>(ExitCode::kOk);
}

}  // namespace ds::serve
