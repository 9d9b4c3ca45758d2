// Floating-point storage types of 8 and 4 bits. Arithmetic is done in float; these only convert.
// Following the ONNX operator specification (Cast) and "FP8 Formats for Deep Learning" (Micikevicius
// et al. 2022); FNUZ: finite, no negative zero, NaN is that bit pattern. e8m0: a power of two, a scale.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace ds {

// Where a format keeps its special values.
enum class Specials : uint8_t {
  kIeee,  // the largest exponent holds infinities and NaN (e5m2)
  kFn,    // no infinities; NaN is all ones (e4m3fn)
  kFnuz,  // no infinities, no negative zero; NaN is the sign bit alone
  kNone,  // every pattern is a finite number (e2m1)
};

// Sign, kExponent and kMantissa bits, in the low bits of a byte.
template <int kExponent, int kMantissa, int kBias, Specials kSpecials>
struct MiniFloat {
  uint8_t bits = 0;

  static constexpr int kSignShift = kExponent + kMantissa;
  static constexpr uint8_t kMagnitude = (1u << kSignShift) - 1;
  static constexpr uint8_t kInfinity = ((1u << kExponent) - 1) << kMantissa;  // kIeee only
  static constexpr uint8_t kNan = kSpecials == Specials::kFnuz ? 1u << kSignShift : kMagnitude;
  static constexpr uint8_t kLargest = kSpecials == Specials::kIeee ? kInfinity - 1
                                      : kSpecials == Specials::kFn ? kMagnitude - 1
                                                                   : kMagnitude;

  MiniFloat() = default;
  explicit MiniFloat(float x) : MiniFloat(from_float(x, true)) {}
  static MiniFloat from_bits(uint8_t bits) {
    MiniFloat m;
    m.bits = bits;
    return m;
  }

  // Rounds to nearest even. What lies beyond the largest number, infinities included, becomes that
  // number (saturate) or infinity, or NaN where there is none.
  static MiniFloat from_float(float x, bool saturate) {
    const uint8_t sign = std::signbit(x) ? 1u << kSignShift : 0;
    if (std::isnan(x)) {
      if constexpr (kSpecials == Specials::kNone) return from_bits(1u << kSignShift);  // as ml_dtypes: -0
      return from_bits(kSpecials == Specials::kFnuz ? kNan : static_cast<uint8_t>(sign | kNan));
    }
    const float a = std::fabs(x);
    uint32_t magnitude = 0;
    if (std::isinf(a)) {
      magnitude = kMagnitude + 1u;
    } else if (a != 0) {
      int exponent = 0;
      std::frexp(a, &exponent);  // a = f * 2^exponent, f in [0.5, 1)
      int scale = exponent - 1;  // a in [2^scale, 2^(scale + 1))
      if (scale < 1 - kBias) scale = 1 - kBias;  // subnormal
      const float steps = std::nearbyint(std::ldexp(a, kMantissa - scale));  // exact before rounding
      const auto whole = static_cast<uint32_t>(steps);
      // A carry out of the mantissa moves into the exponent by itself.
      magnitude = (static_cast<uint32_t>(scale + kBias - 1) << kMantissa) + whole;
    }
    if (magnitude > kLargest) {
      if (saturate || kSpecials == Specials::kNone) magnitude = kLargest;
      else if (kSpecials == Specials::kIeee) magnitude = kInfinity;
      else return from_bits(kSpecials == Specials::kFnuz ? kNan : static_cast<uint8_t>(sign | kNan));
    }
    if (kSpecials == Specials::kFnuz && magnitude == 0) return from_bits(0);
    return from_bits(static_cast<uint8_t>(sign | magnitude));
  }

  operator float() const {
    const uint8_t magnitude = bits & kMagnitude;
    if (kSpecials == Specials::kFnuz && bits == kNan) return std::numeric_limits<float>::quiet_NaN();
    if (kSpecials == Specials::kFn && magnitude == kNan) return std::numeric_limits<float>::quiet_NaN();
    const float sign = (bits >> kSignShift) & 1 ? -1.0f : 1.0f;
    const int exponent = magnitude >> kMantissa, mantissa = magnitude & ((1 << kMantissa) - 1);
    if (kSpecials == Specials::kIeee && magnitude >= kInfinity)
      return mantissa ? std::numeric_limits<float>::quiet_NaN() : sign * std::numeric_limits<float>::infinity();
    if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), 1 - kBias - kMantissa);
    return sign * std::ldexp(static_cast<float>(mantissa + (1 << kMantissa)), exponent - kBias - kMantissa);
  }
};

using f8e4m3fn = MiniFloat<4, 3, 7, Specials::kFn>;
using f8e4m3fnuz = MiniFloat<4, 3, 8, Specials::kFnuz>;
using f8e5m2 = MiniFloat<5, 2, 15, Specials::kIeee>;
using f8e5m2fnuz = MiniFloat<5, 2, 16, Specials::kFnuz>;
using f4e2m1 = MiniFloat<2, 1, 1, Specials::kNone>;  // packed in tensors: two to a byte

// 2^(bits - 127); 255 is NaN. No sign, no zero.
struct f8e8m0 {
  uint8_t bits = 0;

  operator float() const {
    return bits == 0xff ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0f, static_cast<int>(bits) - 127);
  }
};

}  // namespace ds
