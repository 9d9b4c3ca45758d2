// The transforms of kernels/winograd.h for a kind of vectors, channels side by side in them. For winograd_avx2.cc and
// winograd_avx512.cc only: internal linkage, no library template.
//
// Simd has V, kWidth, load(p), load(p, n) (n < kWidth; zeros beyond), store(p, v), all(f), fma(a, b, c) = a b + c and
// fnma(a, b, c) = c - a b.
#pragma once

#include <cstdint>

#include "kernels/winograd.h"

namespace ds::kernels {
namespace {

// One axis of a transform: B^T of in_tile values, A^T of in_tile sums.
template <typename Simd, int kOutTile>
struct WinogradAxis;

template <typename Simd>
struct WinogradAxis<Simd, 2> {
  using V = typename Simd::V;
  static __attribute__((always_inline)) inline void input(const V* x, V* y) {
    y[0] = x[0] - x[2];
    y[1] = x[1] + x[2];
    y[2] = x[2] - x[1];
    y[3] = x[1] - x[3];
  }
  static __attribute__((always_inline)) inline void output(const V* x, V* y) {
    y[0] = x[0] + (x[1] + x[2]);
    y[1] = (x[1] - x[2]) - x[3];
  }
};

// With a, b for the points and -a, -b: rows that belong to a point and its negative share their even and odd parts.
template <typename Simd>
struct WinogradAxis<Simd, 4> {
  using V = typename Simd::V;
  static constexpr double a = kWinogradNear, b = kWinogradFar;

  static __attribute__((always_inline)) inline V all(double x) { return Simd::all(static_cast<float>(x)); }
  static __attribute__((always_inline)) inline void input(const V* x, V* y) {
    const V even_a = Simd::fnma(all(b * b), x[2], x[4]), odd_a = Simd::fnma(all(b * b), x[1], x[3]);
    const V even_b = Simd::fnma(all(a * a), x[2], x[4]), odd_b = Simd::fnma(all(a * a), x[1], x[3]);
    y[0] = Simd::fma(all(a * a * b * b), x[0], Simd::fnma(all(a * a + b * b), x[2], x[4]));
    y[1] = Simd::fma(all(a), odd_a, even_a);
    y[2] = Simd::fnma(all(a), odd_a, even_a);
    y[3] = Simd::fma(all(b), odd_b, even_b);
    y[4] = Simd::fnma(all(b), odd_b, even_b);
    y[5] = Simd::fma(all(a * a * b * b), x[1], Simd::fnma(all(a * a + b * b), x[3], x[5]));
  }
  static __attribute__((always_inline)) inline void output(const V* x, V* y) {
    const V even_a = x[1] + x[2], odd_a = x[1] - x[2], even_b = x[3] + x[4], odd_b = x[3] - x[4];
    y[0] = x[0] + (even_a + even_b);
    y[1] = Simd::fma(all(a), odd_a, all(b) * odd_b);
    y[2] = Simd::fma(all(a * a), even_a, all(b * b) * even_b);
    y[3] = Simd::fma(all(a * a * a), odd_a, Simd::fma(all(b * b * b), odd_b, x[5]));
  }
};

template <typename Simd, int kOutTile>
struct WinogradLoops {
  using V = typename Simd::V;
  using Axis = WinogradAxis<Simd, kOutTile>;
  static constexpr int kInTile = kOutTile + 2;
  static constexpr int64_t kWidth = Simd::kWidth;

  template <typename Load>
  static __attribute__((always_inline)) inline void input_vector(const float* const* pixels, int64_t c, float* v, int64_t stride, Load load) {
    V columns[kInTile][kInTile];  // [column][line]
#pragma GCC unroll 6
    for (int j = 0; j < kInTile; ++j) {
      V x[kInTile];
#pragma GCC unroll 6
      for (int i = 0; i < kInTile; ++i) x[i] = load(pixels[i * kInTile + j] + c);
      Axis::input(x, columns[j]);
    }
    v += c;
#pragma GCC unroll 6
    for (int i = 0; i < kInTile; ++i) {
      V x[kInTile], y[kInTile];
#pragma GCC unroll 6
      for (int j = 0; j < kInTile; ++j) x[j] = columns[j][i];
      Axis::input(x, y);
#pragma GCC unroll 6
      for (int j = 0; j < kInTile; ++j, v += stride) Simd::store(v, y[j]);
    }
  }

  static void input(int64_t channels, const float* const* pixels, float* v, int64_t stride) {
    int64_t c = 0;
    for (; c + kWidth <= channels; c += kWidth) input_vector(pixels, c, v, stride, [](const float* p) { return Simd::load(p); });
    if (const int64_t rest = channels - c; rest > 0)
      input_vector(pixels, c, v, stride, [rest](const float* p) { return Simd::load(p, rest); });
  }

  static void output(int64_t columns, const float* s, int64_t stride, float* y, int64_t line) {
    for (int64_t c = 0; c < columns; c += kWidth, s += kWidth, y += kWidth) {
      V lines[kInTile][kOutTile];
      const float* from = s;
#pragma GCC unroll 6
      for (int i = 0; i < kInTile; ++i) {
        V x[kInTile];
#pragma GCC unroll 6
        for (int j = 0; j < kInTile; ++j, from += stride) x[j] = Simd::load(from);
        Axis::output(x, lines[i]);
      }
#pragma GCC unroll 4
      for (int j = 0; j < kOutTile; ++j) {
        V x[kInTile], out[kOutTile];
#pragma GCC unroll 6
        for (int i = 0; i < kInTile; ++i) x[i] = lines[i][j];
        Axis::output(x, out);
#pragma GCC unroll 4
        for (int i = 0; i < kOutTile; ++i) Simd::store(y + i * line + j * kWinogradColumns, out[i]);
      }
    }
  }

  static const WinogradTransforms& transforms() {
    static constexpr WinogradTransforms both = {input, output};
    return both;
  }
};

}  // namespace
}  // namespace ds::kernels
