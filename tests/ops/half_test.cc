// Operators whose kernels compute in f32 take 16-bit floats too, and round their results once.
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

void check_rounded_once(DType dtype, double tolerance) {
  for (size_t i = 0; i < all_cases().size(); ++i) {
    OpCase c = all_cases()[i];
    const OpDef* def = find_op(c);
    if (def == nullptr || !def->widens_halves || def->stateful) continue;
    for (Tensor& t : c.inputs)
      if (t.defined() && t.dtype() == DType::kF64) t = t.cast(dtype).cast(DType::kF64);
    const std::vector<Tensor> expected = run_op(c, DType::kF64), got = run_op(c, dtype);
    for (size_t k = 0; k < got.size(); ++k)
      EXPECT_LE(relative_error(got[k], expected[k]), tolerance) << case_name(c, i) << " output " << k;
  }
}

TEST(HalfPrecision, F16IsRoundedOnce) { check_rounded_once(DType::kF16, 5.5e-4); }
TEST(HalfPrecision, Bf16IsRoundedOnce) { check_rounded_once(DType::kBF16, 4.2e-3); }

TEST(HalfPrecision, TypesMayMeet) {
  const Tensor x = random_tensor({2, 3, 4}, 1).cast(DType::kF16), one = random_tensor({4}, 2).cast(DType::kF32);
  const auto y = run_op({"LayerNormalization", {x, one}, {}, 2});
  EXPECT_EQ(y[0].dtype(), DType::kF16);
  EXPECT_EQ(y[1].dtype(), DType::kF32);
  EXPECT_EQ(run_op({"RMSNormalization", {x, one}})[0].dtype(), DType::kF32);
}

}  // namespace
}  // namespace ds::test
