// Models behind real HTTP: answers against the model run directly, joined batches, failures that stay
// with their request, backpressure, metrics and drain.
#include "libds/tasks/serve/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "libds/base/error.h"
#include "libds/base/random.h"
#include "libds/ir/onnx_export.h"
#include "libds/ir/rewriter.h"
#include "libds/tasks/serve/bucket.h"
#include "tests/serve/http_client.h"

namespace ds::serve {
namespace {

using ds::test::ClientResponse;
using ds::test::HttpClient;
using nlohmann::json;
using testing::HasSubstr;

constexpr int64_t kIn = 5, kOut = 3;

Tensor random_tensor(Shape shape, uint64_t seed) {
  Tensor t = Tensor::empty(DType::kF32, std::move(shape));
  Random random(seed);
  for (int64_t i = 0; i < t.numel(); ++i) t.mutable_data<float>()[i] = static_cast<float>(random.normal());
  return t;
}

std::shared_ptr<Graph> base_graph() {
  auto graph = std::make_shared<Graph>();
  graph->opsets[""] = 17;
  return graph;
}

// y = relu(x W + b), x f32[n,5].
std::shared_ptr<Graph> dense_model() {
  auto graph = base_graph();
  Rewriter rw(*graph);
  const ValueId x = rw.add_input("x", DType::kF32, {graph->symbol("n"), kIn});
  const ValueId w = rw.add_constant("w", random_tensor({kIn, kOut}, 1));
  const ValueId b = rw.add_constant("b", random_tensor({kOut}, 2));
  const ValueId y = rw.emit("Relu", {rw.emit("Add", {rw.emit("MatMul", {x, w}), b})});
  rw.rename_value(y, "y");
  rw.add_output(y);
  return graph;
}

// y[i] = table[i]: an index out of range is the request's own fault.
std::shared_ptr<Graph> lookup_model() {
  auto graph = base_graph();
  Rewriter rw(*graph);
  const ValueId table = rw.add_constant("table", Tensor::of<float>({4}, {10, 11, 12, 13}));
  const ValueId i = rw.add_input("i", DType::kI64, {graph->symbol("n")});
  const ValueId y = rw.emit("Gather", {table, i}, {{"axis", int64_t{0}}});
  rw.rename_value(y, "y");
  rw.add_output(y);
  return graph;
}

// y = x + x with its rows in reverse: rows influence each other.
std::shared_ptr<Graph> mixing_model() {
  auto graph = base_graph();
  Rewriter rw(*graph);
  const ValueId x = rw.add_input("x", DType::kF32, {graph->symbol("n"), 2});
  auto ints = [&](const char* name, int64_t v) { return rw.add_constant(name, Tensor::of<int64_t>({1}, {v})); };
  const ValueId reversed = rw.emit("Slice", {x, ints("starts", -1), ints("ends", INT64_MIN), ints("axes", 0), ints("steps", -1)});
  const ValueId y = rw.emit("Add", {x, reversed});
  rw.rename_value(y, "y");
  rw.add_output(y);
  return graph;
}

std::string dense_body(const Tensor& x) {
  return fmt::format(R"({{"inputs":[{{"name":"x","shape":[{},5],"datatype":"FP32","data":[{}]}}]}})", x.dim(0),
                     fmt::join(x.span<float>(), ","));
}

std::vector<float> direct(const std::shared_ptr<Graph>& graph, const Tensor& x) {
  Session session(graph);
  const Tensor y = session.run(std::vector<Tensor>{x})[0];
  return {y.span<float>().begin(), y.span<float>().end()};
}

void expect_near(const json& got, const std::vector<float>& want) {
  const auto values = got.get<std::vector<float>>();
  ASSERT_EQ(values.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(values[i], want[i], 1e-5);
}

struct ServerTest : testing::Test {
  void SetUp() override {
    folder = std::filesystem::temp_directory_path() / fmt::format("ds_serve_test_{}", ::getpid());
    std::filesystem::create_directories(folder);
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  std::string save(const Graph& graph, const std::string& name) {
    const std::string path = folder / (name + ".onnx");
    save_model(graph, path);
    return path;
  }
  ServeOptions options(std::vector<std::string> models) {
    ServeOptions o;
    o.models = std::move(models);
    o.port = 0;
    return o;
  }
  std::filesystem::path folder;
};

TEST_F(ServerTest, AnswersLikeTheModelRunDirectly) {
  const auto graph = dense_model();
  Server server(options({save(*graph, "dense"), "other=" + save(*graph, "again")}));
  server.start();
  HttpClient client(server.port());
  EXPECT_EQ(client.get("/v2/health/ready").status, 200);
  const json meta = json::parse(client.get("/v2/models/dense").body);
  EXPECT_EQ(meta.at("inputs")[0].at("shape"), json::parse("[-1,5]"));
  EXPECT_EQ(meta.at("outputs")[0].at("name"), "y");
  for (int64_t rows : {1, 2, 3, 5, 7, 13, 20, 32}) {
    const Tensor x = random_tensor({rows, kIn}, static_cast<uint64_t>(rows));
    const ClientResponse r = client.post(rows % 2 ? "/v2/models/dense/infer" : "/v2/models/other/infer", dense_body(x));
    ASSERT_EQ(r.status, 200) << r.body;
    const json y = json::parse(r.body).at("outputs")[0];
    EXPECT_EQ(y.at("shape"), json::parse(fmt::format("[{},{}]", rows, kOut)));
    expect_near(y.at("data"), direct(graph, x));
  }
  const ClientResponse too_many = client.post("/v2/models/dense/infer", dense_body(random_tensor({33, kIn}, 1)));
  EXPECT_EQ(too_many.status, 400);
  EXPECT_THAT(too_many.body, HasSubstr("model 'dense': input 'x': batch of 33 is more than the maximum of 32"));
}

TEST_F(ServerTest, ConcurrentClientsGetTheirOwnAnswersFromSharedBatches) {
  const auto graph = dense_model();
  ServeOptions o = options({save(*graph, "dense")});
  o.batch.mode = BatchMode::kFixed;  // so that requests do meet
  o.batch.timeout = std::chrono::milliseconds(30);
  o.instances = 2;
  Server server(o);
  server.start();
  constexpr int kClients = 12, kRequests = 6;
  std::vector<std::vector<float>> want;
  std::vector<Tensor> inputs;
  for (int i = 0; i < kClients * kRequests; ++i) {
    inputs.push_back(random_tensor({1 + i % 3, kIn}, 100 + static_cast<uint64_t>(i)));
    want.push_back(direct(graph, inputs.back()));
  }
  std::atomic<int> right{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c)
    clients.emplace_back([&, c] {
      HttpClient client(server.port());
      for (int r = 0; r < kRequests; ++r) {
        const auto i = static_cast<size_t>(c * kRequests + r);
        const ClientResponse reply = client.post("/v2/models/dense/infer", dense_body(inputs[i]));
        if (reply.status != 200) continue;
        const auto y = json::parse(reply.body).at("outputs")[0].at("data").get<std::vector<float>>();
        bool same = y.size() == want[i].size();
        for (size_t k = 0; same && k < y.size(); ++k) same = std::fabs(y[k] - want[i][k]) < 1e-5f;
        if (same) ++right;
      }
    });
  for (auto& t : clients) t.join();
  EXPECT_EQ(right, kClients * kRequests);
  // Fewer batches than requests: some were joined.
  const std::string metrics = HttpClient(server.port()).get("/metrics").body;
  const std::string key = "ds_batch_size_count{model=\"dense\"} ";
  const size_t at = metrics.find(key);
  ASSERT_NE(at, std::string::npos);
  EXPECT_LT(std::atoi(metrics.c_str() + at + key.size()), kClients * kRequests);
}

TEST_F(ServerTest, BadRequestInABatchFailsAlone) {
  ServeOptions o = options({save(*lookup_model(), "lookup")});
  o.batch.mode = BatchMode::kFixed;
  o.batch.timeout = std::chrono::milliseconds(200);
  o.batch.max_batch_size = 3;
  Server server(o);
  server.start();
  auto body = [](int index) { return fmt::format(R"({{"inputs":[{{"name":"i","shape":[1],"datatype":"INT64","data":[{}]}}]}})", index); };
  ClientResponse replies[3];
  std::vector<std::thread> clients;
  const int indices[3] = {1, 99, 3};
  for (int c = 0; c < 3; ++c)
    clients.emplace_back([&, c] { replies[c] = HttpClient(server.port()).post("/v2/models/lookup/infer", body(indices[c])); });
  for (auto& t : clients) t.join();
  EXPECT_EQ(replies[0].status, 200) << replies[0].body;
  EXPECT_EQ(json::parse(replies[0].body).at("outputs")[0].at("data"), json::parse("[11.0]"));
  EXPECT_EQ(replies[1].status, 400) << replies[1].body;
  EXPECT_THAT(replies[1].body, HasSubstr("model 'lookup'"));
  EXPECT_THAT(replies[1].body, HasSubstr("Gather"));
  EXPECT_EQ(replies[2].status, 200) << replies[2].body;
  EXPECT_EQ(json::parse(replies[2].body).at("outputs")[0].at("data"), json::parse("[13.0]"));
}

TEST_F(ServerTest, RowsThatInfluenceEachOtherAreNotJoined) {
  const auto graph = mixing_model();
  ModelOptions o;
  const ServedModel mixing("mixing", graph, o), dense("dense", dense_model(), o);
  EXPECT_FALSE(mixing.joins_requests());
  EXPECT_TRUE(dense.joins_requests());
  EXPECT_EQ(mixing.info().max_batch_size, 32);
}

TEST_F(ServerTest, MixingModelKeepsABatchOfOneRequestWhole) {
  Server server(options({save(*mixing_model(), "mixing")}));
  server.start();
  const ClientResponse r = HttpClient(server.port()).post("/v2/models/mixing/infer",
      R"({"inputs":[{"name":"x","shape":[3,2],"datatype":"FP32","data":[1,2,3,1,2,5]}]})");
  ASSERT_EQ(r.status, 200) << r.body;
  expect_near(json::parse(r.body).at("outputs")[0].at("data"), {3, 7, 6, 2, 3, 7});
}

TEST_F(ServerTest, FullQueueIs503WithRetryAfter) {
  ServeOptions o = options({save(*dense_model(), "dense")});
  o.batch.mode = BatchMode::kFixed;  // holds, so that the queue fills
  o.batch.timeout = std::chrono::seconds(60);
  o.max_queue = 2;
  Server server(o);
  server.start();
  HttpClient a(server.port()), b(server.port()), c(server.port());
  const std::string body = dense_body(random_tensor({1, kIn}, 1));
  const std::string request = fmt::format("POST /v2/models/dense/infer HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
  a.send(request);
  b.send(request);
  auto queued = [&] { return HttpClient(server.port()).get("/metrics").body.find("ds_queue_length{model=\"dense\"} 2\n") != std::string::npos; };
  while (!queued()) std::this_thread::yield();
  const ClientResponse refused = c.post("/v2/models/dense/infer", body);
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  EXPECT_THAT(refused.body, HasSubstr("model 'dense': queue is full"));
  // Drain answers what is held, long before the timeout.
  EXPECT_TRUE(server.drain());
  EXPECT_EQ(a.receive().status, 200);
  EXPECT_EQ(b.receive().status, 200);
}

TEST_F(ServerTest, MetricsAreWellFormedAndComplete) {
  const auto graph = dense_model();
  Server server(options({save(*graph, "dense")}));
  server.start();
  HttpClient client(server.port());
  client.post("/v2/models/dense/infer", dense_body(random_tensor({4, kIn}, 1)));
  client.post("/v2/models/dense/infer", "nonsense");
  const ClientResponse r = client.get("/metrics");
  EXPECT_THAT(r.headers.at("content-type"), HasSubstr("text/plain"));
  std::string family;
  std::map<std::string, double> values;
  std::istringstream lines(r.body);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("# HELP ", 0) == 0) continue;
    if (line.rfind("# TYPE ", 0) == 0) {
      family = line.substr(7, line.find(' ', 7) - 7);
      continue;
    }
    EXPECT_EQ(line.rfind(family, 0), 0u) << line;  // samples stay with their family
    const size_t space = line.rfind(' ');
    values[line.substr(0, space)] = std::stod(line.substr(space + 1));
  }
  for (const char* tier : {"parameters", "activations", "gradients", "host"})
    EXPECT_TRUE(values.contains(fmt::format("ds_memory_usage{{tier=\"{}\"}}", tier)));
  EXPECT_GT(values.at("process_resident_memory_bytes"), 0);
  const double efficiency = values.at("ds_compute_efficiency{model=\"dense\"}");
  EXPECT_GT(efficiency, 0);
  EXPECT_LE(efficiency, 1);
  EXPECT_EQ(values.at("ds_requests_total{model=\"dense\",status=\"200\"}"), 1);
  EXPECT_EQ(values.at("ds_requests_total{model=\"dense\",status=\"400\"}"), 1);
  EXPECT_EQ(values.at("ds_batch_size_bucket{model=\"dense\",le=\"2\"}"), 0);
  EXPECT_EQ(values.at("ds_batch_size_bucket{model=\"dense\",le=\"4\"}"), 1);
  EXPECT_EQ(values.at("ds_request_seconds_count{model=\"dense\"}"), 1);
  EXPECT_EQ(values.at("ds_request_seconds_bucket{model=\"dense\",le=\"+Inf\"}"), 1);
}

TEST_F(ServerTest, UnusableModelsAndOptionsAreErrors) {
  auto code = [&](const ServeOptions& o) {
    try {
      Server server(o);
      return ExitCode::kOk;
    } catch (const Error& error) {
      return error.code();
    }
  };
  const std::string dense = save(*dense_model(), "dense");
  EXPECT_EQ(code(options({})), ExitCode::kUsage);
  EXPECT_EQ(code(options({dense, dense})), ExitCode::kUsage);
  EXPECT_EQ(code(options({folder / "missing.onnx"})), ExitCode::kNoInput);
  ServeOptions nowhere = options({dense});
  nowhere.host = "203.0.113.1";  // not an address of this machine
  EXPECT_EQ(code(nowhere), ExitCode::kOsError);
  ServeOptions none = options({dense});
  none.instances = 0;
  EXPECT_EQ(code(none), ExitCode::kUsage);
}

TEST(Buckets, PartsCoverTheRowsAndWasteLittle) {
  for (int64_t max : {1, 2, 3, 5, 8, 32, 48, 100}) {
    for (int64_t rows = 1; rows <= 2 * max + 1; ++rows) {
      int64_t covered = 0;
      const std::vector<BatchPart> parts = batch_parts(rows, max);
      for (size_t i = 0; i < parts.size(); ++i) {
        const BatchPart& p = parts[i];
        covered += p.rows;
        EXPECT_GT(p.rows, 0);
        EXPECT_GE(4 * p.rows, 3 * p.bucket);
        EXPECT_LE(p.bucket, max);
        EXPECT_TRUE((p.bucket & (p.bucket - 1)) == 0 || p.bucket == max) << p.bucket;
        EXPECT_TRUE(p.rows == p.bucket || i + 1 == parts.size());  // only the last is padded
      }
      EXPECT_EQ(covered, rows);
    }
  }
  EXPECT_EQ(batch_parts(31, 32), (std::vector<BatchPart>{{31, 32}}));
  EXPECT_EQ(batch_parts(20, 32), (std::vector<BatchPart>{{16, 16}, {4, 4}}));
  EXPECT_EQ(batch_parts(3, 32), (std::vector<BatchPart>{{3, 4}}));
}

}  // namespace
}  // namespace ds::serve
