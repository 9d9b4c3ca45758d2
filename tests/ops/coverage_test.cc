// The shared table of cases covers the registry.
#include <set>

#include "tests/support/op_check.h"

namespace ds::test {
namespace {

TEST(Coverage, EveryDifferentiableOperatorHasAGradientCase) {
  std::set<const OpDef*> checked;
  for (const OpCase& c : all_cases())
    if (c.wrt != std::vector<int>{-1}) checked.insert(find_op(c));
  for (const OpDef* def : OpRegistry::instance().all())
    EXPECT_TRUE((!def->grad && !def->lower) || def->stops_gradient || checked.count(def) > 0)
        << def->domain << " " << def->name << " has a gradient but no gradient check";
}

TEST(Coverage, EveryCaseNamesAnOperator) {
  for (const OpCase& c : all_cases()) EXPECT_TRUE(find_op(c) != nullptr) << c.op;
}

TEST(Coverage, TheLastKernelOfEveryOperatorIsPortable) {
  for (const OpDef* def : OpRegistry::instance().all())
    EXPECT_TRUE(def->kernels.empty() || def->kernels.back().isa == Isa::kPortable) << def->name;
}

}  // namespace
}  // namespace ds::test
