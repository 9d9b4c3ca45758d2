// Products with few rows, one source for all vector widths: internal linkage, no library code.
//
// Blocks of up to four rows by as many vectors as registers hold; a single row sums even and odd depth apart, so that its
// additions do not wait for one another. Simd: see simd_set_avx2.h.
#pragma once

#include "kernels/small_product.h"

namespace ds::kernels {
namespace {

template <typename Simd, int kMostVectors>
class SmallProduct {
  using V = typename Simd::V;
  static constexpr int64_t W = Simd::kWidth;

 public:
  SmallProduct(int64_t n, int64_t k, const float* packed, float* c) : n_(n), k_(k), packed_(packed), c_(c) {}

  void run(int64_t m, const float* a) const {
    int64_t i = 0;
    for (; i + 4 <= m; i += 4) rows<4>(a + i * k_, i);
    switch (m - i) {
      case 3: return rows<3>(a + i * k_, i);
      case 2: return rows<2>(a + i * k_, i);
      case 1: return rows<1>(a + i * k_, i);
      default: return;
    }
  }

 private:
  template <int kRows>
  void rows(const float* a, int64_t first) const {
    for (int64_t column = 0; column < n_; column += kMostVectors * W) {
      const float* b = packed_ + column / kSmallPanel * kSmallPanel * k_ + column % kSmallPanel;
      const int64_t left = n_ - column, vectors = (left + W - 1) / W;
      float* c = c_ + first * n_ + column;
      if (kMostVectors >= 4 && vectors >= 4) block<kRows, kMostVectors >= 4 ? 4 : 1>(a, b, left, c);
      else if (kMostVectors >= 3 && vectors == 3) block<kRows, kMostVectors >= 3 ? 3 : 1>(a, b, left, c);
      else if (vectors >= 2) block<kRows, 2>(a, b, left, c);
      else block<kRows, 1>(a, b, left, c);
    }
  }

  template <int kRows, int kVectors>
  void block(const float* a, const float* b, int64_t left, float* c) const {
    constexpr int kSplit = kRows == 1 ? 2 : 1;
    V sum[kSplit][kRows][kVectors];
    for (int s = 0; s < kSplit; ++s)
      for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v) sum[s][r][v] = Simd::all(0);
    const auto step = [&](int64_t i, int s) {
      V w[kVectors];
      for (int v = 0; v < kVectors; ++v) w[v] = Simd::load(b + i * kSmallPanel + v * W);
      for (int r = 0; r < kRows; ++r) {
        const V x = Simd::all(a[r * k_ + i]);
        for (int v = 0; v < kVectors; ++v) sum[s][r][v] = Simd::fma(x, w[v], sum[s][r][v]);
      }
    };
    int64_t i = 0;
    for (; i + kSplit <= k_; i += kSplit)
      for (int s = 0; s < kSplit; ++s) step(i + s, s);
    for (; i < k_; ++i) step(i, 0);
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v) {
        V total = sum[0][r][v];
        if constexpr (kSplit == 2) total = Simd::add(total, sum[1][r][v]);
        const int64_t rest = left - v * W;
        if (rest >= W) Simd::store(c + r * n_ + v * W, total);
        else Simd::store(c + r * n_ + v * W, total, Simd::first(rest));
      }
  }

  const int64_t n_, k_;
  const float* packed_;
  float* c_;
};

}  // namespace
}  // namespace ds::kernels
