#include "libds/tasks/inspect/ops_page.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace ds {
namespace {

const OpFacts& facts_of(const std::vector<OpFacts>& ops, std::string_view name) {
  const auto it = std::find_if(ops.begin(), ops.end(), [&](const OpFacts& op) { return op.def->domain.empty() && op.def->name == name; });
  EXPECT_NE(it, ops.end()) << name;
  return *it;
}

// Trying types runs every operator on inputs that mostly do not fit: each must refuse them in order.
TEST(OpsPage, SaysWhatTheRegistryHolds) {
  const std::vector<OpFacts> ops = list_ops(true);
  const auto takes = [](const OpFacts& op, DType t) { return std::find(op.types.begin(), op.types.end(), t) != op.types.end(); };
  const OpFacts& conv = facts_of(ops, "Conv");
  EXPECT_EQ(conv.since, 0);
  EXPECT_EQ(conv.gradient, OpFacts::Gradient::kOwn);
  EXPECT_TRUE(takes(conv, DType::kF32) && takes(conv, DType::kF16));
  EXPECT_FALSE(takes(conv, DType::kString));
  EXPECT_EQ(facts_of(ops, "And").types, std::vector<DType>{DType::kBool});
  EXPECT_TRUE(takes(facts_of(ops, "Reshape"), DType::kString));
  EXPECT_EQ(facts_of(ops, "Gelu").since, 20);
  EXPECT_EQ(facts_of(ops, "Shape").gradient, OpFacts::Gradient::kStops);
  // Hardly any has no example; those that need sequences or bodies do not.
  const auto tried = std::count_if(ops.begin(), ops.end(), [](const OpFacts& op) { return !op.types.empty(); });
  EXPECT_GT(static_cast<double>(tried), 0.8 * static_cast<double>(ops.size()));
}

TEST(OpsPage, NothingIsBothThereAndMissing) {
  for (const MissingOp& m : missing_ops()) {
    EXPECT_EQ(OpRegistry::instance().find(m.domain, m.op), nullptr) << m.op;
    EXPECT_EQ(m.reason.back(), '.') << m.op;
  }
  for (const auto& [former, name] : former_op_names()) EXPECT_NE(former, name);
}

TEST(OpsPage, TheManualPageIsTheSameEachTime) {
  const std::string page = ops_man_page(list_ops(false), "1.2.3");
  EXPECT_EQ(page, ops_man_page(list_ops(false), "1.2.3"));
  EXPECT_EQ(page.rfind(".TH DS\\-OPS 7", 0), 0u);
  EXPECT_NE(page.find("\\fBImageDecoder\\fR"), std::string::npos);
}

}  // namespace
}  // namespace ds
