// What the CPU can do, and how far we are allowed to use it.
//
// DS_ISA=portable|avx2|avx512|vnni|amx lowers the level (never raises it), for tests and for
// comparing. The same level is passed on to oneDNN.
#pragma once

#include <string>
#include <string_view>

namespace ds {

// Ordered: a level includes those before it. kVnni: AVX-512 VNNI, with BF16 and FP16 where present.
enum class Isa : int { kPortable = 0, kAvx2 = 1, kAvx512 = 2, kVnni = 3, kAmx = 4 };

// The level in force: detected, then lowered by DS_ISA. Fixed at first call.
Isa cpu_isa();
// Whether bf16 dot products are native at the level in force.
bool cpu_has_bf16();
// Whether arithmetic in f16 is (AVX512-FP16).
bool cpu_has_fp16();
std::string_view isa_name(Isa isa);
// "AMD EPYC ..., 2 threads, avx2": one line for reports.
std::string cpu_description();

}  // namespace ds
