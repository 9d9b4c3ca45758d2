// Depthwise convolutions on AVX2.
#include "kernels/depthwise_loops.h"
#include "kernels/finish_avx2.h"
#include "kernels/simd_set_avx2.h"

namespace ds::kernels {
namespace {

struct Avx2 : Avx2Set {
  static V zero() { return _mm256_setzero_ps(); }
  static V activated(V v, const Epilogue& e) { return kernels::activated(v, e); }
  static constexpr FinishFn* finish = finish_avx2;
};

}  // namespace

void depthwise_avx2(const NhwcConv& s, const float* x, const float* packed, const Finish& finish) {
  Depthwise<Avx2>(s, x, packed, finish).run();
}

}  // namespace ds::kernels
