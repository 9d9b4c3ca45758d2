// Iteration space of elementwise kernels with numpy broadcasting.
#pragma once

#include <algorithm>
#include <cstdint>

#include "libds/base/parallel.h"

namespace ds::kernels {

// Up to kMaxOperands inputs over up to kMaxRank axes; stride 0 repeats an operand along an axis. Adjacent
// axes that every operand walks evenly are merged by make_broadcast(), so equal shapes become one axis.
struct Broadcast {
  static constexpr int kMaxRank = 8, kMaxOperands = 8;
  int rank = 0, operands = 0;
  int64_t size[kMaxRank] = {};
  int64_t stride[kMaxOperands][kMaxRank] = {};
  int64_t total = 1;
};

// `dims[k]` is operand k's shape, right-aligned to out_dims (rank `rank`) and padded with ones by the caller.
Broadcast make_broadcast(int rank, const int64_t* out_dims, int operands, const int64_t* const* dims);

// Calls row(offsets, out_offset, length) for contiguous pieces of the output; offsets[k] is where operand
// k's piece starts, and its step inside the piece is row_step(space, k). Splits the work over threads.
template <typename Row>
void for_each_row(const Broadcast& s, int64_t grain, Row&& row) {
  if (s.total == 0) return;
  const int inner = s.rank - 1;
  const int64_t width = s.rank == 0 ? 1 : s.size[inner];
  const int64_t rows = s.total / width;
  if (rows == 1) {
    parallel_for(width, grain, [&](int64_t begin, int64_t end) {
      int64_t offsets[Broadcast::kMaxOperands] = {};
      for (int k = 0; k < s.operands; ++k) offsets[k] = begin * (s.rank == 0 ? 0 : s.stride[k][inner]);
      row(offsets, begin, end - begin);
    });
    return;
  }
  parallel_for(rows, grain / width + 1, [&](int64_t begin, int64_t end) {
    int64_t index[Broadcast::kMaxRank] = {}, offsets[Broadcast::kMaxOperands] = {};
    int64_t rest = begin;
    for (int d = inner - 1; d >= 0; --d) {
      index[d] = rest % s.size[d];
      rest /= s.size[d];
      for (int k = 0; k < s.operands; ++k) offsets[k] += index[d] * s.stride[k][d];
    }
    for (int64_t i = begin; i < end; ++i) {
      row(offsets, i * width, width);
      for (int d = inner - 1; d >= 0; --d) {  // the next row, like an odometer
        for (int k = 0; k < s.operands; ++k) offsets[k] += s.stride[k][d];
        if (++index[d] < s.size[d]) break;
        for (int k = 0; k < s.operands; ++k) offsets[k] -= s.size[d] * s.stride[k][d];
        index[d] = 0;
      }
    }
  });
}

inline int64_t row_step(const Broadcast& s, int operand) { return s.rank == 0 ? 0 : s.stride[operand][s.rank - 1]; }

// out[i] = op(a[i], b[i]) over the space; the common strides get loops that vectorise.
template <typename A, typename B, typename O, typename Op>
void broadcast_binary(const Broadcast& s, int64_t grain, const A* a, const B* b, O* out, Op op) {
  const int64_t step_a = row_step(s, 0), step_b = row_step(s, 1);
  for_each_row(s, grain, [&](const int64_t* offsets, int64_t at, int64_t n) {
    const A* pa = a + offsets[0];
    const B* pb = b + offsets[1];
    O* po = out + at;
    if (step_a == 1 && step_b == 1) {
      for (int64_t j = 0; j < n; ++j) po[j] = op(pa[j], pb[j]);
    } else if (step_a == 1 && step_b == 0) {
      const B y = *pb;
      for (int64_t j = 0; j < n; ++j) po[j] = op(pa[j], y);
    } else if (step_a == 0 && step_b == 1) {
      const A x = *pa;
      for (int64_t j = 0; j < n; ++j) po[j] = op(x, pb[j]);
    } else {
      for (int64_t j = 0; j < n; ++j) po[j] = op(pa[j * step_a], pb[j * step_b]);
    }
  });
}

}  // namespace ds::kernels
