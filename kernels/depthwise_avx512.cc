// Depthwise convolutions on AVX-512.
#include "kernels/depthwise_loops.h"
#include "kernels/finish_avx512.h"
#include "kernels/simd_set_avx512.h"

namespace ds::kernels {
namespace {

struct Avx512 : Avx512Set {
  static V zero() { return _mm512_setzero_ps(); }
  static V activated(V v, const Epilogue& e) { return kernels::activated(v, e); }
  static constexpr FinishFn* finish = finish_avx512;
};

}  // namespace

void depthwise_avx512(const NhwcConv& s, const float* x, const float* packed, const Finish& finish) {
  Depthwise<Avx512>(s, x, packed, finish).run();
}

}  // namespace ds::kernels
