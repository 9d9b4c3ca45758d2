#include "kernels/epilogue.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace ds::kernels {
namespace {

TEST(Epilogue, NaNPassesThroughThePortableOne) {
  using A = Activation;
  for (A activation : {A::kNone, A::kRelu, A::kClip, A::kSigmoid, A::kHardSwish, A::kSilu}) {
    std::vector<double> y = {std::numeric_limits<double>::quiet_NaN(), 7.0};
    const std::vector<double> addend = {1.0, -9.0};
    apply_epilogue({activation, 0.0f, 6.0f, true}, 2, addend.data(), y.data());
    EXPECT_TRUE(std::isnan(y[0])) << static_cast<int>(activation);
    EXPECT_FALSE(std::isnan(y[1])) << static_cast<int>(activation);
  }
}

}  // namespace
}  // namespace ds::kernels
