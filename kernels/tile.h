// Products of a block of rows with packed weights: what depends on the instruction set in our own matrix
// products and convolutions (kernels/packed_product.h). Raw loops over raw pointers.
//
// Everything is counted in groups of 4 bytes of depth: 1 f32, 2 bf16 or f16, or 4 8-bit numbers (a unsigned, b signed).
// That is what one lane of vdpbf16ps or vpdpbusd multiplies, and what one row of an AMX tile holds 16 of, so all
// instruction sets share one packing:
//
//   a  [rows, groups]           row r at a + r * a_stride (bytes)
//   b  [panels][groups][16]     panel p at b + p * b_stride (bytes); 16 columns of one group are 64 bytes
//   c  [rows, 16 * panels]      f32 (f32, bf16, f16) or i32 sums (8 bits), row r at c + r * c_stride (elements)
//
//   c (+)= a . b, summed in f32 or, exactly, in i32; f16: short sums in f16, those in f32
//
// Threads: a block is computed by the calling thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "libds/base/cpu.h"

namespace ds::kernels {

constexpr int64_t kPanelColumns = 16;
constexpr int64_t kGroupBytes = 4;
constexpr int64_t kTapsBeyond = 18;
constexpr int64_t kPanelRowBytes = kPanelColumns * kGroupBytes;

enum class TileType { kF32, kBf16, kF16, kU8S8 };
constexpr int64_t tile_element_bytes(TileType type) { return type == TileType::kF32 ? 4 : type == TileType::kU8S8 ? 1 : 2; }

struct TileBlock {
  int64_t rows = 0, panels = 0, groups = 0;
  const std::byte* a = nullptr;
  int64_t a_stride = 0;
  const std::byte* b = nullptr;
  int64_t b_stride = 0;
  bool accumulate = false;  // add to c instead of overwriting it
  void* c = nullptr;
  int64_t c_stride = 0;
};

// What becomes of finished f32 sums while they are in registers: y = scale * activation(sum + bias + addend) + shift, where
// activation(v) is v limited to [low, high], or v * (v / 6 + 0.5 limited to [0, 1]) with hard_swish. NaN passes. The order
// of operations is that of kernels/finish.h, so results are the same bit for bit; a neutral shift is -0.0.
struct TileFinish {
  // Of the block's first row and column. Null: none, but for y.
  const float* bias = nullptr;
  const float* addend = nullptr;  // may be y
  float* y = nullptr;
  int64_t stride = 0;   // of y and addend, elements from row to row
  int64_t columns = 0;  // of the block, that exist in y
  float low = 0, high = 0, scale = 1, shift = -0.0f;
  bool hard_swish = false;
};

// The same with a left operand that lies in pieces (taps of a convolution): piece t of row r is `groups` groups at
// a[t * a_step + r] + a_offset. In b the pieces follow one another.
struct TileTaps {
  int64_t rows = 0, panels = 0, taps = 0, groups = 0;
  const std::byte* const* a = nullptr;  // kTapsBeyond pointers more can be read; where they point does not matter
  int64_t a_step = 0, a_offset = 0;
  const std::byte* b = nullptr;
  int64_t b_stride = 0;
  bool accumulate = false;
  void* c = nullptr;
  int64_t c_stride = 0;
  // Weights that will be wanted next, as many and as far apart as b's: a hint to fetch them.
  const std::byte* next_b = nullptr;
  // Of the last panel only the first half of the columns are wanted; c may hold anything in the others.
  bool half = false;
  // Where the isa `finishes`: the sums go through this instead of to c.
  const TileFinish* finish = nullptr;
};

struct TileIsa {
  const char* name;
  // Memory of a and c must exist up to a multiple of this many rows; what lies in the rows beyond does not matter, and
  // is overwritten in c.
  int64_t row_step;
  // `groups` is a multiple of this. Depth beyond the true one is zero in a and b alike (0 times NaN is NaN).
  int64_t group_step;
  void (*block)(const TileBlock&);
  // Null where rows must lie in one piece. Takes any number of groups.
  void (*taps)(const TileTaps&) = nullptr;
  // f32 to bf16, or to f16 with saturation, rounded to nearest even, as libds/base/half.h does it; null: no better way than that.
  // Gives whether anything saturated.
  bool (*narrow)(int64_t n, const float* src, uint16_t* dst) = nullptr;
  // 8 bits: sums of two neighbours in depth saturate at 16 bits. Exact only for weights that keep within them
  // (pairs_fit).
  bool saturates = false;
  bool finishes = false;  // takes TileTaps::finish
  // Sums in f16: multiplies every column of a panel by a power of two, such that no sum of finite activations overflows, and
  // gives what undoes it; null where sums have the range of f32.
  void (*scale_columns)(std::byte* panel, int64_t groups, float* undo) = nullptr;
};

// The best at `isa` or below; null when there is none for this type. kBf16 needs cpu_has_bf16() or AMX, kF16 cpu_has_fp16().
const TileIsa* tile_isa(TileType type, Isa isa);

// Per instruction set; call only where the CPU has it.
const TileIsa& portable_tile(TileType type);
const TileIsa& avx2_tile_f32();
const TileIsa& avx2_tile_u8s8();
const TileIsa& avx_vnni_tile_u8s8();  // needs cpu_has_avx_vnni()
const TileIsa& avx512_tile_f32();
const TileIsa& avx512_tile_bf16();
const TileIsa& avx512_tile_u8s8();
const TileIsa& avx512_tile_f16();  // needs cpu_has_fp16()
const TileIsa& amx_tile_bf16();
const TileIsa& amx_tile_u8s8();

}  // namespace ds::kernels
