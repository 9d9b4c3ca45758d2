#include "libds/base/log.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace ds {
namespace {
std::atomic<bool> g_quiet{false};
}

bool log_enabled(std::string_view topic) {
  static const std::string topics = [] {
    const char* value = std::getenv("DS_LOG");
    return std::string(",") + (value ? value : "") + ",";
  }();
  if (topics.size() == 2) return false;
  return topics.find(",all,") != std::string::npos || topics.find("," + std::string(topic) + ",") != std::string::npos;
}

void log_line(std::string_view topic, std::string_view text) {
  const std::string line = fmt::format("[{}] {}\n", topic, text);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

void warn_line(std::string_view text) {
  if (g_quiet) return;
  const std::string line = fmt::format("warning: {}\n", text);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

void set_quiet(bool quiet) { g_quiet = quiet; }

}  // namespace ds
