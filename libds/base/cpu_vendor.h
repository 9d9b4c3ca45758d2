// What a CPU is beyond its level of instructions (base/cpu.h): who made it and what it is called, where equal instructions
// run at different speeds, and extensions that levels do not imply.
#pragma once

#include <string>
#include <string_view>

namespace ds {

// CPUID's vendor string, "GenuineIntel" or "AuthenticAMD"; empty on other architectures.
std::string_view cpu_vendor();
// vpdpbusd on 256-bit registers without AVX-512; false where DS_ISA forbids AVX2.
bool cpu_has_avx_vnni();
// What the system calls it, "AMD EPYC ...".
std::string cpu_model();

}  // namespace ds
