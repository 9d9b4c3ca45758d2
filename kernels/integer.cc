#include "kernels/integer.h"

#include <algorithm>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

inline int32_t byte_at(const void* data, bool is_signed, int64_t i) {
  return is_signed ? static_cast<const int8_t*>(data)[i] : static_cast<const uint8_t*>(data)[i];
}

}  // namespace

int32_t ZeroPoints::at(int64_t i) const { return values == nullptr ? 0 : byte_at(values, is_signed, count == 1 ? 0 : i); }

namespace {

// The sums of x * (b - zb) are those of x * b less zb times the sum of x.
template <typename A, typename B>
void matmul_loops(int64_t rows, int64_t columns, int64_t depth, const A* a, const ZeroPoints& za, const B* b, const ZeroPoints& zb, int32_t* sums) {
  parallel_for(rows, (1 << 14) / (depth * columns + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      auto* row = reinterpret_cast<uint32_t*>(sums) + m * columns;  // sums wrap
      for (int64_t n = 0; n < columns; ++n) row[n] = 0;
      const int32_t zero = za.at(m);
      uint32_t total = 0;
      for (int64_t k = 0; k < depth; ++k) {
        const int32_t x = a[m * depth + k] - zero;
        total += static_cast<uint32_t>(x);
        const B* from = b + k * columns;
        for (int64_t n = 0; n < columns; ++n) row[n] += static_cast<uint32_t>(x * from[n]);
      }
      for (int64_t n = 0; n < columns; ++n) row[n] -= total * static_cast<uint32_t>(zb.at(n));
    }
  });
}

}  // namespace

void integer_matmul(int64_t rows, int64_t columns, int64_t depth, const void* a, bool a_signed, const ZeroPoints& za, const void* b,
                    bool b_signed, const ZeroPoints& zb, int32_t* sums) {
  const auto with_a = [&](const auto* x) {
    if (b_signed) matmul_loops(rows, columns, depth, x, za, static_cast<const int8_t*>(b), zb, sums);
    else matmul_loops(rows, columns, depth, x, za, static_cast<const uint8_t*>(b), zb, sums);
  };
  if (a_signed) with_a(static_cast<const int8_t*>(a));
  else with_a(static_cast<const uint8_t*>(a));
}

void integer_conv(const ConvShape& s, const void* x, bool x_signed, int32_t x_zero, const void* w, bool w_signed,
                  const ZeroPoints& w_zero, int32_t* sums) {
  const int64_t gc = s.in_channels / s.groups, gm = s.out_channels / s.groups;
  const int64_t plane = s.out_plane();
  parallel_for(s.batch * s.out_channels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / s.out_channels, m = i % s.out_channels;
      const int32_t zero = w_zero.at(m);
      for (int64_t o = 0; o < plane; ++o) {
        const int64_t at[3] = {o / (s.out[1] * s.out[2]), o / s.out[2] % s.out[1], o % s.out[2]};
        uint32_t sum = 0;
        for (int64_t k = 0; k < s.kernel_size(); ++k) {
          const int64_t tap[3] = {k / (s.kernel[1] * s.kernel[2]), k / s.kernel[2] % s.kernel[1], k % s.kernel[2]};
          int64_t from = 0;
          bool inside = true;
          for (size_t d = 0; d < 3; ++d) {
            const int64_t p = at[d] * s.stride[d] + tap[d] * s.dilation[d] - s.pad_begin[d];
            inside = inside && p >= 0 && p < s.in[d];
            from = from * s.in[d] + p;
          }
          if (!inside) continue;
          for (int64_t c = 0; c < gc; ++c)
            sum += static_cast<uint32_t>((byte_at(x, x_signed, (n * s.in_channels + m / gm * gc + c) * s.in_plane() + from) - x_zero) *
                                         (byte_at(w, w_signed, (m * gc + c) * s.kernel_size() + k) - zero));
        }
        sums[i * plane + o] = static_cast<int32_t>(sum);
      }
    }
  });
}

namespace {

template <typename T>
void turn(int64_t batch, int64_t rows, int64_t columns, const T* x, T* y) {
  constexpr int64_t kTile = 32;  // of both: lines of cache are used while they are there
  const int64_t tiles = (columns + kTile - 1) / kTile;
  parallel_for(batch * tiles, (1 << 14) / (rows * kTile + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i / tiles * rows * columns, c0 = i % tiles * kTile, c1 = std::min(columns, c0 + kTile);
      for (int64_t r0 = 0; r0 < rows; r0 += kTile)
        for (int64_t c = c0; c < c1; ++c)
          for (int64_t r = r0; r < std::min(rows, r0 + kTile); ++r) y[at + c * rows + r] = x[at + r * columns + c];
    }
  });
}

}  // namespace

void turn_bytes(int64_t batch, int64_t rows, int64_t columns, const uint8_t* x, uint8_t* y) { turn(batch, rows, columns, x, y); }
void turn_sums(int64_t batch, int64_t rows, int64_t columns, const int32_t* x, int32_t* y) { turn(batch, rows, columns, x, y); }

}  // namespace ds::kernels
