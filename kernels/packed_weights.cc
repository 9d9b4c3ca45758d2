#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <vector>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "kernels/blocking.h"
#include "kernels/packed_product.h"
#include "libds/base/half.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kTogether = 8;         // panels that are packed in a row
constexpr int64_t kLeastTapBytes = 32;  // shorter pieces cost more in pointers than they are worth

Piece piece_of(const TileIsa& isa, const NhwcConv& s, int64_t element_bytes) {
  if (isa.taps == nullptr) return Piece::kAll;
  const int64_t bytes = s.group_channels() * element_bytes;
  const bool whole_groups = bytes % kGroupBytes == 0;
  if (whole_groups && (bytes >= kLeastTapBytes || s.kernel_h * s.kernel_w == 1)) return Piece::kTap;
  // Tiles that saturate pair neighbours of the whole row, as quantizers do, not of a kernel row of odd length.
  const bool odd = isa.saturates && s.kernel_w * s.group_channels() % 2 != 0;
  if (s.groups == 1 && s.dilation_w == 1 && !odd) return Piece::kKernelRow;
  return whole_groups ? Piece::kTap : Piece::kAll;
}

int64_t pieces_of(Piece piece, const NhwcConv& s) {
  return piece == Piece::kAll ? 1 : piece == Piece::kKernelRow ? s.kernel_h : s.kernel_h * s.kernel_w;
}

// --- columns of depth ------------------------------------------------------------------------------

// Asks for the pages of [begin, end) at once: one by one, at the first store to each, they take half as long again.
void populate(std::byte* begin, std::byte* end) {
#if defined(MADV_POPULATE_WRITE)
  constexpr uintptr_t kPage = 4096;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(begin) + kPage - 1) / kPage * kPage, last = reinterpret_cast<uintptr_t>(end) / kPage * kPage;
  if (last > first) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_POPULATE_WRITE);  // older kernels refuse
#else
  static_cast<void>(begin), static_cast<void>(end);
#endif
}

// One output channel's weights in the order of packed depth, as `packed.groups` groups of 4 bytes. T is what they are
// given as, U what they become.
template <typename T, typename U, typename Convert>
void gather_column(const NhwcConv& s, const PackedWeights& packed, const T* w, Convert convert, uint32_t* groups) {
  const int64_t gc = s.group_channels(), plane = s.kernel_h * s.kernel_w, piece = s.depth() / packed.pieces;
  auto* to = reinterpret_cast<std::byte*>(groups);
  U* row = nullptr;
  for (int64_t tap = 0, in_piece = piece, at = 0; tap < plane; ++tap) {
    if (in_piece == piece) {  // a piece begins
      row = reinterpret_cast<U*>(to + at++ * packed.piece_groups * kGroupBytes);
      in_piece = 0;
    }
    for (int64_t c = 0; c < gc; ++c) row[in_piece + c] = convert(w[c * plane + tap]);
    in_piece += gc;
  }
}

// panel[g][column] = columns[column][g] for the first `groups` groups.
void turn_columns(int64_t groups, const uint32_t* const* columns, std::byte* panel) {
  int64_t g = 0;
#if defined(__SSE2__)
  for (; g + 4 <= groups; g += 4) {
    for (int64_t column = 0; column < kPanelColumns; column += 4) {
      const auto load = [&](int64_t i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(columns[column + i] + g)); };
      const __m128i a = load(0), b = load(1), c = load(2), d = load(3);
      const __m128i ab = _mm_unpacklo_epi32(a, b), cd = _mm_unpacklo_epi32(c, d);
      const __m128i ab_high = _mm_unpackhi_epi32(a, b), cd_high = _mm_unpackhi_epi32(c, d);
      const auto store = [&](int64_t i, __m128i row) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(panel + (g + i) * kPanelRowBytes + column * kGroupBytes), row);
      };
      store(0, _mm_unpacklo_epi64(ab, cd));
      store(1, _mm_unpackhi_epi64(ab, cd));
      store(2, _mm_unpacklo_epi64(ab_high, cd_high));
      store(3, _mm_unpackhi_epi64(ab_high, cd_high));
    }
  }
#endif
  for (; g < groups; ++g)
    for (int64_t column = 0; column < kPanelColumns; ++column)
      std::memcpy(panel + g * kPanelRowBytes + column * kGroupBytes, columns[column] + g, kGroupBytes);
}

// Weights [M, C/G, KH, KW]. `as_given`: bytes stay what they are.
template <typename T, typename U, typename Convert>
void pack_conv(const NhwcConv& s, const T* w, PackedWeights& packed, bool as_given, Convert convert) {
  const int64_t gm = s.group_out(), depth = s.depth();
  const auto per_group = kGroupBytes / static_cast<int64_t>(sizeof(U));
  const bool in_order = as_given && s.kernel_h * s.kernel_w == 1 && depth % per_group == 0;
  const int64_t groups = packed.groups;
  parallel_for(s.groups * packed.panels, 1, [&](int64_t begin, int64_t end) {
    // Columns do not start a multiple of 4096 bytes apart: they would fall into the same lines of the cache.
    const int64_t stride = groups + kPanelColumns;
    std::vector<uint32_t> gathered(static_cast<size_t>((in_order ? 1 : kPanelColumns) * stride), 0);
    for (int64_t i = begin; i < end; ++i) {
      if (i % kTogether == 0 || i == begin)
        populate(packed.data.data() + i * packed.panel_bytes(), packed.data.data() + std::min(end, i / kTogether * kTogether + kTogether) * packed.panel_bytes());
      const int64_t first = i % packed.panels * kPanelColumns, columns = std::min(kPanelColumns, gm - first);
      const T* from = w + (i / packed.panels * gm + first) * depth;
      const uint32_t* rows[kPanelColumns];
      for (int64_t column = 0; column < kPanelColumns; ++column) {
        uint32_t* row = gathered.data() + (in_order ? 0 : column * stride);  // zeros, where there is no such column
        if (column < columns && in_order) {
          rows[column] = reinterpret_cast<const uint32_t*>(from + column * depth);
          continue;
        }
        if (column < columns) gather_column<T, U>(s, packed, from + column * depth, convert, row);
        else std::fill_n(row, groups, 0);
        rows[column] = row;
      }
      std::byte* panel = packed.data.data() + i * packed.panel_bytes();
      const int64_t given = in_order ? depth / per_group : groups;
      turn_columns(given, rows, panel);
      std::memset(panel + given * kPanelRowBytes, 0, static_cast<size_t>((groups - given) * kPanelRowBytes));
    }
  });
}

// --- rows of depth ---------------------------------------------------------------------------------

// Weights [depth, columns]: groups of rows, woven. Several panels at a time, so that rows are read in long pieces.
template <typename T, typename U, typename Convert>
void pack_matrix_rows(const NhwcConv& s, const T* w, PackedWeights& packed, Convert convert) {
  constexpr auto kPerGroup = kGroupBytes / static_cast<int64_t>(sizeof(U));
  const int64_t n = s.out_channels, depth = s.depth(), bytes = packed.panel_bytes();
  const auto pack_group = [&](int64_t p, int64_t g) {
    auto* to = reinterpret_cast<U*>(packed.data.data() + p * bytes + g * kPanelRowBytes);
    const T* from = w + g * kPerGroup * n + p * kPanelColumns;
    const int64_t columns = std::min(kPanelColumns, n - p * kPanelColumns), rows = std::min(kPerGroup, depth - g * kPerGroup);
    if (columns == kPanelColumns && rows == kPerGroup) {
      for (int64_t column = 0; column < kPanelColumns; ++column)
        for (int64_t k = 0; k < kPerGroup; ++k) to[column * kPerGroup + k] = convert(from[k * n + column]);
      return;
    }
    std::memset(to, 0, kPanelRowBytes);
    for (int64_t column = 0; column < columns; ++column)
      for (int64_t k = 0; k < rows; ++k) to[column * kPerGroup + k] = convert(from[k * n + column]);
  };
  parallel_for(ceil_div(packed.panels, kTogether), 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kTogether, last = std::min(packed.panels, first + kTogether);
      populate(packed.data.data() + first * bytes, packed.data.data() + last * bytes);
      for (int64_t g = 0; g < packed.groups; ++g)
        for (int64_t p = first; p < last; ++p) pack_group(p, g);
    }
  });
}

template <typename T, typename U, typename Convert>
void pack(const NhwcConv& s, bool matrix, const void* w, PackedWeights& packed, bool as_given, Convert convert) {
  if (matrix) pack_matrix_rows<T, U>(s, static_cast<const T*>(w), packed, convert);
  else pack_conv<T, U>(s, static_cast<const T*>(w), packed, as_given, convert);
}

// Sums of 8-bit weights over the depth, from the panels.
void sum_columns(const NhwcConv& s, PackedWeights& packed) {
  const int64_t gm = s.group_out();
  parallel_for(s.groups * packed.panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto* panel = reinterpret_cast<const int8_t*>(packed.data.data() + i * packed.panel_bytes());
      int32_t sums[kPanelColumns] = {};
      constexpr int64_t kMostGroups = 255;  // that 16 bits hold the sum of
      for (int64_t g = 0; g < packed.groups; g += kMostGroups) {
        int16_t parts[kPanelRowBytes] = {};
        for (int64_t k = g; k < std::min(packed.groups, g + kMostGroups); ++k)
          for (int64_t j = 0; j < kPanelRowBytes; ++j) parts[j] = static_cast<int16_t>(parts[j] + panel[k * kPanelRowBytes + j]);
        for (int64_t j = 0; j < kPanelRowBytes; ++j) sums[j / kGroupBytes] += parts[j];
      }
      const int64_t first = i % packed.panels * kPanelColumns;
      std::copy_n(sums, std::min(kPanelColumns, gm - first), packed.column_sums.begin() + (i / packed.panels * gm + first));
    }
  });
}

void scale_panels(const TileIsa& isa, const NhwcConv& s, PackedWeights& packed) {
  const int64_t gm = s.group_out();
  packed.column_scales.assign(static_cast<size_t>(s.out_channels), 1.0f);
  parallel_for(s.groups * packed.panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float undo[kPanelColumns];
      isa.scale_columns(packed.data.data() + i * packed.panel_bytes(), packed.groups, undo);
      const int64_t first = i % packed.panels * kPanelColumns;
      std::copy_n(undo, std::min(kPanelColumns, gm - first), packed.column_scales.begin() + (i / packed.panels * gm + first));
    }
  });
}

}  // namespace

bool pairs_fit(const TileIsa& isa, const NhwcConv& s, bool matrix, const void* w, WeightType given) {
  const int64_t depth = s.depth(), gc = s.group_channels(), plane = s.kernel_h * s.kernel_w, piece = depth / pieces_of(piece_of(isa, s, 1), s);
  const uint8_t flip = given == WeightType::kU8Shifted ? 0x80 : 0;
  // Where a column's pairs lie; the last of a piece may be alone.
  struct Pair {
    int64_t first, second;  // second < 0: none
  };
  const auto at = [&](int64_t k) { return matrix ? k * s.out_channels : k % gc * plane + k / gc; };
  std::vector<Pair> pairs;
  for (int64_t begin = 0; begin < depth; begin += piece)
    for (int64_t k = begin; k < begin + piece; k += 2) pairs.push_back({at(k), k + 1 < begin + piece ? at(k + 1) : -1});
  for (int64_t m = 0; m < s.out_channels; ++m) {
    const uint8_t* column = static_cast<const uint8_t*>(w) + (matrix ? m : m * depth);
    int most = 0, least = 0;
    for (const Pair& p : pairs) {
      const int x = static_cast<int8_t>(column[p.first] ^ flip), y = p.second < 0 ? 0 : static_cast<int8_t>(column[p.second] ^ flip);
      most = std::max(most, std::max(x, 0) + std::max(y, 0));
      least = std::min(least, std::min(x, 0) + std::min(y, 0));
    }
    if (255 * most > std::numeric_limits<int16_t>::max() || 255 * least < std::numeric_limits<int16_t>::min()) return false;
  }
  return true;
}

PackedBytes PackedBytes::only_size(size_t bytes) {
  PackedBytes p;
  p.bytes_ = bytes;
  return p;
}

PackedBytes::PackedBytes(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  // Ordinary pages: huge ones took longer to get (zeroing, compaction) than all runs gained from them.
  constexpr size_t kAlignment = 64;
  auto* p = static_cast<std::byte*>(std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment));
  if (p == nullptr) throw std::bad_alloc();
  data_.reset(p);
}

void PackedBytes::Free::operator()(std::byte* p) const { std::free(p); }

std::string packing_form(const TileIsa& isa, const NhwcConv& s, bool matrix) {
  std::string form = std::string("tile ") + isa.name + (matrix ? " matrix" : " conv");
  for (int64_t n : {s.channels, s.out_channels, s.kernel_h, s.kernel_w, s.dilation_w, s.groups}) form.append(1, ' ').append(std::to_string(n));
  return form;
}

PackedWeights pack_product(TileType type, const TileIsa& isa, const NhwcConv& s, bool matrix, const void* w, WeightType given) {
  PackedWeights packed;
  packed.type = type;
  const int64_t bytes = tile_element_bytes(type);
  packed.piece = piece_of(isa, s, bytes);
  packed.pieces = pieces_of(packed.piece, s);
  packed.piece_groups = ceil_div(s.depth() / packed.pieces * bytes, kGroupBytes);
  packed.panels = ceil_div(s.group_out(), kPanelColumns);
  packed.groups = round_up(packed.pieces * packed.piece_groups, isa.group_step);
  const auto size = static_cast<size_t>(s.groups * packed.panels * packed.panel_bytes());
  packed.data = w != nullptr ? PackedBytes(size) : PackedBytes::only_size(size);
  if (type == TileType::kU8S8) packed.column_sums.assign(static_cast<size_t>(s.out_channels), 0);
  if (w == nullptr) return packed;
  const auto same = [](auto x) { return x; };
  if (type == TileType::kU8S8) {
    if (given == WeightType::kU8Shifted) pack<uint8_t, uint8_t>(s, matrix, w, packed, false, [](uint8_t x) { return static_cast<uint8_t>(x ^ 0x80); });
    else pack<uint8_t, uint8_t>(s, matrix, w, packed, true, same);
    sum_columns(s, packed);
  } else if (type == TileType::kBf16 && given == WeightType::kF32) {
    pack<float, uint16_t>(s, matrix, w, packed, false, [](float x) { return bf16(x).bits; });
  } else if (type == TileType::kBf16) {
    pack<uint16_t, uint16_t>(s, matrix, w, packed, true, same);
  } else if (type == TileType::kF16) {
    if (given == WeightType::kF32) pack<float, uint16_t>(s, matrix, w, packed, false, [](float x) { return saturated_f16(x).bits; });
    else pack<uint16_t, uint16_t>(s, matrix, w, packed, true, same);
    if (isa.scale_columns != nullptr) scale_panels(isa, s, packed);
  } else {
    pack<uint32_t, uint32_t>(s, matrix, w, packed, true, same);
  }
  return packed;
}

}  // namespace ds::kernels
