// Sums finished in tiles are those that kernels/finish.h makes of them, bit for bit.
#include "kernels/tile_finish.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/packed_product.h"
#include "libds/base/cpu.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

class Sink final : public ProductSink {
 public:
  Sink(FinishFn* function, const Finish& finish, const TileFinish* in_tiles) : function_(function), finish_(finish), in_tiles_(in_tiles) {}
  void take(int64_t row, int64_t rows, int64_t column, int64_t columns, const void* sums, int64_t stride) const override {
    ASSERT_EQ(in_tiles_, nullptr) << "a tile that finishes does so";
    function_(finish_, row, rows, column, columns, static_cast<const float*>(sums), stride);
  }
  const TileFinish* in_tiles() const override { return in_tiles_; }

 private:
  FinishFn* function_;
  const Finish& finish_;
  const TileFinish* in_tiles_;
};

std::vector<float> random_floats(size_t n, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> draw;
  std::vector<float> v(n);
  for (float& x : v) x = draw(engine);
  return v;
}

void check(const TileIsa& isa, FinishFn* function, int64_t rows, int64_t depth, int64_t columns, const Epilogue& epilogue, bool bias, bool addend, int threads) {
  const NhwcConv s = matmul_shape(rows, depth, columns);
  std::vector<float> x = random_floats(static_cast<size_t>(rows * depth), 1);
  x[0] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> w = random_floats(static_cast<size_t>(depth * columns), 2), b = random_floats(static_cast<size_t>(columns), 3);
  const std::vector<float> add = random_floats(static_cast<size_t>(rows * columns), 4);
  const PackedWeights packed = pack_product(TileType::kF32, isa, s, true, w.data(), WeightType::kF32);
  PackedBytes workspace(product_workspace(isa, s, packed, ActivationType::kF32, threads) + 1);
  std::vector<std::vector<float>> results;
  for (const bool in_tiles : {false, true}) {
    std::vector<float> y = add;  // the addend may be y itself
    y.push_back(77.0f);
    Finish finish;
    finish.epilogue = epilogue;
    finish.bias = bias ? b.data() : nullptr;
    finish.addend = addend ? y.data() : nullptr;
    finish.y = y.data();
    finish.channels = columns;
    const auto tiles = tile_finish(finish);
    ASSERT_TRUE(tiles.has_value());
    set_num_threads(threads);
    packed_product(isa, s, {x.data(), ActivationType::kF32, 0}, packed, Sink(function, finish, in_tiles ? &*tiles : nullptr), threads, workspace.data());
    set_num_threads(1);
    EXPECT_EQ(y.back(), 77.0f);
    results.push_back(y);
  }
  for (size_t i = 0; i < results[0].size(); ++i) {
    const bool same = std::memcmp(&results[0][i], &results[1][i], sizeof(float)) == 0;
    ASSERT_TRUE(same || (std::isnan(results[0][i]) && std::isnan(results[1][i])))
        << isa.name << ", " << rows << "x" << depth << "x" << columns << ", element " << i << ": " << results[0][i] << " " << results[1][i];
  }
}

TEST(TileFinish, SameBitsAsApart) {
  struct Level {
    Isa isa;
    const TileIsa& (*tile)();
    FinishFn* function;
  };
  const std::vector<Level> levels = {{Isa::kAvx2, avx2_tile_f32, finish_avx2}, {Isa::kAvx512, avx512_tile_f32, finish_avx512}};
  const std::vector<Epilogue> epilogues = {{},
                                           {Activation::kRelu},
                                           {Activation::kClip, -0.5f, 1.5f},
                                           {Activation::kHardSwish},
                                           {Activation::kHardSwish, 0, 0, false, 0.75f, -0.25f},
                                           {Activation::kNone, 0, 0, false, -2.0f, 1.0f}};
  if (cpu_isa() < Isa::kAvx2) GTEST_SKIP() << "needs AVX2";
  for (const Level& level : levels) {
    if (cpu_isa() < level.isa) continue;
    for (const int64_t columns : {1, 8, 15, 24, 33, 64})
      for (const Epilogue& e : epilogues)
        for (const bool with : {false, true}) check(level.tile(), level.function, 29, 19, columns, e, with, with, 1);
    check(level.tile(), level.function, 61, 700, 75, epilogues[1], true, true, 2);  // several sweeps, threads
    check(level.tile(), level.function, 61, 700, 75, epilogues[3], true, false, 1);
  }
}

TEST(TileFinish, NotForEverything) {
  Finish finish;
  finish.epilogue.activation = Activation::kSilu;
  EXPECT_FALSE(tile_finish(finish).has_value());
  finish.epilogue.activation = Activation::kRelu;
  EXPECT_TRUE(tile_finish(finish).has_value());
  finish.y_type = StoredType::kBf16;
  EXPECT_FALSE(tile_finish(finish).has_value());
}

}  // namespace
}  // namespace ds::kernels
