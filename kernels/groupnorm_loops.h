// Group normalization, one source for all vector widths: internal linkage, no library code but threads.
//
// Channels first, a group is one run of memory. Channels last, sums are kept lane by lane along rows of whole pixels
// (GroupNormRows), and folded into channels and groups at the end; the second pass then has its mean, slope and
// shift by lane too. Simd: see simd_set_avx2.h.
#pragma once

#include "kernels/groupnorm.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

template <typename Simd>
class GroupNorm {
  using V = typename Simd::V;
  using Lanes = typename Simd::Lanes;
  using Moments = typename Simd::Moments;
  static constexpr int64_t W = Simd::kWidth;
  static constexpr int64_t kGrain = 1 << 13;  // elements worth a thread

 public:
  GroupNorm(const GroupNormShape& s, const float* x, const float* scale, const float* bias, double epsilon, float* y)
      : s_(s), x_(x), scale_(scale), bias_(bias), epsilon_(epsilon), y_(y) {}

  void channels_first() const {
    const int64_t channels = s_.C / s_.G, n = channels * s_.S;
    if (n == 0) return;
    parallel_for(s_.N * s_.G, kGrain / n + 1, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) {
        const float* p = x_ + g * n;
        const Group group = statistics(p, n);
        for (int64_t c = 0; c < channels; ++c) {
          const int64_t channel = g % s_.G * channels + c;
          affine_run(s_.S, p + c * s_.S, Simd::all(group.mean), Simd::all(group.inverse * scale_[channel]), Simd::all(bias_[channel]),
                     y_ + g * n + c * s_.S);
        }
      }
    });
  }

  void channels_last(void* scratch) const {
    const GroupNormRows r = groupnorm_rows(s_);
    const int64_t sample = s_.S * s_.C;
    if (sample == 0) return;
    double* sums = static_cast<double*>(scratch);
    float* factors = reinterpret_cast<float*>(sums + s_.N * r.chunks * 2 * r.length);
    for (int64_t i = 0; i < s_.N; ++i)
      for (int64_t lane = 0; lane < r.length; ++lane)
        factors[4 * i * r.length + lane] = x_[i * sample + lane % s_.C / (s_.C / s_.G) * (s_.C / s_.G)];
    const int64_t grain = kGrain / (r.per_chunk * r.length) + 1;
    const auto each_chunk = [&](auto&& work) {
      parallel_for(s_.N * r.chunks, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t n = i / r.chunks, first = i % r.chunks * r.per_chunk * r.length;
          const int64_t left = sample - first, most = r.per_chunk * r.length, length = left < most ? left : most;
          work(i, n, n * sample + first, length / r.length, length % r.length);
        }
      });
    };
    each_chunk([&](int64_t chunk, int64_t n, int64_t at, int64_t rows, int64_t rest) {
      double* to = sums + chunk * 2 * r.length;
      for (int64_t i = 0; i < 2 * r.length; ++i) to[i] = 0;
      const float* origin = factors + 4 * n * r.length;
      if (rows > 0) sum_rows(x_ + at, rows, r.length, r.length, origin, to);
      if (rest > 0) sum_rows(x_ + at + rows * r.length, 1, rest, r.length, origin, to);
    });
    for (int64_t n = 0; n < s_.N; ++n) fold(r, sums + n * r.chunks * 2 * r.length, factors + 4 * n * r.length);
    each_chunk([&](int64_t, int64_t n, int64_t at, int64_t rows, int64_t rest) {
      const float* f = factors + (4 * n + 1) * r.length;
      if (rows > 0) affine_rows(x_ + at, rows, r.length, r.length, f, y_ + at);
      if (rest > 0) affine_rows(x_ + at + rows * r.length, 1, rest, r.length, f, y_ + at + rows * r.length);
    });
  }

 private:
  struct Group {
    float mean, inverse;
  };

  // Of n numbers, from the sums of those less x0.
  Group group_of(double sum, double squares, double n, float x0) const {
    const double mean = sum / n, variance = squares / n - mean * mean;
    return {static_cast<float>(static_cast<double>(x0) + mean),
            static_cast<float>(1.0 / __builtin_sqrt((variance < 0 ? 0 : variance) + epsilon_))};
  }

  Group statistics(const float* p, int64_t n) const {
    const V origin = Simd::all(p[0]);
    Moments m[2];
    int64_t i = 0;
    for (; i + 2 * W <= n; i += 2 * W)
      for (int j = 0; j < 2; ++j) m[j].add(Simd::sub(Simd::load(p + i + j * W), origin));
    for (; i < n; i += W) {
      const int64_t rest = n - i;
      m[0].add(Simd::sub(rest >= W ? Simd::load(p + i) : Simd::load(p + i, Simd::first(rest), origin), origin));
    }
    return group_of(m[0].values.total() + m[1].values.total(), m[0].squares.total() + m[1].squares.total(), static_cast<double>(n), p[0]);
  }

  static V affine(V x, V mean, V slope, V shift) { return Simd::fma(Simd::sub(x, mean), slope, shift); }

  static void affine_run(int64_t n, const float* x, V mean, V slope, V shift, float* y) {
    int64_t i = 0;
    for (; i + W <= n; i += W) Simd::store(y + i, affine(Simd::load(x + i), mean, slope, shift));
    if (const int64_t rest = n - i; rest > 0)
      Simd::store(y + i, affine(Simd::load(x + i, Simd::first(rest)), mean, slope, shift), Simd::first(rest));
  }

  // Adds rows of `width` elements, `stride` apart, to the sums of their lanes: [2, stride].
  static void sum_rows(const float* x, int64_t rows, int64_t width, int64_t stride, const float* origin, double* sums) {
    int64_t lane = 0;
    for (; lane + 2 * W <= width; lane += 2 * W) {
      const V from[2] = {Simd::load(origin + lane), Simd::load(origin + lane + W)};
      Moments m[2];
      for (int64_t r = 0; r < rows; ++r)
        for (int j = 0; j < 2; ++j) m[j].add(Simd::sub(Simd::load(x + r * stride + lane + j * W), from[j]));
      for (int j = 0; j < 2; ++j) add_lanes(m[j], W, stride, sums + lane + j * W);
    }
    for (; lane < width; lane += W) {
      const int64_t count = width - lane < W ? width - lane : W;
      const Lanes lanes = Simd::first(count);
      const V from = count == W ? Simd::load(origin + lane) : Simd::load(origin + lane, lanes);
      Moments m;
      for (int64_t r = 0; r < rows; ++r) {
        const float* p = x + r * stride + lane;
        m.add(Simd::sub(count == W ? Simd::load(p) : Simd::load(p, lanes), from));
      }
      add_lanes(m, count, stride, sums + lane);
    }
  }
  static void add_lanes(const Moments& m, int64_t count, int64_t stride, double* sums) {
    double values[W], squares[W];
    m.values.to(values);
    m.squares.to(squares);
    for (int64_t i = 0; i < count; ++i) {
      sums[i] += values[i];
      sums[stride + i] += squares[i];
    }
  }

  // From the sums of a sample's chunks to mean, slope and shift by lane, which follow the origin.
  void fold(const GroupNormRows& r, double* sums, float* factors) const {
    for (int64_t chunk = 1; chunk < r.chunks; ++chunk)
      for (int64_t i = 0; i < 2 * r.length; ++i) sums[i] += sums[chunk * 2 * r.length + i];
    const int64_t channels = s_.C / s_.G;
    float *mean = factors + r.length, *slope = mean + r.length, *shift = slope + r.length;
    for (int64_t g = 0; g < s_.G; ++g) {
      double sum = 0, squares = 0;
      for (int64_t pixel = 0; pixel < r.pixels; ++pixel)
        for (int64_t c = 0; c < channels; ++c) {
          sum += sums[pixel * s_.C + g * channels + c];
          squares += sums[r.length + pixel * s_.C + g * channels + c];
        }
      const Group group = group_of(sum, squares, static_cast<double>(channels * s_.S), factors[g * channels]);
      for (int64_t pixel = 0; pixel < r.pixels; ++pixel)
        for (int64_t c = 0; c < channels; ++c) {
          const int64_t channel = g * channels + c, lane = pixel * s_.C + channel;
          mean[lane] = group.mean;
          slope[lane] = group.inverse * scale_[channel];
          shift[lane] = bias_[channel];
        }
    }
  }

  // factors: [3, stride], mean, slope and shift by lane.
  static void affine_rows(const float* x, int64_t rows, int64_t width, int64_t stride, const float* factors, float* y) {
    for (int64_t lane = 0; lane < width; lane += W) {
      const int64_t count = width - lane < W ? width - lane : W;
      const Lanes lanes = Simd::first(count);
      V f[3];
      for (int i = 0; i < 3; ++i) f[i] = count == W ? Simd::load(factors + i * stride + lane) : Simd::load(factors + i * stride + lane, lanes);
      if (count == W) {
        for (int64_t at = lane; at < rows * stride; at += stride) Simd::store(y + at, affine(Simd::load(x + at), f[0], f[1], f[2]));
      } else {
        for (int64_t at = lane; at < rows * stride; at += stride)
          Simd::store(y + at, affine(Simd::load(x + at, lanes), f[0], f[1], f[2]), lanes);
      }
    }
  }

  const GroupNormShape& s_;
  const float *x_, *scale_, *bias_;
  const double epsilon_;
  float* y_;
};

}  // namespace
}  // namespace ds::kernels
