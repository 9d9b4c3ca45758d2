// The passes of batch normalization, eight floats at a time.
#include "kernels/batchnorm.h"
#include "kernels/simd_avx2.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth a thread

// Zero in the lanes beyond `count`.
inline F8 only(F8 v, int64_t count) { return count == kWidth ? v : _mm256_and_ps(v, _mm256_castsi256_ps(lanes(count))); }

// add(c, block offset, count, get, first, second) accumulates a block of channel c in two sums (S > 1), or
// a block of channels c .. c + count (S = 1).
template <typename Add>
void channel_sums(BatchShape b, double* sums, Add&& add) {
  if (b.S > 1) {
    parallel_for(b.C, kGrain / (b.N * b.S + 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        DoubleSum first, second;
        for (int64_t n = 0; n < b.N; ++n) {
          const int64_t row = (n * b.C + c) * b.S;
          for_each_block(0, b.S, [&](int64_t i, int64_t count, auto get, auto) { add(c, row + i, count, get, first, second); });
        }
        sums[c] = first.total();
        sums[b.C + c] = second.total();
      }
    });
    return;
  }
  const int64_t blocks = (b.C + kWidth - 1) / kWidth;
  parallel_for(blocks, kGrain / (b.N * kWidth + 1) + 1, [&](int64_t begin, int64_t end) {
    const int64_t last = end * kWidth < b.C ? end * kWidth : b.C;
    for_each_block(begin * kWidth, last, [&](int64_t c, int64_t count, auto get, auto) {
      DoubleSum first, second;
      for (int64_t n = 0; n < b.N; ++n) add(c, n * b.C + c, count, get, first, second);
      double lanes[2][8];
      for (int k = 0; k < 2; ++k) {
        const DoubleSum& s = k == 0 ? first : second;
        _mm256_storeu_pd(lanes[k], s.low);
        _mm256_storeu_pd(lanes[k] + 4, s.high);
        for (int64_t j = 0; j < count; ++j) sums[k * b.C + c + j] = lanes[k][j];
      }
    });
  });
}

// Per-channel factors of a block: one number for all lanes, or a vector of neighbours when S is 1.
template <typename Get>
inline F8 factor(BatchShape b, const float* p, int64_t c, Get get) { return b.S > 1 ? all(p[c]) : get(p + c); }

void stats(BatchShape b, const float* x, double* sums) {
  channel_sums(b, sums, [&](int64_t c, int64_t at, int64_t count, auto get, DoubleSum& sum, DoubleSum& squares) {
    const F8 shift = b.S > 1 ? all(x[c * b.S]) : get(x + c);
    const F8 v = only(get(x + at) - shift, count);
    sum.add(v);
    squares.add_product(v, v);
  });
}

void grad_sums(BatchShape b, const float* x, const float* d_y, const float* mean, double* sums) {
  channel_sums(b, sums, [&](int64_t c, int64_t at, int64_t, auto get, DoubleSum& sum, DoubleSum& products) {
    const F8 d = get(d_y + at);  // zero beyond the tail
    sum.add(d);
    products.add_product(d, get(x + at) - factor(b, mean, c, get));
  });
}

// block(c, offset, get, put) over the whole tensor.
template <typename Block>
void for_each_channel_block(BatchShape b, Block&& block) {
  const int64_t rows = b.S > 1 ? b.N * b.C : b.N, width = b.S > 1 ? b.S : b.C;
  parallel_for(rows, kGrain / (width + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for_each_block(0, width, [&](int64_t i, int64_t, auto get, auto put) { block(b.S > 1 ? r % b.C : i, r * width + i, get, put); });
  });
}

void affine(BatchShape b, const float* x, const float* a, const float* shift, float* y) {
  for_each_channel_block(b, [&](int64_t c, int64_t at, auto get, auto put) {
    put(y + at, fma(get(x + at), factor(b, a, c, get), factor(b, shift, c, get)));
  });
}

void grad_affine(BatchShape b, const float* x, const float* d_y, const float* a, const float* k, const float* s, float* d_x) {
  for_each_channel_block(b, [&](int64_t c, int64_t at, auto get, auto put) {
    const F8 rest = fma(get(x + at), factor(b, k, c, get), factor(b, s, c, get));
    put(d_x + at, fma(get(d_y + at), factor(b, a, c, get), rest));
  });
}

}  // namespace

BatchPasses<float> avx2_batch_passes() { return {stats, grad_sums, affine, grad_affine}; }

}  // namespace ds::kernels
