#include "libds/base/process.h"

#include <malloc.h>

#include <cstdio>
#include <fstream>
#include <string>

namespace ds {
namespace {

// A line of /proc/self/status such as "VmRSS:  1234 kB".
int64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind(key, 0) == 0) return std::stoll(line.substr(key.size())) * 1024;
  return 0;
}

}  // namespace

int64_t resident_bytes() { return status_bytes("VmRSS:"); }
int64_t peak_resident_bytes() { return status_bytes("VmHWM:"); }

bool reset_peak_resident() {
  std::FILE* f = std::fopen("/proc/self/clear_refs", "w");
  if (f == nullptr) return false;
  const bool written = std::fputs("5", f) >= 0;
  return (std::fclose(f) == 0) && written;
}

void trim_heap() { ::malloc_trim(0); }

}  // namespace ds
