#include "libds/tasks/bench/calibrate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <vector>

#include "kernels/packed_product.h"
#include "libds/base/clock.h"
#include "libds/base/cpu_vendor.h"
#include "libds/base/parallel.h"
#include "libds/run/peak.h"
#include "libds/tasks/bench/row_text.h"
#include "libds/tasks/bench/timing_stats.h"

namespace ds::bench {
namespace {

using kernels::ActivationType;
using kernels::TileIsa;
using kernels::TileType;
using kernels::WeightType;

// A layer of BERT, a pointwise convolution late in a ResNet, and a few tokens of a decoder; the number of rows is no
// multiple of a tile's.
struct ProductShape {
  int64_t rows, depth, columns;
};
constexpr ProductShape kShapes[] = {{128, 768, 768}, {196, 1024, 256}, {24, 768, 2304}};

// More than the cores' own caches hold, and less than the one they share on most machines.
constexpr int64_t kBandwidthBytes = int64_t{6} << 20;

constexpr int kLeastRuns = 3, kMostRuns = 25;
constexpr double kSeconds = 0.12;  // of runs of one kernel at one shape, once there are kLeastRuns

std::optional<TileType> tile_type(DType dtype) {
  if (dtype == DType::kF32) return TileType::kF32;
  if (dtype == DType::kBF16) return TileType::kBf16;
  if (dtype == DType::kF16) return TileType::kF16;
  if (dtype == DType::kI8) return TileType::kU8S8;
  return std::nullopt;
}

// Stores sums as they are: 4 bytes each, of either kind.
class StoringSink final : public kernels::ProductSink {
 public:
  StoringSink(int64_t rows, int64_t columns) : columns_(columns), y_(static_cast<size_t>(rows * columns) * kBytes) {}
  void take(int64_t row, int64_t rows, int64_t column, int64_t columns, const void* sums, int64_t stride) const override {
    for (int64_t r = 0; r < rows; ++r)
      std::memcpy(y_.data() + static_cast<size_t>((row + r) * columns_ + column) * kBytes,
                  static_cast<const std::byte*>(sums) + static_cast<size_t>(r * stride) * kBytes, static_cast<size_t>(columns) * kBytes);
  }

 private:
  static constexpr size_t kBytes = 4;
  int64_t columns_;
  mutable std::vector<std::byte> y_;  // blocks are apart, so threads are
};

// Multiply-adds a nanosecond.
double rate_of(const TileIsa& isa, TileType type, const ProductShape& shape, int threads) {
  const bool is_int8 = type == TileType::kU8S8;
  const kernels::NhwcConv s = kernels::matmul_shape(shape.rows, shape.depth, shape.columns);
  // Normal numbers, as those that are not slow some CPUs down. Activations are f32 and rounded on their way, as in models.
  std::vector<float> weights(static_cast<size_t>(shape.depth * shape.columns)), x(static_cast<size_t>(shape.rows * shape.depth));
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = 0.01f * static_cast<float>(i % 97) - 0.5f;
  for (size_t i = 0; i < x.size(); ++i) x[i] = 0.01f * static_cast<float>(i % 89) - 0.4f;
  const std::vector<int8_t> small_weights(weights.size(), 3);
  const std::vector<uint8_t> small_x(x.size(), 5);
  const auto packed = kernels::pack_product(type, isa, s, true, is_int8 ? static_cast<const void*>(small_weights.data()) : weights.data(),
                                            is_int8 ? WeightType::kS8 : WeightType::kF32);
  const kernels::ProductInput input = {is_int8 ? static_cast<const void*>(small_x.data()) : x.data(), is_int8 ? ActivationType::kU8 : ActivationType::kF32, 0};
  kernels::PackedBytes workspace(kernels::product_workspace(isa, s, packed, input.type, threads));
  const StoringSink sink(shape.rows, shape.columns);
  const auto run = [&] { kernels::packed_product(isa, s, input, packed, sink, threads, workspace.data()); };
  run();
  std::vector<double> seconds;
  for (double total = 0; static_cast<int>(seconds.size()) < kLeastRuns || (total < kSeconds && static_cast<int>(seconds.size()) < kMostRuns); total += seconds.back()) {
    const double start = now_seconds();
    run();
    seconds.push_back(now_seconds() - start);
  }
  return static_cast<double>(shape.rows * shape.depth * shape.columns) / std::max(1e-9, percentile(seconds, 0.5)) * 1e-9;
}

// Enough digits; more would be noise.
double rounded(double x) { return std::stod(fmt::format("{:.4g}", x)); }

}  // namespace

CostTable calibrate(int threads) {
  CostTable table;
  table.cpu = cpu_model();
  table.version = DS_VERSION;
  table.isa = cpu_isa();
  table.threads = std::max(1, threads);
  table.date = utc_date();
  const int threads_before = num_threads();
  set_num_threads(table.threads);
  std::map<const TileIsa*, double> known;  // levels share kernels
  for (DType dtype : kCostTypes)
    for (int level = 0; level <= static_cast<int>(table.isa); ++level) {
      const auto type = tile_type(dtype);
      const TileIsa* isa = type ? kernels::tile_isa(*type, static_cast<Isa>(level)) : nullptr;
      if (isa == nullptr) continue;
      double& rate = known[isa];
      if (rate == 0) {
        double logs = 0;
        for (const ProductShape& shape : kShapes) logs += std::log(rate_of(*isa, *type, shape, table.threads));
        rate = rounded(std::exp(logs / static_cast<double>(std::size(kShapes))));
      }
      table.rate(dtype, static_cast<Isa>(level)) = rate;
    }
  table.bandwidth = rounded(peak_bandwidth(table.threads, table.threads * kBandwidthBytes) * 1e-9);
  set_num_threads(threads_before);
  return table;
}

std::string calibration_text(const CostTable& t, const std::string& path) {
  std::vector<std::vector<std::string>> rows{{"multiply-adds a nanosecond"}};
  for (int level = 0; level <= static_cast<int>(t.isa); ++level) rows[0].emplace_back(isa_name(static_cast<Isa>(level)));
  for (DType dtype : kCostTypes) {
    rows.push_back({std::string(dtype_name(dtype))});
    for (int level = 0; level <= static_cast<int>(t.isa); ++level) {
      const double rate = t.rate(dtype, static_cast<Isa>(level));
      rows.back().push_back(rate > 0 ? fmt::format("{:.4g}", rate) : "-");
    }
  }
  return fmt::format("{}, {}\n\n{}\nweights are read at {:.4g} GB/s\nat {} bf16 runs at {:.3g} times the rate of f32, {:.3g} times for one row; f16 at {:.3g}, {:.3g}\nwritten to {}, hash {}; name it by --costs or DS_COSTS\n", t.cpu,
                     t.threads == 1 ? "1 thread" : fmt::format("{} threads", t.threads), plain_table(rows, 1), t.bandwidth,
                     isa_name(t.isa), t.gain(DType::kBF16, t.isa), t.gain(DType::kBF16, t.isa, 1), t.gain(DType::kF16, t.isa),
                     t.gain(DType::kF16, t.isa, 1), path, t.hash());
}

}  // namespace ds::bench
