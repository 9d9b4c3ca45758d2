// Softmax and its logarithm along one axis, one source for all vector widths: internal linkage, no library code but threads.
//
// A contiguous axis is taken row by row, in registers from end to end where it fits, and very short rows many at a time;
// along an axis that others follow, a vector holds neighbours of those. Exponentials below the smallest normal number are zero; sums end in double.
// Simd: see simd_set_avx2.h.
#pragma once

#include "kernels/softmax.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

template <typename Simd>
class Softmax {
  using V = typename Simd::V;
  using Lanes = typename Simd::Lanes;
  static constexpr int64_t W = Simd::kWidth;
  static constexpr int64_t kGrain = 1 << 13;  // elements worth a thread
  static constexpr int64_t kShort = 8;        // the longest rows that are turned on their side
  static constexpr int64_t kFlush = 16;       // vectors summed in float before the sum goes to double

 public:
  Softmax(bool log, int64_t outer, int64_t n, int64_t inner, const float* x, float* out)
      : log_(log), outer_(outer), n_(n), inner_(inner), x_(x), out_(out) {}

  void run() const {
    if (n_ == 0 || inner_ == 0) return;
    if (inner_ == 1) return run_rows();
    const int64_t blocks = (inner_ + W - 1) / W;
    parallel_for(outer_ * blocks, kGrain / (n_ * W) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t column = i % blocks * W, start = i / blocks * n_ * inner_ + column;
        if (column + W <= inner_) columns<true>(x_ + start, out_ + start, Lanes());
        else columns<false>(x_ + start, out_ + start, Simd::first(inner_ - column));
      }
    });
  }

 private:
  template <bool kWhole>
  static V get(const float* p, Lanes lanes) {
    if constexpr (kWhole) return Simd::load(p);
    else return Simd::load(p, lanes);
  }
  template <bool kWhole>
  static void put(float* p, V v, Lanes lanes) {
    if constexpr (kWhole) Simd::store(p, v);
    else Simd::store(p, v, lanes);
  }

  template <bool kWhole>
  void columns(const float* p, float* o, Lanes lanes) const {
    V highest = get<kWhole>(p, lanes);
    for (int64_t j = 1; j < n_; ++j) highest = Simd::max(get<kWhole>(p + j * inner_, lanes), highest);
    typename Simd::Sum sum;
    for (int64_t block = 0; block < n_; block += kFlush) {
      V part = Simd::all(0);
      for (int64_t j = block; j < (block + kFlush < n_ ? block + kFlush : n_); ++j) {
        const V shifted = Simd::sub(get<kWhole>(p + j * inner_, lanes), highest), e = Simd::exp_or_zero(shifted);
        put<kWhole>(o + j * inner_, log_ ? shifted : e, lanes);
        part = Simd::add(part, e);
      }
      sum.add(part);
    }
    const V step = final_steps(sum.lanes());
    for (int64_t j = 0; j < n_; ++j) put<kWhole>(o + j * inner_, finished(get<kWhole>(o + j * inner_, lanes), step), lanes);
  }

  float final_step(double total) const { return static_cast<float>(log_ ? __builtin_log(total) : 1.0 / total); }
  V final_steps(V totals) const { return log_ ? Simd::log(totals) : Simd::div(Simd::all(1), totals); }
  V finished(V v, V step) const { return log_ ? Simd::sub(v, step) : Simd::mul(v, step); }

  void run_rows() const {
    if (n_ <= kShort) return run_short_rows();
    parallel_for(outer_, kGrain / n_ + 1, [&](int64_t begin, int64_t end) {
      switch ((n_ + W - 1) / W) {
        case 1: return held<1>(begin, end);
        case 2: return held<2>(begin, end);
        case 3: return held<3>(begin, end);
        case 4: return held<4>(begin, end);
        default: return long_rows(begin, end);
      }
    });
  }

  // As many short rows as a vector has lanes, turned on their side: a vector then holds one element of each.
  void run_short_rows() const {
    parallel_for((outer_ + W - 1) / W, kGrain / (n_ * W) + 1, [&](int64_t begin, int64_t end) {
      float t[kShort * W] = {};
      for (int64_t b = begin; b < end; ++b) {
        const int64_t first = b * W, rows = outer_ - first < W ? outer_ - first : W;
        const float* p = x_ + first * n_;
        float* o = out_ + first * n_;
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t j = 0; j < n_; ++j) t[j * W + r] = p[r * n_ + j];
        V v[kShort], highest = Simd::load(t), sum = Simd::all(0);
        for (int64_t j = 1; j < n_; ++j) highest = Simd::max(Simd::load(t + j * W), highest);
        for (int64_t j = 0; j < n_; ++j) {
          v[j] = Simd::sub(Simd::load(t + j * W), highest);
          const V e = Simd::exp_or_zero(v[j]);
          sum = Simd::add(sum, e);
          if (!log_) v[j] = e;
        }
        const V step = final_steps(sum);
        for (int64_t j = 0; j < n_; ++j) Simd::store(t + j * W, finished(v[j], step));
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t j = 0; j < n_; ++j) o[r * n_ + j] = t[j * W + r];
      }
    });
  }

  // Rows of `vectors`, the last of which may be partly there.
  template <int vectors>
  void held(int64_t begin, int64_t end) const {
    const V least = Simd::all(-__builtin_inff());
    const Lanes lanes = Simd::first(n_ - (vectors - 1) * W);
    for (int64_t r = begin; r < end; ++r) {
      const float* p = x_ + r * n_;
      float* o = out_ + r * n_;
      V v[vectors], highest = least;
      for (int i = 0; i < vectors; ++i) {
        v[i] = i + 1 < vectors ? Simd::load(p + i * W) : Simd::load(p + i * W, lanes, least);
        highest = Simd::max(v[i], highest);
      }
      const V top = Simd::all(Simd::highest(highest));
      V part = Simd::all(0);
      for (int i = 0; i < vectors; ++i) {
        v[i] = Simd::sub(v[i], top);
        const V e = Simd::exp_or_zero(v[i]);
        part = Simd::add(part, e);
        if (!log_) v[i] = e;
      }
      typename Simd::Sum sum;
      sum.add(part);
      const V step = Simd::all(final_step(sum.total()));
      for (int i = 0; i < vectors; ++i) {
        if (i + 1 < vectors) Simd::store(o + i * W, finished(v[i], step));
        else Simd::store(o + i * W, finished(v[i], step), lanes);
      }
    }
  }

  void long_rows(int64_t begin, int64_t end) const {
    const V least = Simd::all(-__builtin_inff());
    const int64_t whole = n_ / W * W, rest = n_ - whole;
    const Lanes lanes = Simd::first(rest);
    for (int64_t r = begin; r < end; ++r) {
      const float* p = x_ + r * n_;
      float* o = out_ + r * n_;
      V highest = rest > 0 ? Simd::load(p + whole, lanes, least) : least;
      for (int64_t i = 0; i < whole; i += W) highest = Simd::max(Simd::load(p + i), highest);
      const V top = Simd::all(Simd::highest(highest));
      typename Simd::Sum sum;
      for (int64_t block = 0; block < whole; block += kFlush * W) {
        V part = Simd::all(0);
        for (int64_t i = block; i < (block + kFlush * W < whole ? block + kFlush * W : whole); i += W) {
          const V shifted = Simd::sub(Simd::load(p + i), top), e = Simd::exp_or_zero(shifted);
          Simd::store(o + i, log_ ? shifted : e);
          part = Simd::add(part, e);
        }
        sum.add(part);
      }
      if (rest > 0) {
        const V shifted = Simd::sub(Simd::load(p + whole, lanes, least), top), e = Simd::exp_or_zero(shifted);
        Simd::store(o + whole, log_ ? shifted : e, lanes);
        sum.add(e);
      }
      const V step = Simd::all(final_step(sum.total()));
      for (int64_t i = 0; i < whole; i += W) Simd::store(o + i, finished(Simd::load(o + i), step));
      if (rest > 0) Simd::store(o + whole, finished(Simd::load(o + whole, lanes), step), lanes);
    }
  }

  const bool log_;
  const int64_t outer_, n_, inner_;
  const float* x_;
  float* out_;
};

}  // namespace
}  // namespace ds::kernels
