#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels/packed_product.h"
#include "libds/base/half.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr int64_t kLeastTapBytes = 32;  // shorter pieces cost more in pointers than they are worth

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
int64_t ceil_div(int64_t n, int64_t d) { return (n + d - 1) / d; }

Piece piece_of(const TileIsa& isa, const NhwcConv& s, int64_t element_bytes) {
  if (isa.taps == nullptr) return Piece::kAll;
  const int64_t bytes = s.group_channels() * element_bytes;
  const bool whole_groups = bytes % kGroupBytes == 0;
  if (whole_groups && (bytes >= kLeastTapBytes || s.kernel_h * s.kernel_w == 1)) return Piece::kTap;
  if (s.groups == 1 && s.dilation_w == 1) return Piece::kKernelRow;
  return whole_groups ? Piece::kTap : Piece::kAll;
}

// Calls store(value, output channel, where) for every weight.
template <typename T, typename Store>
void pack_elements(const NhwcConv& s, bool matrix, const T* w, PackedWeights& packed, Store store) {
  const int64_t gm = s.group_out(), gc = s.group_channels(), plane = s.kernel_h * s.kernel_w;
  const int64_t bytes = static_cast<int64_t>(sizeof(T)) == 4 && packed.type == TileType::kBf16 ? 2 : static_cast<int64_t>(sizeof(T));
  const int64_t per_group = kGroupBytes / bytes, piece = s.depth() / packed.pieces;
  parallel_for(s.groups * packed.panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % packed.panels * kPanelColumns, columns = std::min(kPanelColumns, gm - first);
      const int64_t m = i / packed.panels * gm + first;
      std::byte* panel = packed.data.data() + i * packed.panel_bytes();
      for (int64_t k = 0; k < s.depth(); ++k) {
        const int64_t in_piece = k % piece;
        std::byte* to = panel + (k / piece * packed.piece_groups + in_piece / per_group) * kPanelRowBytes + in_piece % per_group * bytes;
        const T* from = matrix ? w + k * s.out_channels + m : w + (m * gc + k % gc) * plane + k / gc;
        const int64_t step = matrix ? 1 : gc * plane;
        for (int64_t column = 0; column < columns; ++column) store(from[column * step], m + column, to + column * kGroupBytes);
      }
    }
  });
}

}  // namespace

// Pairs are those of any packing: neighbours in depth by channels, from even places of the piece on; pieces begin at
// multiples of the channels or of the kernel row, so both parities are looked at.
bool pairs_fit(const NhwcConv& s, bool matrix, const void* w, WeightType given) {
  const int64_t depth = s.depth(), gc = s.group_channels(), plane = s.kernel_h * s.kernel_w;
  const auto* bytes = static_cast<const uint8_t*>(w);
  const uint8_t flip = given == WeightType::kU8Shifted ? 0x80 : 0;
  const auto at = [&](int64_t m, int64_t k) {
    const uint8_t byte = bytes[matrix ? k * s.out_channels + m : (m * gc + k % gc) * plane + k / gc];
    return static_cast<int>(static_cast<int8_t>(byte ^ flip));
  };
  constexpr int kMost = 32767, kLeast = -32768;
  for (int64_t m = 0; m < s.out_channels; ++m) {
    int before = 0;
    for (int64_t k = 0; k < depth; ++k) {
      const int now = at(m, k), positive = std::max(before, 0) + std::max(now, 0), negative = std::min(before, 0) + std::min(now, 0);
      if (255 * positive > kMost || 255 * negative < kLeast) return false;
      before = now;
    }
  }
  return true;
}

PackedBytes::PackedBytes(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  const size_t alignment = bytes >= kHugePage ? kHugePage : 64;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  auto* p = static_cast<std::byte*>(std::aligned_alloc(alignment, rounded));
  if (p == nullptr) throw std::bad_alloc();
  data_.reset(p);
  if (alignment == kHugePage) madvise(p, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);  // only a hint
  std::memset(p, 0, bytes);
}

void PackedBytes::Free::operator()(std::byte* p) const { std::free(p); }

PackedWeights pack_product(TileType type, const TileIsa& isa, const NhwcConv& s, bool matrix, const void* w, WeightType given) {
  PackedWeights packed;
  packed.type = type;
  const int64_t bytes = tile_element_bytes(type);
  packed.piece = piece_of(isa, s, bytes);
  packed.pieces = packed.piece == Piece::kAll ? 1 : packed.piece == Piece::kKernelRow ? s.kernel_h : s.kernel_h * s.kernel_w;
  packed.piece_groups = ceil_div(s.depth() / packed.pieces * bytes, kGroupBytes);
  packed.panels = ceil_div(s.group_out(), kPanelColumns);
  packed.groups = round_up(packed.pieces * packed.piece_groups, isa.group_step);
  packed.data = PackedBytes(static_cast<size_t>(s.groups * packed.panels * packed.panel_bytes()));
  if (type == TileType::kU8S8) packed.column_sums.assign(static_cast<size_t>(s.out_channels), 0);
  if (w == nullptr) return packed;
  const auto put = [](auto value, std::byte* to) { std::memcpy(to, &value, sizeof value); };
  if (type == TileType::kU8S8) {
    const uint8_t flip = given == WeightType::kU8Shifted ? 0x80 : 0;
    pack_elements(s, matrix, static_cast<const uint8_t*>(w), packed, [&](uint8_t value, int64_t m, std::byte* to) {
      const auto v = static_cast<int8_t>(value ^ flip);
      packed.column_sums[static_cast<size_t>(m)] += v;
      put(v, to);
    });
  } else if (type == TileType::kBf16 && given == WeightType::kF32) {
    pack_elements(s, matrix, static_cast<const float*>(w), packed, [&](float value, int64_t, std::byte* to) { put(bf16(value).bits, to); });
  } else if (type == TileType::kBf16) {
    pack_elements(s, matrix, static_cast<const uint16_t*>(w), packed, [&](uint16_t value, int64_t, std::byte* to) { put(value, to); });
  } else {
    pack_elements(s, matrix, static_cast<const float*>(w), packed, [&](float value, int64_t, std::byte* to) { put(value, to); });
  }
  return packed;
}

}  // namespace ds::kernels
