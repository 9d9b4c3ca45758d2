// A progress line on stderr: only when stderr is a terminal, at most ten times a second, and erased
// when done, so that redirected logs stay clean. NO_COLOR and TERM=dumb are honoured.
// Use from one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace ds::cli {

bool is_terminal(int fd);
// Whether text written to `fd` may be coloured.
bool color_allowed(int fd);

class Progress {
 public:
  // `total` 0: unknown, only the count is shown. `quiet` draws nothing.
  explicit Progress(std::string label, int64_t total = 0, bool quiet = false);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Starts over under another label.
  void restart(std::string label, int64_t total);
  // `done` steps of total; `detail` ("loss 0.123") is appended.
  void update(int64_t done, std::string_view detail = {});
  // Erases the line; call before printing anything else to the terminal.
  void clear();
  bool enabled() const { return enabled_; }

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  int64_t total_;
  bool enabled_;
  bool drawn_ = false;
  Clock::time_point start_, last_;
};

// The line without its control characters: "epoch 1 [=====     ] 50/100 loss 0.5, 3 s left".
std::string progress_line(std::string_view label, int64_t done, int64_t total, double seconds, std::string_view detail,
                          int width);

}  // namespace ds::cli
