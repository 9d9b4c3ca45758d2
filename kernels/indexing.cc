#include "kernels/indexing.h"

#include <algorithm>
#include <cstring>

#include "libds/base/half.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kGrainBytes = 1 << 15;

inline int64_t wrap(int64_t index, int64_t dim) { return index < 0 ? index + dim : index; }

template <typename T>
inline T reduce(ScatterReduction reduction, T old, T update) {
  if constexpr (std::is_same_v<T, bool>) {
    // On booleans addition is or, multiplication is and.
    switch (reduction) {
      case ScatterReduction::kNone: return update;
      case ScatterReduction::kAdd:
      case ScatterReduction::kMax: return old || update;
      default: return old && update;
    }
  } else if constexpr (std::is_same_v<T, f16> || std::is_same_v<T, bf16>) {
    return reduction == ScatterReduction::kNone
               ? update
               : T(reduce<float>(reduction, static_cast<float>(old), static_cast<float>(update)));
  } else {
    switch (reduction) {
      case ScatterReduction::kNone: return update;
      case ScatterReduction::kAdd: return static_cast<T>(old + update);
      case ScatterReduction::kMul: return static_cast<T>(old * update);
      case ScatterReduction::kMax: return std::max(old, update);
      case ScatterReduction::kMin: return std::min(old, update);
    }
    return update;
  }
}

// Walks all index tuples in rows along the last axis: f(flat index of the row's start, data offset of the
// row with the coordinate on `axis` taken as zero, row length).
template <typename F>
void for_element_rows(const ElementsSpace& s, int64_t begin, int64_t end, F&& f) {
  int64_t stride[ElementsSpace::kMaxRank];
  int64_t step = 1;
  for (int d = s.rank - 1; d >= 0; --d) {
    stride[d] = step;
    step *= s.data_size[d];
  }
  const int64_t width = s.size[s.rank - 1];
  for (int64_t row = begin; row < end; ++row) {
    int64_t rest = row, offset = 0;
    for (int d = s.rank - 2; d >= 0; --d) {
      if (d != s.axis) offset += rest % s.size[d] * stride[d];
      rest /= s.size[d];
    }
    f(row * width, offset, stride[s.axis]);
  }
}

int64_t element_rows(const ElementsSpace& s) {
  int64_t rows = 1;
  for (int d = 0; d + 1 < s.rank; ++d) rows *= s.size[d];
  return rows;
}

template <typename I, typename T>
void gather_elements_of(const ElementsSpace& s, const I* indices, const T* src, T* dst) {
  const int64_t width = s.size[s.rank - 1], dim = s.data_size[s.axis];
  if (width == 0) return;
  const int64_t along = s.axis == s.rank - 1 ? 0 : 1;  // whether the row moves through data as well
  parallel_for(element_rows(s), kGrainBytes / (width * static_cast<int64_t>(sizeof(T))) + 1, [&](int64_t begin, int64_t end) {
    for_element_rows(s, begin, end, [&](int64_t at, int64_t offset, int64_t stride) {
      for (int64_t j = 0; j < width; ++j)
        dst[at + j] = src[offset + j * along + wrap(indices[at + j], dim) * stride];
    });
  });
}

int64_t tuple_offset(const TupleSpace& s, const int64_t* indices, int64_t t) {
  int64_t offset = t / s.tuples_per_batch * s.batch_stride;
  for (int d = 0; d < s.depth; ++d) offset += wrap(indices[t * s.depth + d], s.size[d]) * s.stride[d];
  return offset;
}

}  // namespace

template <typename I>
int64_t first_outside(int64_t n, const I* indices, int64_t dim) {
  for (int64_t i = 0; i < n; ++i)
    if (indices[i] < -dim || indices[i] >= dim) return i;
  return -1;
}

template <typename I>
void gather(int64_t outer, int64_t dim, int64_t inner, size_t element_size, int64_t n, const I* indices, const void* src,
            void* dst) {
  const int64_t bytes = inner * static_cast<int64_t>(element_size);
  if (bytes == 0) return;
  const auto* from = static_cast<const std::byte*>(src);
  auto* to = static_cast<std::byte*>(dst);
  parallel_for(outer * n, kGrainBytes / bytes + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(to + i * bytes, from + (i / n * dim + wrap(indices[i % n], dim)) * bytes, static_cast<size_t>(bytes));
  });
}

template <typename T, typename I>
void gather_grad(int64_t outer, int64_t dim, int64_t inner, int64_t n, const I* indices, const T* d_dst, T* d_src) {
  // One piece of work: some columns of one outer block. Blocks of columns keep enough work for every thread.
  constexpr int64_t kColumns = 16;
  const int64_t blocks = (inner + kColumns - 1) / kColumns;
  parallel_for(outer * blocks, kGrainBytes / (std::max<int64_t>(n + dim, 1) * kColumns) + 1, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t o = begin / blocks, first = begin % blocks * kColumns;
      const int64_t stop = std::min(end, (o + 1) * blocks), last = std::min(inner, first + (stop - begin) * kColumns);
      T* to = d_src + o * dim * inner;
      const T* from = d_dst + o * n * inner;
      for (int64_t i = 0; i < dim; ++i) std::fill(to + i * inner + first, to + i * inner + last, T(0));
      for (int64_t j = 0; j < n; ++j) {
        T* row = to + wrap(indices[j], dim) * inner;
        for (int64_t c = first; c < last; ++c) row[c] += from[j * inner + c];
      }
      begin = stop;
    }
  });
}

template <typename I>
void gather_elements(const ElementsSpace& s, size_t element_size, const I* indices, const void* src, void* dst) {
  switch (element_size) {
    case 1: return gather_elements_of(s, indices, static_cast<const uint8_t*>(src), static_cast<uint8_t*>(dst));
    case 2: return gather_elements_of(s, indices, static_cast<const uint16_t*>(src), static_cast<uint16_t*>(dst));
    case 4: return gather_elements_of(s, indices, static_cast<const uint32_t*>(src), static_cast<uint32_t*>(dst));
    default: return gather_elements_of(s, indices, static_cast<const uint64_t*>(src), static_cast<uint64_t*>(dst));
  }
}

template <typename T, typename I>
void scatter_elements(const ElementsSpace& s, ScatterReduction reduction, const I* indices, const T* updates, T* dst) {
  const int64_t width = s.size[s.rank - 1], dim = s.data_size[s.axis];
  const int64_t along = s.axis == s.rank - 1 ? 0 : 1;
  for_element_rows(s, 0, element_rows(s), [&](int64_t at, int64_t offset, int64_t stride) {
    for (int64_t j = 0; j < width; ++j) {
      T& to = dst[offset + j * along + wrap(indices[at + j], dim) * stride];
      to = reduce<T>(reduction, to, updates[at + j]);
    }
  });
}

int64_t first_outside(const TupleSpace& s, const int64_t* indices) {
  for (int64_t i = 0; i < s.tuples * s.depth; ++i) {
    const int64_t dim = s.size[i % s.depth];
    if (indices[i] < -dim || indices[i] >= dim) return i;
  }
  return -1;
}

void gather_nd(const TupleSpace& s, size_t element_size, const int64_t* indices, const void* src, void* dst) {
  const auto* from = static_cast<const std::byte*>(src);
  auto* to = static_cast<std::byte*>(dst);
  const int64_t bytes = s.slice * static_cast<int64_t>(element_size);
  if (bytes == 0) return;
  parallel_for(s.tuples, kGrainBytes / bytes + 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      std::memcpy(to + t * bytes, from + tuple_offset(s, indices, t) * static_cast<int64_t>(element_size),
                  static_cast<size_t>(bytes));
  });
}

template <typename T>
void scatter_nd(const TupleSpace& s, ScatterReduction reduction, const int64_t* indices, const T* updates, T* dst) {
  for (int64_t t = 0; t < s.tuples; ++t) {
    T* to = dst + tuple_offset(s, indices, t);
    const T* from = updates + t * s.slice;
    for (int64_t i = 0; i < s.slice; ++i) to[i] = reduce<T>(reduction, to[i], from[i]);
  }
}

template <typename T>
int64_t non_zero(int rank, const int64_t* size, int64_t n, const T* src, int64_t count, int64_t* coords) {
  int64_t found = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!(src[i] != T{})) continue;
    if (coords != nullptr) {
      int64_t rest = i;
      for (int d = rank - 1; d >= 0; --d) {
        coords[d * count + found] = rest % size[d];
        rest /= size[d];
      }
    }
    ++found;
  }
  return found;
}

#define DS_INDEX(I)                                                                                             \
  template int64_t first_outside(int64_t, const I*, int64_t);                                                   \
  template void gather(int64_t, int64_t, int64_t, size_t, int64_t, const I*, const void*, void*);               \
  template void gather_grad(int64_t, int64_t, int64_t, int64_t, const I*, const float*, float*);                \
  template void gather_grad(int64_t, int64_t, int64_t, int64_t, const I*, const double*, double*);              \
  template void gather_elements(const ElementsSpace&, size_t, const I*, const void*, void*);
DS_INDEX(int32_t)
DS_INDEX(int64_t)
#undef DS_INDEX

#define DS_ELEMENT(T)                                                                                             \
  template void scatter_elements(const ElementsSpace&, ScatterReduction, const int32_t*, const T*, T*);           \
  template void scatter_elements(const ElementsSpace&, ScatterReduction, const int64_t*, const T*, T*);           \
  template void scatter_nd(const TupleSpace&, ScatterReduction, const int64_t*, const T*, T*);                    \
  template int64_t non_zero(int, const int64_t*, int64_t, const T*, int64_t, int64_t*);
DS_ELEMENT(float)
DS_ELEMENT(double)
DS_ELEMENT(f16)
DS_ELEMENT(bf16)
DS_ELEMENT(uint8_t)
DS_ELEMENT(int8_t)
DS_ELEMENT(uint16_t)
DS_ELEMENT(int16_t)
DS_ELEMENT(uint32_t)
DS_ELEMENT(int32_t)
DS_ELEMENT(uint64_t)
DS_ELEMENT(int64_t)
DS_ELEMENT(bool)
#undef DS_ELEMENT

}  // namespace ds::kernels
