// ArgMax and ArgMin along an axis that others follow, one source for all vector widths: internal linkage, no library code but
// threads. A vector holds neighbours of the following axes; their best positions are floats, exact to 2^24. Simd: see
// simd_set_avx2.h.
#pragma once

#include "kernels/reduce.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

template <typename Simd>
class ArgExtreme {
  using V = typename Simd::V;
  using Lanes = typename Simd::Lanes;
  static constexpr int64_t W = Simd::kWidth;
  static constexpr int64_t kGrain = 1 << 13;  // elements worth a thread

 public:
  ArgExtreme(int64_t outer, int64_t n, int64_t inner, const float* x, int64_t* out) : outer_(outer), n_(n), inner_(inner), x_(x), out_(out) {}

  void run(bool largest, bool last) const {
    // Comparisons that hold for NaN too, which wins.
    if (largest) last ? scan<_CMP_NLT_UQ>() : scan<_CMP_NLE_UQ>();
    else last ? scan<_CMP_NGT_UQ>() : scan<_CMP_NGE_UQ>();
  }

 private:
  template <int kCompare>
  void scan() const {
    const int64_t blocks = (inner_ + 2 * W - 1) / (2 * W);
    parallel_for(outer_ * blocks, kGrain / (n_ * 2 * W) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t column = i % blocks * 2 * W, left = inner_ - column, o = i / blocks;
        const float* p = x_ + o * n_ * inner_ + column;
        int64_t* to = out_ + o * inner_ + column;
        if (left >= 2 * W) {
          columns<kCompare, 2, true>(p, to, 2 * W, Lanes());
        } else if (left >= W) {
          columns<kCompare, 1, true>(p, to, W, Lanes());
          if (left > W) columns<kCompare, 1, false>(p + W, to + W, left - W, Simd::first(left - W));
        } else {
          columns<kCompare, 1, false>(p, to, left, Simd::first(left));
        }
      }
    });
  }

  template <int kCompare, int kVectors, bool kWhole>
  void columns(const float* p, int64_t* out, int64_t count, Lanes lanes) const {
    V held[kVectors], best[kVectors];
    const auto get = [&](int64_t j, int v) {
      if constexpr (kWhole) return Simd::load(p + j * inner_ + v * W);
      else return Simd::load(p + j * inner_, lanes);
    };
    for (int v = 0; v < kVectors; ++v) {
      held[v] = get(0, v);
      best[v] = Simd::all(0);
    }
    for (int64_t j = 1; j < n_; ++j) {
      const V at = Simd::all(static_cast<float>(j));
      for (int v = 0; v < kVectors; ++v) {
        const V value = get(j, v);
        best[v] = Simd::template where<kCompare>(value, held[v], at, best[v]);
        held[v] = Simd::template where<kCompare>(value, held[v], value, held[v]);
      }
    }
    float positions[kVectors * W];
    for (int v = 0; v < kVectors; ++v) Simd::store(positions + v * W, best[v]);
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<int64_t>(positions[i]);
  }

  const int64_t outer_, n_, inner_;
  const float* x_;
  int64_t* out_;
};

}  // namespace
}  // namespace ds::kernels
