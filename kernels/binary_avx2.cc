// Arithmetic of two f32 operands with broadcasting, eight floats at a time.
#include "kernels/binary.h"
#include "kernels/simd_avx2.h"

namespace ds::kernels::avx2 {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth a thread

template <typename Fn>
void apply(const Broadcast& s, const float* a, const float* b, float* out, Fn f) {
  const bool whole_a = row_step(s, 0) == 1, whole_b = row_step(s, 1) == 1;
  for_each_row(s, kGrain, [&](const int64_t* offsets, int64_t at, int64_t n) {
    const float* pa = a + offsets[0];
    const float* pb = b + offsets[1];
    float* po = out + at;
    if (whole_a && whole_b) {
      for_each_block(0, n, [&](int64_t i, int64_t, auto get, auto put) { put(po + i, f(get(pa + i), get(pb + i))); });
    } else if (whole_a) {
      const F8 y = all(*pb);
      for_each_block(0, n, [&](int64_t i, int64_t, auto get, auto put) { put(po + i, f(get(pa + i), y)); });
    } else if (whole_b) {
      const F8 x = all(*pa);
      for_each_block(0, n, [&](int64_t i, int64_t, auto get, auto put) { put(po + i, f(x, get(pb + i))); });
    } else {
      const F8 r = f(all(*pa), all(*pb));
      for_each_block(0, n, [&](int64_t i, int64_t, auto, auto put) { put(po + i, r); });
    }
  });
}

}  // namespace

bool has_binary(Binary op) { return op != Binary::kMod && op != Binary::kFmod; }

void binary(Binary op, const Broadcast& s, const float* a, const float* b, float* out) {
  switch (op) {
    case Binary::kAdd: return apply(s, a, b, out, [](F8 x, F8 y) { return x + y; });
    case Binary::kSub: return apply(s, a, b, out, [](F8 x, F8 y) { return x - y; });
    case Binary::kMul: return apply(s, a, b, out, [](F8 x, F8 y) { return x * y; });
    case Binary::kDiv: return apply(s, a, b, out, [](F8 x, F8 y) { return x / y; });
    // The instruction gives its second operand when either is NaN: right for y, so only x needs a look.
    case Binary::kMin: return apply(s, a, b, out, [](F8 x, F8 y) { return select(_mm256_cmp_ps(x, x, _CMP_UNORD_Q), x, _mm256_min_ps(x, y)); });
    case Binary::kMax: return apply(s, a, b, out, [](F8 x, F8 y) { return select(_mm256_cmp_ps(x, x, _CMP_UNORD_Q), x, _mm256_max_ps(x, y)); });
    case Binary::kPRelu: return apply(s, a, b, out, [](F8 x, F8 y) { return select(less(x, all(0.0f)), x * y, x); });
    default: return;
  }
}

}  // namespace ds::kernels::avx2
