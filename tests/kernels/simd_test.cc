// The vector functions against the math library in double, over their ranges and at the extremes.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/binary.h"
#include "kernels/dropout.h"
#include "kernels/finish.h"
#include "kernels/unary.h"
#include "kernels/unary_math.h"
#include "libds/base/cpu.h"

namespace ds::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

bool has_avx2() { return cpu_isa() >= Isa::kAvx2; }

std::vector<float> sweep(float low, float high) {
  std::vector<float> x;
  constexpr int kSteps = 200003;
  for (int i = 0; i <= kSteps; ++i) x.push_back(low + (high - low) * static_cast<float>(i) / kSteps);
  for (float tiny = 1e-30f; tiny < 1.0f; tiny *= 3.7f) {
    if (low < 0) x.push_back(-tiny);
    x.push_back(tiny);
  }
  return x;
}

using UnaryFn = decltype(&avx2::unary);

// The vector forms that this CPU runs.
std::vector<UnaryFn> unary_forms() {
  std::vector<UnaryFn> forms = {avx2::unary};
  if (cpu_isa() >= Isa::kAvx512) forms.push_back(avx512::unary);
  return forms;
}

// Largest |error| / max(|exact|, floor).
template <Unary op>
double worst_error(float low, float high, double floor, double alpha = 0, double beta = 0) {
  const std::vector<float> x = sweep(low, high);
  double worst = 0;
  for (UnaryFn form : unary_forms()) {
    std::vector<float> y(x.size());
    form(op, static_cast<int64_t>(x.size()), x.data(), y.data(), alpha, beta);
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = unary_value<op, double>(static_cast<double>(x[i]), alpha, beta);
      worst = std::max(worst, std::abs(static_cast<double>(y[i]) - exact) / std::max(std::abs(exact), floor));
    }
  }
  return worst;
}

TEST(Simd, FunctionsAreAccurateRelativeToTheirValue) {
  if (!has_avx2()) GTEST_SKIP() << "this CPU (or DS_ISA) has no AVX2";
  EXPECT_LE(worst_error<Unary::kExp>(-87, 88, 0), 2e-7);
  EXPECT_LE(worst_error<Unary::kSigmoid>(-80, 80, 0), 3e-7);
  EXPECT_LE(worst_error<Unary::kTanh>(-12, 12, 1e-37), 3e-7);
  EXPECT_LE(worst_error<Unary::kErf>(-6, 6, 1e-37), 4e-7);
  EXPECT_LE(worst_error<Unary::kLog>(1e-30f, 3, 0), 2e-7);
  EXPECT_LE(worst_error<Unary::kLog>(3, 1e20f, 0), 1e-7);
  EXPECT_LE(worst_error<Unary::kSoftplus>(-80, 80, 0), 4e-7);
  EXPECT_LE(worst_error<Unary::kElu>(-20, 20, 1e-37, 0.7), 4e-7);
  EXPECT_LE(worst_error<Unary::kElu>(-1, 0, 1e-37, 1), 4e-7);
  EXPECT_LE(worst_error<Unary::kSqrt>(0, 100, 1e-37), 6e-8);
  EXPECT_LE(worst_error<Unary::kReciprocal>(0.01f, 100, 0), 6e-8);
  EXPECT_LE(worst_error<Unary::kElu>(-80, 5, 1e-37, 0.7), 3e-7);  // near zero too
  EXPECT_LE(worst_error<Unary::kCelu>(-80, 5, 1e-37, 1.3), 4e-7);
  EXPECT_LE(worst_error<Unary::kSelu>(-80, 5, 1e-37, 1.6732632, 1.0507010), 4e-7);
  EXPECT_LE(worst_error<Unary::kSoftplus>(-80, 80, 1e-37), 5e-7);
  EXPECT_LE(worst_error<Unary::kSoftsign>(-80, 80, 1e-37), 2e-7);
  for (const Unary op : {Unary::kFloor, Unary::kCeil, Unary::kRound, Unary::kSign, Unary::kThresholdedRelu}) {
    const std::vector<float> x = {-2.5f, -1.5f, -0.5f, -0.0f, 0.0f, 0.3f, 0.5f, 1.0f, 1.5f, 2.5f, kInf, -kInf, kNan, 3e9f, -3e9f};
    std::vector<float> fast(x.size()), exact(x.size());
    avx2::unary(op, static_cast<int64_t>(x.size()), x.data(), fast.data(), 1.0, 0);
    kernels::unary(op, static_cast<int64_t>(x.size()), x.data(), exact.data(), 1.0, 0);
    for (size_t i = 0; i < x.size(); ++i) {
      if (std::isnan(exact[i])) EXPECT_TRUE(std::isnan(fast[i])) << static_cast<int>(op) << " " << x[i];
      else EXPECT_EQ(fast[i], exact[i]) << static_cast<int>(op) << " " << x[i];
    }
  }
}

TEST(Simd, ActivationsAreAccurateRelativeToOne) {
  if (!has_avx2()) GTEST_SKIP() << "this CPU (or DS_ISA) has no AVX2";
  EXPECT_LE(worst_error<Unary::kGelu>(-12, 12, 1), 5e-7);
  EXPECT_LE(worst_error<Unary::kGeluTanh>(-12, 12, 1), 5e-7);
  EXPECT_LE(worst_error<Unary::kMish>(-40, 40, 1), 5e-7);
  EXPECT_LE(worst_error<Unary::kSwish>(-40, 40, 1, 1.0), 5e-7);
  EXPECT_LE(worst_error<Unary::kHardSwish>(-8, 8, 1), 5e-7);
  EXPECT_LE(worst_error<Unary::kHardSigmoid>(-8, 8, 1, 0.2, 0.5), 5e-7);
  EXPECT_LE(worst_error<Unary::kCelu>(-20, 20, 1, 1.3), 5e-7);
  EXPECT_LE(worst_error<Unary::kSelu>(-20, 20, 1, 1.67, 1.05), 5e-7);
  EXPECT_LE(worst_error<Unary::kSoftsign>(-40, 40, 1e-37), 2e-7);
}

TEST(Simd, RoundingIsThePortableOneBitForBit) {
  if (!has_avx2()) GTEST_SKIP() << "this CPU (or DS_ISA) has no AVX2";
  std::vector<float> x = sweep(-9, 9);
  for (float edge : {0.0f, -0.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, kInf, -kInf, 8388607.5f, 3e9f, -1e-40f}) x.push_back(edge);
  const auto n = static_cast<int64_t>(x.size());
  for (Unary op : {Unary::kFloor, Unary::kCeil, Unary::kRound, Unary::kSign, Unary::kThresholdedRelu, Unary::kLeakyRelu, Unary::kRelu})
    for (UnaryFn form : unary_forms()) {
      std::vector<float> fast(x.size()), exact(x.size());
      form(op, n, x.data(), fast.data(), 0.3, 0);
      unary(op, n, x.data(), exact.data(), 0.3, 0);
      for (size_t i = 0; i < x.size(); ++i)
        EXPECT_TRUE(fast[i] == exact[i] && std::signbit(fast[i]) == std::signbit(exact[i])) << static_cast<int>(op) << " at " << x[i];
    }
}

// The AVX-512 functions, through the epilogues that they are made for. `exact` in double.
template <typename F>
double worst_error_avx512(Activation activation, float low, float high, double floor, F&& exact) {
  const std::vector<float> x = sweep(low, high);
  std::vector<float> y(x.size());
  Finish f;
  f.epilogue.activation = activation;
  f.y = y.data();
  f.channels = static_cast<int64_t>(x.size());
  finish_avx512(f, 0, 1, 0, f.channels, x.data(), f.channels);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = exact(static_cast<double>(x[i]));
    worst = std::max(worst, std::abs(static_cast<double>(y[i]) - want) / std::max(std::abs(want), floor));
  }
  return worst;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

TEST(Simd, Avx512FunctionsAreAccurate) {
  if (cpu_isa() < Isa::kAvx512) GTEST_SKIP() << "this CPU (or DS_ISA) has no AVX-512";
  using A = Activation;
  EXPECT_LE(worst_error_avx512(A::kSigmoid, -80, 80, 0, sigmoid), 3e-7);  // exp(-x) where x is below zero
  EXPECT_LE(worst_error_avx512(A::kTanh, -12, 12, 1e-37, [](double x) { return std::tanh(x); }), 3e-7);
  EXPECT_LE(worst_error_avx512(A::kSilu, -80, 80, 1e-37, [](double x) { return x * sigmoid(x); }), 4e-7);
  const auto gelu = [](double x) { return x * 0.5 * (1 + std::erf(x * std::sqrt(0.5))); };
  EXPECT_LE(worst_error_avx512(A::kGelu, -12, 12, 1, gelu), 5e-7);
  EXPECT_LE(worst_error_avx512(A::kGelu, 0, 12, 1e-37, gelu), 5e-7);  // erf, relative to its own value
  EXPECT_LE(worst_error_avx512(A::kGeluTanh, -12, 12, 1,
                               [](double x) { return x * 0.5 * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x))); }),
            5e-7);
}

TEST(Simd, Avx512ExtremesFollowTheMathLibrary) {
  if (cpu_isa() < Isa::kAvx512) GTEST_SKIP() << "this CPU (or DS_ISA) has no AVX-512";
  const std::vector<float> x = {kInf, kNan, 1e30f, -1e30f, 0.0f, -0.0f, 1000.0f, -1000.0f, -90.0f, -100.0f, 88.5f, 9.0f};
  for (const Activation a : {Activation::kSigmoid, Activation::kTanh, Activation::kSilu, Activation::kGelu, Activation::kGeluTanh}) {
    std::vector<float> fast(x.size()), exact = x;
    Finish f;
    f.epilogue.activation = a;
    f.y = fast.data();
    f.channels = static_cast<int64_t>(x.size());
    finish_avx512(f, 0, 1, 0, f.channels, x.data(), f.channels);
    apply_epilogue<float>(f.epilogue, f.channels, nullptr, exact.data());
    for (size_t i = 0; i < x.size(); ++i) {
      if (std::isnan(exact[i])) {
        EXPECT_TRUE(std::isnan(fast[i])) << static_cast<int>(a) << " at " << x[i];
      } else if (std::isinf(exact[i])) {
        EXPECT_EQ(fast[i], exact[i]) << static_cast<int>(a) << " at " << x[i];
      } else {
        EXPECT_NEAR(fast[i], exact[i], 1e-36 + 5e-7 * std::abs(static_cast<double>(exact[i]))) << static_cast<int>(a) << " at " << x[i];
      }
    }
  }
}

TEST(Simd, ExtremesFollowTheMathLibrary) {
  if (!has_avx2()) GTEST_SKIP() << "this CPU (or DS_ISA) has no AVX2";
  const std::vector<float> x = {kInf, -kInf, kNan, 1e30f, -1e30f, 0.0f, -0.0f, 1000.0f, -1000.0f, 1.0f, -1.0f, 1e-45f, 3e-42f, 1.2e-38f, 3.4e38f};
  for (Unary op : {Unary::kRelu, Unary::kSigmoid, Unary::kTanh, Unary::kExp, Unary::kErf, Unary::kNeg, Unary::kAbs, Unary::kLeakyRelu,
                   Unary::kFloor, Unary::kCeil, Unary::kRound, Unary::kSign, Unary::kThresholdedRelu, Unary::kLog, Unary::kElu, Unary::kCelu, Unary::kSelu,
                   Unary::kSoftplus, Unary::kSoftsign})
    for (UnaryFn form : unary_forms()) {
      std::vector<float> fast(x.size()), exact(x.size());
      form(op, static_cast<int64_t>(x.size()), x.data(), fast.data(), 0.1, 0);
      unary(op, static_cast<int64_t>(x.size()), x.data(), exact.data(), 0.1, 0);
      for (size_t i = 0; i < x.size(); ++i) {
        if (std::isnan(exact[i])) {
          EXPECT_TRUE(std::isnan(fast[i])) << static_cast<int>(op) << " at " << x[i];
        } else {
          EXPECT_FLOAT_EQ(fast[i], exact[i]) << static_cast<int>(op) << " at " << x[i];
        }
      }
    }
}

TEST(Simd, BinaryIsBitwiseEqualToPortable) {
  if (!has_avx2()) GTEST_SKIP() << "this CPU (or DS_ISA) has no AVX2";
  // [5, 19] with a full operand, a row, a column, a scalar: every pair of strides.
  std::vector<float> a(95), b(95);
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] = i % 17 == 3 ? kNan : std::sin(static_cast<float>(i));
    b[i] = i % 19 == 5 ? kNan : std::cos(static_cast<float>(3 * i));
  }
  const int64_t out_dims[] = {5, 19};
  const int64_t shapes[][2] = {{5, 19}, {1, 19}, {5, 1}, {1, 1}};
  for (const auto& left : shapes)
    for (const auto& right : shapes)
      for (int op = 0; op <= static_cast<int>(Binary::kPRelu); ++op) {
        if (!avx2::has_binary(static_cast<Binary>(op))) continue;
        const int64_t* dims[] = {left, right};
        const Broadcast space = make_broadcast(2, out_dims, 2, dims);
        std::vector<float> fast(95), exact(95);
        avx2::binary(static_cast<Binary>(op), space, a.data(), b.data(), fast.data());
        binary(static_cast<Binary>(op), space, a.data(), b.data(), exact.data());
        for (size_t i = 0; i < fast.size(); ++i)
          EXPECT_TRUE(fast[i] == exact[i] || (std::isnan(fast[i]) && std::isnan(exact[i]))) << op << " at " << i;
      }
}

TEST(Simd, DropoutDrawsThePortableMask) {
  if (!has_avx2()) GTEST_SKIP() << "this CPU (or DS_ISA) has no AVX2";
  for (int64_t n : {1, 31, 32, 33, 1003}) {
    std::vector<float> x(static_cast<size_t>(n), 3.0f), fast(x.size()), exact(x.size());
    for (double ratio : {0.0, 0.1, 0.5, 0.9999}) {
      avx2::dropout(n, x.data(), ratio, 7, uint64_t{1} << 63 | 5, 11, fast.data());
      dropout(n, x.data(), ratio, 7, uint64_t{1} << 63 | 5, 11, exact.data());
      EXPECT_EQ(fast, exact) << n << " elements, ratio " << ratio;
    }
  }
}

}  // namespace
}  // namespace ds::kernels
