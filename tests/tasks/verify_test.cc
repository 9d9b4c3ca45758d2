#include "libds/tasks/verify/verify.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "libds/ir/rewriter.h"
#include "libds/tasks/verify/run_model.h"

namespace ds {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

Tensor floats(std::initializer_list<float> values) { return Tensor::of<float>({static_cast<int64_t>(values.size())}, values); }

OutputDifference compare(std::initializer_list<float> got, std::initializer_list<float> expected, Tolerance t = {1e-2, 1e-3}) {
  return compare_output("y", floats(got), floats(expected), t);
}

TEST(Verify, ErrorsAreMeasured) {
  const OutputDifference d = compare({1.0f, 2.5f, -4.0f}, {1.0f, 2.0f, -4.1f});
  EXPECT_FALSE(d.ok());
  EXPECT_EQ(d.mismatches, 2);
  EXPECT_EQ(d.worst, 1);
  EXPECT_DOUBLE_EQ(d.got, 2.5);
  EXPECT_DOUBLE_EQ(d.max_abs, 0.5);
  EXPECT_DOUBLE_EQ(d.max_rel, 0.25);
  const double dot = 1 + 5 + 4 * static_cast<double>(4.1f);
  EXPECT_NEAR(d.cosine, dot / std::sqrt(1 + 6.25 + 16) / std::sqrt(1 + 4 + static_cast<double>(4.1f) * 4.1f), 1e-12);
}

TEST(Verify, ToleranceIsAbsolutePlusRelative) {
  EXPECT_TRUE(compare({100.9f}, {100.0f}).ok());
  EXPECT_FALSE(compare({101.1f}, {100.0f}).ok());
  EXPECT_TRUE(compare({0.0009f}, {0.0f}).ok());
  EXPECT_FALSE(compare({0.0011f}, {0.0f}).ok());
  EXPECT_TRUE(compare({3.0f}, {3.0f}, {0, 0}).ok());
}

TEST(Verify, NanAndInfinityMatchThemselvesOnly) {
  EXPECT_TRUE(compare({kNan, kInf, -kInf}, {kNan, kInf, -kInf}).ok());
  EXPECT_EQ(compare({kNan}, {1}).mismatches, 1);
  EXPECT_EQ(compare({1}, {kNan}).mismatches, 1);
  EXPECT_EQ(compare({kInf}, {-kInf}).mismatches, 1);
  EXPECT_EQ(compare({1, 9}, {kInf, 9}).mismatches, 1);
}

TEST(Verify, ShapesMustAgree) {
  const OutputDifference d = compare_output("y", Tensor::zeros(DType::kF32, {2, 3}), Tensor::zeros(DType::kF32, {3, 2}), {});
  EXPECT_FALSE(d.ok());
  EXPECT_NE(d.problem.find("2x3"), std::string::npos);
  VerifyReport report;
  report.rounds.push_back({"x.npz", {}, {d}});
  EXPECT_FALSE(report.ok());
  EXPECT_NE(verify_text(report).find("FAILED"), std::string::npos);
}

TEST(Verify, TypesMustAgreeUnlessBothAreFloats) {
  EXPECT_TRUE(compare_output("y", floats({1, 2}), floats({1, 2}).cast(DType::kF16), {}).ok());
  EXPECT_FALSE(compare_output("y", floats({1, 2}), floats({1, 2}).cast(DType::kI32), {}).ok());
}

TEST(Verify, StringsAndSequences) {
  const Tensor a = Tensor::of_strings({2}, {"x", "y"}), b = Tensor::of_strings({2}, {"x", "z"});
  EXPECT_TRUE(compare_output("s", a, a, {}).ok());
  const OutputDifference d = compare_output("s", a, b, {});
  EXPECT_EQ(d.mismatches, 1);
  EXPECT_EQ(d.worst, 1);
  EXPECT_EQ(d.got_text, "y");
  EXPECT_EQ(d.expected_text, "z");
  const Tensor two = Tensor::sequence({floats({1, 2}), floats({3})}), other = Tensor::sequence({floats({1, 2}), floats({4})});
  EXPECT_TRUE(compare_output("q", two, two, {}).ok());
  const OutputDifference e = compare_output("q", two, other, {});
  EXPECT_EQ(e.elements, 3);
  EXPECT_EQ(e.mismatches, 1);
  EXPECT_EQ(e.worst, 2);
  EXPECT_NE(compare_output("q", two, Tensor::sequence({floats({1})}), {}).problem.find("2 items"), std::string::npos);
  EXPECT_NE(compare_output("q", two, Tensor::sequence({floats({1}), floats({3})}), {}).problem.find("item 0 has shape"), std::string::npos);
}

TEST(Verify, EmptyAndZeroOutputsPass) {
  EXPECT_TRUE(compare({}, {}).ok());
  EXPECT_DOUBLE_EQ(compare({0, 0}, {0, 0}).cosine, 1);
  EXPECT_DOUBLE_EQ(compare({0, 0}, {0, 1}).cosine, 0);
}

TEST(Verify, ReferencesMustNameOutputs) {
  const NamedTensors got = {{"y", floats({1})}, {"z", floats({2})}};
  EXPECT_TRUE(all_ok(compare_outputs(got, {{"z", floats({2})}}, {})));
  EXPECT_THROW(compare_outputs(got, {{"w", floats({2})}}, {}), Error);
  EXPECT_THROW(compare_outputs(got, {}, {}), Error);
}

TEST(Verify, RunsByNameInAnyOrderAndRefusesWhatDoesNotFit) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const ValueId a = rw.add_input("a", DType::kF32, {g->symbol("n")});
  const ValueId b = rw.add_input("b", DType::kF32, {1});
  rw.add_output(rw.emit("Mul", {a, b}, {}, "y"));
  Session session(g);
  const NamedTensors out = run_named(session, {{"b", floats({10})}, {"a", floats({1, 2})}});
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].first, "y");
  EXPECT_EQ(out[0].second.to_doubles(), (std::vector<double>{10, 20}));
  const auto error = [&](const NamedTensors& inputs) -> std::string {
    try {
      run_named(session, inputs);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kBadData);
      return e.what();
    }
    return "";
  };
  EXPECT_NE(error({{"a", floats({1})}}).find("'b' is missing"), std::string::npos);
  EXPECT_NE(error({{"a", floats({1})}, {"b", floats({1})}, {"c", floats({1})}}).find("no input 'c'"), std::string::npos);
  EXPECT_NE(error({{"a", floats({1})}, {"b", Tensor::zeros(DType::kF64, {1})}}).find("'b'"), std::string::npos);
  EXPECT_NE(error({{"a", floats({1})}, {"b", floats({1, 2})}}).find("'b'"), std::string::npos);
}

}  // namespace
}  // namespace ds
