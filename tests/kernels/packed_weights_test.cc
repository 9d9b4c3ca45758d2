// pack_product() against its definition, element by element.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/packed_product.h"
#include "libds/base/half.h"
#include "libds/base/random.h"

namespace ds::kernels {
namespace {

struct Case {
  int64_t channels, out_channels, kernel, groups, dilation;
  bool matrix;
};

std::vector<uint8_t> bytes_of(const Case& c, WeightType given, size_t count) {
  std::vector<uint8_t> bytes(count * (given == WeightType::kF32 ? 4 : given == WeightType::kBf16 || given == WeightType::kF16 ? 2 : 1));
  Random random(static_cast<uint64_t>(c.channels));
  if (given == WeightType::kF32) {
    for (size_t i = 0; i < count; ++i) {
      const auto x = static_cast<float>(random.normal());
      std::memcpy(bytes.data() + 4 * i, &x, 4);
    }
  } else if (given == WeightType::kF16) {
    for (size_t i = 0; i < count; ++i) {
      const uint16_t x = f16(static_cast<float>(random.normal())).bits;
      std::memcpy(bytes.data() + 2 * i, &x, 2);
    }
  } else {
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(random.below(256));
  }
  return bytes;
}

void check(const Case& c, TileType type, WeightType given, const TileIsa& isa) {
  NhwcConv s;
  s.channels = c.channels, s.out_channels = c.out_channels;
  s.kernel_h = s.kernel_w = c.kernel;
  s.dilation_h = s.dilation_w = c.dilation;
  s.groups = c.groups;
  const int64_t depth = s.depth(), plane = c.kernel * c.kernel, gc = s.group_channels(), gm = s.group_out();
  const std::vector<uint8_t> w = bytes_of(c, given, static_cast<size_t>(c.out_channels * depth));
  PackedWeights packed = pack_product(type, isa, s, c.matrix, w.data(), given);

  std::vector<uint8_t> expected(packed.data.size(), 0);
  std::vector<int32_t> sums(packed.column_sums.size(), 0);
  const int64_t element = tile_element_bytes(type), per_group = kGroupBytes / element, piece = depth / packed.pieces;
  for (int64_t m = 0; m < c.out_channels; ++m) {
    for (int64_t k = 0; k < depth; ++k) {  // position in the kernel first, then the channel
      const int64_t from = c.matrix ? k * c.out_channels + m : (m * gc + k % gc) * plane + k / gc;
      const int64_t panel = m / gm * packed.panels + m % gm / kPanelColumns;
      uint8_t* to = expected.data() + panel * packed.panel_bytes() + (k / piece * packed.piece_groups + k % piece / per_group) * kPanelRowBytes +
                    m % gm % kPanelColumns * kGroupBytes + k % piece % per_group * element;
      if (type != TileType::kF32 && given == WeightType::kF32) {
        float x;
        std::memcpy(&x, w.data() + 4 * from, 4);
        const uint16_t bits = type == TileType::kBf16 ? bf16(x).bits : f16(x).bits;
        std::memcpy(to, &bits, 2);
      } else {
        std::memcpy(to, w.data() + element * from, static_cast<size_t>(element));
        if (given == WeightType::kU8Shifted) *to ^= 0x80;
        if (type == TileType::kU8S8) sums[static_cast<size_t>(m)] += static_cast<int8_t>(*to);
      }
    }
  }
  EXPECT_EQ(packed.column_scales.size(), isa.scale_columns != nullptr ? static_cast<size_t>(c.out_channels) : 0);
  int exponent = 0;
  for (size_t m = 0; m < packed.column_scales.size(); ++m) {  // powers of two: undone exactly, but for bits below 2^-24
    ASSERT_EQ(std::frexp(packed.column_scales[m], &exponent), 0.5f);
    const int64_t out = static_cast<int64_t>(m), panel = out / gm * packed.panels + out % gm / kPanelColumns;
    for (int64_t g = 0; g < packed.groups; ++g)
      for (int64_t i = 0; i < 2; ++i) {
        std::byte* at = packed.data.data() + panel * packed.panel_bytes() + g * kPanelRowBytes + out % gm % kPanelColumns * kGroupBytes + i * 2;
        f16 x;
        std::memcpy(&x.bits, at, 2);
        x = f16(static_cast<float>(x) * packed.column_scales[m]);
        f16 wanted;
        std::memcpy(&wanted.bits, expected.data() + (at - packed.data.data()), 2);
        EXPECT_NEAR(static_cast<float>(x), static_cast<float>(wanted), std::max(0x1p-24f, 0x1p-24f * packed.column_scales[m]));
        std::memcpy(at, &wanted.bits, 2);
      }
  }
  EXPECT_EQ(std::memcmp(packed.data.data(), expected.data(), expected.size()), 0);
  EXPECT_EQ(packed.column_sums, sums);
}

TEST(PackedWeights, EveryElementLiesWhereItShould) {
  const std::pair<TileType, WeightType> types[] = {{TileType::kF32, WeightType::kF32}, {TileType::kBf16, WeightType::kF32}, {TileType::kBf16, WeightType::kBf16},
                                                   {TileType::kF16, WeightType::kF32}, {TileType::kF16, WeightType::kF16},
                                                   {TileType::kU8S8, WeightType::kS8}, {TileType::kU8S8, WeightType::kU8Shifted}};
  // Whole and broken panels and groups; one tap and many; few channels, grouped and dilated convolutions; sums of more
  // than 16 bits.
  const Case cases[] = {{64, 32, 1, 1, 1, true}, {17, 33, 1, 1, 1, true}, {1, 1, 1, 1, 1, true}, {3, 200, 1, 1, 1, true}, {64, 32, 1, 1, 1, false},
                        {17, 33, 1, 1, 1, false}, {3, 64, 7, 1, 1, false}, {5, 20, 3, 1, 1, false}, {64, 64, 3, 4, 1, false}, {12, 24, 3, 4, 2, false},
                        {2, 40, 3, 1, 2, false}, {2051, 16, 1, 1, 1, false}, {2052, 18, 1, 1, 1, true}};
  for (const Case& c : cases) {
    for (const auto& [type, given] : types) {
      SCOPED_TRACE(testing::Message() << c.channels << " -> " << c.out_channels << " kernel " << c.kernel << " groups " << c.groups << " dilation "
                                      << c.dilation << " matrix " << c.matrix << " type " << static_cast<int>(type) << " given " << static_cast<int>(given));
      check(c, type, given, portable_tile(type));
      if (const TileIsa* isa = tile_isa(type, cpu_isa())) check(c, type, given, *isa);
    }
  }
}

}  // namespace
}  // namespace ds::kernels
