#include "kernels/storage_types.h"

#include <array>
#include <cmath>

namespace ds::kernels {
namespace {

// All values of an 8-bit type, by bit pattern.
template <typename F>
std::array<float, 256> all_values() {
  std::array<float, 256> values;
  for (int i = 0; i < 256; ++i) {
    F f;
    f.bits = static_cast<uint8_t>(i);
    values[static_cast<size_t>(i)] = static_cast<float>(f);
  }
  return values;
}

uint32_t bits_at(int bits, int64_t place, const uint8_t* x) {
  const int64_t per_byte = 8 / bits;
  return static_cast<uint32_t>(x[place / per_byte]) >> (place % per_byte * bits) & ((1u << bits) - 1u);
}

// f(i) gives the bits of element begin + i.
template <typename F>
void pack_bits(int bits, int64_t begin, int64_t n, uint8_t* out, F f) {
  const int64_t per_byte = 8 / bits;
  for (int64_t i = 0; i < n; i += per_byte) {
    uint32_t byte = 0;
    for (int64_t k = 0; k < per_byte && i + k < n; ++k) byte |= (f(i + k) & ((1u << bits) - 1u)) << (k * bits);
    out[(begin + i) / per_byte] = static_cast<uint8_t>(byte);
  }
}

}  // namespace

template <typename F>
void widen(int64_t n, const F* x, float* out) {
  static const std::array<float, 256> values = all_values<F>();
  for (int64_t i = 0; i < n; ++i) out[i] = values[x[i].bits];
}

template <typename F>
void narrow(int64_t n, const float* x, bool saturate, F* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = F::from_float(x[i], saturate);
}

void narrow_to_power(int64_t n, const float* x, bool saturate, PowerRounding rounding, f8e8m0* out) {
  constexpr int kBias = 127, kLargest = 254, kNan = 255;
  for (int64_t i = 0; i < n; ++i) {
    int code = kNan;
    if (x[i] >= 0) {  // neither negative nor NaN
      int exponent = -2 * kBias;  // of zero: below all
      bool above_middle = false, exact = false;
      if (std::isinf(x[i])) {
        exponent = 2 * kBias;
      } else if (x[i] > 0) {
        const float fraction = std::frexp(x[i], &exponent);  // x = fraction * 2^exponent, fraction in [0.5, 1)
        --exponent;
        exact = fraction == 0.5f;
        above_middle = fraction >= 0.75f;
      }
      if (!exact && (rounding == PowerRounding::kUp || (rounding == PowerRounding::kNearest && above_middle))) ++exponent;
      code = exponent + kBias;
      if (code < 0) code = saturate ? 0 : kNan;
      else if (code > kLargest) code = saturate ? kLargest : kNan;
    }
    out[i].bits = static_cast<uint8_t>(code);
  }
}

void unpack(int bits, bool is_signed, int64_t begin, int64_t n, const uint8_t* x, int32_t* out) {
  const int32_t sign = is_signed ? 1 << (bits - 1) : 0;
  for (int64_t i = 0; i < n; ++i) out[i] = (static_cast<int32_t>(bits_at(bits, begin + i, x)) ^ sign) - sign;
}

void pack(int bits, int64_t begin, int64_t n, const int32_t* x, uint8_t* out) {
  pack_bits(bits, begin, n, out, [x](int64_t i) { return static_cast<uint32_t>(x[i]); });
}

void unpack_f4(int64_t begin, int64_t n, const uint8_t* x, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(f4e2m1::from_bits(static_cast<uint8_t>(bits_at(4, begin + i, x))));
}

void pack_f4(int64_t begin, int64_t n, const float* x, uint8_t* out) {
  pack_bits(4, begin, n, out, [x](int64_t i) { return static_cast<uint32_t>(f4e2m1::from_float(x[i], true).bits); });
}

template void widen(int64_t, const f8e8m0*, float*);
#define DS_INSTANTIATE(F)                            \
  template void widen(int64_t, const F*, float*);    \
  template void narrow(int64_t, const float*, bool, F*);
DS_INSTANTIATE(f8e4m3fn) DS_INSTANTIATE(f8e4m3fnuz) DS_INSTANTIATE(f8e5m2) DS_INSTANTIATE(f8e5m2fnuz)
#undef DS_INSTANTIATE

}  // namespace ds::kernels
