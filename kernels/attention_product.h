// The two products of attention whose columns are rows of attention, two vectors of them: one operand is read a number at
// a time, broadcast, from where it lies. Internal linkage, no library code.
//
// Simd: see attention_tiles.h; kTile pairs of registers hold sums, row(x, b0, b1, c0, c1) and row(x, b0, c0) add *x times
// b to c.
#pragma once

#include <cstdint>
#include <utility>

namespace ds::kernels {
namespace {

// c [n, kVecs vectors] = a b, or with kValues c += a^T b; b has rows of two vectors.
// kValues: a [depth, n], else [n, depth]; rows at a_step.
template <typename Simd, bool kValues>
class RegisterTile {
  using V = typename Simd::V;
  static constexpr int64_t W = Simd::kWidth, kLanes = 2 * W;

 public:
  template <int kVecs>
  static void product(int64_t n, int64_t depth, const float* a, int64_t a_step, const float* b, float* c) {
    if (n <= 0) return;
    // Rows are shared out evenly: 64 are 12 + 4 * 13, not 4 * 14 + 8.
    const int64_t parts = (n + Simd::kTile - 1) / Simd::kTile;
    for (int64_t i = 0, at = 0; i < parts; ++i) {
      const int64_t rows = (n + i) / parts;
      choose<kVecs>(rows, std::make_integer_sequence<int, Simd::kTile>())(depth, a + at * (kValues ? 1 : a_step), a_step, b, c + at * kLanes);
      at += rows;
    }
  }

 private:
  using Fn = void (*)(int64_t, const float*, int64_t, const float*, float*);

  template <int kVecs, int... kRows>
  static Fn choose(int64_t rows, std::integer_sequence<int, kRows...>) {
    static constexpr Fn kTable[] = {tile<kVecs, kRows + 1>...};
    return kTable[rows - 1];
  }

  template <int kVecs, int kRows>
  static void tile(int64_t depth, const float* a, int64_t a_step, const float* b, float* c) {
    V sum[kRows][kVecs];
    const float* row[kRows];
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      row[r] = a + r * a_step;
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) sum[r][v] = kValues ? Simd::load(c + r * kLanes + v * W) : Simd::all(0);
    }
    for (int64_t p = 0; p < depth; ++p, b += kLanes) {
      const V b0 = Simd::load(b);
      if constexpr (kVecs == 2) {
        const V b1 = Simd::load(b + W);
#pragma GCC unroll 14
        for (int r = 0; r < kRows; ++r) Simd::row(kValues ? a + r : row[r] + p, b0, b1, sum[r][0], sum[r][1]);
      } else {
#pragma GCC unroll 14
        for (int r = 0; r < kRows; ++r) Simd::row(kValues ? a + r : row[r] + p, b0, sum[r][0]);
      }
      if (kValues) a += a_step;
    }
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) Simd::store(c + r * kLanes + v * W, sum[r][v]);
    }
  }
};

}  // namespace
}  // namespace ds::kernels
