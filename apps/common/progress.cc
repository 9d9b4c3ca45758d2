#include "apps/common/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace ds::cli {

bool is_terminal(int fd) { return isatty(fd) == 1; }

bool color_allowed(int fd) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return is_terminal(fd) && (no_color == nullptr || *no_color == 0) && term != nullptr && std::string_view(term) != "dumb";
}

Progress::Progress(std::string label, int64_t total, bool quiet)
    : label_(std::move(label)), total_(total), start_(Clock::now()) {
  const char* term = std::getenv("TERM");
  enabled_ = !quiet && is_terminal(STDERR_FILENO) && (term == nullptr || std::string_view(term) != "dumb");
}

void Progress::restart(std::string label, int64_t total) {
  clear();
  label_ = std::move(label);
  total_ = total;
  start_ = Clock::now();
}

void Progress::update(int64_t done, std::string_view detail) {
  if (!enabled_) return;
  const auto now = Clock::now();
  if (drawn_ && done != total_ && now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  drawn_ = true;
  winsize size{};
  const int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const std::string text = "\r\033[K" + progress_line(label_, done, total_, seconds, detail, width - 1);
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

void Progress::clear() {
  if (!drawn_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

std::string progress_line(std::string_view label, int64_t done, int64_t total, double seconds, std::string_view detail,
                          int width) {
  std::string line;
  if (total > 0) {
    const int64_t shown = std::clamp<int64_t>(done, 0, total);
    constexpr int kBar = 20;
    const int filled = static_cast<int>(kBar * shown / total);
    line = fmt::format("{} [{}{}] {}/{}", label, std::string(static_cast<size_t>(filled), '='),
                       std::string(static_cast<size_t>(kBar - filled), ' '), shown, total);
    if (!detail.empty()) line += fmt::format(" {}", detail);
    if (shown > 0 && shown < total) line += fmt::format(", {:.0f} s left", seconds * static_cast<double>(total - shown) / static_cast<double>(shown));
  } else {
    line = fmt::format("{} {}", label, done);
    if (!detail.empty()) line += fmt::format(" {}", detail);
  }
  if (width > 0 && static_cast<int>(line.size()) > width) line.resize(static_cast<size_t>(width));
  return line;
}

}  // namespace ds::cli
