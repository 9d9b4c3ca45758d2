// 16-bit floating-point storage types. Arithmetic is done in float; these only convert.
// bf16: the upper half of an IEEE binary32. f16: IEEE binary16. Both round to nearest even.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace ds {

inline uint32_t float_bits(float x) {
  uint32_t u;
  std::memcpy(&u, &x, sizeof u);
  return u;
}
inline float float_from_bits(uint32_t u) {
  float x;
  std::memcpy(&x, &u, sizeof x);
  return x;
}

struct bf16 {
  uint16_t bits = 0;

  bf16() = default;
  explicit bf16(float x) {
    const uint32_t u = float_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<uint16_t>((u >> 16) | 0x40);  // keep NaN a NaN
    } else {
      bits = static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
    }
  }
  operator float() const { return float_from_bits(static_cast<uint32_t>(bits) << 16); }
};

struct f16 {
  uint16_t bits = 0;

  f16() = default;
  explicit f16(float x) {
    const uint32_t u = float_bits(x);
    const uint32_t sign = (u >> 16) & 0x8000u;
    const uint32_t magnitude = u & 0x7fffffffu;
    uint32_t h;
    if (magnitude > 0x7f800000u) {
      h = 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {  // rounds to infinity
      h = 0x7c00u;
    } else if (magnitude >= 0x38800000u) {  // normal
      h = ((magnitude - 0x38000000u) + 0xfffu + ((magnitude >> 13) & 1)) >> 13;
    } else {  // subnormal: let float addition do the rounding at 2^-24
      h = float_bits(float_from_bits(magnitude) + 0.5f) - 0x3f000000u;
    }
    bits = static_cast<uint16_t>(sign | h);
  }
  operator float() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t exponent = (bits >> 10) & 0x1f;
    const uint32_t mantissa = bits & 0x3ffu;
    if (exponent == 0x1f) return float_from_bits(sign | 0x7f800000u | (mantissa << 13));
    if (exponent == 0) {
      const float subnormal = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
      return float_from_bits(sign | float_bits(subnormal));
    }
    return float_from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
  }
};

constexpr float kLargestF16 = 65504;

// The nearest finite f16; NaN stays NaN.
inline f16 saturated_f16(float x) { return f16(x > kLargestF16 ? kLargestF16 : x < -kLargestF16 ? -kLargestF16 : x); }

}  // namespace ds
