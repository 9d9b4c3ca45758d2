// Logging to stderr by topic. DS_LOG=dispatch,plan,mem,... (or "all") turns topics on; warnings are
// always printed. Results never go through here: they belong on stdout.
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace ds {

bool log_enabled(std::string_view topic);
void log_line(std::string_view topic, std::string_view text);
void warn_line(std::string_view text);
// --quiet: warnings are dropped.
void set_quiet(bool quiet);

template <typename... Args>
void log(std::string_view topic, fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(topic)) log_line(topic, fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  warn_line(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace ds
