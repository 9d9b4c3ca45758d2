#include "libds/base/cpu.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "libds/base/cpu_vendor.h"
#include "libds/base/error.h"
#include "libds/base/parallel.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace ds {
namespace {

constexpr std::string_view kNames[] = {"portable", "avx2", "avx512", "vnni", "amx"};

#if defined(__x86_64__)
struct Leaf7 {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  explicit Leaf7(unsigned subleaf) { __get_cpuid_count(7, subleaf, &eax, &ebx, &ecx, &edx); }
};

// Linux gives AMX tile state only on request (arch_prctl ARCH_REQ_XCOMP_PERM, feature 18).
bool request_amx() {
  constexpr int kArchReqXcompPerm = 0x1023, kXfeatureTiledata = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTiledata) == 0;
}

Isa detect() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::kPortable;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
    return Isa::kAvx2;
  if (!__builtin_cpu_supports("avx512vnni")) return Isa::kAvx512;
  const Leaf7 leaf(0);
  const bool tiles = (leaf.edx >> 24) & 1, tile_bf16 = (leaf.edx >> 22) & 1, tile_int8 = (leaf.edx >> 25) & 1;
  if (tiles && tile_bf16 && tile_int8 && request_amx()) return Isa::kAmx;
  return Isa::kVnni;
}
#else
Isa detect() { return Isa::kPortable; }
#endif

Isa in_force() {
  const Isa found = detect();
  const char* wanted = std::getenv("DS_ISA");
  if (wanted == nullptr || *wanted == '\0') return found;
  const auto* it = std::find(std::begin(kNames), std::end(kNames), std::string_view(wanted));
  if (it == std::end(kNames))
    fail(ExitCode::kUsage, "DS_ISA={}: expected portable, avx2, avx512, vnni or amx", wanted);
  return std::min(found, static_cast<Isa>(it - std::begin(kNames)));
}

}  // namespace

Isa cpu_isa() {
  static const Isa isa = in_force();
  return isa;
}

bool cpu_has_bf16() {
#if defined(__x86_64__)
  return cpu_isa() >= Isa::kVnni && ((Leaf7(1).eax >> 5) & 1);
#else
  return false;
#endif
}

bool cpu_has_fp16() {
#if defined(__x86_64__)
  return cpu_isa() >= Isa::kVnni && ((Leaf7(0).edx >> 23) & 1);
#else
  return false;
#endif
}

bool cpu_has_avx_vnni() {
#if defined(__x86_64__)
  return cpu_isa() >= Isa::kAvx2 && ((Leaf7(1).eax >> 4) & 1);
#else
  return false;
#endif
}

std::string_view cpu_vendor() {
  static const std::string vendor = [] {
    std::string text;
#if defined(__x86_64__)
    unsigned a = 0, part[3] = {};
    if (__get_cpuid(0, &a, &part[0], &part[2], &part[1]) != 0) text.assign(reinterpret_cast<const char*>(part), sizeof part);
#endif
    return text;
  }();
  return vendor;
}

std::string_view isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

std::string cpu_model() {
  std::string line;
  std::ifstream info("/proc/cpuinfo");
  while (std::getline(info, line))
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown CPU";
}

std::string cpu_description() { return fmt::format("{}, {} threads, {}", cpu_model(), available_threads(), isa_name(cpu_isa())); }

}  // namespace ds
