#include "libds/base/cost_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "libds/base/cpu_vendor.h"
#include "libds/base/random.h"

namespace ds {
namespace {

static_assert(static_cast<int>(Isa::kAmx) + 1 == kIsaLevels);

int row_of(DType dtype) {
  const auto* it = std::find(std::begin(kCostTypes), std::end(kCostTypes), dtype);
  return it == std::end(kCostTypes) ? -1 : static_cast<int>(it - std::begin(kCostTypes));
}

// Multiply-adds a cycle and core: two ports of the level's width, as on every core these tables are about (Intel 64 and
// IA-32 Architectures Optimization Reference Manual; Fog, "Instruction tables").
CostTable from_throughput() {
  constexpr double kPorts = 2;
  CostTable t;
  const auto set = [&](DType dtype, Isa level, double rate) { t.rate(dtype, level) = rate; };
  // f32: 4, 8 and 16 lanes of a fused multiply-add; the portable loops multiply and add apart.
  set(DType::kF32, Isa::kPortable, kPorts * 4 / 2);
  set(DType::kF32, Isa::kAvx2, kPorts * 8);
  for (Isa level : {Isa::kAvx512, Isa::kVnni, Isa::kAmx}) set(DType::kF32, level, kPorts * 16);
  // bf16: vdpbf16ps multiplies 32 pairs; it issues every other cycle on Intel's cores (half the rate of f32: measured 0.5 on
  // Sapphire Rapids), on both ports on AMD's Zen 4 and later (twice). An AMX tile multiplies 16 times what two ports
  // do in f32, of which memory leaves about half.
  constexpr double kAmxGain = 8, kIntelDotGain = 0.5, kAmdDotGain = 2;
  if (cpu_has_bf16()) set(DType::kBF16, Isa::kVnni, t.rate(DType::kF32, Isa::kVnni) * (cpu_vendor() == "AuthenticAMD" ? kAmdDotGain : kIntelDotGain));
  set(DType::kBF16, Isa::kAmx, t.rate(DType::kF32, Isa::kAmx) * kAmxGain);
  // f16: 32 lanes of a fused multiply-add, at f32's rate; widening the sums takes a part of that (kernels/tile_avx512fp16.cc).
  constexpr double kHalfGain = 1.7;
  if (cpu_has_fp16())
    for (Isa level : {Isa::kVnni, Isa::kAmx}) set(DType::kF16, level, t.rate(DType::kF32, level) * kHalfGain);
  // 8 bits: vpdpbusd multiplies 4 pairs a lane; before it, three instructions do (vpmaddubsw, vpmaddwd, vpaddd). Portable
  // loops widen first and gain nothing. AMX as above, at twice bf16's rate.
  set(DType::kI8, Isa::kPortable, t.rate(DType::kF32, Isa::kPortable));
  set(DType::kI8, Isa::kAvx2, kPorts * 8 * 4 / (cpu_has_avx_vnni() ? 1 : 3));
  set(DType::kI8, Isa::kAvx512, kPorts * 16 * 4 / 3);
  set(DType::kI8, Isa::kVnni, kPorts * 16 * 4);
  set(DType::kI8, Isa::kAmx, 2 * t.rate(DType::kBF16, Isa::kAmx));
  t.bandwidth = 8;  // of one of many cores, as servers have them: 20 GB/s at 2.5 GHz
  return t;
}

}  // namespace

double& CostTable::rate(DType dtype, Isa level) { return rates[std::max(0, row_of(dtype))][static_cast<int>(level)]; }

double CostTable::rate(DType dtype, Isa level) const {
  const int row = row_of(dtype);
  return row < 0 ? 0 : rates[row][static_cast<int>(level)];
}

double CostTable::gain(DType dtype, Isa level) const {
  const double f32 = rate(DType::kF32, level);
  return f32 > 0 ? rate(dtype, level) / f32 : 0;
}

double CostTable::gain(DType dtype, Isa level, int64_t rows) const {
  const double narrow = rate(dtype, level), f32 = rate(DType::kF32, level), n = static_cast<double>(rows);
  if (narrow <= 0 || f32 <= 0) return 0;
  const auto seconds = [&](double rate, DType type) {
    return n / rate + (bandwidth > 0 ? static_cast<double>(dtype_size(type)) / bandwidth : 0);
  };
  return seconds(f32, DType::kF32) / seconds(narrow, dtype);
}

std::string CostTable::hash() const {
  std::string all = fmt::format("{}|{}|{}|{}|{}", cpu, version, isa_name(isa), threads, bandwidth);
  for (const auto& row : rates)
    for (double rate : row) all += fmt::format("|{}", rate);  // the shortest text that gives the same number
  return fmt::format("{:016x}", stream_of(all));
}

std::string CostTable::text() const { return built_in() ? "built-in costs" : fmt::format("costs of {}, {}", file.empty() ? "this run" : file, hash()); }

const CostTable& builtin_costs() {
  static const CostTable table = from_throughput();
  return table;
}

}  // namespace ds
