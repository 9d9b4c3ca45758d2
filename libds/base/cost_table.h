// What products cost on a CPU, type by type: the numbers that choices between types rest on (passes/auto_cast.h).
//
// Nothing is measured when a model is compiled, so that the same command gives the same bits: the table is the built-in
// one, or one that `ds-bench calibrate` measured (base/cost_file.h) and that the user named. Its hash() stands beside
// what was made with it.
//
// A rate is multiply-adds in a unit of time, of all threads together; the bandwidth is bytes in the same unit. The unit
// is a core's clock cycle in the built-in table and a nanosecond in a measured one; choices use ratios only.
// Values are immutable once made; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "libds/base/cpu.h"
#include "libds/base/dtype.h"

namespace ds {

constexpr int kIsaLevels = 5;
constexpr DType kCostTypes[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kI8};
constexpr int kCostTypeCount = 4;

struct CostTable {
  // Of packed products (kernels/packed_product.h) of operands of this type at a level of instructions; 8 bits: u8 times
  // s8. 0: unknown, or there is no such kernel.
  double rates[kCostTypeCount][kIsaLevels] = {};
  // Bytes that weights are read with: from the last level of cache, so that what lies there is not judged by memory, which
  // is slower yet. 0: unknown.
  double bandwidth = 0;

  // Of measured tables; empty in the built-in one.
  std::string cpu;      // cpu_model()
  std::string version;  // of ds, whose kernels were measured
  Isa isa = Isa::kPortable;  // the highest level measured
  int threads = 1;
  std::string date;     // UTC, ISO 8601; not in the hash
  std::string file;     // read from there; not in the hash

  double& rate(DType dtype, Isa level);
  double rate(DType dtype, Isa level) const;  // 0 for types that have no row
  // How many times as fast as f32 products at this level; 0 where one of the two is unknown.
  double gain(DType dtype, Isa level) const;
  // The same for a product with so many rows on the left, in which reading weights counts: every weight takes
  // rows / rate + bytes / bandwidth.
  double gain(DType dtype, Isa level, int64_t rows) const;

  bool built_in() const { return cpu.empty(); }
  // 16 hexadecimal digits that change with anything that a choice could rest on.
  std::string hash() const;
  // "built-in costs" or "costs of FILE, HASH".
  std::string text() const;
};

// For this CPU, from the throughput that makers document for the instructions.
const CostTable& builtin_costs();

}  // namespace ds
