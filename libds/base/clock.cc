#include "libds/base/clock.h"

#include <chrono>
#include <ctime>

namespace ds {

double now_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string utc_date() {
  const std::time_t now = std::time(nullptr);
  struct tm utc {};
  char text[32];
  if (::gmtime_r(&now, &utc) == nullptr) return {};
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc)};
}

}  // namespace ds
