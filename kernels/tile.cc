#include "kernels/tile.h"

#include <cstring>

#include "libds/base/cpu_vendor.h"
#include "libds/base/half.h"

namespace ds::kernels {
namespace {

template <typename T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// One group: the sum of its products.
struct F32 {
  using Sum = float;
  static float product(const std::byte* a, const std::byte* b) { return load<float>(a) * load<float>(b); }
};

struct Bf16 {
  using Sum = float;
  static float value(const std::byte* p) { return float_from_bits(static_cast<uint32_t>(load<uint16_t>(p)) << 16); }
  static float product(const std::byte* a, const std::byte* b) { return value(a) * value(b) + value(a + 2) * value(b + 2); }
};

struct F16 {
  using Sum = float;  // in f32 throughout: more exact than tiles that sum in f16
  static float value(const std::byte* p) {
    f16 x;
    x.bits = load<uint16_t>(p);
    return static_cast<float>(x);
  }
  static float product(const std::byte* a, const std::byte* b) { return value(a) * value(b) + value(a + 2) * value(b + 2); }
};

struct U8S8 {
  using Sum = int32_t;
  static int32_t product(const std::byte* a, const std::byte* b) {
    int32_t sum = 0;
    for (int i = 0; i < 4; ++i) sum += load<uint8_t>(a + i) * load<int8_t>(b + i);
    return sum;
  }
};

template <typename Product>
void block(const TileBlock& t) {
  using Sum = typename Product::Sum;
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t p = 0; p < t.panels; ++p) {
      Sum* c = static_cast<Sum*>(t.c) + r * t.c_stride + p * kPanelColumns;
      Sum sum[kPanelColumns] = {};
      if (t.accumulate) std::memcpy(sum, c, sizeof sum);
      for (int64_t g = 0; g < t.groups; ++g) {
        const std::byte* a = t.a + r * t.a_stride + g * kGroupBytes;
        const std::byte* b = t.b + p * t.b_stride + g * kPanelRowBytes;
        for (int64_t j = 0; j < kPanelColumns; ++j) sum[j] += Product::product(a, b + j * kGroupBytes);
      }
      std::memcpy(c, sum, sizeof sum);
    }
  }
}

}  // namespace

const TileIsa& portable_tile(TileType type) {
  static constexpr TileIsa f32 = {"portable", 1, 1, block<F32>}, u8s8 = {"portable", 1, 1, block<U8S8>};
  static constexpr TileIsa bf16 = {"portable", 1, 1, block<Bf16>}, f16 = {"portable", 1, 1, block<F16>};
  return type == TileType::kF32 ? f32 : type == TileType::kBf16 ? bf16 : type == TileType::kF16 ? f16 : u8s8;
}

const TileIsa* tile_isa([[maybe_unused]] TileType type, [[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  const bool tiles = isa >= Isa::kAmx;
  switch (type) {
    case TileType::kF32: return isa >= Isa::kAvx512 ? &avx512_tile_f32() : isa >= Isa::kAvx2 ? &avx2_tile_f32() : nullptr;
    case TileType::kBf16: return tiles ? &amx_tile_bf16() : isa >= Isa::kVnni && cpu_has_bf16() ? &avx512_tile_bf16() : nullptr;
    case TileType::kF16: return isa >= Isa::kVnni && cpu_has_fp16() ? &avx512_tile_f16() : nullptr;
    case TileType::kU8S8: return tiles ? &amx_tile_u8s8() : isa >= Isa::kVnni ? &avx512_tile_u8s8() : isa < Isa::kAvx2 ? nullptr : cpu_has_avx_vnni() ? &avx_vnni_tile_u8s8() : &avx2_tile_u8s8();
  }
#endif
  return nullptr;
}

}  // namespace ds::kernels
