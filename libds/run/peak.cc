#include "libds/run/peak.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <vector>

#include "kernels/peak.h"
#include "libds/base/clock.h"
#include "libds/base/cpu.h"
#include "libds/base/error.h"
#include "libds/base/parallel.h"

namespace ds {
namespace {

using Loop = int64_t (*)(int64_t rounds, float* sink);

// What of the types has a loop of its own at the level in force.
DType measured_type(DType dtype) {
  if (dtype == DType::kI8 || dtype == DType::kU8) return DType::kI8;
  const bool has = dtype == DType::kBF16 ? cpu_isa() >= Isa::kAmx || cpu_has_bf16() : dtype == DType::kF16 && cpu_isa() >= Isa::kVnni && cpu_has_fp16();
  return has ? dtype : DType::kF32;
}

Loop loop_for(DType dtype) {
  const Isa isa = cpu_isa();
  if (dtype == DType::kBF16) return isa >= Isa::kAmx ? kernels::peak_bf16_amx : kernels::peak_bf16_avx512;
  if (dtype == DType::kF16) return kernels::peak_f16_avx512;
  if (dtype == DType::kI8) return isa >= Isa::kVnni ? kernels::peak_s8_vnni_avx512 : isa >= Isa::kAvx2 ? kernels::peak_s8_avx2 : kernels::peak_s8_portable;
  return isa >= Isa::kAvx512 ? kernels::peak_f32_avx512 : isa >= Isa::kAvx2 ? kernels::peak_f32_avx2 : kernels::peak_f32_portable;
}

double measure(Loop loop, int threads) {
  // Rounds for about 3 ms on one thread.
  int64_t rounds = 1000;
  float sink = 1.0f;
  for (;;) {
    const double start = now_seconds();
    loop(rounds, &sink);
    if (now_seconds() - start > 3e-3) break;
    rounds *= 2;
  }
  const int threads_before = num_threads();
  set_num_threads(threads);
  double best = 0;
  for (int attempt = 0; attempt < 10; ++attempt) {
    std::atomic<int64_t> operations{0};
    const double start = now_seconds();
    parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        float own = 1.0f;
        operations += loop(rounds, &own);
      }
    });
    best = std::max(best, static_cast<double>(operations.load()) / (now_seconds() - start));
  }
  set_num_threads(threads_before);
  return best;
}

}  // namespace

double peak_flops(DType dtype, int threads) {
  static std::mutex mutex;
  static std::map<std::pair<DType, int>, double> known;
  dtype = measured_type(dtype);
  threads = std::max(1, threads);
  std::lock_guard lock(mutex);
  double& peak = known[{dtype, threads}];
  if (peak == 0) peak = measure(loop_for(dtype), threads);
  return peak;
}

double peak_bandwidth(int threads, int64_t bytes) {
  static std::mutex mutex;
  static std::map<std::pair<int, int64_t>, double> known;
  threads = std::max(1, threads);
  std::lock_guard lock(mutex);
  double& peak = known[{threads, bytes}];
  if (peak != 0) return peak;
  constexpr int64_t kBlock = 1 << 16;
  const int64_t blocks = std::max<int64_t>(1, bytes / kBlock);
  std::vector<std::byte> buffer(static_cast<size_t>(kBlock * blocks), std::byte{1});
  const int threads_before = num_threads();
  set_num_threads(threads);
  std::atomic<int64_t> sink{0};
  for (int pass = 0; pass < 8; ++pass) {
    const double start = now_seconds();
    parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
      int64_t sum = 0;
      for (int64_t b = begin; b < end; ++b) sum += kernels::read_bytes(buffer.data() + b * kBlock, kBlock);
      sink += sum;
    });
    peak = std::max(peak, static_cast<double>(buffer.size()) / (now_seconds() - start));
  }
  set_num_threads(threads_before);
  DS_CHECK(sink != 0);  // so that nothing above is left out as unused
  return peak;
}

DType compute_dtype(const Graph& graph) {
  for (NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (node.is("QuantizeLinear") || node.is("QLinearConv") || node.is("QLinearMatMul") || node.is("ConvInteger") ||
        node.is("MatMulInteger") || node.is("DynamicQuantizeLinear"))
      return DType::kI8;
  }
  return DType::kF32;
}

double compute_efficiency(double flops, double seconds, DType dtype, int threads) {
  if (flops <= 0 || seconds <= 0) return 0;
  return std::min(1.0, flops / seconds / peak_flops(dtype, threads));
}

}  // namespace ds
