// ds-serve: models behind the Open Inference Protocol v2.
#include <memory>

#include "apps/common/options.h"
#include "libds/tasks/serve/server.h"

namespace {

using ds::cli::Command;

constexpr const char* kDescription =
    "Answers inference requests for one or more ONNX models over HTTP, by the Open Inference Protocol, version 2 "
    "(GET /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME, POST /v2/models/NAME/infer), with tensors as JSON or as "
    "binary data. A model's name is its file's name without extension, or NAME of NAME=PATH.\n\n"
    "Requests that arrive while all instances are busy are joined into batches along the first axis, where the model allows "
    "it. --batch-timeout-ms bounds how long a request may be held while an instance is idle: with the eager policy not at "
    "all, with the fixed policy until the batch is full or the time has passed.\n\n"
    "GET /metrics shows counters, histograms, ds_memory_usage and ds_compute_efficiency in the text format of Prometheus. "
    "A full queue is answered with 503 and Retry-After. On SIGTERM or SIGINT the server stops accepting, finishes the "
    "requests under way and exits with 0; a second signal ends it at once. There is no encryption and no authentication: "
    "put a proxy in front where others can reach the port.";

Command make_command() {
  struct Args {
    ds::serve::ServeOptions serve;
    int port = 8000;
    double timeout_ms = 50, drain_s = 30, max_body_mb = 64;
    int64_t max_queue = 256;
    ds::cli::Common common;
  };
  auto args = std::make_shared<Args>();
  Command c("ds-serve", "serve ONNX models over HTTP", kDescription);
  c.positional("MODEL", &args->serve.models, "models to serve: PATH or NAME=PATH").file();
  c.group("Address");
  c.option("--host", &args->serve.host, "ADDRESS", "address to listen on");
  c.option("--port", &args->port, "N", "port to listen on; 0 takes a free one").range(0, 65535);
  c.option("--port-file", &args->serve.port_file, "FILE", "write the port there once the server answers").file();
  c.group("Batching");
  c.option("--instances", &args->serve.instances, "K", "instances of each model, each with a thread and a share of the cores").range(1, 1024);
  c.option("--max-batch-size", &args->serve.batch.max_batch_size, "N", "most rows that run together, and most rows of a request").range(1, 1 << 20);
  c.option("--batch-timeout-ms", &args->timeout_ms, "MS", "longest a request is held while an instance is idle").range(0, 3600e3);
  c.choice("--batch-policy", &args->serve.batch.mode,
           {{"eager", ds::serve::BatchMode::kEager}, {"fixed", ds::serve::BatchMode::kFixed}},
           "eager: an idle instance starts at once; fixed: it waits for a full batch or the timeout");
  c.option("--max-queue", &args->max_queue, "N", "requests that may wait, per model; more are refused with 503").range(1, 1 << 20);
  c.group("Limits");
  c.option("--max-body-mb", &args->max_body_mb, "MB", "longest request body, in MiB").range(0.001, 1 << 20);
  c.option("--max-connections", &args->serve.limits.max_connections, "N", "most open connections").range(1, 1 << 20);
  c.option("--io-threads", &args->serve.io_threads, "N", "threads that read requests and write replies").range(1, 256);
  c.option("--drain-s", &args->drain_s, "S", "longest to wait for requests under way when told to stop").range(0, 86400);
  c.common(&args->common, ds::cli::kThreads | ds::cli::kQuiet | ds::cli::kConfig | ds::cli::kDevice | ds::cli::kPrecision | ds::cli::kCosts);
  c.ignore_sigpipe();
  c.example("ds-serve digits.onnx --port 8000", "Serve a model as http://127.0.0.1:8000/v2/models/digits");
  c.example("curl -s 127.0.0.1:8000/v2/models/digits", "Ask for its inputs and outputs");
  c.example("ds-serve a=v1.onnx b=v2.onnx --port 0 --port-file port", "Serve two models on any free port");
  c.body([args](const Command& command) {
    using std::chrono::milliseconds;
    ds::serve::ServeOptions& o = args->serve;
    o.port = static_cast<uint16_t>(args->port);
    o.batch.timeout = std::chrono::duration_cast<ds::serve::Clock::duration>(std::chrono::duration<double, std::milli>(args->timeout_ms));
    o.drain_time = milliseconds(static_cast<int64_t>(args->drain_s * 1000));
    o.limits.body_bytes = static_cast<size_t>(args->max_body_mb * (1 << 20));
    o.max_queue = static_cast<size_t>(args->max_queue);
    o.quiet = args->common.quiet;
    // Of each instance; without it the machine's cores are shared out.
    o.threads = command.given("threads") ? args->common.threads : 0;
    o.precision = args->common.target.precision;
    o.costs = args->common.target.costs;
    return ds::serve::serve(o);
  });
  return c;
}

}  // namespace

int main(int argc, char** argv) { return ds::cli::run_main(argc, argv, make_command()); }
