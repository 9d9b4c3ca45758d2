// Picking and turning slices of a tensor, on raw pointers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ds::kernels {

// x is [outer, n, inner]; slice j is x[:, j, :]. Groups equal slices (NaN equals NaN): first[k] is the
// first slice of group k, counts[k] its size, inverse[j] the group of slice j; each has room for n. Groups come
// in ascending order of their elements (row-major, NaN last), or in order of appearance. Returns
// how many there are. T: f32, f64, bool and integers.
template <typename T>
int64_t unique_slices(int64_t outer, int64_t n, int64_t inner, const T* x, bool sorted, int64_t* first, int64_t* inverse, int64_t* counts);

// Of each batch element the first lengths[b] steps in reverse order, the rest as it is. `slice` bytes each;
// element (b, t) is at b * batch_stride + t * time_stride slices.
void reverse_sequence(int64_t batch, int64_t time, int64_t batch_stride, int64_t time_stride, size_t slice, const int64_t* lengths,
                      const void* src, void* dst);

}  // namespace ds::kernels
