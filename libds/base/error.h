// Errors and invariants.
//
// Everything a user can cause (bad model, bad data, missing file, unsupported request) is a
// ds::Error: an exit code, one message and a chain of contexts added on the way up, so that the
// line printed at the end reads `m.onnx: node 'b3/conv' (Conv): weight expects 3 channels, has 4`.
// Caught once per process in apps/, per request in the server. Expected outcomes (a queue is full,
// a kernel declines) are return values, never exceptions. DS_CHECK is for our own bugs only.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace ds {

// Process exit codes (sysexits where one fits).
enum class ExitCode : int {
  kOk = 0,
  kGateFailed = 1,    // accuracy, regression or verification gate
  kUsage = 64,        // wrong flags
  kBadData = 65,      // malformed model or data
  kNoInput = 66,      // input file missing or unreadable
  kUnsupported = 69,  // operator, device or feature that is not available
  kInternal = 70,     // our bug
  kOsError = 71,      // out of memory, system call failed
  kCantCreate = 73,   // output cannot be created
  kIoError = 74,      // output cannot be written
  kPreempted = 75,    // stopped by a signal; resumable
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, std::string message) : std::runtime_error(message), code_(code), text_(std::move(message)) {}

  ExitCode code() const { return code_; }
  const char* what() const noexcept override { return text_.c_str(); }

  // Puts `context: ` in front of the message. Called by whoever knows more (node, file, binary).
  void prepend(std::string_view context) { text_ = fmt::format("{}: {}", context, text_); }

 private:
  ExitCode code_;
  std::string text_;
};

template <typename... Args>
[[noreturn]] void fail(ExitCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

// The most frequent case: the model or the data is wrong.
template <typename... Args>
[[noreturn]] void bad_data(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ExitCode::kBadData, fmt::format(format, std::forward<Args>(args)...));
}

// Runs `body`; an Error that leaves it gains `context()` in front.
template <typename Context, typename Body>
decltype(auto) with_context(Context&& context, Body&& body) {
  try {
    return body();
  } catch (Error& error) {
    error.prepend(context());
    throw;
  }
}

namespace detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition);
}

}  // namespace ds

// Invariant of ours; a failure is exit code 70 and names the place. A macro for file and line.
#define DS_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::ds::detail::check_failed(__FILE__, __LINE__, #condition))
