// Elementwise operators: arithmetic, comparisons, functions of one operand, conversions.
#include <cmath>
#include <limits>

#include "libds/ir/rewriter.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
using Ints = std::vector<int64_t>;

Attributes to(DType dtype) { return {{"to", static_cast<int64_t>(dtype)}}; }

const bool added = add_cases({
    {"Add", {random_tensor({3, 5}, 1), random_tensor({3, 5}, 2)}},
    {"Add", {random_tensor({2, 3, 5}, 1), random_tensor({3, 1}, 2)}, {}, 1, {}, 1e-5, "channel"},
    {"Add", {random_tensor({5}, 1), random_tensor({4, 1}, 2)}, {}, 1, {}, 1e-5, "outer"},
    {"Add", {random_tensor({0, 5}, 1), random_tensor({5}, 2)}, {}, 1, {-1}, 1e-5, "empty"},
    {"Sub", {random_tensor({4, 3}, 1), random_tensor({3}, 2)}},
    {"Mul", {random_tensor({2, 5}, 1), random_tensor({2, 5}, 2)}},
    {"Mul", {random_tensor({2, 3, 1, 5}, 1), random_tensor({3, 7, 1}, 2)}, {}, 1, {}, 1e-5, "both_broadcast"},
    {"Div", {random_tensor({2, 5}, 1), random_away_from_zero({5}, 2, 0.3)}},
    {"Mod", {random_tensor({7}, 1, 2.0, 9.0), Tensor::of<double>({1}, {1.7})}, {{"fmod", int64_t{1}}}},
    {"Pow", {random_tensor({3, 5}, 1, 0.5, 2.0), random_tensor({3, 5}, 2, -2.0, 2.0)}},
    {"Pow", {random_away_from_zero({9}, 1), Tensor::scalar<double>(2)}, {}, 1, {0}, 1e-5, "square"},
    {"Pow", {random_away_from_zero({9}, 1), Tensor::scalar<int64_t>(3)}, {}, 1, {}, 1e-5, "cube"},
    {"Min", {random_distinct({3, 5}, 1), random_distinct({5}, 2), random_tensor({3, 1}, 3)}},
    {"Max", {random_distinct({3, 5}, 1), random_tensor({3, 5}, 2)}},
    {"Max", {random_tensor({3, 5}, 1)}, {}, 1, {}, 1e-5, "single"},
    {"Sum", {random_tensor({3, 5}, 1), random_tensor({5}, 2), random_tensor({3, 1}, 3)}},
    {"Mean", {random_tensor({5}, 1), random_tensor({3, 1}, 2), random_tensor({3, 5}, 3)}},
    {"PRelu", {random_away_from_zero({2, 3, 5}, 1), random_tensor({3, 1}, 2)}},
    {"Where", {Tensor::of<bool>({3, 1}, {true, false, true}), random_tensor({3, 4}, 1), random_tensor({4}, 2)}},
    {"Clip", {random_distinct({11}, 1), Tensor::scalar<double>(-0.33), Tensor::scalar<double>(0.27)}, {}, 1, {0}},
    {"Clip", {random_distinct({11}, 1), Tensor(), Tensor::scalar<double>(0.27)}, {}, 1, {0}, 1e-5, "upper"},
    {"ClipGrad", {random_distinct({11}, 1), random_tensor({11}, 2), Tensor::scalar<double>(-0.33)}},
    {"Cast", {random_tensor({7}, 1)}, to(DType::kF64)},
    {"CastLike", {random_tensor({7}, 1), random_tensor({1}, 2)}, {}, 1, {0}},
    {"Identity", {random_tensor({7}, 1)}},
});

// Sizes that are no multiple of any vector width; 19 is covered by two and a remainder.
struct UnaryCase {
  const char* op;
  double low = -3, high = 3;  // where it is defined
  bool kink_at_zero = false;
  Attributes attrs = {};
  const char* name = "";
};

const std::vector<UnaryCase>& unary_cases() {
  static const std::vector<UnaryCase> cases = {
      {"Relu", -3, 3, true},
      {"Sigmoid", -6, 6},
      {"Tanh"},
      {"Exp"},
      {"Log", 0.2, 4},
      {"Sqrt", 0.2, 4},
      {"Reciprocal", 0.3, 4},
      {"Neg"},
      {"Abs", -3, 3, true},
      {"Erf"},
      {"Floor"},
      {"Ceil"},
      {"Round"},
      {"Sign"},
      {"Sin"},
      {"Cos"},
      {"Tan", -1.2, 1.2},
      {"Asin", -0.9, 0.9},
      {"Acos", -0.9, 0.9},
      {"Atan"},
      {"Sinh"},
      {"Cosh"},
      {"Asinh"},
      {"Acosh", 1.2, 4},
      {"Atanh", -0.9, 0.9},
      {"LeakyRelu", -3, 3, true, {{"alpha", 0.1f}}},
      {"Elu", -3, 3, true, {{"alpha", 0.7f}}},
      {"Celu", -3, 3, true, {{"alpha", 0.7f}}},
      {"Selu", -3, 3, true},
      {"ThresholdedRelu", -3, 3, false, {{"alpha", 4.0f}}, "all_below"},
      {"ThresholdedRelu", 1.1, 3},
      {"Softplus", -6, 6},
      {"Softsign", -3, 3},
      {"HardSigmoid", -2.4, 2.4},
      {"HardSigmoid", 2.6, 4, false, {}, "saturated"},
      {"HardSwish", -2.9, 2.9},
      {"HardSwish", 3.1, 5, false, {}, "right"},
      {"Gelu"},
      {"Gelu", -3, 3, false, {{"approximate", std::string("tanh")}}, "tanh"},
      {"Mish"},
      {"Swish", -3, 3, false, {{"alpha", 1.5f}}},
  };
  return cases;
}

std::vector<OpCase> make_unary_cases() {
  std::vector<OpCase> cases;
  for (const UnaryCase& u : unary_cases()) {
    const Tensor x = u.kink_at_zero ? random_away_from_zero({19}, 3) : random_tensor({19}, 3, u.low, u.high);
    cases.push_back({u.op, {x}, u.attrs, 1, {}, 1e-5, u.name});
    // The gradient operator as such: every kernel of it against f64.
    const std::string grad = std::string(u.op) + "Grad";
    if (OpRegistry::instance().find("ai.ds", grad) != nullptr)
      cases.push_back({grad, {x, random_tensor({19}, 4)}, u.attrs, 1, {-1}, 1e-5, u.name});
  }
  return cases;
}

const bool added_unary = add_cases(make_unary_cases());

// --- values against definitions ---------------------------------------------------------------------

Tensor run1(const std::string& op, std::vector<Tensor> inputs, Attributes attrs = {}, DType dtype = DType::kF64) {
  return run_op({op, std::move(inputs), std::move(attrs)}, dtype)[0];
}

Tensor doubles(const std::vector<double>& v) { return Tensor::vector<double>(v); }

TEST(Elementwise, IntegersWrapAndNeverTrap) {
  constexpr int32_t kLowest = std::numeric_limits<int32_t>::min();
  const auto ints = [](std::vector<int32_t> v) { return Tensor::vector<int32_t>(v); };
  const Tensor a = ints({kLowest, 7, -7, 5, kLowest}), b = ints({-1, 2, 2, 0, -1});
  EXPECT_EQ(run1("Div", {a, b}).to_ints(), (Ints{kLowest, 3, -3, 0, kLowest}));
  EXPECT_EQ(run1("Mod", {a, b}).to_ints(), (Ints{0, 1, 1, 0, 0}));
  EXPECT_EQ(run1("Mod", {a, b}, {{"fmod", int64_t{1}}}).to_ints(), (Ints{0, 1, -1, 0, 0}));
  EXPECT_EQ(run1("Add", {ints({kLowest}), ints({-1})}).to_ints(), (Ints{std::numeric_limits<int32_t>::max()}));
  EXPECT_EQ(run1("Mul", {Tensor::of<uint8_t>({1}, {200}), Tensor::of<uint8_t>({1}, {2})}).to_ints(), (Ints{144}));
  EXPECT_EQ(run1("Pow", {ints({-3, 2, 1, -1}), ints({3, 5, -4, -3})}).to_ints(), (Ints{-27, 32, 1, -1}));
  EXPECT_EQ(run1("Abs", {ints({kLowest, -4})}).to_ints(), (Ints{kLowest, 4}));
  EXPECT_EQ(run1("Sign", {ints({kLowest, 0, 9})}).to_ints(), (Ints{-1, 0, 1}));
  EXPECT_EQ(run1("Clip", {ints({-9, 1, 9}), Tensor::scalar<int32_t>(-2), Tensor::scalar<int32_t>(3)}).to_ints(), (Ints{-2, 1, 3}));
}

TEST(Elementwise, NanAndInfinity) {
  const Tensor x = doubles({kNan, kInf, -kInf, 0});
  for (const char* op : {"Relu", "Sigmoid", "Tanh", "Exp", "Gelu", "Clip", "HardSigmoid", "Sign", "Softplus", "Erf", "Mish", "Elu", "Celu", "Selu", "Softsign", "ThresholdedRelu", "Floor"})
    EXPECT_TRUE(std::isnan(run1(op, {x}, {}, DType::kF32).to_doubles()[0])) << op;
  EXPECT_EQ(run1("Sigmoid", {doubles({kInf, -kInf, 1000, -1000})}, {}, DType::kF32).to_doubles(), (std::vector<double>{1, 0, 1, 0}));
  EXPECT_EQ(run1("Tanh", {doubles({kInf, -kInf, 100})}, {}, DType::kF32).to_doubles(), (std::vector<double>{1, -1, 1}));
  EXPECT_EQ(run1("Softplus", {doubles({1000, -1000})}, {}, DType::kF32).to_doubles(), (std::vector<double>{1000, 0}));
  EXPECT_EQ(run1("Exp", {doubles({kInf, -kInf, 1000, -1000})}, {}, DType::kF32).to_doubles(), (std::vector<double>{kInf, 0, kInf, 0}));
  for (const char* op : {"Min", "Max"}) {
    const auto y = run1(op, {doubles({kNan, 1, 2}), doubles({1, kNan, 3})}, {}, DType::kF32).to_doubles();
    EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1]) && !std::isnan(y[2])) << op;
  }
  EXPECT_EQ(run1("IsNaN", {x}).to_ints(), (Ints{1, 0, 0, 0}));
  EXPECT_EQ(run1("IsInf", {x}).to_ints(), (Ints{0, 1, 1, 0}));
  EXPECT_EQ(run1("IsInf", {x}, {{"detect_positive", int64_t{0}}}).to_ints(), (Ints{0, 0, 1, 0}));
  EXPECT_EQ(run1("Equal", {x, x}).to_ints(), (Ints{0, 1, 1, 1}));
}

TEST(Elementwise, ComparisonsBroadcast) {
  const Tensor a = Tensor::of<int64_t>({3, 1}, {1, 2, 3}), b = Tensor::of<int64_t>({2}, {2, 3});
  EXPECT_EQ(run1("Greater", {a, b}).to_ints(), (Ints{0, 0, 0, 0, 1, 0}));
  EXPECT_EQ(run1("GreaterOrEqual", {a, b}).to_ints(), (Ints{0, 0, 1, 0, 1, 1}));
  EXPECT_EQ(run1("Less", {a, b}).to_ints(), (Ints{1, 1, 0, 1, 0, 0}));
  EXPECT_EQ(run1("LessOrEqual", {a, b}).to_ints(), (Ints{1, 1, 1, 1, 0, 1}));
  EXPECT_EQ(run1("Equal", {a, b}).to_ints(), (Ints{0, 0, 1, 0, 0, 1}));
  const Tensor p = Tensor::of<bool>({2, 1}, {true, false}), q = Tensor::of<bool>({2}, {true, false});
  EXPECT_EQ(run1("And", {p, q}).to_ints(), (Ints{1, 0, 0, 0}));
  EXPECT_EQ(run1("Or", {p, q}).to_ints(), (Ints{1, 1, 1, 0}));
  EXPECT_EQ(run1("Xor", {p, q}).to_ints(), (Ints{0, 1, 1, 0}));
  EXPECT_EQ(run1("Not", {q}).to_ints(), (Ints{0, 1}));
}

TEST(Elementwise, RoundingHalvesGoToEven) {
  EXPECT_EQ(run1("Round", {doubles({-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4})}).to_doubles(),
            (std::vector<double>{-2, -2, 0, 0, 2, 2, 2}));
}

TEST(Elementwise, CastSaturatesFloatsAndWrapsIntegers) {
  EXPECT_EQ(run1("Cast", {doubles({-1.9, 1.9, 300, -1e30, kNan})}, to(DType::kU8)).to_ints(), (Ints{0, 1, 255, 0, 0}));
  EXPECT_EQ(run1("Cast", {doubles({1e30, -1e30, -7.9})}, to(DType::kI32)).to_ints(), (Ints{2147483647, -2147483648, -7}));
  EXPECT_EQ(run1("Cast", {Tensor::of<int32_t>({2}, {257, -1})}, to(DType::kU8)).to_ints(), (Ints{1, 255}));
  EXPECT_EQ(run1("Cast", {doubles({0.0, -0.5, kNan})}, to(DType::kBool)).to_ints(), (Ints{0, 1, 1}));
  for (DType half : {DType::kF16, DType::kBF16}) {
    const Tensor narrow = run1("Cast", {doubles({1.0, -0.5, 3.25, kInf})}, to(half));
    EXPECT_EQ(narrow.dtype(), half);
    EXPECT_EQ(run1("Cast", {narrow}, to(DType::kF64)).to_doubles(), (std::vector<double>{1.0, -0.5, 3.25, kInf}));
  }
}

TEST(Elementwise, HalfPrecisionComputesInFloat) {
  for (DType half : {DType::kF16, DType::kBF16}) {
    const Tensor a = doubles({1.5, -2.0}).cast(half), b = doubles({0.25, 4.0}).cast(half);
    EXPECT_EQ(run1("Add", {a, b}).to_doubles(), (std::vector<double>{1.75, 2.0}));
    EXPECT_EQ(run1("Mul", {a, b}).to_doubles(), (std::vector<double>{0.375, -8.0}));
    EXPECT_EQ(run1("Relu", {a}).to_doubles(), (std::vector<double>{1.5, 0.0}));
    EXPECT_EQ(run1("Mean", {a, b}).to_doubles(), (std::vector<double>{0.875, 1.0}));
  }
}

TEST(Elementwise, TypesMustAgree) {
  try {
    run1("Add", {Tensor::of<float>({1}, {1}), Tensor::of<int32_t>({1}, {1})});
    FAIL() << "f32 + i32 was accepted";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "node 'op' (Add): operands differ in type: f32 and i32");
  }
}

// --- shape arithmetic -------------------------------------------------------------------------------

TEST(ShapeArithmetic, TravelsThroughElementwiseOperators) {
  Graph g;
  Rewriter rw(g);
  const Dim batch = g.symbol("batch");
  const ValueId x = rw.add_input("x", DType::kF32, {batch, 6, 8});
  const ValueId shape = rw.emit("Shape", {x});
  const auto vector = [&](const Ints& v) { return rw.add_constant("c", Tensor::vector<int64_t>(v)); };
  const auto ints_of = [&](ValueId id) { return g.value(id).ints; };
  const ValueId scaled = rw.emit("Mul", {shape, vector({1, 2, 2})});
  EXPECT_EQ(ints_of(scaled), (Dims{batch, 12, 16}));
  EXPECT_EQ(ints_of(rw.emit("Sub", {rw.emit("Add", {scaled, vector({0, 1, 1})}), vector({0, 2, 3})})), (Dims{batch, 11, 14}));
  EXPECT_EQ(ints_of(rw.emit("Div", {scaled, vector({1, 5, 4})})), (Dims{batch, 2, 4}));
  EXPECT_EQ(ints_of(rw.emit("Cast", {rw.emit("Cast", {shape}, to(DType::kI32))}, to(DType::kI64))), (Dims{batch, 6, 8}));
  EXPECT_EQ(ints_of(rw.emit("Max", {shape, vector({0, 7, 7})})), (Dims{batch, 7, 8}));
  // What exporters write for Expand: -1 keeps the size of the input.
  const ValueId wanted = vector({-1, 3, -1});
  const ValueId keep = rw.emit("Equal", {wanted, vector({-1})});
  EXPECT_EQ(ints_of(rw.emit("Where", {keep, shape, wanted})), (Dims{batch, 3, 8}));
  EXPECT_EQ(ints_of(rw.emit("Equal", {shape, vector({-1})})), (Dims{0, 0, 0}));
  // A symbol times two is some other size.
  const auto twice = ints_of(rw.emit("Mul", {shape, vector({2, 1, 1})}));
  ASSERT_TRUE(twice);
  EXPECT_FALSE((*twice)[0].known() || (*twice)[0] == batch);
  // A negative number is no dimension: nothing is recorded.
  EXPECT_FALSE(ints_of(rw.emit("Sub", {vector({1}), vector({2})})));
}

}  // namespace
}  // namespace ds::test
