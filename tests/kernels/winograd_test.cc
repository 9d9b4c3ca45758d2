// Winograd's convolutions against direct sums in f64: odd sizes, padding on any side, threads, precision, and the rule that
// chooses the tile.
#include "kernels/winograd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ostream>
#include <vector>

#include "kernels/finish.h"
#include "libds/base/parallel.h"
#include "libds/base/random.h"

namespace ds::kernels {
namespace {

struct Case {
  const char* what;
  int64_t batch, height, width, channels, out_channels;
  int64_t top = 1, left = 1, bottom = 1, right = 1;
};

NhwcConv geometry(const Case& c) {
  NhwcConv s;
  s.batch = c.batch;
  s.height = c.height;
  s.width = c.width;
  s.channels = c.channels;
  s.out_channels = c.out_channels;
  s.kernel_h = s.kernel_w = 3;
  s.pad_top = c.top;
  s.pad_left = c.left;
  s.out_height = c.height + c.top + c.bottom - 2;
  s.out_width = c.width + c.left + c.right - 2;
  return s;
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"whole tiles", 1, 8, 12, 32, 32},
      {"one pixel", 1, 1, 1, 16, 16},
      {"cut tiles, channels that fill no vector", 2, 7, 9, 13, 17},
      {"fewer channels than a vector", 1, 6, 5, 3, 5},
      {"no padding", 1, 9, 7, 24, 24, 0, 0, 0, 0},
      {"padding on one side", 2, 5, 10, 16, 40, 2, 0, 0, 1},
      {"padding wider than the kernel", 1, 3, 4, 8, 8, 5, 4, 3, 6},
      {"three panels, a line", 1, 1, 30, 21, 48},
      {"several blocks of tiles", 3, 19, 23, 7, 20},
      {"several sweeps of depth, rows a power of two apart", 1, 6, 6, 512, 33},
      {"wide: more panels than threads", 1, 4, 4, 40, 130},
      {"no images", 0, 4, 4, 8, 8},
  };
  return all;
}

struct Kind {
  const char* name;
  Isa isa;
  int64_t out_tile;
};
void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

WinogradIsa isa_of(const Kind& kind) { return winograd_isa(kind.out_tile, kind.isa); }

struct Operands {
  std::vector<float> x, w;
};

std::vector<float> normal(int64_t n, Random& random) {
  std::vector<float> v(static_cast<size_t>(n));
  for (float& f : v) f = static_cast<float>(random.normal());
  v.reserve(1);  // data() of no elements is not null
  return v;
}

Operands operands(const NhwcConv& s, uint64_t seed) {
  Random random(seed, 0);
  Operands o;
  o.x = normal(s.batch * s.height * s.width * s.channels, random);
  o.w = normal(s.out_channels * s.depth(), random);
  return o;
}

std::vector<double> direct(const NhwcConv& s, const Operands& o) {
  std::vector<double> y(static_cast<size_t>(s.pixels() * s.out_channels));
  for (int64_t p = 0; p < s.pixels(); ++p) {
    const int64_t ox = p % s.out_width, oy = p / s.out_width % s.out_height, n = p / (s.out_width * s.out_height);
    for (int64_t m = 0; m < s.out_channels; ++m) {
      double sum = 0;
      for (int64_t k = 0; k < 9; ++k) {
        const int64_t iy = oy - s.pad_top + k / 3, ix = ox - s.pad_left + k % 3;
        if (iy < 0 || iy >= s.height || ix < 0 || ix >= s.width) continue;
        const float* x = o.x.data() + ((n * s.height + iy) * s.width + ix) * s.channels;
        const float* w = o.w.data() + m * s.channels * 9 + k;
        for (int64_t c = 0; c < s.channels; ++c) sum += static_cast<double>(x[c]) * static_cast<double>(w[c * 9]);
      }
      y[static_cast<size_t>(p * s.out_channels + m)] = sum;
    }
  }
  return y;
}

class Store final : public ProductSink {
 public:
  explicit Store(const NhwcConv& s) : channels_(s.out_channels), y(static_cast<size_t>(s.pixels() * s.out_channels), NAN) {}
  void take(int64_t row, int64_t rows, int64_t column, int64_t columns, const void* sums, int64_t stride) const override {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < columns; ++i) {
        float& to = y[static_cast<size_t>((row + r) * channels_ + column + i)];
        EXPECT_TRUE(std::isnan(to)) << "given twice";
        to = static_cast<const float*>(sums)[r * stride + i];
      }
  }

 private:
  int64_t channels_;

 public:
  mutable std::vector<float> y;
};

void run(const Kind& kind, const NhwcConv& s, const Operands& o, const WinogradWeights& packed, const ProductSink& sink, int threads) {
  const size_t bytes = winograd_workspace(s, packed, threads);
  PackedBytes workspace(bytes + 64);
  std::memset(workspace.data(), 0x7f, bytes + 64);
  set_num_threads(threads);
  winograd_conv(isa_of(kind), s, o.x.data(), packed, sink, threads, workspace.data());
  set_num_threads(1);
  for (size_t i = bytes; i < bytes + 64; ++i) ASSERT_EQ(workspace.data()[i], std::byte{0x7f}) << "beyond the workspace";
}

class Winograd : public testing::TestWithParam<Kind> {
  void SetUp() override {
    if (cpu_isa() < GetParam().isa) GTEST_SKIP() << "the CPU has no " << isa_name(GetParam().isa);
  }
};

TEST_P(Winograd, EqualsDirectSums) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.what);
    const NhwcConv s = geometry(c);
    const Operands o = operands(s, 7);
    const std::vector<double> expected = direct(s, o);
    const WinogradWeights packed = pack_winograd(isa_of(GetParam()), s, o.w.data());
    // Rounding grows with the sums.
    const double tolerance = 2e-5 + 3e-7 * static_cast<double>(s.depth());
    std::vector<float> first;
    for (int threads : {1, 2, 3}) {
      const Store store(s);
      run(GetParam(), s, o, packed, store, threads);
      for (size_t i = 0; i < expected.size(); ++i)
        ASSERT_NEAR(store.y[i], expected[i], tolerance) << threads << " threads, element " << i;
      if (threads == 1) first = store.y;
      else ASSERT_TRUE(first == store.y) << "other sums with " << threads << " threads";
    }
  }
}

// Bias, residual addend (which the result overwrites) and activation.
class FinishSink final : public ProductSink {
 public:
  FinishSink(Isa isa, const Finish& finish) : run_(isa >= Isa::kAvx512 ? finish_avx512 : finish_avx2), finish_(finish) {}
  void take(int64_t row, int64_t rows, int64_t column, int64_t columns, const void* sums, int64_t stride) const override {
    run_(finish_, row, rows, column, columns, static_cast<const float*>(sums), stride);
  }

 private:
  FinishFn* run_;
  const Finish& finish_;
};

TEST_P(Winograd, FinishesSums) {
  const NhwcConv s = geometry({"", 2, 7, 10, 20, 37});
  const Operands o = operands(s, 8);
  Random random(9, 0);
  const std::vector<float> bias = normal(s.out_channels, random), addend = normal(s.pixels() * s.out_channels, random);
  std::vector<double> expected = direct(s, o);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += static_cast<double>(bias[i % bias.size()]);
  Epilogue epilogue;
  epilogue.activation = Activation::kHardSwish;
  epilogue.add = true;
  const std::vector<double> wide(addend.begin(), addend.end());
  apply_epilogue<double>(epilogue, static_cast<int64_t>(expected.size()), wide.data(), expected.data());
  const WinogradWeights packed = pack_winograd(isa_of(GetParam()), s, o.w.data());
  for (int threads : {1, 2}) {
    std::vector<float> y = addend;
    Finish finish;
    finish.epilogue = epilogue;
    finish.bias = bias.data();
    finish.addend = finish.y = y.data();
    finish.channels = s.out_channels;
    run(GetParam(), s, o, packed, FinishSink(GetParam().isa, finish), threads);
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(y[i], expected[i], 1e-4) << "element " << i;
  }
}

// What kernels/winograd.h says of the largest error, against f64, beside that of direct f32 sums.
TEST_P(Winograd, IsAsPreciseAsPromised) {
  for (int64_t channels : {16, 64, 256}) {
    const NhwcConv s = geometry({"", 1, 14, 14, channels, 32});
    Operands o = operands(s, 10);
    for (const bool after_relu : {false, true}) {
      if (after_relu)
        for (float& x : o.x) x = std::max(x, 0.0f);
      const std::vector<double> expected = direct(s, o);
      const auto error = [&](const std::vector<float>& y) {
        double most = 0;
        for (size_t i = 0; i < y.size(); ++i) most = std::max(most, std::abs(static_cast<double>(y[i]) - expected[i]));
        return most;
      };
      const TileIsa& isa = *tile_isa(TileType::kF32, GetParam().isa);
      const PackedWeights direct_weights = pack_product(TileType::kF32, isa, s, false, o.w.data(), WeightType::kF32);
      PackedBytes workspace(product_workspace(isa, s, direct_weights, ActivationType::kF32, 1));
      const Store sums(s), fast(s);
      packed_product(isa, s, {o.x.data(), ActivationType::kF32, 0}, direct_weights, sums, 1, workspace.data());
      run(GetParam(), s, o, pack_winograd(isa_of(GetParam()), s, o.w.data()), fast, 1);
      EXPECT_LE(error(fast.y), error(sums.y) * (GetParam().out_tile == 2 ? 1 : 4)) << channels << " channels";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Winograd,
                         testing::Values(Kind{"avx2_2x2", Isa::kAvx2, 2}, Kind{"avx2_4x4", Isa::kAvx2, 4}, Kind{"avx512_2x2", Isa::kAvx512, 2},
                                         Kind{"avx512_4x4", Isa::kAvx512, 4}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(WinogradRule, TakesTheTileOfLeastTime) {
  const auto tile = [](int64_t size, int64_t channels, int64_t out) { return winograd_out_tile(geometry({"", 1, size, size, channels, out})); };
  EXPECT_EQ(tile(56, 64, 64), 4);     // few weights: the fewest products
  EXPECT_EQ(tile(28, 128, 128), 4);
  EXPECT_EQ(tile(14, 256, 256), 2);   // 16 tiles do not pay for 36 numbers where there were 9
  EXPECT_EQ(tile(7, 512, 512), 0);    // and 4 not for 16
  EXPECT_EQ(tile(160, 96, 24), 4);
  EXPECT_EQ(tile(56, 3, 64), 0);      // transforms cost more than products
}

TEST(WinogradRule, TakesPlain3x3Only) {
  const NhwcConv plain = geometry({"", 1, 56, 56, 64, 64});
  const auto tile = [&](auto change) {
    NhwcConv s = plain;
    change(s);
    return winograd_out_tile(s);
  };
  EXPECT_EQ(tile([](NhwcConv&) {}), 4);
  EXPECT_EQ(tile([](NhwcConv& s) { s.stride_h = 2; }), 0);
  EXPECT_EQ(tile([](NhwcConv& s) { s.stride_w = 2; }), 0);
  EXPECT_EQ(tile([](NhwcConv& s) { s.dilation_h = s.dilation_w = 2; }), 0);
  EXPECT_EQ(tile([](NhwcConv& s) { s.groups = 2; }), 0);
  EXPECT_EQ(tile([](NhwcConv& s) { s.kernel_w = 1; }), 0);
  EXPECT_EQ(tile([](NhwcConv& s) { s.kernel_h = s.kernel_w = 5; }), 0);
}

TEST_P(Winograd, SaysSizesWithoutMemory) {
  const NhwcConv s = geometry({"", 1, 8, 8, 10, 20});
  const WinogradWeights sizes = pack_winograd(isa_of(GetParam()), s, nullptr);
  EXPECT_EQ(sizes.data.data(), nullptr);
  EXPECT_EQ(sizes.data.size(), pack_winograd(isa_of(GetParam()), s, operands(s, 1).w.data()).data.size());
}

}  // namespace
}  // namespace ds::kernels
