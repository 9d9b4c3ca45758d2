// The HTTP gate over real loopback sockets: what passes, what is refused and how, slow and silent
// clients, keep-alive, drain.
#include "libds/tasks/serve/http.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "libds/base/error.h"
#include "tests/serve/http_client.h"

namespace ds::serve {
namespace {

using ds::test::ClientResponse;
using ds::test::HttpClient;
using std::chrono::milliseconds;

// Answers with "METHOD path|query|body".
void echo(HttpRequest request, HttpReply reply) {
  HttpResponse response;
  response.content_type = "text/plain";
  response.body = request.method + " " + request.path + "|" + request.query + "|" + request.body;
  reply(std::move(response));
}

struct Fixture {
  explicit Fixture(HttpLimits limits = {}, HttpHandler handler = echo) : server("127.0.0.1", 0, limits, 2, std::move(handler)) {
    server.start();
  }
  HttpServer server;
};

int status_of(uint16_t port, std::string_view bytes) {
  HttpClient client(port);
  client.send(bytes);
  return client.receive().status;
}

TEST(Http, GetAndPostReachTheHandler) {
  Fixture f;
  HttpClient client(f.server.port());
  EXPECT_EQ(client.get("/a%20b?x=1").body, "GET /a b|x=1|");
  const ClientResponse r = client.post("/p", "hello");  // same connection: keep-alive
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.body, "POST /p||hello");
  EXPECT_EQ(r.headers.at("content-type"), "text/plain");
}

TEST(Http, ChunkedBodyAndPipelinedRequests) {
  Fixture f;
  HttpClient client(f.server.port());
  client.send("POST /c HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
              "GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client.receive().body, "POST /c||abcde");
  EXPECT_EQ(client.receive().body, "GET /next||");
}

TEST(Http, ExpectContinueIsAnswered) {
  Fixture f;
  HttpClient client(f.server.port());
  client.send("POST /c HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.receive().status, 100);
  client.send("ok");
  EXPECT_EQ(client.receive().body, "POST /c||ok");
}

TEST(Http, ConnectionCloseIsHonoured) {
  Fixture f;
  HttpClient client(f.server.port());
  client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.receive().status, 200);
  EXPECT_TRUE(client.closed_by_server());
  HttpClient old(f.server.port());
  old.send("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(old.receive().status, 200);
  EXPECT_TRUE(old.closed_by_server());
}

TEST(Http, MalformedRequestsGetACleanRefusal) {
  Fixture f;
  const uint16_t port = f.server.port();
  EXPECT_EQ(status_of(port, "garbage\r\n\r\n"), 400);
  EXPECT_EQ(status_of(port, std::string_view("\0\x01\x02\xff\r\n\r\n", 8)), 400);
  EXPECT_EQ(status_of(port, "GET / HTTP/9.9\r\nHost: t\r\n\r\n"), 400);
  EXPECT_EQ(status_of(port, "GET /\x01 HTTP/1.1\r\nHost: t\r\n\r\n"), 400);
  EXPECT_EQ(status_of(port, "GET /%zz HTTP/1.1\r\nHost: t\r\n\r\n"), 400);
  EXPECT_EQ(status_of(port, "GET /%00 HTTP/1.1\r\nHost: t\r\n\r\n"), 400);
  EXPECT_EQ(status_of(port, "GET nothing HTTP/1.1\r\nHost: t\r\n\r\n"), 400);
  EXPECT_EQ(status_of(port, "GET / HTTP/1.1\r\n\r\n"), 400);  // no Host
  EXPECT_EQ(status_of(port, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
  EXPECT_EQ(status_of(port, "GET / HTTP/1.1\r\nHost: t\r\nbad header\r\n\r\n"), 400);
  EXPECT_EQ(status_of(port, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: -5\r\n\r\n"), 400);
  EXPECT_EQ(status_of(port, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), 400);
  EXPECT_EQ(status_of(port, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc"), 400);
  EXPECT_EQ(status_of(port, "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), 400);
  EXPECT_EQ(status_of(port, "POST / HTTP/1.1\r\nHost: t\r\n\r\n"), 411);
  EXPECT_EQ(status_of(port, "DELETE / HTTP/1.1\r\nHost: t\r\n\r\n"), 405);
  EXPECT_EQ(status_of(port, "POST / HTTP/1.1\r\nHost: t\r\nExpect: tea\r\nContent-Length: 1\r\n\r\nx"), 417);
  EXPECT_EQ(status_of(port, "POST / HTTP/1.1\r\nHost: t\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"), 415);
  EXPECT_EQ(status_of(port, "GET /fine HTTP/1.1\r\nHost: t\r\n\r\n"), 200);  // and still serves
}

TEST(Http, RefusalIsJsonNamingTheReason) {
  Fixture f;
  HttpClient client(f.server.port());
  client.send("nonsense\r\n\r\n");
  const ClientResponse r = client.receive();
  EXPECT_EQ(r.headers.at("content-type"), "application/json");
  EXPECT_EQ(r.body.rfind("{\"error\":\"malformed HTTP", 0), 0u) << r.body;
}

TEST(Http, LimitsOnBodyAndHeader) {
  HttpLimits limits;
  limits.body_bytes = 1000;
  limits.header_bytes = 2000;
  Fixture f(limits);
  const uint16_t port = f.server.port();
  EXPECT_EQ(HttpClient(port).post("/", std::string(1000, 'x')).status, 200);
  EXPECT_EQ(HttpClient(port).post("/", std::string(1001, 'x')).status, 413);
  // A large declared length is refused before any of it is sent.
  EXPECT_EQ(status_of(port, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999\r\n\r\n"), 413);
  // So is a chunked body that grows over the limit, and a client that goes on sending sees the answer.
  std::string chunked = "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 40; ++i) chunked += "64\r\n" + std::string(100, 'y') + "\r\n";
  EXPECT_EQ(status_of(port, chunked), 413);
  EXPECT_EQ(status_of(port, "GET / HTTP/1.1\r\nHost: t\r\nX: " + std::string(3000, 'h') + "\r\n\r\n"), 431);
  EXPECT_EQ(status_of(port, "GET /" + std::string(200000, 'p') + " HTTP/1.1\r\nHost: t\r\n\r\n"), 431);
}

TEST(Http, SlowClientsAreCutOff) {
  HttpLimits limits;
  limits.header_time = milliseconds(50);
  limits.body_time = milliseconds(50);
  limits.idle_time = milliseconds(50);
  Fixture f(limits);
  EXPECT_EQ(status_of(f.server.port(), "GET / HTTP/1.1\r\nHos"), 408);
  EXPECT_EQ(status_of(f.server.port(), "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc"), 408);
  HttpClient silent(f.server.port());
  EXPECT_TRUE(silent.closed_by_server());
}

TEST(Http, TooManyConnectionsAreTold) {
  HttpLimits limits;
  limits.max_connections = 2;
  Fixture f(limits);
  HttpClient a(f.server.port()), b(f.server.port());
  EXPECT_EQ(a.get("/").status, 200);
  EXPECT_EQ(b.get("/").status, 200);
  HttpClient c(f.server.port());
  const ClientResponse r = c.receive();
  EXPECT_EQ(r.status, 503);
  EXPECT_EQ(r.headers.at("retry-after"), "1");
  EXPECT_EQ(a.get("/again").status, 200);
}

TEST(Http, HandlerThatThrowsOrForgetsAnswers500) {
  Fixture f({}, [](HttpRequest request, HttpReply) {
    if (request.path == "/throw") throw std::runtime_error("broken \xff");
  });
  HttpClient client(f.server.port());
  const ClientResponse r = client.get("/throw");
  EXPECT_EQ(r.status, 500);
  EXPECT_NE(r.body.find("broken"), std::string::npos);
  EXPECT_EQ(client.get("/forget").status, 500);
}

TEST(Http, BytesOfAllRequestsUnderWayAreLimited) {
  HttpLimits limits;
  limits.body_bytes = 1000;
  limits.all_bodies_bytes = 1500;
  Fixture f(limits);
  HttpClient slow(f.server.port()), next(f.server.port());
  slow.send("POST /slow HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 900\r\n\r\n");
  EXPECT_EQ(slow.receive().status, 100);  // its bytes are promised
  const ClientResponse refused = next.post("/", std::string(700, 'x'));
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  EXPECT_EQ(HttpClient(f.server.port()).post("/", std::string(500, 'x')).status, 200);
  EXPECT_EQ(status_of(f.server.port(), "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"), 503);
  slow.send(std::string(900, 'y'));
  EXPECT_EQ(slow.receive().status, 200);
  EXPECT_EQ(HttpClient(f.server.port()).post("/", std::string(1000, 'x')).status, 200);  // given back
}

// Holds requests until released; replies come from a thread of its own.
struct Gate {
  void handle(HttpRequest request, HttpReply reply) {
    std::lock_guard lock(mutex);
    held.emplace_back(request.path, std::move(reply));
    arrived.notify_all();
  }
  void wait_for(size_t n) {
    std::unique_lock lock(mutex);
    arrived.wait(lock, [&] { return held.size() >= n; });
  }
  void release() {
    std::lock_guard lock(mutex);
    for (auto& [path, reply] : held) {
      HttpResponse response;
      response.body = path;
      reply(std::move(response));
    }
    held.clear();
  }
  std::mutex mutex;
  std::condition_variable arrived;
  std::vector<std::pair<std::string, HttpReply>> held;
};

TEST(Http, DrainFinishesRequestsUnderWayAndRefusesNewConnections) {
  Gate gate;
  Fixture f({}, [&](HttpRequest request, HttpReply reply) { gate.handle(std::move(request), std::move(reply)); });
  const uint16_t port = f.server.port();
  HttpClient idle(port), busy(port);
  busy.send("GET /busy HTTP/1.1\r\nHost: t\r\n\r\n");
  gate.wait_for(1);
  std::atomic<bool> drained{false};
  std::thread drainer([&] { drained = f.server.drain(milliseconds(20'000)); });
  EXPECT_TRUE(idle.closed_by_server());
  EXPECT_FALSE(drained);
  gate.release();
  const ClientResponse r = busy.receive();
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.body, "/busy");
  EXPECT_EQ(r.headers.at("connection"), "close");
  EXPECT_TRUE(busy.closed_by_server());
  drainer.join();
  EXPECT_TRUE(drained);
  EXPECT_THROW(HttpClient{port}, std::runtime_error);
}

TEST(Http, DrainCutsWhatOutlivesTheGrace) {
  Gate gate;
  Fixture f({}, [&](HttpRequest request, HttpReply reply) { gate.handle(std::move(request), std::move(reply)); });
  HttpClient busy(f.server.port());
  busy.send("GET /busy HTTP/1.1\r\nHost: t\r\n\r\n");
  gate.wait_for(1);
  EXPECT_FALSE(f.server.drain(milliseconds(20)));
  EXPECT_EQ(busy.receive().status, 0);
  gate.release();  // a late reply harms nobody
}

TEST(Http, ConcurrentClientsGetTheirOwnAnswers) {
  Gate gate;
  constexpr int kClients = 24;
  Fixture f({}, [&](HttpRequest request, HttpReply reply) { gate.handle(std::move(request), std::move(reply)); });
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int i = 0; i < kClients; ++i)
    threads.emplace_back([&, i] {
      HttpClient client(f.server.port());
      const std::string path = "/client" + std::to_string(i);
      if (client.get(path).body == path) ++right;
    });
  gate.wait_for(kClients);
  gate.release();
  for (auto& t : threads) t.join();
  EXPECT_EQ(right, kClients);
}

TEST(Http, ClientThatLeavesIsForgotten) {
  Gate gate;
  Fixture f({}, [&](HttpRequest request, HttpReply reply) { gate.handle(std::move(request), std::move(reply)); });
  {
    HttpClient gone(f.server.port());
    gone.send("GET /gone HTTP/1.1\r\nHost: t\r\n\r\n");
    gate.wait_for(1);
  }
  gate.release();
  HttpClient next(f.server.port());
  next.send("GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
  gate.wait_for(1);
  gate.release();
  EXPECT_EQ(next.receive().body, "/next");
}

TEST(Http, PortInUseIsAnError) {
  Fixture f;
  try {
    HttpServer second("127.0.0.1", f.server.port(), {}, 1, echo);
    FAIL() << "bound the same port twice";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kOsError);
    EXPECT_NE(std::string(error.what()).find("cannot listen on 127.0.0.1"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace ds::serve
