// Reductions, selections along an axis, softmax.
#include <cmath>
#include <limits>

#include "tests/support/op_check.h"

namespace ds::test {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
using Ints = std::vector<int64_t>;

Tensor ints(const Ints& v) { return Tensor::vector<int64_t>(v); }

// Every reduction over: the inner axis, the outer one, alternate ones, all, and none.
std::vector<OpCase> make_reduce_cases() {
  std::vector<OpCase> cases;
  for (const char* op : {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
                         "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"}) {
    const std::string name = op;
    const bool positive = name == "ReduceLogSum", distinct = name == "ReduceMax" || name == "ReduceMin";
    const auto input = [&](Shape shape) {
      if (positive) return random_tensor(shape, 5, 0.2, 2.0);
      return distinct ? random_distinct(shape, 5) : random_away_from_zero(shape, 5);
    };
    cases.push_back({name, {input({3, 19}), ints({-1})}, {}, 1, {}, 1e-5, "inner"});
    cases.push_back({name, {input({5, 67}), ints({0})}, {{"keepdims", int64_t{0}}}, 1, {}, 1e-5, "outer"});
    cases.push_back({name, {input({2, 3, 2, 5}), ints({0, 2})}, {{"keepdims", int64_t{0}}}, 1, {}, 1e-5, "outer_alternate"});
    cases.push_back({name, {input({2, 3, 2, 5}), ints({1, -1})}, {}, 1, {}, 1e-5, "inner_alternate"});
    cases.push_back({name, {input({3, 5})}, {{"keepdims", int64_t{0}}}, 1, {}, 1e-5, "all"});
    cases.push_back({name, {input({3, 1, 5}), ints({1})}, {}, 1, {}, 1e-5, "of_one"});
  }
  return cases;
}

const bool added_reduce = add_cases(make_reduce_cases());

const bool added = add_cases({
    {"ReduceSum", {random_tensor({2, 3}, 1)}, {{"noop_with_empty_axes", int64_t{1}}}, 1, {}, 1e-5, "noop"},
    {"ReduceProd", {Tensor::of<double>({3, 3}, {1, 2, 3, 0, 2, 3, 0, 2, 0}), ints({1})}, {}, 1, {}, 1e-5, "zeros"},
    {"ReduceSum", {random_tensor({50000}, 1)}, {}, 1, {-1}, 1e-5, "long"},
    {"CumSum", {random_tensor({3, 5, 2}, 1), Tensor::scalar<int64_t>(1)}},
    {"CumSum", {random_tensor({7}, 1), Tensor::scalar<int64_t>(-1)}, {{"exclusive", int64_t{1}}, {"reverse", int64_t{1}}}, 1, {}, 1e-5, "back"},
    {"TopK", {random_distinct({3, 9}, 1), ints({4})}, {}, 2},
    {"TopK", {random_distinct({2, 6, 3}, 1), ints({2})}, {{"axis", int64_t{1}}, {"largest", int64_t{0}}}, 2, {}, 1e-5, "smallest"},
    {"Softmax", {random_tensor({3, 19}, 1, -4, 4)}},
    {"Softmax", {random_tensor({2, 5, 3}, 1, -4, 4)}, {{"axis", int64_t{1}}}, 1, {}, 1e-5, "middle"},
    {"Softmax", {random_tensor({37, 5}, 1, -4, 4)}, {}, 1, {}, 1e-5, "short_rows"},
    {"Softmax", {random_tensor({3, 53}, 1, -4, 4)}, {}, 1, {}, 1e-5, "held_rows"},
    {"Softmax", {random_tensor({2, 611}, 1, -9, 9)}, {}, 1, {-1}, 1e-5, "long_rows"},
    {"Softmax", {random_tensor({2, 71, 37}, 1, -9, 9)}, {{"axis", int64_t{1}}}, 1, {-1}, 1e-5, "columns"},
    {"LogSoftmax", {random_tensor({35, 7}, 1, -4, 4)}, {}, 1, {}, 1e-5, "short_rows"},
    {"LogSoftmax", {random_tensor({2, 611}, 1, -9, 9)}, {}, 1, {-1}, 1e-5, "long_rows"},
    {"LogSoftmax", {random_tensor({71, 37}, 1, -9, 9)}, {{"axis", int64_t{0}}}, 1, {-1}, 1e-5, "columns"},
    {"LogSoftmax", {random_tensor({3, 19}, 1, -4, 4)}},
    {"LogSoftmax", {random_tensor({5, 2, 3}, 1, -4, 4)}, {{"axis", int64_t{0}}}, 1, {}, 1e-5, "outer"},
    {"SoftmaxGrad", {random_tensor({3, 19}, 1, 0, 1), random_tensor({3, 19}, 2)}},
    {"LogSoftmaxGrad", {random_tensor({3, 19}, 1, -4, 0), random_tensor({3, 19}, 2)}},
});

Tensor run1(const std::string& op, std::vector<Tensor> inputs, Attributes attrs = {}, DType dtype = DType::kF64) {
  return run_op({op, std::move(inputs), std::move(attrs)}, dtype)[0];
}

TEST(Reduce, Integers) {
  const Tensor x = Tensor::of<int32_t>({2, 3}, {1, -2, 3, 4, 5, -6});
  const Attributes flat = {{"keepdims", int64_t{0}}};
  EXPECT_EQ(run1("ReduceSum", {x, ints({1})}, flat).to_ints(), (Ints{2, 3}));
  EXPECT_EQ(run1("ReduceProd", {x, ints({0})}, flat).to_ints(), (Ints{4, -10, -18}));
  EXPECT_EQ(run1("ReduceMean", {x, ints({1})}, flat).to_ints(), (Ints{0, 1}));
  EXPECT_EQ(run1("ReduceMax", {x}, flat).to_ints(), (Ints{5}));
  EXPECT_EQ(run1("ReduceMin", {x}, flat).to_ints(), (Ints{-6}));
  EXPECT_EQ(run1("ReduceL1", {x}, flat).to_ints(), (Ints{21}));
  EXPECT_EQ(run1("ReduceSumSquare", {x}, flat).to_ints(), (Ints{91}));
  const Tensor b = Tensor::of<bool>({2, 2}, {true, false, false, false});
  EXPECT_EQ(run1("ReduceMax", {b, ints({1})}, flat).to_ints(), (Ints{1, 0}));
  EXPECT_EQ(run1("ReduceMin", {b, ints({1})}, flat).to_ints(), (Ints{0, 0}));
}

TEST(Reduce, OverNothingAndOverInfinity) {
  const Tensor none = Tensor::zeros(DType::kF64, {2, 0});
  const Attributes flat = {{"keepdims", int64_t{0}}};
  EXPECT_EQ(run1("ReduceSum", {none, ints({1})}, flat).to_doubles(), (std::vector<double>{0, 0}));
  EXPECT_EQ(run1("ReduceProd", {none, ints({1})}, flat).to_doubles(), (std::vector<double>{1, 1}));
  EXPECT_EQ(run1("ReduceMax", {none, ints({1})}, flat).to_doubles(), (std::vector<double>{-kInf, -kInf}));
  EXPECT_EQ(run1("ReduceLogSumExp", {none, ints({1})}, flat).to_doubles(), (std::vector<double>{-kInf, -kInf}));
  EXPECT_EQ(run1("ReduceSum", {none, ints({0})}, flat).shape(), (Shape{0}));
  for (const Shape& shape : {Shape{1, 3}, Shape{3, 1}}) {  // along rows, along columns
    const Tensor axis = ints({shape[0] == 1 ? 1 : 0});
    EXPECT_EQ(run1("ReduceLogSumExp", {Tensor::of<double>(shape, {kInf, 1, 2}), axis}).to_doubles(), (std::vector<double>{kInf}));
    EXPECT_EQ(run1("ReduceLogSumExp", {Tensor::of<double>(shape, {-kInf, -kInf, -kInf}), axis}).to_doubles(), (std::vector<double>{-kInf}));
    EXPECT_EQ(run1("ReduceLogSumExp", {Tensor::of<double>(shape, {1000, -kInf, 1000}), axis}, {}, DType::kF32).to_doubles(),
              (std::vector<double>{static_cast<float>(1000 + std::log(2.0))}));
    EXPECT_TRUE(std::isnan(run1("ReduceMax", {Tensor::of<double>(shape, {1, kNan, 2}), axis}).to_doubles()[0]));
  }
}

TEST(Reduce, AxisOutsideRankIsNamed) {
  try {
    run1("ReduceSum", {random_tensor({2, 3}, 1), ints({2})});
    FAIL() << "axis 2 of rank 2 was accepted";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "node 'op' (ReduceSum): axis 2 is outside rank 2");
  }
}

TEST(ArgExtreme, TiesAndAxes) {
  const Tensor x = Tensor::of<double>({2, 3}, {3, 1, 3, 0, 5, 0});
  const Attributes rows = {{"axis", int64_t{1}}, {"keepdims", int64_t{0}}};
  const Attributes last = {{"axis", int64_t{1}}, {"keepdims", int64_t{0}}, {"select_last_index", int64_t{1}}};
  EXPECT_EQ(run1("ArgMax", {x}, rows).to_ints(), (Ints{0, 1}));
  EXPECT_EQ(run1("ArgMax", {x}, last).to_ints(), (Ints{2, 1}));
  EXPECT_EQ(run1("ArgMin", {x}, rows).to_ints(), (Ints{1, 0}));
  EXPECT_EQ(run1("ArgMin", {x}, last).to_ints(), (Ints{1, 2}));
  EXPECT_EQ(run1("ArgMax", {x}).to_ints(), (Ints{0, 1, 0}));
  EXPECT_EQ(run1("ArgMax", {x}).shape(), (Shape{1, 3}));
}

TEST(ArgExtreme, ColumnsAsRows) {
  // [3, 5, 70] along the middle axis, with ties and NaN, against a loop.
  constexpr int64_t kOuter = 3, kN = 5, kInner = 70;
  Tensor x = random_tensor({kOuter, kN, kInner}, 4, -3, 3);
  for (int64_t i = 0; i < x.numel(); ++i) {
    double& v = x.mutable_data<double>()[i];
    v = i % 37 == 5 ? kNan : std::round(v);
  }
  for (const char* op : {"ArgMax", "ArgMin"})
    for (const bool last : {false, true}) {
      const Ints found = run1(op, {x}, {{"axis", int64_t{1}}, {"select_last_index", int64_t{last}}}, DType::kF32).to_ints();
      for (int64_t o = 0; o < kOuter; ++o)
        for (int64_t i = 0; i < kInner; ++i) {
          int64_t best = 0;
          const auto at = [&](int64_t j) { return x.data<double>()[(o * kN + j) * kInner + i]; };
          for (int64_t j = 1; j < kN && !std::isnan(at(best)); ++j) {
            const double sign = op == std::string("ArgMax") ? 1 : -1;
            if (std::isnan(at(j)) || sign * at(j) > sign * at(best) || (last && at(j) == at(best))) best = j;
          }
          ASSERT_EQ(found[static_cast<size_t>(o * kInner + i)], best) << op << " " << last << " " << o << " " << i;
        }
    }
}

TEST(TopK, EqualOnesByIndexAndNanOnTop) {
  const Tensor x = Tensor::of<double>({1, 5}, {2, kNan, 2, 7, 2});
  const auto largest = run_op({"TopK", {x, ints({4})}, {}, 2});
  EXPECT_EQ(largest[1].to_ints(), (Ints{1, 3, 0, 2}));
  const auto smallest = run_op({"TopK", {x, ints({4})}, {{"largest", int64_t{0}}}, 2});
  EXPECT_EQ(smallest[1].to_ints(), (Ints{0, 2, 4, 3}));
}

// Those of a mask: what would be subnormal is zero.
TEST(Softmax, FarBelowTheHighest) {
  for (const int64_t n : {6, 40, 100})
    for (const int64_t inner : {1, 5}) {
      std::vector<double> x(static_cast<size_t>(n * inner), -1e9);
      for (int64_t i = 0; i < inner; ++i) x[static_cast<size_t>(i)] = x[static_cast<size_t>(inner * (n - 1) + i)] = 3;
      for (int64_t i = 0; i < inner; ++i) x[static_cast<size_t>(inner + i)] = 3 - 95;
      const auto y = run1("Softmax", {Tensor::of<double>({n, inner}, x)}, {{"axis", int64_t{0}}}, DType::kF32).to_doubles();
      for (int64_t i = 0; i < n * inner; ++i) {
        const bool kept = i < inner || i >= inner * (n - 1);
        if (kept) EXPECT_FLOAT_EQ(static_cast<float>(y[static_cast<size_t>(i)]), 0.5f) << n << " " << i;
        else EXPECT_LE(y[static_cast<size_t>(i)], 1e-40) << n << " " << i;
      }
      const auto log = run1("LogSoftmax", {Tensor::of<double>({n, inner}, x)}, {{"axis", int64_t{0}}}, DType::kF32).to_doubles();
      EXPECT_FLOAT_EQ(static_cast<float>(log[static_cast<size_t>(inner)]), static_cast<float>(-95 - std::log(2.0)));
    }
}

TEST(Softmax, LargeNumbersAndInfinity) {
  const auto y = run1("Softmax", {Tensor::of<double>({2, 3}, {1000, 1000, -kInf, -1000, -1000, -1000})}, {}, DType::kF32).to_doubles();
  const std::vector<double> expected = {0.5, 0.5, 0, 1.0 / 3, 1.0 / 3, 1.0 / 3};
  for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], expected[i], 1e-7);
  EXPECT_TRUE(std::isnan(run1("Softmax", {Tensor::of<double>({2}, {kNan, 1})}).to_doubles()[1]));
}

}  // namespace
}  // namespace ds::test
