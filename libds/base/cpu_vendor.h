// Who made the CPU, where equal instructions run at different speeds.
#pragma once

#include <string_view>

namespace ds {

// CPUID's vendor string, "GenuineIntel" or "AuthenticAMD"; empty on other architectures.
std::string_view cpu_vendor();

}  // namespace ds
