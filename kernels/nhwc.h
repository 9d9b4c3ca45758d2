// Geometry of convolutions over channels-innermost data, and of matrix products as their special case.
//
// Legend: activations x [N, H, W, C], weights w [M, C/G, KH, KW], result y [N, OH, OW, M], G groups. A matrix product
// [rows, K] x [K, M] is the case H = rows, C = K, all else 1.
#pragma once

#include <cstdint>

namespace ds::kernels {

struct NhwcConv {
  int64_t batch = 1, height = 1, width = 1, channels = 1;
  int64_t out_height = 1, out_width = 1, out_channels = 1;
  int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1;
  int64_t pad_top = 0, pad_left = 0;
  int64_t groups = 1;

  int64_t pixels() const { return batch * out_height * out_width; }
  int64_t group_channels() const { return channels / groups; }
  int64_t group_out() const { return out_channels / groups; }
  int64_t depth() const { return kernel_h * kernel_w * group_channels(); }  // products in one sum
  // Output pixels read input pixels of the same number, one each.
  bool pointwise() const {
    return kernel_h == 1 && kernel_w == 1 && stride_h == 1 && stride_w == 1 && pad_top == 0 && pad_left == 0 && out_height == height &&
           out_width == width;
  }
};

inline NhwcConv matmul_shape(int64_t rows, int64_t depth, int64_t columns) {
  NhwcConv s;
  s.height = s.out_height = rows;
  s.channels = depth;
  s.out_channels = columns;
  return s;
}

}  // namespace ds::kernels
