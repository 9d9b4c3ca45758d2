#include "libds/tasks/serve/http.h"

#include <array>
#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/version.hpp>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>

#include "libds/base/error.h"
#include "libds/base/log.h"

namespace ds::serve {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Milliseconds = std::chrono::milliseconds;

// After an error reply the client may still be sending; closing at once would reset the connection
// and lose the reply. We read on for this long, throwing the bytes away.
constexpr Milliseconds kLingerTime{1000};
// Connections over the limit that are being told so; beyond these they are just closed.
constexpr int kMaxRefusing = 64;

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Decodes %xx; nullopt when malformed or when a control character results.
std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size()) return std::nullopt;
      const int high = hex_digit(text[i + 1]), low = hex_digit(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return std::nullopt;
    out.push_back(c);
  }
  return out;
}

bool same_name(std::string_view a, std::string_view b) {
  return beast::iequals(beast::string_view(a.data(), a.size()), beast::string_view(b.data(), b.size()));
}

std::string endpoint_text(const tcp::endpoint& endpoint) {
  const bool v6 = endpoint.address().is_v6();
  return fmt::format("{}{}{}:{}", v6 ? "[" : "", endpoint.address().to_string(), v6 ? "]" : "", endpoint.port());
}

}  // namespace

const std::string* HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (same_name(key, name)) return &value;
  return nullptr;
}

struct HttpServer::Impl : std::enable_shared_from_this<HttpServer::Impl> {
  Impl(const HttpLimits& limits_in, HttpHandler handler_in)
      : limits(limits_in), handler(std::move(handler_in)), acceptor(io), retry(io), guard(asio::make_work_guard(io)) {}

  void accept_next();
  void enter(Connection* connection, std::weak_ptr<Connection> handle);
  void leave(Connection* connection);
  std::vector<std::shared_ptr<Connection>> snapshot();
  bool wait_until_empty(Milliseconds time);

  const HttpLimits limits;
  const HttpHandler handler;
  asio::io_context io;
  tcp::acceptor acceptor;
  asio::steady_timer retry;  // pause after accept() failed, as when descriptors run out
  asio::executor_work_guard<asio::io_context::executor_type> guard;
  tcp::endpoint local;
  int io_threads = 1;
  std::vector<std::thread> threads;
  std::atomic<size_t> body_bytes{0};  // promised to requests under way
  std::atomic<bool> draining{false};
  std::atomic<bool> stopped{false};

  std::mutex mutex;
  std::condition_variable empty;
  std::unordered_map<Connection*, std::weak_ptr<Connection>> connections;  // guarded by mutex
};

// One client. All members are touched on the connection's strand only.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Impl = HttpServer::Impl;
  Connection(std::shared_ptr<Impl> impl, tcp::socket socket)
      : impl_(std::move(impl)), socket_(std::move(socket)), timer_(socket_.get_executor()),
        buffer_(impl_->limits.header_bytes + (size_t{64} << 10)) {}

  void start() {
    impl_->enter(this, weak_from_this());
    asio::post(socket_.get_executor(), [self = shared_from_this()] {
      error_code ignored;
      self->socket_.set_option(tcp::no_delay(true), ignored);
      self->wait_for_request();
    });
  }

  // Answers 503 without reading anything.
  void start_refusing() {
    impl_->enter(this, weak_from_this());
    asio::post(socket_.get_executor(), [self = shared_from_this()] {
      HttpResponse response = http_error(503, "too many connections");
      response.headers.emplace_back("Retry-After", "1");
      self->write(std::move(response), false);
    });
  }

  // Drain: nothing may follow the request under way, if there is one.
  void finish() {
    asio::post(socket_.get_executor(), [self = shared_from_this()] {
      if (self->state_ == State::kIdle) self->close();
    });
  }
  void cut() {
    asio::post(socket_.get_executor(), [self = shared_from_this()] { self->close(); });
  }

 private:
  enum class State { kIdle, kReading, kHandling, kWriting, kLingering, kClosed };

  // Sends the handler's answer once; a handler that loses it answers 500.
  class ReplyOnce {
   public:
    explicit ReplyOnce(std::shared_ptr<Connection> connection) : connection_(std::move(connection)) {}
    ~ReplyOnce() {
      if (!done_.exchange(true)) connection_->post_reply(http_error(500, "internal error: request was dropped"));
    }
    void operator()(HttpResponse response) {
      if (!done_.exchange(true)) connection_->post_reply(std::move(response));
    }

   private:
    std::shared_ptr<Connection> connection_;
    std::atomic<bool> done_{false};
  };

  void arm(Milliseconds time) {
    const uint64_t round = ++timer_round_;
    timer_.expires_after(time);
    timer_.async_wait([self = shared_from_this(), round](error_code error) {
      if (!error && round == self->timer_round_) self->on_timeout();
    });
  }
  void disarm() {
    ++timer_round_;
    timer_.cancel();
  }
  void on_timeout() {
    if (state_ == State::kReading) {
      timed_out_ = true;  // the pending read ends and answers 408
      error_code ignored;
      socket_.cancel(ignored);
    } else {
      close();
    }
  }

  void wait_for_request() {
    if (state_ == State::kClosed) return;
    if (buffer_.size() > 0) return read_header();  // the client sent the next one early
    state_ = State::kIdle;
    if (impl_->draining) return close();
    arm(impl_->limits.idle_time);
    socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](error_code error) {
      if (self->state_ == State::kClosed) return;
      if (error) return self->close();
      self->read_header();
    });
  }

  void read_header() {
    state_ = State::kReading;
    timed_out_ = false;
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(impl_->limits.header_bytes));
    parser_->body_limit(impl_->limits.body_bytes);
    arm(impl_->limits.header_time);
    http::async_read_header(socket_, buffer_, *parser_, [self = shared_from_this()](error_code error, size_t) {
      if (self->state_ == State::kClosed) return;
      if (error) return self->read_failed(error);
      self->check_header();
    });
  }

  void check_header() {
    const auto& message = parser_->get();
    const http::verb method = message.method();
    if (method != http::verb::get && method != http::verb::post) {
      HttpResponse response = http_error(405, "only GET and POST are served");
      response.headers.emplace_back("Allow", "GET, POST");
      return write(std::move(response), false);
    }
    if (message.version() != 10 && message.version() != 11)
      return write(http_error(505, "only HTTP/1.0 and HTTP/1.1 are served"), false);
    const size_t hosts = message.count(http::field::host);
    if (hosts > 1 || (hosts == 0 && message.version() == 11))
      return write(http_error(400, "malformed HTTP: exactly one Host header is required"), false);
    if (method == http::verb::post && !parser_->chunked() && !parser_->content_length())
      return write(http_error(411, "POST needs Content-Length or chunked transfer coding"), false);
    const beast::string_view encoding = message[http::field::content_encoding];
    if (!encoding.empty() && !beast::iequals(encoding, "identity"))
      return write(http_error(415, "compressed bodies are not accepted"), false);
    if (!reserve_body()) {
      HttpResponse response = http_error(503, "too many request bytes under way");
      response.headers.emplace_back("Retry-After", "1");
      return write(std::move(response), false);
    }
    const beast::string_view expect = message[http::field::expect];
    if (expect.empty() || message.version() == 10) return read_body();
    if (!beast::iequals(expect, "100-continue"))
      return write(http_error(417, "only 'Expect: 100-continue' is understood"), false);
    static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    asio::async_write(socket_, asio::buffer(kContinue.data(), kContinue.size()),
                      [self = shared_from_this()](error_code error, size_t) {
                        if (self->state_ == State::kClosed) return;
                        if (error) return self->close();
                        self->read_body();
                      });
  }

  // Memory for the body, before it is sent: its declared length, or the most a chunked one may have.
  bool reserve_body() {
    const auto& declared = parser_->content_length();
    const size_t wanted = parser_->chunked() ? impl_->limits.body_bytes : declared ? static_cast<size_t>(*declared) : 0;
    reserved_ = wanted;
    if (impl_->body_bytes.fetch_add(wanted) + wanted <= impl_->limits.all_bodies_bytes) return true;
    release_body();
    return false;
  }
  void release_body() {
    impl_->body_bytes -= reserved_;
    reserved_ = 0;
  }

  void read_body() {
    arm(impl_->limits.body_time);
    http::async_read(socket_, buffer_, *parser_, [self = shared_from_this()](error_code error, size_t) {
      if (self->state_ == State::kClosed) return;
      if (error) return self->read_failed(error);
      self->handle();
    });
  }

  void read_failed(error_code error) {
    if (timed_out_) return write(http_error(408, "request took too long to arrive"), false);
    if (error == http::error::body_limit)
      return write(http_error(413, fmt::format("body is longer than the limit of {} bytes", impl_->limits.body_bytes)),
                   false);
    if (error == http::error::header_limit || error == http::error::buffer_overflow)
      return write(
          http_error(431, fmt::format("header is longer than the limit of {} bytes", impl_->limits.header_bytes)), false);
    if (error == http::error::end_of_stream || error == http::error::partial_message) return close();
    if (error.category() == make_error_code(http::error::bad_method).category())
      return write(http_error(400, fmt::format("malformed HTTP: {}", error.message())), false);
    close();
  }

  void handle() {
    disarm();
    state_ = State::kHandling;
    auto message = parser_->release();
    parser_.reset();
    keep_alive_ = message.keep_alive();
    version_ = message.version();

    HttpRequest request;
    request.method = std::string(message.method_string());
    std::string_view target(message.target().data(), message.target().size());
    if (const size_t scheme = target.find("://"); scheme != std::string_view::npos && target[0] != '/') {
      const size_t slash = target.find('/', scheme + 3);  // absolute form: http://host/path
      target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
    }
    const size_t mark = target.find('?');
    if (mark != std::string_view::npos) request.query = std::string(target.substr(mark + 1));
    std::optional<std::string> path = percent_decode(target.substr(0, mark));
    if (!path || path->empty() || path->front() != '/')
      return write(http_error(400, "malformed HTTP: bad request target"), keep_alive_);
    request.path = std::move(*path);
    for (const auto& field : message) {
      const beast::string_view name = field.name_string(), value = field.value();
      request.headers.emplace_back(std::string(name.data(), name.size()), std::string(value.data(), value.size()));
    }
    request.body = std::move(message.body());

    auto once = std::make_shared<ReplyOnce>(shared_from_this());
    try {
      impl_->handler(std::move(request), [once](HttpResponse response) { (*once)(std::move(response)); });
    } catch (const std::bad_alloc&) {
      (*once)(http_error(503, "out of memory"));
    } catch (const std::exception& error) {
      (*once)(http_error(500, fmt::format("internal error: {}", error.what())));
    }
  }

  void post_reply(HttpResponse response) {
    if (impl_->stopped) return;
    asio::post(socket_.get_executor(), [self = shared_from_this(), response = std::move(response)]() mutable {
      if (self->state_ == State::kHandling) self->write(std::move(response), self->keep_alive_);
    });
  }

  void write(HttpResponse response, bool keep_alive) {
    state_ = State::kWriting;
    release_body();  // the request has been dealt with
    keep_alive = keep_alive && !impl_->draining;
    auto message = std::make_shared<http::response<http::string_body>>();
    message->version(version_);
    message->result(static_cast<unsigned>(response.status));
    message->set(http::field::server, "ds-serve");
    message->set(http::field::content_type, response.content_type);
    for (const auto& [name, value] : response.headers) message->set(name, value);
    message->keep_alive(keep_alive);
    message->body() = std::move(response.body);
    message->prepare_payload();
    arm(impl_->limits.write_time);
    http::async_write(socket_, *message, [self = shared_from_this(), message, keep_alive](error_code error, size_t) {
      if (self->state_ == State::kClosed) return;
      if (error) return self->close();
      if (keep_alive) return self->wait_for_request();
      self->linger();
    });
  }

  void linger() {
    state_ = State::kLingering;
    parser_.reset();
    error_code error;
    socket_.shutdown(tcp::socket::shutdown_send, error);
    if (error) return close();
    arm(kLingerTime);
    discard();
  }
  void discard() {
    socket_.async_read_some(asio::buffer(trash_), [self = shared_from_this()](error_code error, size_t) {
      if (self->state_ == State::kClosed) return;
      if (error) return self->close();
      self->discard();
    });
  }

  void close() {
    if (state_ == State::kClosed) return;
    state_ = State::kClosed;
    release_body();
    disarm();
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_both, ignored);
    socket_.close(ignored);
    impl_->leave(this);
  }

  std::shared_ptr<Impl> impl_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  uint64_t timer_round_ = 0;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  State state_ = State::kIdle;
  bool timed_out_ = false;
  size_t reserved_ = 0;  // of Impl::body_bytes
  bool keep_alive_ = false;
  unsigned version_ = 11;
  std::array<char, 4096> trash_;
};

void HttpServer::Impl::enter(Connection* connection, std::weak_ptr<Connection> handle) {
  std::lock_guard lock(mutex);
  connections.emplace(connection, std::move(handle));
}

void HttpServer::Impl::leave(Connection* connection) {
  std::lock_guard lock(mutex);
  connections.erase(connection);
  if (connections.empty()) empty.notify_all();
}

std::vector<std::shared_ptr<Connection>> HttpServer::Impl::snapshot() {
  std::lock_guard lock(mutex);
  std::vector<std::shared_ptr<Connection>> all;
  for (const auto& [key, handle] : connections)
    if (auto connection = handle.lock()) all.push_back(std::move(connection));
  return all;
}

bool HttpServer::Impl::wait_until_empty(Milliseconds time) {
  std::unique_lock lock(mutex);
  return empty.wait_for(lock, time, [this] { return connections.empty(); });
}

void HttpServer::Impl::accept_next() {
  acceptor.async_accept(asio::make_strand(io), [self = shared_from_this()](error_code error, tcp::socket socket) {
    if (self->draining || error == asio::error::operation_aborted) return;
    if (error) {
      log("serve", "accept failed: {}", error.message());
      self->retry.expires_after(Milliseconds(100));
      self->retry.async_wait([self](error_code waited) {
        if (!waited && !self->draining) self->accept_next();
      });
      return;
    }
    size_t open;
    {
      std::lock_guard lock(self->mutex);
      open = self->connections.size();
    }
    const size_t limit = static_cast<size_t>(self->limits.max_connections);
    if (open < limit) std::make_shared<Connection>(self, std::move(socket))->start();
    else if (open < limit + kMaxRefusing) std::make_shared<Connection>(self, std::move(socket))->start_refusing();
    self->accept_next();
  });
}

HttpServer::HttpServer(const std::string& host, uint16_t port, const HttpLimits& limits, int io_threads,
                       HttpHandler handler)
    : impl_(std::make_shared<Impl>(limits, std::move(handler))) {
  impl_->io_threads = std::max(1, io_threads);
  error_code error;
  tcp::resolver resolver(impl_->io);
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (error || found.empty()) fail(ExitCode::kOsError, "cannot resolve host '{}': {}", host, error.message());
  const tcp::endpoint endpoint = found.begin()->endpoint();
  tcp::acceptor& acceptor = impl_->acceptor;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) fail(ExitCode::kOsError, "cannot listen on {}: {}", endpoint_text(endpoint), error.message());
  impl_->local = acceptor.local_endpoint();
}

HttpServer::~HttpServer() { drain(Milliseconds(0)); }

uint16_t HttpServer::port() const { return impl_->local.port(); }
std::string HttpServer::address() const { return endpoint_text(impl_->local); }

void HttpServer::start() {
  impl_->accept_next();
  for (int i = 0; i < impl_->io_threads; ++i) impl_->threads.emplace_back([impl = impl_.get()] { impl->io.run(); });
}

bool HttpServer::drain(Milliseconds grace) {
  if (impl_->stopped) return true;
  impl_->draining = true;
  bool finished = true;
  if (!impl_->threads.empty()) {
    asio::post(impl_->io, [impl = impl_] {
      error_code ignored;
      impl->acceptor.close(ignored);
      impl->retry.cancel();
    });
    for (const auto& connection : impl_->snapshot()) connection->finish();
    finished = impl_->wait_until_empty(grace);
    if (!finished) {
      for (const auto& connection : impl_->snapshot()) connection->cut();
      if (!impl_->wait_until_empty(Milliseconds(2000))) impl_->io.stop();
    }
  }
  impl_->stopped = true;
  impl_->guard.reset();
  for (std::thread& thread : impl_->threads) thread.join();
  impl_->threads.clear();
  return finished;
}

int HttpServer::connections() const {
  std::lock_guard lock(impl_->mutex);
  return static_cast<int>(impl_->connections.size());
}

}  // namespace ds::serve
