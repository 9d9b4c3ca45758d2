// A small HTTP/1.1 server behind a strict gate.
//
// What reaches the handler is a complete, well-formed GET or POST within the limits; all else is
// answered here: 400 malformed, 405 other methods, 408 too slow, 413 body too long, 431 header too
// long, 503 too many connections. Connections are kept alive; one request at a time is taken from
// each. RFC 9110 and 9112.
//
// Threads: `io_threads` threads move bytes and call the handler, which must not block: it hands the
// work on and calls `reply` later, once, from any thread. Replying to a client that has left is fine.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ds::serve {

struct HttpRequest {
  std::string method;  // "GET" or "POST"
  std::string path;    // percent-decoded, without the query; starts with '/'
  std::string query;   // as sent, without '?'
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;

  // Value of the first header of this name, in any case; null when absent.
  const std::string* header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
};

// {"error": "..."} with a status; bytes that are not UTF-8 are replaced.
HttpResponse http_error(int status, std::string_view message);
// The text as a JSON string literal, quotes included; bytes that are not UTF-8 are replaced.
std::string json_quote(std::string_view text);

struct HttpLimits {
  size_t header_bytes = 16 << 10;
  size_t body_bytes = size_t{64} << 20;
  size_t all_bodies_bytes = size_t{1} << 30;  // of all requests under way together; more get 503
  int max_connections = 512;
  std::chrono::milliseconds header_time{10'000};  // from a request's first byte to the end of its header
  std::chrono::milliseconds body_time{60'000};    // from there to the end of the body
  std::chrono::milliseconds idle_time{75'000};    // between requests
  std::chrono::milliseconds write_time{60'000};   // for one response
};

using HttpReply = std::function<void(HttpResponse)>;
using HttpHandler = std::function<void(HttpRequest, HttpReply)>;

class Connection;

class HttpServer {
 public:
  // Binds and listens; port 0 takes a free one. Throws ds::Error (kOsError) when it cannot.
  HttpServer(const std::string& host, uint16_t port, const HttpLimits& limits, int io_threads, HttpHandler handler);
  ~HttpServer();  // closes everything at once if still running
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const;
  // "127.0.0.1:8000", "[::1]:8000".
  std::string address() const;
  void start();
  // Stops accepting, lets requests under way finish, closes idle connections; then ends the threads.
  // Connections still busy after `grace` are cut. Returns whether all finished by themselves.
  bool drain(std::chrono::milliseconds grace);
  int connections() const;

 private:
  struct Impl;
  friend class Connection;
  std::shared_ptr<Impl> impl_;
};

}  // namespace ds::serve
