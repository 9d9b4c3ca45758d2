// The scalar functions behind kernels/unary.h: value and derivative. T: float or double.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/unary.h"

namespace ds::kernels {

template <typename T>
T sigmoid(T x) {
  // The exponential of a negative number only: no overflow on either side.
  const T e = std::exp(-std::abs(x));
  return x < T(0) ? e / (T(1) + e) : T(1) / (T(1) + e);
}

template <typename T>
T softplus(T x) { return std::max(x, T(0)) + std::log1p(std::exp(-std::abs(x))); }

inline constexpr double kSqrtHalf = 0.70710678118654752440;        // sqrt(1/2)
inline constexpr double kSqrtTwoOverPi = 0.79788456080286535588;   // sqrt(2/pi)
inline constexpr double kTwoOverSqrtPi = 1.12837916709551257390;   // 2/sqrt(pi)
inline constexpr double kInvSqrtTwoPi = 0.39894228040143267794;    // 1/sqrt(2 pi)
inline constexpr double kGeluCubic = 0.044715;  // Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016

template <Unary op, typename T>
T unary_value(T x, T alpha, T beta) {
  static_cast<void>(alpha), static_cast<void>(beta);
  if constexpr (op == Unary::kRelu) return x < T(0) ? T(0) : x;  // NaN passes through
  else if constexpr (op == Unary::kSigmoid) return sigmoid(x);
  else if constexpr (op == Unary::kTanh) return std::tanh(x);
  else if constexpr (op == Unary::kExp) return std::exp(x);
  else if constexpr (op == Unary::kLog) return std::log(x);
  else if constexpr (op == Unary::kSqrt) return std::sqrt(x);
  else if constexpr (op == Unary::kReciprocal) return T(1) / x;
  else if constexpr (op == Unary::kNeg) return -x;
  else if constexpr (op == Unary::kAbs) return std::abs(x);
  else if constexpr (op == Unary::kErf) return std::erf(x);
  else if constexpr (op == Unary::kFloor) return std::floor(x);
  else if constexpr (op == Unary::kCeil) return std::ceil(x);
  else if constexpr (op == Unary::kRound) return std::nearbyint(x);  // halves to even
  else if constexpr (op == Unary::kSign) return x > T(0) ? T(1) : x < T(0) ? T(-1) : x;
  else if constexpr (op == Unary::kSin) return std::sin(x);
  else if constexpr (op == Unary::kCos) return std::cos(x);
  else if constexpr (op == Unary::kTan) return std::tan(x);
  else if constexpr (op == Unary::kAsin) return std::asin(x);
  else if constexpr (op == Unary::kAcos) return std::acos(x);
  else if constexpr (op == Unary::kAtan) return std::atan(x);
  else if constexpr (op == Unary::kSinh) return std::sinh(x);
  else if constexpr (op == Unary::kCosh) return std::cosh(x);
  else if constexpr (op == Unary::kAsinh) return std::asinh(x);
  else if constexpr (op == Unary::kAcosh) return std::acosh(x);
  else if constexpr (op == Unary::kAtanh) return std::atanh(x);
  else if constexpr (op == Unary::kLeakyRelu) return x < T(0) ? alpha * x : x;
  else if constexpr (op == Unary::kElu) return x < T(0) ? alpha * std::expm1(x) : x;
  else if constexpr (op == Unary::kCelu) return x < T(0) ? alpha * std::expm1(x / alpha) : x;
  else if constexpr (op == Unary::kSelu) return beta * (x > T(0) ? x : alpha * std::expm1(x));
  else if constexpr (op == Unary::kThresholdedRelu) return x > alpha ? x : x != x ? x : T(0);
  else if constexpr (op == Unary::kSoftplus) return softplus(x);
  else if constexpr (op == Unary::kSoftsign) return x / (T(1) + std::abs(x));
  else if constexpr (op == Unary::kHardSigmoid) return std::min(std::max(alpha * x + beta, T(0)), T(1));
  else if constexpr (op == Unary::kHardSwish) return x * std::min(std::max(x / T(6) + T(0.5), T(0)), T(1));
  else if constexpr (op == Unary::kGelu) return T(0.5) * x * (T(1) + std::erf(x * T(kSqrtHalf)));
  else if constexpr (op == Unary::kGeluTanh)
    return T(0.5) * x * (T(1) + std::tanh(T(kSqrtTwoOverPi) * (x + T(kGeluCubic) * x * x * x)));
  else if constexpr (op == Unary::kMish) return x * std::tanh(softplus(x));
  else if constexpr (op == Unary::kSwish) return x * sigmoid(alpha * x);
}

// Derivative at v, which is the output where derivative_uses_output(op), else the input.
template <Unary op, typename T>
T unary_derivative(T v, T alpha, T beta) {
  static_cast<void>(alpha), static_cast<void>(beta);
  if constexpr (op == Unary::kRelu) return v > T(0) ? T(1) : T(0);
  else if constexpr (op == Unary::kSigmoid) return v * (T(1) - v);
  else if constexpr (op == Unary::kTanh) return T(1) - v * v;
  else if constexpr (op == Unary::kExp) return v;
  else if constexpr (op == Unary::kLog) return T(1) / v;
  else if constexpr (op == Unary::kSqrt) return T(0.5) / v;
  else if constexpr (op == Unary::kReciprocal) return -v * v;
  else if constexpr (op == Unary::kErf) return T(kTwoOverSqrtPi) * std::exp(-v * v);
  else if constexpr (op == Unary::kSin) return std::cos(v);
  else if constexpr (op == Unary::kCos) return -std::sin(v);
  else if constexpr (op == Unary::kTan) return T(1) + v * v;
  else if constexpr (op == Unary::kAsin) return T(1) / std::sqrt(T(1) - v * v);
  else if constexpr (op == Unary::kAcos) return T(-1) / std::sqrt(T(1) - v * v);
  else if constexpr (op == Unary::kAtan) return T(1) / (T(1) + v * v);
  else if constexpr (op == Unary::kSinh) return std::cosh(v);
  else if constexpr (op == Unary::kCosh) return std::sinh(v);
  else if constexpr (op == Unary::kAsinh) return T(1) / std::sqrt(v * v + T(1));
  else if constexpr (op == Unary::kAcosh) return T(1) / std::sqrt(v * v - T(1));
  else if constexpr (op == Unary::kAtanh) return T(1) / (T(1) - v * v);
  else if constexpr (op == Unary::kLeakyRelu) return v < T(0) ? alpha : T(1);
  else if constexpr (op == Unary::kElu) return v < T(0) ? alpha * std::exp(v) : T(1);
  else if constexpr (op == Unary::kCelu) return v < T(0) ? std::exp(v / alpha) : T(1);
  else if constexpr (op == Unary::kSelu) return beta * (v > T(0) ? T(1) : alpha * std::exp(v));
  else if constexpr (op == Unary::kThresholdedRelu) return v > alpha ? T(1) : T(0);
  else if constexpr (op == Unary::kSoftplus) return sigmoid(v);
  else if constexpr (op == Unary::kSoftsign) return T(1) / ((T(1) + std::abs(v)) * (T(1) + std::abs(v)));
  else if constexpr (op == Unary::kHardSigmoid) return alpha * v + beta > T(0) && alpha * v + beta < T(1) ? alpha : T(0);
  else if constexpr (op == Unary::kHardSwish)
    return v <= T(-3) ? T(0) : v >= T(3) ? T(1) : v / T(3) + T(0.5);
  else if constexpr (op == Unary::kGelu)
    return T(0.5) * (T(1) + std::erf(v * T(kSqrtHalf))) + v * T(kInvSqrtTwoPi) * std::exp(T(-0.5) * v * v);
  else if constexpr (op == Unary::kGeluTanh) {
    const T t = std::tanh(T(kSqrtTwoOverPi) * (v + T(kGeluCubic) * v * v * v));
    return T(0.5) * (T(1) + t) + T(0.5) * v * (T(1) - t * t) * T(kSqrtTwoOverPi) * (T(1) + T(3 * kGeluCubic) * v * v);
  } else if constexpr (op == Unary::kMish) {
    const T t = std::tanh(softplus(v));
    return t + v * (T(1) - t * t) * sigmoid(v);
  } else if constexpr (op == Unary::kSwish) {
    const T s = sigmoid(alpha * v);
    return s + alpha * v * s * (T(1) - s);
  }
}

constexpr bool has_derivative(Unary op) {
  return op != Unary::kNeg && op != Unary::kAbs && op != Unary::kFloor && op != Unary::kCeil && op != Unary::kRound &&
         op != Unary::kSign;
}

// Calls f(std::integral_constant<Unary, op>) with the run-time value as a compile-time one.
template <int i = 0, typename F>
void with_unary(Unary op, F&& f) {
  if constexpr (i <= static_cast<int>(Unary::kSwish)) {
    if (static_cast<int>(op) == i) f(std::integral_constant<Unary, static_cast<Unary>(i)>{});
    else with_unary<i + 1>(op, f);
  }
}

}  // namespace ds::kernels
