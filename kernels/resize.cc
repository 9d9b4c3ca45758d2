#include "kernels/resize.h"

#include <algorithm>
#include <cstring>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

int64_t grain_of(int64_t work) { return (1 << 14) / std::max<int64_t>(1, work) + 1; }

}  // namespace

template <typename T>
void resize_axis(int64_t outer, const AxisTaps& axis, int64_t inner, const T* src, T* dst) {
  parallel_for(outer, grain_of(axis.out * inner * axis.taps), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const T* in = src + p * axis.in * inner;
      T* out = dst + p * axis.out * inner;
      for (int64_t o = 0; o < axis.out; ++o, out += inner) {
        const int64_t* index = axis.index.data() + o * axis.taps;
        const double* weight = axis.weight.data() + o * axis.taps;
        const T w0 = static_cast<T>(weight[0]);
        const T* first = in + index[0] * inner;
        for (int64_t i = 0; i < inner; ++i) out[i] = w0 * first[i];
        for (int t = 1; t < axis.taps; ++t) {
          const T w = static_cast<T>(weight[t]);
          const T* row = in + index[t] * inner;
          for (int64_t i = 0; i < inner; ++i) out[i] += w * row[i];
        }
      }
    }
  });
}

template <typename T>
void resize_axis_grad(int64_t outer, const AxisTaps& axis, int64_t inner, const T* d_dst, T* d_src) {
  parallel_for(outer, grain_of(axis.out * inner * axis.taps), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      T* in = d_src + p * axis.in * inner;
      const T* out = d_dst + p * axis.out * inner;
      std::fill(in, in + axis.in * inner, T(0));
      for (int64_t o = 0; o < axis.out; ++o, out += inner) {
        for (int t = 0; t < axis.taps; ++t) {
          const T w = static_cast<T>(axis.weight[static_cast<size_t>(o * axis.taps + t)]);
          T* row = in + axis.index[static_cast<size_t>(o * axis.taps + t)] * inner;
          for (int64_t i = 0; i < inner; ++i) row[i] += w * out[i];
        }
      }
    }
  });
}

void resize_axis_copy(int64_t outer, const AxisTaps& axis, int64_t inner, size_t element, const std::byte* src, std::byte* dst) {
  const auto row = static_cast<int64_t>(element) * inner;
  parallel_for(outer, grain_of(axis.out * inner), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      for (int64_t o = 0; o < axis.out; ++o)
        std::memcpy(dst + (p * axis.out + o) * row, src + (p * axis.in + axis.index[static_cast<size_t>(o)]) * row, static_cast<size_t>(row));
  });
}

void resize_plane_copy(int64_t outer, const AxisTaps& rows, const AxisTaps& columns, int64_t inner, size_t element, const std::byte* src,
                       std::byte* dst) {
  const auto piece = static_cast<int64_t>(element) * inner;
  const int64_t *row = rows.index.data(), *column = columns.index.data();
  parallel_for(outer * rows.out, grain_of(columns.out * inner), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t p = i / rows.out, o = i % rows.out;
      std::byte* to = dst + i * columns.out * piece;
      if (i > begin && o > 0 && row[o] == row[o - 1]) {
        std::memcpy(to, to - columns.out * piece, static_cast<size_t>(columns.out * piece));
        continue;
      }
      const std::byte* from = src + (p * rows.in + row[o]) * columns.in * piece;
      if (piece == sizeof(uint32_t)) {
        for (int64_t c = 0; c < columns.out; ++c) std::memcpy(to + c * 4, from + column[c] * 4, 4);
      } else {
        for (int64_t c = 0; c < columns.out; ++c) std::memcpy(to + c * piece, from + column[c] * piece, static_cast<size_t>(piece));
      }
    }
  });
}

template void resize_axis(int64_t, const AxisTaps&, int64_t, const float*, float*);
template void resize_axis(int64_t, const AxisTaps&, int64_t, const double*, double*);
template void resize_axis_grad(int64_t, const AxisTaps&, int64_t, const float*, float*);
template void resize_axis_grad(int64_t, const AxisTaps&, int64_t, const double*, double*);

}  // namespace ds::kernels
