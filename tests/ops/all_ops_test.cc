// One kernel check and one gradient check per case of the shared table (tests/support/op_check.h).
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

// Runs all cases of the table; instantiated at start-up, after every file has added its own.
class AllOps : public testing::TestWithParam<size_t> {
 protected:
  const OpCase& op_case() const { return all_cases()[GetParam()]; }
};

TEST_P(AllOps, KernelsAgreeWithPortableF64) {
  SCOPED_TRACE(case_name(op_case(), GetParam()));
  check_kernels(op_case());
}

TEST_P(AllOps, GradientAgreesWithDifferences) {
  const OpCase& c = op_case();
  const OpDef* def = find_op(c);
  ASSERT_NE(def, nullptr) << c.op;
  if ((!def->grad && !def->lower) || def->stops_gradient || c.wrt == std::vector<int>{-1}) return;  // nothing to differentiate
  SCOPED_TRACE(case_name(c, GetParam()));
  check_gradient(c);
}

INSTANTIATE_TEST_SUITE_P(Cases, AllOps, testing::Range<size_t>(0, all_cases().size()),
                         [](const auto& info) { return case_name(all_cases()[info.param], info.param); });

}  // namespace
}  // namespace ds::test
