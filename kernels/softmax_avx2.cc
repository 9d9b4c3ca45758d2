// Softmax over contiguous rows, eight floats at a time.
#include "kernels/simd_avx2.h"
#include "kernels/softmax.h"
#include "libds/base/parallel.h"

#include <cmath>

namespace ds::kernels::avx2 {
namespace {

constexpr int64_t kGrain = 1 << 13;  // elements worth a thread

// The largest lane; NaN may be lost.
inline float largest(F8 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// A NaN that is lost here is still in the row, and comes to all of it by the sum.
float row_max(const float* x, int64_t n) {
  float highest = x[0];
  int64_t i = 0;
  if (n >= kWidth) {
    F8 m = load(x);
    for (i = kWidth; i + kWidth <= n; i += kWidth) m = _mm256_max_ps(m, load(x + i));
    highest = largest(m);
  }
  for (; i < n; ++i) highest = x[i] > highest ? x[i] : highest;
  return highest;
}

// exp of what is not positive, 0 where it would be below the normal numbers: arithmetic on subnormal ones traps into
// microcode, and masked scores all end there.
inline F8 exp_of_shifted(F8 x) {
  constexpr float kLeast = -87.3f;
  // Not less rather than greater: NaN stays.
  return _mm256_and_ps(exp8(at_least(x, kLeast)), _mm256_cmp_ps(x, all(kLeast), _CMP_NLT_UQ));
}

// A row that fits a few registers is written once.
constexpr int64_t kShortBlocks = 16;

void short_row(int64_t n, F8 highest, const float* p, float* o) {
  F8 e[kShortBlocks];
  DoubleSum sum;
  for_each_block(0, n, [&](int64_t i, int64_t count, auto get, auto) {
    F8 v = exp_of_shifted(get(p + i) - highest);
    if (count < kWidth) v = _mm256_and_ps(v, _mm256_castsi256_ps(lanes(count)));
    e[i / kWidth] = v;
    sum.add(v);
  });
  const F8 factor = all(static_cast<float>(1.0 / sum.total()));
  for_each_block(0, n, [&](int64_t i, int64_t, auto, auto put) { put(o + i, e[i / kWidth] * factor); });
}

}  // namespace

void softmax(bool log, int64_t rows, int64_t n, const float* x, float* out) {
  if (n == 0) return;
  parallel_for(rows, kGrain / n + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* p = x + r * n;
      float* o = out + r * n;
      const F8 highest = all(row_max(p, n));
      if (!log && n <= kShortBlocks * kWidth) {
        short_row(n, highest, p, o);
        continue;
      }
      DoubleSum sum;
      for_each_block(0, n, [&](int64_t i, int64_t count, auto get, auto put) {
        const F8 shifted = get(p + i) - highest;
        F8 e = exp_of_shifted(shifted);
        put(o + i, log ? shifted : e);
        if (count < kWidth) e = _mm256_and_ps(e, _mm256_castsi256_ps(lanes(count)));
        sum.add(e);
      });
      const double total = sum.total();
      const F8 last = all(static_cast<float>(log ? ::log(total) : 1.0 / total));
      for_each_block(0, n, [&](int64_t i, int64_t, auto get, auto put) {
        const F8 v = get(o + i);
        put(o + i, log ? v - last : v * last);
      });
    }
  });
}

void softmax_columns(bool log, int64_t outer, int64_t n, int64_t inner, const float* x, float* out) {
  if (n == 0) return;
  const int64_t blocks = (inner + kWidth - 1) / kWidth;
  parallel_for(outer * blocks, kGrain / (n * kWidth) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t start = b / blocks * n * inner, column = b % blocks * kWidth;
      for_each_block(0, inner - column < kWidth ? inner - column : kWidth, [&](int64_t, int64_t, auto get, auto put) {
        const float* p = x + start + column;
        float* o = out + start + column;
        F8 highest = get(p);
        for (int64_t j = 1; j < n; ++j) highest = _mm256_max_ps(highest, get(p + j * inner));
        DoubleSum sum;
        for (int64_t j = 0; j < n; ++j) {
          const F8 shifted = get(p + j * inner) - highest, e = exp_of_shifted(shifted);
          put(o + j * inner, log ? shifted : e);
          sum.add(e);
        }
        double low[4], high[4];
        _mm256_storeu_pd(low, sum.low);
        _mm256_storeu_pd(high, sum.high);
        float last[kWidth];
        for (int i = 0; i < kWidth; ++i) {
          const double total = i < 4 ? low[i] : high[i - 4];
          last[i] = static_cast<float>(log ? ::log(total) : 1.0 / total);
        }
        const F8 by = load(last);
        for (int64_t j = 0; j < n; ++j) {
          const F8 v = get(o + j * inner);
          put(o + j * inner, log ? v - by : v * by);
        }
      });
    }
  });
}

void softmax_grad(bool log, int64_t rows, int64_t n, const float* y, const float* d_y, float* d_x) {
  if (n == 0) return;
  parallel_for(rows, kGrain / n + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* p = y + r * n;
      const float* d = d_y + r * n;
      float* o = d_x + r * n;
      DoubleSum sum;
      for_each_block(0, n, [&](int64_t i, int64_t, auto get, auto) {
        if (log) sum.add(get(d + i));
        else sum.add_product(get(d + i), get(p + i));
      });
      const F8 s = all(static_cast<float>(sum.total()));
      for_each_block(0, n, [&](int64_t i, int64_t, auto get, auto put) {
        const F8 v = get(p + i), g = get(d + i);
        put(o + i, log ? g - exp8(v) * s : v * (g - s));
      });
    }
  });
}

}  // namespace ds::kernels::avx2
