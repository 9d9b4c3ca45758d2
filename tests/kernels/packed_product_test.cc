// Convolutions and matrix products on packed weights against direct sums, on every kind of tile: pieces found by pointers,
// staged copies, gathered rows. AMX runs in software where the CPU has none.
#include "kernels/packed_product.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <ostream>

#include "libds/base/cpu_vendor.h"
#include "libds/base/half.h"
#include "libds/base/parallel.h"
#include "libds/base/random.h"
#include "tests/support/amx_emulator.h"

namespace ds::kernels {
namespace {

struct Case {
  const char* what;
  NhwcConv s;
  bool matrix = false;
};

NhwcConv conv(int64_t batch, int64_t size, int64_t channels, int64_t out, int64_t kernel, int64_t stride = 1, int64_t pad = 0, int64_t dilation = 1,
              int64_t groups = 1) {
  NhwcConv s;
  s.batch = batch;
  s.height = size;
  s.width = size + 3;  // not square
  s.channels = channels;
  s.out_channels = out;
  s.kernel_h = s.kernel_w = kernel;
  s.stride_h = s.stride_w = stride;
  s.dilation_h = s.dilation_w = dilation;
  s.pad_top = s.pad_left = pad;
  const int64_t extent = (kernel - 1) * dilation + 1;
  s.out_height = (s.height + 2 * pad - extent) / stride + 1;
  s.out_width = (s.width + 2 * pad - extent) / stride + 1;
  s.groups = groups;
  return s;
}

std::vector<Case> cases() {
  NhwcConv one_sided = conv(1, 6, 8, 5, 3);  // padding on the left and top only, a kernel beyond the right edge
  one_sided.pad_top = one_sided.pad_left = 2;
  one_sided.out_height += 2;
  one_sided.out_width += 2;
  NhwcConv wide = conv(1, 5, 16, 18, 3, 1, 1);
  wide.kernel_w = 1;
  wide.pad_left = 0;
  wide.out_width = wide.width;
  return {
      {"a 1x1 convolution", conv(2, 7, 24, 40, 1)},
      {"channels that fill no group", conv(1, 7, 13, 17, 1)},
      {"3x3", conv(2, 9, 32, 33, 3, 1, 1)},
      {"3x3 with a stride", conv(1, 12, 16, 70, 3, 2, 1)},
      {"a stride without taps", conv(1, 11, 64, 32, 1, 2)},
      {"an image: kernel rows, padded", conv(2, 19, 3, 20, 7, 2, 3)},
      {"an image without padding", conv(1, 12, 3, 8, 5, 1, 0)},
      {"dilation", conv(1, 13, 8, 9, 3, 1, 2, 2)},
      {"dilation over few channels", conv(1, 13, 3, 9, 3, 1, 2, 2)},
      {"groups", conv(1, 8, 24, 40, 3, 1, 1, 1, 2)},
      {"groups of odd sizes", conv(1, 8, 15, 21, 3, 1, 1, 1, 3)},
      {"padding wider than the image", conv(1, 2, 8, 8, 3, 1, 4)},
      {"one-sided padding", one_sided},
      {"a column kernel", wide},
      {"deep: several sweeps of a piece", conv(1, 4, 700, 35, 1)},
      {"deep: several sweeps of pieces", conv(1, 5, 160, 48, 3, 1, 1)},
      {"rows 4 KiB apart", conv(1, 4, 1024, 34, 1)},
      {"more rows than a block", conv(1, 31, 8, 16, 1)},
      {"a matrix", matmul_shape(50, 100, 70), true},
      {"a row times a matrix", matmul_shape(1, 530, 129), true},
      {"odd depth", matmul_shape(3, 37, 15), true},
      {"no rows", matmul_shape(0, 8, 8), true},
      // Work enough for several threads in every type.
      {"rows for threads", conv(1, 30, 16, 24, 3, 1, 1)},
      {"columns for threads", matmul_shape(40, 512, 395), true},
  };
}

struct Kind {
  const char* name;
  TileType type;
  const TileIsa& (*get)();
  Isa needs;
  bool amx;
  ActivationType x;
};
void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

std::vector<Kind> kinds() {
  using A = ActivationType;
  using T = TileType;
  std::vector<Kind> all;
  all.push_back({"portable_f32", T::kF32, []() -> const TileIsa& { return portable_tile(TileType::kF32); }, Isa::kPortable, false, A::kF32});
  all.push_back({"portable_bf16", T::kBf16, []() -> const TileIsa& { return portable_tile(TileType::kBf16); }, Isa::kPortable, false, A::kF32});
  all.push_back({"portable_f16_of_f32", T::kF16, []() -> const TileIsa& { return portable_tile(TileType::kF16); }, Isa::kPortable, false, A::kF32});
#if defined(__x86_64__)
  all.push_back({"avx2_f32", T::kF32, avx2_tile_f32, Isa::kAvx2, false, A::kF32});
  all.push_back({"avx2_u8", T::kU8S8, avx2_tile_u8s8, Isa::kAvx2, false, A::kU8});
  if (cpu_has_avx_vnni()) all.push_back({"avx_vnni_s8", T::kU8S8, avx_vnni_tile_u8s8, Isa::kAvx2, false, A::kS8});
  all.push_back({"avx512_f32", T::kF32, avx512_tile_f32, Isa::kAvx512, false, A::kF32});
  all.push_back({"avx512_bf16_of_f32", T::kBf16, avx512_tile_bf16, Isa::kVnni, false, A::kF32});
  all.push_back({"avx512_bf16", T::kBf16, avx512_tile_bf16, Isa::kVnni, false, A::kBf16});
  all.push_back({"avx512_f16_of_f32", T::kF16, avx512_tile_f16, Isa::kVnni, false, A::kF32});
  all.push_back({"avx512_f16", T::kF16, avx512_tile_f16, Isa::kVnni, false, A::kF16});
  all.push_back({"avx512_u8", T::kU8S8, avx512_tile_u8s8, Isa::kVnni, false, A::kU8});
  all.push_back({"avx512_s8", T::kU8S8, avx512_tile_u8s8, Isa::kVnni, false, A::kS8});
  all.push_back({"amx_bf16_of_f32", T::kBf16, amx_tile_bf16, Isa::kAmx, true, A::kF32});
  all.push_back({"amx_bf16", T::kBf16, amx_tile_bf16, Isa::kAmx, true, A::kBf16});
  all.push_back({"amx_u8", T::kU8S8, amx_tile_u8s8, Isa::kAmx, true, A::kU8});
  all.push_back({"amx_s8", T::kU8S8, amx_tile_u8s8, Isa::kAmx, true, A::kS8});
#endif
  return all;
}

// Operands as they are stored, and as numbers.
struct Operand {
  std::vector<std::byte> bytes;
  std::vector<double> values;
};

template <typename T>
void put(Operand& o, T stored, double value) {
  const auto* p = reinterpret_cast<const std::byte*>(&stored);
  o.bytes.insert(o.bytes.end(), p, p + sizeof stored);
  o.values.push_back(value);
}

Operand activations(const Kind& kind, int64_t n, Random& random) {
  Operand o;
  for (int64_t i = 0; i < n; ++i) {
    const auto x = static_cast<float>(random.normal());
    const auto byte = static_cast<uint8_t>(random.uniform() * 256);
    switch (kind.x) {
      case ActivationType::kF32: put(o, x, kind.type == TileType::kBf16 ? static_cast<float>(bf16(x)) : kind.type == TileType::kF16 ? static_cast<float>(f16(x)) : x); break;
      case ActivationType::kF16: put(o, f16(x).bits, static_cast<float>(f16(x))); break;
      case ActivationType::kBf16: put(o, bf16(x).bits, static_cast<float>(bf16(x))); break;
      case ActivationType::kU8: put(o, byte, byte); break;
      case ActivationType::kS8: put(o, byte, static_cast<int8_t>(byte) + 128); break;
    }
  }
  o.bytes.reserve(1);  // data() of no elements is not null
  return o;
}

Operand weights(const Kind& kind, int64_t n, Random& random) {
  Operand o;
  for (int64_t i = 0; i < n; ++i) {
    const auto x = static_cast<float>(random.normal());
    // Tiles that saturate want pairs that do not.
    const int range = kind.get().saturates ? 128 : 256;
    const auto byte = static_cast<int8_t>(static_cast<int>(random.uniform() * range) - range / 2);
    if (kind.type == TileType::kF32) put(o, x, x);
    else if (kind.type == TileType::kBf16) put(o, x, static_cast<float>(bf16(x)));
    else if (kind.type == TileType::kF16) put(o, x, static_cast<float>(f16(x)));
    else put(o, byte, byte);
  }
  o.bytes.reserve(1);
  return o;
}

std::vector<double> direct(const Case& c, const Operand& x, const Operand& w, double pad) {
  const NhwcConv& s = c.s;
  std::vector<double> y(static_cast<size_t>(s.pixels() * s.out_channels));
  const int64_t gc = s.group_channels(), gm = s.group_out();
  for (int64_t p = 0; p < s.pixels(); ++p)
    for (int64_t m = 0; m < s.out_channels; ++m) {
      const int64_t ox = p % s.out_width, oy = p / s.out_width % s.out_height, n = p / (s.out_width * s.out_height);
      double sum = 0;
      for (int64_t ky = 0; ky < s.kernel_h; ++ky)
        for (int64_t kx = 0; kx < s.kernel_w; ++kx) {
          const int64_t iy = oy * s.stride_h - s.pad_top + ky * s.dilation_h, ix = ox * s.stride_w - s.pad_left + kx * s.dilation_w;
          const bool inside = iy >= 0 && iy < s.height && ix >= 0 && ix < s.width;
          for (int64_t k = 0; k < gc; ++k) {
            const double a = inside ? x.values[static_cast<size_t>(((n * s.height + iy) * s.width + ix) * s.channels + m / gm * gc + k)] : pad;
            const int64_t at = c.matrix ? k * s.out_channels + m : ((m * gc + k) * s.kernel_h + ky) * s.kernel_w + kx;
            sum += a * w.values[static_cast<size_t>(at)];
          }
        }
      y[static_cast<size_t>(p * s.out_channels + m)] = sum;
    }
  return y;
}

class Store final : public ProductSink {
 public:
  Store(const NhwcConv& s, bool integers, const std::vector<float>& scales)
      : channels_(s.out_channels), integers_(integers), scales_(scales), y(static_cast<size_t>(s.pixels() * s.out_channels), NAN) {}
  void take(int64_t row, int64_t rows, int64_t column, int64_t columns, const void* sums, int64_t stride) const override {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < columns; ++i) {
        double& to = y[static_cast<size_t>((row + r) * channels_ + column + i)];
        EXPECT_TRUE(std::isnan(to)) << "given twice";
        const float scale = scales_.empty() ? 1 : scales_[static_cast<size_t>(column + i)];
        to = integers_ ? static_cast<const int32_t*>(sums)[r * stride + i] : scale * static_cast<const float*>(sums)[r * stride + i];
      }
  }

 private:
  int64_t channels_;
  bool integers_;
  const std::vector<float>& scales_;

 public:
  mutable std::vector<double> y;
};

class PackedProduct : public testing::TestWithParam<Kind> {};

TEST_P(PackedProduct, EqualsDirectSums) {
  const Kind& kind = GetParam();
  const test::AmxEmulator emulator;
  if (kind.amx ? !(emulator.active() || test::amx_is_real()) : cpu_isa() < kind.needs || (kind.type == TileType::kBf16 && kind.needs == Isa::kVnni && !cpu_has_bf16()) ||
                     (kind.type == TileType::kF16 && kind.needs == Isa::kVnni && !cpu_has_fp16()))
    GTEST_SKIP() << "the CPU has no " << kind.name;
  Random random(7, 0);
  const bool integers = kind.type == TileType::kU8S8;
  for (const Case& c : cases()) {
    const NhwcConv& s = c.s;
    const Operand x = activations(kind, s.batch * s.height * s.width * s.channels, random);
    const Operand w = weights(kind, s.out_channels * s.depth(), random);
    const uint8_t zero = integers ? 77 : 0;
    const std::vector<double> expected = direct(c, x, w, zero);
    const PackedWeights packed = pack_product(kind.type, kind.get(), s, c.matrix, w.bytes.data(), integers ? WeightType::kS8 : WeightType::kF32);
    for (int threads : {1, 2, 3}) {
      const size_t bytes = product_workspace(kind.get(), s, packed, kind.x, threads);
      PackedBytes workspace(bytes + 64);
      std::memset(workspace.data(), 0x7f, bytes + 64);
      const Store store(s, integers, packed.column_scales);
      set_num_threads(threads);
      packed_product(kind.get(), s, {x.bytes.data(), kind.x, zero}, packed, store, threads, workspace.data());
      set_num_threads(1);
      for (size_t i = bytes; i < bytes + 64; ++i) ASSERT_EQ(workspace.data()[i], std::byte{0x7f}) << c.what << ": beyond the workspace";
      // Of sums in f16 the error is 1.3e-3 of the sum's deviation, whatever the depth: six times that.
      const double rounding = kind.get().scale_columns != nullptr ? 2e-3 : 2e-6;
      const double tolerance = integers ? 0 : rounding * std::sqrt(static_cast<double>(s.depth())) * 4;
      for (size_t i = 0; i < expected.size(); ++i)
        ASSERT_NEAR(store.y[i], expected[i], tolerance * std::max(1.0, std::abs(expected[i]))) << c.what << ", " << threads << " threads, element " << i;
    }
    if (integers) {
      for (int64_t m = 0; m < s.out_channels; ++m) {
        double sum = 0;
        for (int64_t k = 0; k < s.depth(); ++k) sum += w.values[static_cast<size_t>(c.matrix ? k * s.out_channels + m : m * s.depth() + k)];
        ASSERT_EQ(packed.column_sums[static_cast<size_t>(m)], sum) << c.what;
      }
    }
  }
}

TEST(PackedProduct, PairsThatFit) {
  const TileIsa& isa = avx2_tile_u8s8();
  const NhwcConv s = matmul_shape(1, 4, 2);
  const int8_t fits[] = {64, -128, 64, 0, 0, 127, -127, -127}, not_within[] = {64, 0, 65, 0, 0, 0, 0, 0}, less[] = {-64, 0, -65, 0, 0, 0, 0, 0};
  EXPECT_TRUE(pairs_fit(isa, s, true, fits, WeightType::kS8));
  EXPECT_FALSE(pairs_fit(isa, s, true, not_within, WeightType::kS8));
  EXPECT_FALSE(pairs_fit(isa, s, true, less, WeightType::kS8));
  const uint8_t shifted[] = {192, 0, 192, 128, 128, 255, 1, 1};  // the first, plus 128
  EXPECT_TRUE(pairs_fit(isa, s, true, shifted, WeightType::kU8Shifted));
  const int8_t across[] = {0, 0, 127, 0, 127, 0, 0, 0};  // the neighbours are of different pairs
  EXPECT_TRUE(pairs_fit(isa, s, true, across, WeightType::kS8));
}

INSTANTIATE_TEST_SUITE_P(Kinds, PackedProduct, testing::ValuesIn(kinds()), [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace ds::kernels
