#include "kernels/layout_moves.h"

#include <algorithm>
#include <cstring>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kGrainBytes = 1 << 15;  // bytes worth a thread
constexpr int64_t kTile = 16;

template <typename F>
void dispatch_size(size_t element_size, F&& f) {
  switch (element_size) {
    case 1: return f(uint8_t{});
    case 2: return f(uint16_t{});
    case 4: return f(uint32_t{});
    default: return f(uint64_t{});
  }
}

// Walks the axes of `s` other than `skip_a` and `skip_b` in row-major order, keeping both offsets.
class OuterWalk {
 public:
  OuterWalk(const StridedCopy& s, int skip_a, int skip_b) {
    for (int d = 0; d < s.rank; ++d) {
      if (d == skip_a || d == skip_b) continue;
      size_[rank_] = s.size[d];
      src_stride_[rank_] = s.src_stride[d];
      dst_stride_[rank_] = s.dst_stride[d];
      count_ *= s.size[d];
      ++rank_;
    }
  }
  int64_t count() const { return count_; }
  void seek(int64_t i) {
    src = dst = 0;
    for (int d = rank_ - 1; d >= 0; --d) {
      index_[d] = i % size_[d];
      i /= size_[d];
      src += index_[d] * src_stride_[d];
      dst += index_[d] * dst_stride_[d];
    }
  }
  void next() {
    for (int d = rank_ - 1; d >= 0; --d) {
      src += src_stride_[d];
      dst += dst_stride_[d];
      if (++index_[d] < size_[d]) return;
      src -= size_[d] * src_stride_[d];
      dst -= size_[d] * dst_stride_[d];
      index_[d] = 0;
    }
  }
  int64_t src = 0, dst = 0;

 private:
  int rank_ = 0;
  int64_t size_[StridedCopy::kMaxRank], src_stride_[StridedCopy::kMaxRank], dst_stride_[StridedCopy::kMaxRank];
  int64_t index_[StridedCopy::kMaxRank];
  int64_t count_ = 1;
};

// Runs of up to a few cache lines by pieces of 16 bytes, the last of which may overlap: a call of memcpy costs more.
inline void copy_bytes(std::byte* dst, const std::byte* src, size_t n) {
  constexpr size_t kPiece = 16, kMost = 256;
  if (n < kPiece || n > kMost) {
    std::memcpy(dst, src, n);
    return;
  }
  for (size_t i = 0; i + kPiece <= n; i += kPiece) std::memcpy(dst + i, src + i, kPiece);
  std::memcpy(dst + n - kPiece, src + n - kPiece, kPiece);
}

template <typename T>
void copy_row(int64_t n, const T* src, int64_t ss, T* dst, int64_t ds) {
  if (ss == 1 && ds == 1) {
    copy_bytes(reinterpret_cast<std::byte*>(dst), reinterpret_cast<const std::byte*>(src), static_cast<size_t>(n) * sizeof(T));
  } else if (ss == 0 && ds == 1) {
    std::fill_n(dst, n, *src);
  } else {
    for (int64_t j = 0; j < n; ++j) dst[j * ds] = src[j * ss];
  }
}

// dst[a*da + b] = src[a + b*sb] for a < na, b < nb.
template <typename T>
void transpose_tile(int64_t na, int64_t nb, const T* src, int64_t sb, T* dst, int64_t da) {
  for (int64_t a = 0; a < na; ++a)
    for (int64_t b = 0; b < nb; ++b) dst[a * da + b] = src[a + b * sb];
}

using Vec4 = uint32_t __attribute__((vector_size(16)));

template <>
void transpose_tile(int64_t na, int64_t nb, const uint32_t* src, int64_t sb, uint32_t* dst, int64_t da) {
  const int64_t na4 = na & ~int64_t{3}, nb4 = nb & ~int64_t{3};
  for (int64_t b = 0; b < nb4; b += 4) {
    for (int64_t a = 0; a < na4; a += 4) {
      Vec4 r[4];
      for (int i = 0; i < 4; ++i) std::memcpy(&r[i], src + a + (b + i) * sb, sizeof(Vec4));
      const Vec4 t0 = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5), t1 = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
      const Vec4 t2 = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7), t3 = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
      const Vec4 o[4] = {__builtin_shufflevector(t0, t1, 0, 1, 4, 5), __builtin_shufflevector(t0, t1, 2, 3, 6, 7),
                         __builtin_shufflevector(t2, t3, 0, 1, 4, 5), __builtin_shufflevector(t2, t3, 2, 3, 6, 7)};
      for (int i = 0; i < 4; ++i) std::memcpy(dst + (a + i) * da + b, &o[i], sizeof(Vec4));
    }
    for (int64_t a = na4; a < na; ++a)
      for (int64_t i = 0; i < 4; ++i) dst[a * da + b + i] = src[a + (b + i) * sb];
  }
  for (int64_t a = 0; a < na; ++a)
    for (int64_t b = nb4; b < nb; ++b) dst[a * da + b] = src[a + b * sb];
}

template <typename T>
void copy_tiled(const StridedCopy& s, const T* src, T* dst) {
  const int inner = s.rank - 1, tile = s.tile_axis;
  const int64_t na = s.size[tile], nb = s.size[inner], sb = s.src_stride[inner], da = s.dst_stride[tile];
  const int64_t strips = (na + kTile - 1) / kTile;
  const OuterWalk shape(s, tile, inner);
  const int64_t strip_bytes = kTile * nb * static_cast<int64_t>(sizeof(T));
  parallel_for(shape.count() * strips, kGrainBytes / strip_bytes + 1, [&](int64_t begin, int64_t end) {
    OuterWalk walk = shape;
    for (int64_t i = begin; i < end; ++i) {
      if (i == begin || i % strips == 0) walk.seek(i / strips);
      const int64_t a = i % strips * kTile, width = std::min(kTile, na - a);
      for (int64_t b = 0; b < nb; b += kTile)
        transpose_tile(width, std::min(kTile, nb - b), src + walk.src + a + b * sb, sb, dst + walk.dst + a * da + b, da);
    }
  });
}

// Runs of `bytes` at even distances, such as the channels of pixels. kBytes: 0, or bytes.
template <size_t kBytes>
void copy_runs(int64_t count, size_t bytes, const std::byte* src, int64_t src_step, std::byte* dst, int64_t dst_step) {
  for (int64_t i = 0; i < count; ++i, src += src_step, dst += dst_step) {
    if constexpr (kBytes > 0) std::memcpy(dst, src, kBytes);
    else copy_bytes(dst, src, bytes);
  }
}

template <typename T>
void copy_even_runs(const StridedCopy& s, const T* src, T* dst) {
  const auto bytes = static_cast<size_t>(s.size[1]) * sizeof(T);
  const auto src_step = s.src_stride[0] * static_cast<int64_t>(sizeof(T)), dst_step = s.dst_stride[0] * static_cast<int64_t>(sizeof(T));
  auto* run = copy_runs<0>;
  switch (bytes) {
    case 4: run = copy_runs<4>; break;
    case 8: run = copy_runs<8>; break;
    case 12: run = copy_runs<12>; break;
    case 16: run = copy_runs<16>; break;
    case 32: run = copy_runs<32>; break;
    case 48: run = copy_runs<48>; break;
    case 64: run = copy_runs<64>; break;
    case 96: run = copy_runs<96>; break;
    case 128: run = copy_runs<128>; break;
    default: break;
  }
  parallel_for(s.size[0], kGrainBytes / static_cast<int64_t>(bytes) + 1, [&](int64_t begin, int64_t end) {
    run(end - begin, bytes, reinterpret_cast<const std::byte*>(src) + begin * src_step, src_step, reinterpret_cast<std::byte*>(dst) + begin * dst_step,
        dst_step);
  });
}

template <typename T>
void copy_rows(const StridedCopy& s, const T* src, T* dst) {
  const int inner = s.rank - 1;
  const int64_t n = s.size[inner], ss = s.src_stride[inner], ds = s.dst_stride[inner];
  if (s.rank == 2 && ss == 1 && ds == 1) return copy_even_runs(s, src, dst);
  const OuterWalk shape(s, inner, inner);
  const int64_t row_bytes = n * static_cast<int64_t>(sizeof(T));
  if (shape.count() == 1) {
    parallel_for(n, kGrainBytes / static_cast<int64_t>(sizeof(T)), [&](int64_t begin, int64_t end) {
      copy_row(end - begin, src + begin * ss, ss, dst + begin * ds, ds);
    });
    return;
  }
  parallel_for(shape.count(), kGrainBytes / row_bytes + 1, [&](int64_t begin, int64_t end) {
    OuterWalk walk = shape;
    walk.seek(begin);
    for (int64_t i = begin; i < end; ++i, walk.next()) copy_row(n, src + walk.src, ss, dst + walk.dst, ds);
  });
}

}  // namespace

StridedCopy make_strided_copy(int rank, const int64_t* size, const int64_t* src_stride, const int64_t* dst_stride) {
  StridedCopy s;
  for (int d = 0; d < rank; ++d) {
    s.total *= size[d];
    if (size[d] == 1) continue;
    const int last = s.rank - 1;
    if (last >= 0 && s.src_stride[last] == src_stride[d] * size[d] && s.dst_stride[last] == dst_stride[d] * size[d]) {
      s.size[last] *= size[d];
      s.src_stride[last] = src_stride[d];
      s.dst_stride[last] = dst_stride[d];
      continue;
    }
    s.size[s.rank] = size[d];
    s.src_stride[s.rank] = src_stride[d];
    s.dst_stride[s.rank] = dst_stride[d];
    ++s.rank;
  }
  const int inner = s.rank - 1;
  if (s.rank >= 2 && s.dst_stride[inner] == 1 && s.src_stride[inner] != 1 && s.src_stride[inner] != 0) {
    for (int d = 0; d < inner; ++d)
      if (s.src_stride[d] == 1 && s.size[d] >= 4) s.tile_axis = d;
  }
  return s;
}

void strided_copy(const StridedCopy& s, size_t element_size, const void* src, void* dst) {
  if (s.total == 0) return;
  dispatch_size(element_size, [&](auto tag) {
    using T = decltype(tag);
    const T* from = static_cast<const T*>(src);
    T* to = static_cast<T*>(dst);
    if (s.rank == 0) *to = *from;
    else if (s.tile_axis >= 0) copy_tiled(s, from, to);
    else copy_rows(s, from, to);
  });
}

void fill(int64_t n, size_t element_size, const void* value, void* dst) {
  dispatch_size(element_size, [&](auto tag) {
    using T = decltype(tag);
    T v;
    std::memcpy(&v, value, sizeof v);
    parallel_for(n, kGrainBytes / static_cast<int64_t>(sizeof(T)),
                 [&](int64_t begin, int64_t end) { std::fill(static_cast<T*>(dst) + begin, static_cast<T*>(dst) + end, v); });
  });
}

Pad make_pad(int rank, const int64_t* in, const int64_t* out, const int64_t* begin, PadMode mode) {
  Pad p;
  // Axes at the end that keep all they have go into the one before, which then has `unit` elements for each.
  int64_t unit = 1;
  for (; rank > 1 && begin[rank - 1] == 0 && out[rank - 1] == in[rank - 1]; --rank) unit *= in[rank - 1];
  p.rank = rank;
  p.out_size.assign(out, out + rank);
  p.in_stride.assign(static_cast<size_t>(rank), 1);
  if (rank > 1) p.in_stride[static_cast<size_t>(rank) - 2] = unit * in[rank - 1];
  for (int d = rank - 3; d >= 0; --d) p.in_stride[static_cast<size_t>(d)] = p.in_stride[static_cast<size_t>(d) + 1] * in[d + 1];
  for (int d = 0; d < rank; ++d) {
    std::vector<int64_t> source(static_cast<size_t>(out[d]));
    const int64_t n = in[d];
    for (int64_t i = 0; i < out[d]; ++i) {
      int64_t j = i - begin[d];
      if (j < 0 || j >= n) {
        if (mode == PadMode::kConstant) {
          j = -1;
        } else if (mode == PadMode::kEdge) {
          j = std::clamp<int64_t>(j, 0, n - 1);
        } else if (mode == PadMode::kWrap) {
          j = (j % n + n) % n;
        } else {
          const int64_t period = n == 1 ? 1 : 2 * (n - 1);
          j = (j % period + period) % period;
          if (j >= n) j = period - j;
        }
      }
      source[static_cast<size_t>(i)] = j;
    }
    p.source.push_back(std::move(source));
  }
  if (rank > 0) {
    p.run_begin = unit * std::clamp<int64_t>(begin[rank - 1], 0, out[rank - 1]);
    p.run_end = std::max(p.run_begin, unit * std::clamp<int64_t>(begin[rank - 1] + in[rank - 1], 0, out[rank - 1]));
    std::vector<int64_t> last(static_cast<size_t>(unit * out[rank - 1]));
    for (int64_t i = 0; i < static_cast<int64_t>(last.size()); ++i) {
      const int64_t from = p.source.back()[static_cast<size_t>(i / unit)];
      last[static_cast<size_t>(i)] = from < 0 ? -1 : from * unit + i % unit;
    }
    p.source.back() = std::move(last);
    p.out_size.back() *= unit;
  }
  return p;
}

namespace {

// Calls row(output row number, input offset or -1) for rows [begin, end).
template <typename Row>
void for_pad_rows(const Pad& p, int64_t begin, int64_t end, Row&& row) {
  for (int64_t i = begin; i < end; ++i) {
    int64_t rest = i, offset = 0;
    for (int d = p.rank - 2; d >= 0; --d) {
      const auto u = static_cast<size_t>(d);
      const int64_t from = p.source[u][static_cast<size_t>(rest % p.out_size[u])];
      rest /= p.out_size[u];
      if (from < 0) {
        offset = -1;
        break;
      }
      offset += from * p.in_stride[u];
    }
    row(i, offset);
  }
}

int64_t pad_rows(const Pad& p) {
  int64_t rows = 1;
  for (int d = 0; d + 1 < p.rank; ++d) rows *= p.out_size[static_cast<size_t>(d)];
  return rows;
}

}  // namespace

void pad(const Pad& p, size_t element_size, const void* src, const void* value, void* dst) {
  dispatch_size(element_size, [&](auto tag) {
    using T = decltype(tag);
    const T* from = static_cast<const T*>(src);
    T* to = static_cast<T*>(dst);
    T v{};
    if (value != nullptr) std::memcpy(&v, value, sizeof v);
    if (p.rank == 0) {
      *to = *from;
      return;
    }
    const int64_t width = p.out_size.back();
    if (width == 0) return;
    const std::vector<int64_t>& last = p.source.back();
    parallel_for(pad_rows(p), kGrainBytes / (width * static_cast<int64_t>(sizeof(T))) + 1, [&](int64_t begin, int64_t end) {
      for_pad_rows(p, begin, end, [&](int64_t i, int64_t offset) {
        T* out = to + i * width;
        if (offset < 0) {
          std::fill_n(out, width, v);
          return;
        }
        const auto edge = [&](int64_t j) {
          const int64_t k = last[static_cast<size_t>(j)];
          out[j] = k < 0 ? v : from[offset + k];
        };
        for (int64_t j = 0; j < p.run_begin; ++j) edge(j);
        if (p.run_end > p.run_begin)
          std::memcpy(out + p.run_begin, from + offset + last[static_cast<size_t>(p.run_begin)],
                      static_cast<size_t>(p.run_end - p.run_begin) * sizeof(T));
        for (int64_t j = p.run_end; j < width; ++j) edge(j);
      });
    });
  });
}

template <typename T>
void pad_grad(const Pad& p, int64_t n_in, const T* d_dst, T* d_src) {
  std::fill_n(d_src, n_in, T(0));
  if (p.rank == 0) {
    *d_src = *d_dst;
    return;
  }
  const int64_t width = p.out_size.back();
  const std::vector<int64_t>& last = p.source.back();
  for_pad_rows(p, 0, pad_rows(p), [&](int64_t i, int64_t offset) {
    if (offset < 0) return;
    for (int64_t j = 0; j < width; ++j) {
      const int64_t k = last[static_cast<size_t>(j)];
      if (k >= 0) d_src[offset + k] += d_dst[i * width + j];
    }
  });
}

void trilu(int64_t batch, int64_t rows, int64_t cols, int64_t k, bool upper, size_t element_size, const void* src,
           void* dst) {
  if (cols == 0) return;
  dispatch_size(element_size, [&](auto tag) {
    using T = decltype(tag);
    parallel_for(batch * rows, kGrainBytes / (cols * static_cast<int64_t>(sizeof(T))) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const T* from = static_cast<const T*>(src) + i * cols;
        T* to = static_cast<T*>(dst) + i * cols;
        const int64_t r = i % rows;
        // Column r + k is the diagonal; upper keeps [r+k, cols), lower keeps [0, r+k].
        const int64_t first = upper ? std::clamp<int64_t>(r + k, 0, cols) : 0;
        const int64_t last = upper ? cols : std::clamp<int64_t>(r + k + 1, 0, cols);
        std::fill(to, to + first, T(0));
        std::copy(from + first, from + last, to + first);
        std::fill(to + last, to + cols, T(0));
      }
    });
  });
}

template void pad_grad(const Pad&, int64_t, const float*, float*);
template void pad_grad(const Pad&, int64_t, const double*, double*);

}  // namespace ds::kernels
