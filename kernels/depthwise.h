// Depthwise convolution of channels-innermost f32 data: every channel with a filter of its own.
//
// Legend: see kernels/nhwc.h, with groups = channels = out_channels. Weights are packed in panels of 16 channels,
// [panels][KH * KW][16], zeros beyond the last channel. For what becomes of the sums see kernels/finish.h.
// Threads: parallel_for over rows of y; every sum is added up in one order.
#pragma once

#include <cstdint>

#include "kernels/finish.h"
#include "kernels/nhwc.h"

namespace ds::kernels {

constexpr int64_t kDepthwisePanel = 16;

inline int64_t depthwise_panels(const NhwcConv& s) { return (s.channels + kDepthwisePanel - 1) / kDepthwisePanel; }
// From [C, 1, KH, KW] into depthwise_panels() * KH * KW * 16 floats.
void pack_depthwise(const NhwcConv& s, const float* w, float* packed);

// finish: f32; y is [N, OH, OW, C], the addend may be y itself.
using DepthwiseFn = void(const NhwcConv& s, const float* x, const float* packed, const Finish& finish);
DepthwiseFn depthwise_avx2;
DepthwiseFn depthwise_avx512;  // call only where the CPU has AVX-512

}  // namespace ds::kernels
