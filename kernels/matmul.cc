#include "kernels/matmul.h"

#include <algorithm>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kRows = 64, kColumns = 64, kDepth = 128;  // block of C; depth of a packed panel of B
constexpr int kTileRows = 4, kTileColumns = 8;              // held in registers

// acc[r][q] = sum over p of a[r*row + p*column] * panel[p][q]; then into c.
template <typename T, int R>
void tile(int64_t depth, const T* a, int64_t row, int64_t column, const T* panel, T alpha, bool accumulate, T* c,
          int64_t c_stride, int64_t width) {
  T acc[R][kTileColumns] = {};
  for (int64_t p = 0; p < depth; ++p) {
    const T* b = panel + p * kColumns;
    for (int r = 0; r < R; ++r) {
      const T v = a[r * row + p * column];
      for (int q = 0; q < kTileColumns; ++q) acc[r][q] += v * b[q];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int64_t q = 0; q < width; ++q) {
      T* out = c + r * c_stride + q;
      *out = accumulate ? *out + alpha * acc[r][q] : alpha * acc[r][q];
    }
}

template <typename T>
void block(const GemmShape& s, T alpha, const T* a, const T* b, bool accumulate, T* c, int64_t i0, int64_t j0) {
  const int64_t i1 = std::min(s.m, i0 + kRows), j1 = std::min(s.n, j0 + kColumns), width = j1 - j0;
  const int64_t row = s.trans_a ? 1 : s.k, column = s.trans_a ? s.m : 1;
  if (s.k == 0) {
    for (int64_t i = i0; i < i1; ++i)
      if (!accumulate) std::fill(c + i * s.n + j0, c + i * s.n + j1, T(0));
    return;
  }
  alignas(64) T panel[kDepth * kColumns];
  for (int64_t k0 = 0; k0 < s.k; k0 += kDepth) {
    const int64_t depth = std::min(kDepth, s.k - k0);
    for (int64_t p = 0; p < depth; ++p) {
      T* to = panel + p * kColumns;
      if (s.trans_b) {
        for (int64_t j = 0; j < width; ++j) to[j] = b[(j0 + j) * s.k + k0 + p];
      } else {
        std::copy(b + (k0 + p) * s.n + j0, b + (k0 + p) * s.n + j1, to);
      }
      std::fill(to + width, to + kColumns, T(0));
    }
    const bool add = accumulate || k0 > 0;
    for (int64_t i = i0; i < i1; i += kTileRows) {
      const T* from = a + i * row + k0 * column;
      for (int64_t j = 0; j < width; j += kTileColumns) {
        const int64_t w = std::min<int64_t>(kTileColumns, width - j);
        T* to = c + i * s.n + j0 + j;
        switch (std::min<int64_t>(kTileRows, i1 - i)) {
          case 4: tile<T, 4>(depth, from, row, column, panel + j, alpha, add, to, s.n, w); break;
          case 3: tile<T, 3>(depth, from, row, column, panel + j, alpha, add, to, s.n, w); break;
          case 2: tile<T, 2>(depth, from, row, column, panel + j, alpha, add, to, s.n, w); break;
          default: tile<T, 1>(depth, from, row, column, panel + j, alpha, add, to, s.n, w); break;
        }
      }
    }
  }
}

}  // namespace

template <typename T>
void gemm(const GemmShape& s, int64_t batch, T alpha, const T* a, const int64_t* a_offset, const T* b,
          const int64_t* b_offset, bool accumulate, T* c) {
  const int64_t down = (s.m + kRows - 1) / kRows, across = (s.n + kColumns - 1) / kColumns;
  const int64_t work = std::min(kRows, s.m) * std::min(kColumns, s.n) * std::max<int64_t>(1, s.k);
  parallel_for(batch * down * across, (1 << 15) / std::max<int64_t>(1, work) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t e = i / (down * across), rest = i % (down * across);
      block(s, alpha, a + (a_offset == nullptr ? 0 : a_offset[e]), b + (b_offset == nullptr ? 0 : b_offset[e]), accumulate,
            c + e * s.m * s.n, rest / across * kRows, rest % across * kColumns);
    }
  });
}

template <typename T>
void broadcast_matrix(int64_t m, int64_t n, T beta, const T* c, int64_t row_step, int64_t column_step, T* y) {
  parallel_for(m, (1 << 14) / std::max<int64_t>(1, n) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = 0; j < n; ++j) y[i * n + j] = beta * c[i * row_step + j * column_step];
  });
}

template void gemm(const GemmShape&, int64_t, float, const float*, const int64_t*, const float*, const int64_t*, bool, float*);
template void gemm(const GemmShape&, int64_t, double, const double*, const int64_t*, const double*, const int64_t*, bool,
                   double*);
template void gemm(const GemmShape&, int64_t, uint32_t, const uint32_t*, const int64_t*, const uint32_t*, const int64_t*, bool, uint32_t*);
template void gemm(const GemmShape&, int64_t, uint64_t, const uint64_t*, const int64_t*, const uint64_t*, const int64_t*, bool, uint64_t*);
template void broadcast_matrix(int64_t, int64_t, float, const float*, int64_t, int64_t, float*);
template void broadcast_matrix(int64_t, int64_t, double, const double*, int64_t, int64_t, double*);
template void broadcast_matrix(int64_t, int64_t, uint32_t, const uint32_t*, int64_t, int64_t, uint32_t*);
template void broadcast_matrix(int64_t, int64_t, uint64_t, const uint64_t*, int64_t, int64_t, uint64_t*);

}  // namespace ds::kernels
