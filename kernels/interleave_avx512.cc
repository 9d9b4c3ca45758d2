#include "kernels/interleave.h"

#include <immintrin.h>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kPixels = 16, kPieces = 256;  // pixels of a step; steps worth a thread

// Value e of output vector k is channel p % 3 of pixel p / 3, p = 16 k + e. Channels 0 and 1 come from one permutation of two
// registers, channel 2 goes where the mask says.
struct Pattern {
  __m512i pair[3], third[3];
  __mmask16 mask[3];
  Pattern() {
    for (int k = 0; k < 3; ++k) {
      alignas(64) int32_t two[16], one[16];
      uint32_t bits = 0;
      for (int e = 0; e < 16; ++e) {
        const int p = 16 * k + e;
        two[e] = p / 3 + (p % 3 == 1 ? 16 : 0);
        one[e] = p / 3;
        if (p % 3 == 2) bits |= 1u << e;
      }
      pair[k] = _mm512_load_si512(two);
      third[k] = _mm512_load_si512(one);
      mask[k] = static_cast<__mmask16>(bits);
    }
  }
};

}  // namespace

void interleave3_avx512(int64_t batch, int64_t plane, const float* x, float* y) {
  const int64_t steps = (plane + kPixels - 1) / kPixels;
  const Pattern pattern;
  parallel_for(batch * steps, kPieces, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / steps, at = i % steps * kPixels, left = plane - at;
      const float* from = x + 3 * n * plane + at;
      float* to = y + 3 * (n * plane + at);
      if (left < kPixels) {
        for (int64_t p = 0; p < left; ++p)
          for (int64_t c = 0; c < 3; ++c) to[3 * p + c] = from[c * plane + p];
        continue;
      }
      const __m512 a = _mm512_loadu_ps(from), b = _mm512_loadu_ps(from + plane), c = _mm512_loadu_ps(from + 2 * plane);
      for (int k = 0; k < 3; ++k)
        _mm512_storeu_ps(to + 16 * k, _mm512_mask_permutexvar_ps(_mm512_permutex2var_ps(a, pattern.pair[k], b), pattern.mask[k], pattern.third[k], c));
    }
  });
}

}  // namespace ds::kernels
