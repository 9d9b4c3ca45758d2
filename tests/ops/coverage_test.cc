// The shared table of cases covers the registry.
#include <set>

#include "tests/support/op_check.h"

namespace ds::test {
namespace {

TEST(Coverage, EveryDifferentiableOperatorHasAGradientCase) {
  std::set<std::string> checked;
  for (const OpCase& c : all_cases())
    if (c.wrt != std::vector<int>{-1}) checked.insert(c.op);
  for (const OpDef* def : OpRegistry::instance().all()) {
    // Those of other domains are lowered to operators that are checked here.
    if (!def->grad && !def->domain.empty() && def->domain != Graph::kInternalDomain) continue;
    EXPECT_TRUE((!def->grad && (!def->lower || def->stops_gradient)) || checked.count(def->name) > 0) << def->name << " has a gradient but no gradient check";
  }
}

TEST(Coverage, EveryCaseNamesAnOperator) {
  for (const OpCase& c : all_cases()) {
    const OpRegistry& registry = OpRegistry::instance();
    EXPECT_TRUE(registry.find("", c.op) != nullptr || registry.find("ai.ds", c.op) != nullptr) << c.op;
  }
}

TEST(Coverage, TheLastKernelOfEveryOperatorIsPortable) {
  for (const OpDef* def : OpRegistry::instance().all())
    EXPECT_TRUE(def->kernels.empty() || def->kernels.back().isa == Isa::kPortable) << def->name;
}

}  // namespace
}  // namespace ds::test
