// Blocks of an image and back: Col2Im adds the columns of every block to the places they came from, Im2Col
// (its adjoint) collects them.
//
// Legend: image [N, C, size...], columns [N, C * block elements, L], L blocks in row-major order of their
// place. T: float, double, and unsigned integers, which stand for signed ones of their size: sums wrap
// around. Threads: parallel_for over N * C; sums are in one fixed order.
#pragma once

#include <cstdint>
#include <vector>

namespace ds::kernels {

struct BlockSpace {
  int64_t planes = 1;                                                    // N * C
  std::vector<int64_t> size, block, stride, dilation, pad_begin, count;  // per axis; count: blocks along it
};

template <typename T>
void col2im(const BlockSpace& s, const T* columns, T* image);
template <typename T>
void im2col(const BlockSpace& s, const T* image, T* columns);

}  // namespace ds::kernels
