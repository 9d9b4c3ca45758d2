// Operators lowered into others, random tensors, and small families: bits, selection, determinants, running products.
#include <cmath>
#include <limits>
#include <numeric>

#include "libds/ir/lower.h"
#include "libds/ir/rewriter.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;

Attributes axis(int64_t a) { return {{"axis", a}}; }

const Tensor kLabels = Tensor::of<int64_t>({2, 3}, {0, 3, 1, -7, 2, 2});  // -7: ignored
const Attributes kNone7 = {{"ignore_index", int64_t{-7}}, {"reduction", std::string("none")}};

const bool added = add_cases({
    {"Hardmax", {random_distinct({3, 5, 2}, 1)}, axis(1)},
    {"Shrink", {random_tensor({19}, 1, 0.6, 3.0)}, {{"lambd", 0.5f}, {"bias", 0.3f}}},
    {"Shrink", {random_tensor({19}, 1, -0.4, 0.4)}, {{"lambd", 0.5f}, {"bias", 0.3f}}, 1, {}, 1e-5, "inside"},
    {"LpNormalization", {random_away_from_zero({3, 5, 2}, 1)}, axis(1)},
    {"LpNormalization", {random_away_from_zero({3, 5}, 1)}, {{"p", int64_t{1}}}, 1, {}, 1e-5, "l1"},
    {"MeanVarianceNormalization", {random_tensor({2, 3, 2, 5}, 1)}},
    {"MeanVarianceNormalization", {random_tensor({4, 5}, 1)}, {{"axes", Ints{-1}}}, 1, {}, 1e-5, "rows"},
    {"SwiGLU", {random_tensor({3, 5}, 1), random_tensor({3, 5}, 2)}, {{"alpha", 1.5f}}},
    {"NegativeLogLikelihoodLoss", {random_tensor({2, 4}, 1), Tensor::of<int32_t>({2}, {3, 0})}},
    {"NegativeLogLikelihoodLoss", {random_tensor({2, 4, 3}, 1), kLabels, random_tensor({4}, 2, 0.5, 2.0)}, kNone7, 1, {}, 1e-5, "none"},
    {"NegativeLogLikelihoodLoss", {random_tensor({2, 4, 3}, 1), kLabels, random_tensor({4}, 2, 0.5, 2.0)}, {{"ignore_index", int64_t{-7}}}, 1, {}, 1e-5, "weighted_mean"},
    {"NegativeLogLikelihoodLoss", {random_tensor({2, 4, 3}, 1), kLabels}, {{"ignore_index", int64_t{-7}}, {"reduction", std::string("sum")}}, 1, {}, 1e-5, "sum"},
    {"Compress", {random_tensor({3, 4}, 1), Tensor::of<bool>({3}, {true, false, true})}, axis(1)},
    {"Compress", {random_tensor({3, 4}, 1), Tensor::of<bool>({6}, {false, true, false, false, false, true})}, {}, 1, {}, 1e-5, "flat"},
    {"CenterCropPad", {random_tensor({3, 7, 2}, 1), Tensor::of<int64_t>({3}, {6, 4, 2})}},
    {"CenterCropPad", {random_tensor({3, 6, 2}, 1), Tensor::of<int32_t>({2}, {5, 4})}, {{"axes", Ints{-1, 1}}}, 1, {}, 1e-5, "axes"},
    {"ReverseSequence", {random_tensor({4, 3, 2}, 1), Tensor::of<int64_t>({3}, {4, 0, 2})}},
    {"ReverseSequence", {random_tensor({3, 4, 2}, 1), Tensor::of<int64_t>({3}, {1, 3, 2})}, {{"time_axis", int64_t{1}}, {"batch_axis", int64_t{0}}}, 1, {}, 1e-5, "batch_first"},
    {"Det", {random_tensor({2, 4, 4}, 1)}},
    {"Det", {Tensor::of<double>({2, 3, 3}, {1, 2, 3, 2, 4, 6, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3})}, {}, 1, {}, 1e-5, "singular"},
    {"CumProd", {random_tensor({2, 5, 3}, 1), Tensor::scalar<int64_t>(1)}},
    {"CumProd", {Tensor::of<double>({2, 4}, {1.5, 0, 2, -3, 0, 2, 0, 4}), Tensor::scalar<int32_t>(-1)}, {{"reverse", int64_t{1}}}, 1, {}, 1e-5, "zeros"},
    {"CumProd", {random_tensor({5}, 1), Tensor::scalar<int64_t>(0)}, {{"exclusive", int64_t{1}}}, 1, {}, 1e-5, "exclusive"},
    {"SpaceToDepth", {random_tensor({2, 3, 4, 6}, 1)}, {{"blocksize", int64_t{2}}, {"mode", std::string("CRD")}}, 1, {}, 1e-5, "crd"},
    {"DepthToSpace", {random_tensor({2, 12, 2, 3}, 1)}, {{"blocksize", int64_t{2}}, {"mode", std::string("CRD")}}, 1, {}, 1e-5, "crd_mode"},
    {"Mod", {random_tensor({7}, 1, 2.0, 9.0), Tensor::of<double>({1}, {-1.7})}, {}, 1, {}, 1e-5, "floored"},
    {"Pow", {random_tensor({5}, 1, 0.5, 2.0), Tensor::of<uint8_t>({5}, {0, 1, 2, 3, 4})}, {}, 1, {}, 1e-5, "u8"},
});

Tensor run1(const std::string& op, std::vector<Tensor> inputs, Attributes attrs = {}) { return run_op({op, std::move(inputs), std::move(attrs)})[0]; }

template <typename T>
Tensor vec(std::vector<T> v) {
  return Tensor::vector<T>(v);
}

TEST(Lower, TheOutputKeepsItsNameAndTheFileItsOperator) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {2, 3});
  rw.add_output(rw.emit("Hardmax", {x}, {}, "y"));
  const std::string name = g.value(g.outputs()[0]).name;
  EXPECT_TRUE(lower_nodes(rw));
  EXPECT_FALSE(lower_nodes(rw));
  verify_graph(g);
  EXPECT_EQ(g.value(g.outputs()[0]).name, name);
  for (NodeId id : g.order()) EXPECT_NE(g.node(id).op, "Hardmax");
}

TEST(Bits, ShiftsFillAndNeverOverflow) {
  const Attributes left = {{"direction", std::string("LEFT")}}, right = {{"direction", std::string("RIGHT")}};
  EXPECT_EQ(run1("BitShift", {vec<int8_t>({-128, -3, 5, 100, -1}), vec<int8_t>({7, 1, 1, 8, -1})}, right).to_ints(), (Ints{-1, -2, 2, 0, -1}));
  EXPECT_EQ(run1("BitShift", {vec<int8_t>({-128, -3, 5, 100, -1}), vec<int8_t>({1, 1, 1, 1, -1})}, left).to_ints(), (Ints{0, -6, 10, -56, 0}));
  EXPECT_EQ(run1("BitShift", {vec<uint64_t>({1, uint64_t{1} << 63}), vec<uint64_t>({62, 63})}, left).to_ints(), (Ints{int64_t{1} << 62, 0}));
  EXPECT_EQ(run1("BitShift", {vec<uint16_t>({65535, 65535}), vec<uint16_t>({15, 16})}, right).to_ints(), (Ints{1, 0}));
  EXPECT_THROW(run1("BitShift", {vec<uint8_t>({1}), vec<uint8_t>({1})}), Error);
  EXPECT_EQ(run1("BitwiseXor", {vec<int32_t>({12, -1}), Tensor::scalar<int32_t>(10)}).to_ints(), (Ints{6, -11}));
  EXPECT_EQ(run1("BitwiseNot", {vec<uint8_t>({0, 5})}).to_ints(), (Ints{255, 250}));
}

TEST(Bits, BitCastKeepsTheBits) {
  const Attributes to_i32 = {{"to", static_cast<int64_t>(DType::kI32)}};
  EXPECT_EQ(run1("BitCast", {vec<float>({1.0f, -0.0f})}, to_i32).to_ints(), (Ints{0x3f800000, std::numeric_limits<int32_t>::min()}));
  EXPECT_THROW(run1("BitCast", {vec<int16_t>({1})}, to_i32), Error);
}

TEST(Selection, UniqueSortedAndInOrderOfAppearance) {
  const Tensor x = vec<int32_t>({2, 1, 1, 3, 4, 3});
  auto r = run_op({"Unique", {x}, {{"sorted", int64_t{0}}}, 4});
  EXPECT_EQ(r[0].to_ints(), (Ints{2, 1, 3, 4}));
  EXPECT_EQ(r[1].to_ints(), (Ints{0, 1, 3, 4}));
  EXPECT_EQ(r[2].to_ints(), (Ints{0, 1, 1, 2, 3, 2}));
  EXPECT_EQ(r[3].to_ints(), (Ints{1, 2, 2, 1}));
  r = run_op({"Unique", {x}, {}, 4});
  EXPECT_EQ(r[0].to_ints(), (Ints{1, 2, 3, 4}));
  EXPECT_EQ(r[1].to_ints(), (Ints{1, 0, 3, 4}));
  EXPECT_EQ(r[2].to_ints(), (Ints{1, 0, 0, 2, 3, 2}));
  const Tensor rows = Tensor::of<int64_t>({3, 3}, {1, 0, 0, 1, 0, 0, 2, 3, 4});
  r = run_op({"Unique", {rows}, axis(0), 4});
  EXPECT_EQ(r[0].shape(), (Shape{2, 3}));
  EXPECT_EQ(r[0].to_ints(), (Ints{1, 0, 0, 2, 3, 4}));
  EXPECT_EQ(r[3].to_ints(), (Ints{2, 1}));
  r = run_op({"Unique", {Tensor::zeros(DType::kI64, {0})}, {}, 4});
  EXPECT_EQ(r[0].numel(), 0);
}

TEST(Selection, LengthsOfReverseSequenceAreChecked) {
  EXPECT_THROW(run1("ReverseSequence", {random_tensor({2, 1}, 1), vec<int64_t>({3})}), Error);
  EXPECT_THROW(run1("ReverseSequence", {random_tensor({2, 1}, 1), vec<int64_t>({-1})}), Error);
}

TEST(Composed, ShrinkOfIntegersComparesWithFractions) {
  EXPECT_EQ(run1("Shrink", {vec<int8_t>({-3, -1, 0, 1, 3})}, {{"lambd", 1.5f}, {"bias", 1.5f}}).to_ints(), (Ints{-1, 0, 0, 0, 1}));
}

TEST(Composed, HardmaxTakesTheFirstOfEqualOnes) {
  EXPECT_EQ(run1("Hardmax", {Tensor::of<double>({2, 3}, {1, 3, 3, 2, 2, 2})}).to_doubles(), (std::vector<double>{0, 1, 0, 1, 0, 0}));
}

TEST(Composed, LpNormalizationOfZerosIsZero) {
  EXPECT_EQ(run1("LpNormalization", {Tensor::zeros(DType::kF64, {2, 3})}).to_doubles(), std::vector<double>(6, 0.0));
}

TEST(Composed, EyeLike) {
  const auto eye = [](Shape shape, int64_t k) { return run1("EyeLike", {Tensor::zeros(DType::kI32, std::move(shape))}, {{"k", k}}).to_ints(); };
  EXPECT_EQ(eye({2, 3}, 0), (Ints{1, 0, 0, 0, 1, 0}));
  EXPECT_EQ(eye({2, 3}, 2), (Ints{0, 0, 1, 0, 0, 0}));
  EXPECT_EQ(eye({2, 3}, -1), (Ints{0, 0, 0, 1, 0, 0}));
  EXPECT_EQ(eye({2, 2}, std::numeric_limits<int64_t>::min()), (Ints{0, 0, 0, 0}));
  EXPECT_EQ(eye({2, 2}, std::numeric_limits<int64_t>::max()), (Ints{0, 0, 0, 0}));
}

TEST(Composed, FlooredModOfFloatsHasTheSignOfTheDivisor) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  const Tensor a = vec<double>({-5.5, 5.5, -0.0, 3, -3, kInf, 1}), b = vec<double>({2, -2, 2, kInf, kInf, 2, 0});
  const std::vector<double> y = run1("Mod", {a, b}).to_doubles();
  EXPECT_EQ(y[0], 0.5);
  EXPECT_EQ(y[1], -0.5);
  EXPECT_FALSE(std::signbit(y[2]));
  EXPECT_EQ(y[3], 3);
  EXPECT_EQ(y[4], kInf);
  EXPECT_TRUE(std::isnan(y[5]) && std::isnan(y[6]));
}

// --- random numbers --------------------------------------------------------------------------------

struct Moments {
  double mean = 0, deviation = 0, low = 0, high = 0;
  explicit Moments(const Tensor& t) {
    const std::vector<double> v = t.to_doubles();
    mean = std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
    for (double x : v) deviation += (x - mean) * (x - mean);
    deviation = std::sqrt(deviation / static_cast<double>(v.size()));
    low = *std::min_element(v.begin(), v.end());
    high = *std::max_element(v.begin(), v.end());
  }
};

TEST(Draw, DistributionsHaveTheirMoments) {
  const Attributes shape = {{"shape", Ints{100, 301}}, {"low", -2.0f}, {"high", 6.0f}, {"mean", 3.0f}, {"scale", 0.5f}};
  const Moments u(run1("RandomUniform", {}, shape));
  EXPECT_NEAR(u.mean, 2, 0.05);
  EXPECT_NEAR(u.deviation, 8 / std::sqrt(12.0), 0.05);
  EXPECT_GE(u.low, -2);
  EXPECT_LT(u.high, 6);
  const Moments n(run1("RandomNormal", {}, shape));
  EXPECT_NEAR(n.mean, 3, 0.02);
  EXPECT_NEAR(n.deviation, 0.5, 0.02);
  const Tensor p = Tensor::vector<double>(std::vector<double>(20000, 0.3));
  EXPECT_NEAR(Moments(run1("Bernoulli", {p})).mean, 0.3, 0.02);
  EXPECT_EQ(run1("Bernoulli", {p}, {{"dtype", static_cast<int64_t>(DType::kBool)}}).dtype(), DType::kBool);
  const Tensor logits = Tensor::of<double>({1, 3}, {std::log(0.2), std::log(0.5), std::log(0.3)});
  const Moments m(run1("Multinomial", {logits}, {{"sample_size", int64_t{20000}}}));
  EXPECT_NEAR(m.mean, 1.1, 0.03);
  EXPECT_EQ(m.low, 0);
  EXPECT_EQ(m.high, 2);
}

TEST(Draw, SeedsAndRunsDecide) {
  const auto draw = [](float seed) { return run1("RandomNormal", {}, {{"shape", Ints{5}}, {"seed", seed}}); };
  EXPECT_TRUE(draw(1).equal_bits(draw(1)));
  EXPECT_FALSE(draw(1).equal_bits(draw(2)));
}

TEST(Draw, DropoutInTrainingModeDropsAndScales) {
  const Tensor x = Tensor::vector<double>(std::vector<double>(10000, 1.0));
  const auto r = run_op({"Dropout", {x, Tensor::scalar<float>(0.25f), Tensor::scalar<bool>(true)}, {}, 2});
  double kept = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    const bool stays = r[1].data<bool>()[i];
    kept += stays;
    EXPECT_EQ(r[0].data<double>()[i], stays ? 1 / 0.75 : 0);
  }
  EXPECT_NEAR(kept / 10000, 0.75, 0.02);
}

}  // namespace
}  // namespace ds::test
