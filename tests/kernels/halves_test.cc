// 16-bit floats by vectors against libds/base/half.h.
#include "kernels/halves.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "libds/base/cpu.h"

namespace ds::kernels {
namespace {

template <typename Half>
class Halves : public testing::Test {};
using Types = testing::Types<f16, bf16>;
TYPED_TEST_SUITE(Halves, Types);

template <typename Half>
Half of_bits(uint32_t bits) {
  Half h;
  h.bits = static_cast<uint16_t>(bits);
  return h;
}

TYPED_TEST(Halves, EveryPatternWidens) {
  if (cpu_isa() < Isa::kAvx2) GTEST_SKIP() << "needs AVX2";
  std::vector<TypeParam> x;
  for (uint32_t u = 0; u < 65536; ++u) x.push_back(of_bits<TypeParam>(u));
  x.push_back(TypeParam(1.5f));  // a tail
  std::vector<float> y(x.size() + 1, 77.0f);
  widen_avx2(static_cast<int64_t>(x.size()), x.data(), y.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const float expected = x[i];
    if (std::isnan(expected)) ASSERT_TRUE(std::isnan(y[i])) << i;
    else ASSERT_EQ(float_bits(y[i]), float_bits(expected)) << i;
  }
  EXPECT_EQ(y.back(), 77.0f);
}

TYPED_TEST(Halves, NarrowsToTheSameBits) {
  if (cpu_isa() < Isa::kAvx2) GTEST_SKIP() << "needs AVX2";
  std::mt19937 engine(5);
  std::vector<float> x;
  for (uint32_t u = 0; u < 65536; ++u) {  // all of 16 bits, what lies half-way to the next, and either side of that
    const float value = of_bits<TypeParam>(u), next = of_bits<TypeParam>(u + 1 < 65536 ? u + 1 : u);
    const float middle = value / 2 + next / 2;
    for (const float v : {value, middle, std::nextafter(middle, value), std::nextafter(middle, next)}) x.push_back(v);
  }
  for (int i = 0; i < 100003; ++i) x.push_back(float_from_bits(static_cast<uint32_t>(engine())));
  std::vector<TypeParam> y(x.size() + 1, of_bits<TypeParam>(0x1234));
  narrow_avx2(static_cast<int64_t>(x.size()), x.data(), y.data());
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(y[i].bits, TypeParam(x[i]).bits) << i << ": " << x[i] << " " << float_bits(x[i]);
  EXPECT_EQ(y.back().bits, 0x1234);
}

}  // namespace
}  // namespace ds::kernels
