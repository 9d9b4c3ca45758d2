// A blunt HTTP client for tests: sends any bytes, reads one response. Blocking, with a time limit.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cctype>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>

namespace ds::test {

struct ClientResponse {
  int status = 0;  // 0: the connection was closed without a response
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

class HttpClient {
 public:
  explicit HttpClient(uint16_t port) {
    fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
    timeval limit{20, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      ::close(fd_);
      throw std::runtime_error("connect failed");
    }
  }
  ~HttpClient() { ::close(fd_); }
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // False when the server has closed the connection meanwhile.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  ClientResponse receive() {
    ClientResponse response;
    size_t end;
    while ((end = pending_.find("\r\n\r\n")) == std::string::npos)
      if (!more()) return response;
    const std::string head = pending_.substr(0, end);
    pending_.erase(0, end + 4);
    response.status = std::atoi(head.c_str() + head.find(' '));
    for (size_t at = head.find("\r\n"); at != std::string::npos;) {
      const size_t next = head.find("\r\n", at + 2);
      const std::string line = head.substr(at + 2, next == std::string::npos ? next : next - at - 2);
      const size_t colon = line.find(':');
      std::string name = line.substr(0, colon);
      for (char& c : name) c = static_cast<char>(std::tolower(c));
      response.headers[name] = line.substr(line.find_first_not_of(' ', colon + 1));
      at = next;
    }
    const auto length = response.headers.find("content-length");
    const size_t bytes = length == response.headers.end() ? 0 : std::strtoull(length->second.c_str(), nullptr, 10);
    while (pending_.size() < bytes)
      if (!more()) throw std::runtime_error("response cut short");
    response.body = pending_.substr(0, bytes);
    pending_.erase(0, bytes);
    return response;
  }

  ClientResponse get(std::string_view path) {
    send("GET " + std::string(path) + " HTTP/1.1\r\nHost: t\r\n\r\n");
    return receive();
  }
  ClientResponse post(std::string_view path, std::string_view body, std::string_view extra_headers = "") {
    send("POST " + std::string(path) + " HTTP/1.1\r\nHost: t\r\n" + std::string(extra_headers) +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n");
    send(body);
    return receive();
  }
  // Whether the server has closed its side (waits for it).
  bool closed_by_server() { return pending_.empty() && !more(); }

 private:
  bool more() {
    char buffer[1 << 14];
    const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
    if (n <= 0) return false;
    pending_.append(buffer, static_cast<size_t>(n));
    return true;
  }
  int fd_ = -1;
  std::string pending_;
};

}  // namespace ds::test
