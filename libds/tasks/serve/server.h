// ds-serve: models behind the Open Inference Protocol v2 over HTTP.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "libds/tasks/serve/http.h"
#include "libds/tasks/serve/model.h"
#include "libds/tasks/serve/protocol.h"

namespace ds::serve {

struct ServeOptions {
  std::vector<std::string> models;  // PATH or NAME=PATH; the name is else the file's without extension
  std::string host = "127.0.0.1";
  uint16_t port = 8000;             // 0: any free one
  std::string port_file;            // written (atomically) with the port once the server answers; empty: none
  int instances = 1;                // of each model
  Precision precision = Precision::kF32;
  std::shared_ptr<const CostTable> costs;  // run/session.h
  int threads = 0;                  // of each instance; 0: the machine's, shared out between the instances
  BatchPolicy batch;
  size_t max_queue = 256;           // requests waiting, per model
  int io_threads = 2;
  HttpLimits limits;
  std::chrono::milliseconds drain_time{30'000};  // for requests under way when told to stop
  bool quiet = false;               // no lines about starting and stopping
};

class Server final : public ModelHost {
 public:
  // Binds the port, then loads the models. Throws ds::Error.
  explicit Server(const ServeOptions& options);
  ~Server() override;

  void start();  // from here on requests are answered
  // Stops accepting, finishes what is under way. Returns whether all of it ended in time.
  bool drain();
  uint16_t port() const { return http_->port(); }
  std::string address() const { return http_->address(); }

  bool ready() const override { return ready_; }
  std::vector<std::string> model_names() const override;
  const ModelInfo* find(std::string_view model) const override;
  bool model_ready(std::string_view) const override { return ready_; }
  void infer(const ModelInfo& model, InferRequest request, InferDone done) override;
  std::string metrics_text() const override;
  void count_request(std::string_view model, int status) override;

 private:
  const ServeOptions options_;
  std::atomic<bool> ready_{false};
  std::map<std::string, std::unique_ptr<ServedModel>, std::less<>> models_;
  mutable std::mutex counts_mutex_;
  std::map<std::pair<std::string, int>, int64_t> counts_;  // by model and status
  std::unique_ptr<HttpServer> http_;  // last: its threads use all of the above
};

// Serves until SIGTERM or SIGINT, then drains. Returns the exit code. Call it before any thread is
// started: it blocks these signals for all threads.
int serve(const ServeOptions& options);

}  // namespace ds::serve
