// Reading and writing at positions given by index tensors: Gather*, Scatter*, and Gather's gradient.
//
// Index types I: int32_t, int64_t. Negative indices count from the end. Callers check ranges first with
// first_outside(); the moving functions trust their indices. T: the element types of dispatch_dtype.
// Scatters are serial in index order, so that repeated indices give the same bits every time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ds::kernels {

// Position of the first index outside [-dim, dim); -1 when all are inside.
template <typename I>
int64_t first_outside(int64_t n, const I* indices, int64_t dim);

// dst[o, j, :] = src[o, indices[j], :]; src is [outer, dim, inner] in units of `element_size` bytes.
template <typename I>
void gather(int64_t outer, int64_t dim, int64_t inner, size_t element_size, int64_t n, const I* indices, const void* src,
            void* dst);

// d_src[o, indices[j], :] += d_dst[o, j, :], d_src zeroed first. Columns are split over threads, each walks
// the indices in order: deterministic.
template <typename T, typename I>
void gather_grad(int64_t outer, int64_t dim, int64_t inner, int64_t n, const I* indices, const T* d_dst, T* d_src);

// Geometry of GatherElements/ScatterElements: an index tensor of `size` inside data of `data_size`.
struct ElementsSpace {
  static constexpr int kMaxRank = 8;
  int rank = 0, axis = 0;
  int64_t size[kMaxRank], data_size[kMaxRank];
};

// dst[i...] = src[i..., indices[i...] on `axis`, i...].
template <typename I>
void gather_elements(const ElementsSpace& s, size_t element_size, const I* indices, const void* src, void* dst);

enum class ScatterReduction { kNone, kAdd, kMul, kMax, kMin };

// dst already holds the data.
template <typename T, typename I>
void scatter_elements(const ElementsSpace& s, ScatterReduction reduction, const I* indices, const T* updates, T* dst);

// GatherND/ScatterND: `tuples` index tuples of `depth` numbers address slices of `slice` elements in
// data whose first `depth` axes (behind the batch axes) have `size` and `stride` (elements).
struct TupleSpace {
  static constexpr int kMaxDepth = 8;
  int depth = 0;
  int64_t size[kMaxDepth], stride[kMaxDepth];
  int64_t tuples = 0, slice = 1;
  int64_t tuples_per_batch = 1, batch_stride = 0;  // one batch: tuples_per_batch == tuples
};

// Position (into the flat index tensor) of the first index outside its axis; -1 when all are inside.
int64_t first_outside(const TupleSpace& s, const int64_t* indices);
void gather_nd(const TupleSpace& s, size_t element_size, const int64_t* indices, const void* src, void* dst);
// dst already holds the data.
template <typename T>
void scatter_nd(const TupleSpace& s, ScatterReduction reduction, const int64_t* indices, const T* updates, T* dst);

// Row-major coordinates of the non-zero elements, as [rank, count]; returns count. coords == null: only counts.
template <typename T>
int64_t non_zero(int rank, const int64_t* size, int64_t n, const T* src, int64_t count, int64_t* coords);

}  // namespace ds::kernels
