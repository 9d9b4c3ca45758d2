#include "kernels/depthwise.h"

#include <algorithm>

namespace ds::kernels {

void pack_depthwise(const NhwcConv& s, const float* w, float* packed) {
  const int64_t taps = s.kernel_h * s.kernel_w;
  std::fill(packed, packed + depthwise_panels(s) * taps * kDepthwisePanel, 0.0f);
  for (int64_t c = 0; c < s.channels; ++c)
    for (int64_t t = 0; t < taps; ++t)
      packed[((c / kDepthwisePanel) * taps + t) * kDepthwisePanel + c % kDepthwisePanel] = w[c * taps + t];
}

}  // namespace ds::kernels
