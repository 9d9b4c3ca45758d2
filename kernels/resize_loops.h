// Resampling along one axis, one source for all vector widths: internal linkage, no library code but threads.
//
// The elements that follow the axis (channels that are last, or whole rows) are vectors; where nothing follows it, positions
// are computed one by one. Simd: see simd_set_avx2.h.
#pragma once

#include "kernels/resize.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

template <typename Simd>
class ResizeAxis {
  using V = typename Simd::V;
  using Lanes = typename Simd::Lanes;
  static constexpr int64_t W = Simd::kWidth;
  static constexpr int64_t kGrain = 1 << 14;  // products worth a thread

 public:
  ResizeAxis(const TapsView& axis, int64_t inner, const float* src, float* dst) : a_(axis), inner_(inner), src_(src), dst_(dst) {}

  void run(int64_t outer) const {
    const int64_t work = inner_ * a_.taps;
    parallel_for(outer * a_.out, kGrain / (work > 0 ? work : 1) + 1, [&](int64_t begin, int64_t end) {
      if (a_.taps == 2) rows<2>(begin, end);
      else if (a_.taps == 4) rows<4>(begin, end);
      else rows<0>(begin, end);
    });
  }

 private:
  // Rows [begin, end) of dst [outer * out, inner]. kTaps: 0 is any number.
  template <int kTaps>
  void rows(int64_t begin, int64_t end) const {
    const int taps = kTaps == 0 ? a_.taps : kTaps;
    const int64_t whole = inner_ / W * W, rest = inner_ - whole;
    const Lanes lanes = Simd::first(rest);
    for (int64_t p = begin / a_.out, i = begin; i < end; ++p) {
      const float* in = src_ + p * a_.in * inner_;
      int64_t o = i - p * a_.out;
      const int64_t stop = end - i < a_.out - o ? o + (end - i) : a_.out;
      i += stop - o;
      float* out = dst_ + (p * a_.out + o) * inner_;
      if (inner_ == 1) {
        for (; o < stop; ++o, ++out) *out = single(taps, in, o);
        continue;
      }
      for (; o < stop; ++o, out += inner_) {
        const int64_t* index = a_.index + o * taps;
        const double* weight = a_.weight + o * taps;
        for (int64_t c = 0; c < whole; c += W) {
          V sum = Simd::mul(Simd::all(static_cast<float>(weight[0])), Simd::load(in + index[0] * inner_ + c));
          for (int t = 1; t < taps; ++t) sum = Simd::fma(Simd::all(static_cast<float>(weight[t])), Simd::load(in + index[t] * inner_ + c), sum);
          Simd::store(out + c, sum);
        }
        if (rest == 0) continue;
        V sum = Simd::mul(Simd::all(static_cast<float>(weight[0])), Simd::load(in + index[0] * inner_ + whole, lanes));
        for (int t = 1; t < taps; ++t) sum = Simd::fma(Simd::all(static_cast<float>(weight[t])), Simd::load(in + index[t] * inner_ + whole, lanes), sum);
        Simd::store(out + whole, sum, lanes);
      }
    }
  }

  float single(int taps, const float* in, int64_t o) const {
    const int64_t* index = a_.index + o * taps;
    const double* weight = a_.weight + o * taps;
    float sum = static_cast<float>(weight[0]) * in[index[0]];
    for (int t = 1; t < taps; ++t) sum += static_cast<float>(weight[t]) * in[index[t]];
    return sum;
  }

  const TapsView a_;
  const int64_t inner_;
  const float* src_;
  float* dst_;
};

}  // namespace
}  // namespace ds::kernels
