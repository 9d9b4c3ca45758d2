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
  static constexpr double kWeights[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};  // G
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
  // G: of a point p [1, p, p^2] / the product of its distances to the other finite points.
  static constexpr double near = 2 * a * a * (a * a - b * b), far = 2 * b * b * (b * b - a * a);
  static constexpr double kWeights[6][3] = {{1 / (a * a * b * b), 0, 0}, {1 / near, a / near, a * a / near}, {1 / near, -a / near, a * a / near},
                                            {1 / far, b / far, b * b / far}, {1 / far, -b / far, b * b / far}, {0, 0, 1}};
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

  static void weights(const double* taps, float* u, int64_t stride) {
    constexpr int64_t n = kPanelColumns;
    for (int i = 0; i < kInTile; ++i) {
      const double* g = Axis::kWeights[i];
      double line[3][n];
      for (int k = 0; k < 3; ++k)
        for (int64_t m = 0; m < n; ++m) line[k][m] = g[0] * taps[k * n + m] + g[1] * taps[(3 + k) * n + m] + g[2] * taps[(6 + k) * n + m];
      for (int j = 0; j < kInTile; ++j, u += stride) {
        const double* h = Axis::kWeights[j];
        for (int64_t m = 0; m < n; ++m) u[m] = static_cast<float>(h[0] * line[0][m] + h[1] * line[1][m] + h[2] * line[2][m]);
      }
    }
  }

  static const WinogradTransforms& transforms() {
    static constexpr WinogradTransforms all = {input, output, weights};
    return all;
  }
};

}  // namespace
}  // namespace ds::kernels
