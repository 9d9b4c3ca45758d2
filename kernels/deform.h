// The columns of a deformable convolution: what each tap of the window reads, at positions moved by
// learned offsets, between elements bilinearly and zero outside (Dai et al. 2017; the mask is that of
// Zhu et al. 2018).
//
// Legend: x [N, C, H, W], offset [N, OG, K, 2, P] (y, then x), mask [N, OG, K, P] or null (ones),
// columns [N, C, K, P]; K = kernel_h * kernel_w taps, P = out_h * out_w positions, OG offset groups of
// C / OG channels each. Threads: parallel_for over planes of columns, over (N, OG, K) for offset and
// mask, over planes of x for x; every sum has one order. T: float, double.
#pragma once

#include <cstdint>

namespace ds::kernels {

struct DeformShape {
  int64_t batch = 0, channels = 0, height = 0, width = 0;
  int64_t out_h = 0, out_w = 0, kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1, pad_top = 0, pad_left = 0;
  int64_t offset_groups = 1;

  int64_t taps() const { return kernel_h * kernel_w; }
  int64_t points() const { return out_h * out_w; }
  int64_t plane() const { return height * width; }
  int64_t per_group() const { return channels / offset_groups; }
};

template <typename T>
void deform_columns(const DeformShape& s, const T* x, const T* offset, const T* mask, T* columns);
// Gradients, overwritten.
template <typename T>
void deform_columns_grad_x(const DeformShape& s, const T* offset, const T* mask, const T* d_columns, T* d_x);
template <typename T>
void deform_columns_grad_offset(const DeformShape& s, const T* x, const T* offset, const T* mask, const T* d_columns, T* d_offset);
template <typename T>
void deform_columns_grad_mask(const DeformShape& s, const T* x, const T* offset, const T* d_columns, T* d_mask);

}  // namespace ds::kernels
