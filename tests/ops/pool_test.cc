#include "libds/ir/rewriter.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;

const bool added = add_cases({
    {"MaxPool", {random_distinct({2, 3, 7, 9}, 1)}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}}},
    {"MaxPool", {random_distinct({1, 9, 8, 7}, 1)},
     {{"kernel_shape", Ints{3, 3}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}}, 1, {}, 1e-5, "padded"},
    {"MaxPool", {random_distinct({1, 2, 7, 8}, 1)},
     {{"kernel_shape", Ints{3, 2}}, {"strides", Ints{2, 3}}, {"ceil_mode", int64_t{1}}}, 1, {}, 1e-5, "ceil"},
    {"MaxPool", {random_distinct({1, 2, 9, 9}, 1)}, {{"kernel_shape", Ints{3, 3}}, {"dilations", Ints{2, 2}}}, 1, {}, 1e-5, "dilated"},
    {"MaxPool", {random_distinct({2, 3, 11}, 1)}, {{"kernel_shape", Ints{4}}, {"auto_pad", std::string("SAME_LOWER")}}, 1, {}, 1e-5, "one_dimension"},
    {"MaxPool", {random_distinct({1, 2, 4, 5, 6}, 1)}, {{"kernel_shape", Ints{2, 3, 2}}, {"strides", Ints{1, 2, 2}}}, 1, {}, 1e-5, "three_dimensions"},
    {"MaxPool", {random_distinct({2, 2, 5, 4}, 1)}, {{"kernel_shape", Ints{2, 2}}}, 2, {}, 1e-5, "indices"},
    {"AveragePool", {random_tensor({2, 3, 7, 9}, 1)}, {{"kernel_shape", Ints{2, 3}}, {"strides", Ints{2, 2}}}},
    {"AveragePool", {random_tensor({1, 9, 8, 7}, 1)},
     {{"kernel_shape", Ints{3, 3}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}}, 1, {}, 1e-5, "padded"},
    {"AveragePool", {random_tensor({1, 2, 8, 7}, 1)},
     {{"kernel_shape", Ints{3, 3}}, {"pads", Ints{0, 1, 2, 1}}, {"count_include_pad", int64_t{1}}}, 1, {}, 1e-5, "padding_counts"},
    {"AveragePool", {random_tensor({1, 2, 7, 8}, 1)},
     {{"kernel_shape", Ints{3, 3}}, {"strides", Ints{2, 3}}, {"pads", Ints{1, 1, 1, 1}}, {"ceil_mode", int64_t{1}},
      {"count_include_pad", int64_t{1}}}, 1, {}, 1e-5, "ceil"},
    {"AveragePool", {random_tensor({1, 3, 12}, 1)}, {{"kernel_shape", Ints{3}}, {"dilations", Ints{2}}, {"pads", Ints{2, 2}}}, 1, {}, 1e-5, "dilated"},
    {"AveragePool", {random_tensor({1, 2, 4, 5, 6}, 1)}, {{"kernel_shape", Ints{2, 3, 2}}, {"strides", Ints{1, 2, 2}}}, 1, {}, 1e-5, "three_dimensions"},
    {"LpPool", {random_away_from_zero({2, 3, 7, 9}, 1)}, {{"kernel_shape", Ints{2, 3}}, {"strides", Ints{2, 2}}}},
    {"LpPool", {random_away_from_zero({1, 2, 8, 7}, 1)},
     {{"kernel_shape", Ints{3, 3}}, {"pads", Ints{1, 1, 1, 1}}, {"dilations", Ints{2, 1}}, {"p", int64_t{3}}}, 1, {}, 1e-5, "cube"},
    {"LpPool", {random_away_from_zero({1, 2, 11}, 1)}, {{"kernel_shape", Ints{4}}, {"auto_pad", std::string("SAME_UPPER")}, {"p", int64_t{1}}}, 1, {}, 1e-5, "sum"},
    {"GlobalLpPool", {random_away_from_zero({2, 3, 4, 5}, 1)}},
    {"LpPoolGrad", {random_tensor({1, 2, 6}, 1), random_tensor({1, 2, 5}, 2, 0.5, 1), random_tensor({1, 2, 5}, 3)}, {{"kernel_shape", Ints{2}}}, 1, {-1}},
    {"MaxPool", {random_distinct({1, 2, 3, 7}, 1)}, {{"kernel_shape", Ints{4, 2}}, {"strides", Ints{2, 2}}}, 1, {}, 1e-5, "overhanging"},
    {"GlobalAveragePool", {random_tensor({2, 9, 5, 7}, 1)}},
    {"GlobalAveragePool", {random_tensor({2, 3, 7}, 1)}, {}, 1, {}, 1e-5, "one_dimension"},
    {"GlobalMaxPool", {random_distinct({2, 9, 5, 7}, 1)}},
    {"MaxPoolGrad", {random_distinct({2, 9, 8, 7}, 1), random_tensor({2, 9, 4, 4}, 2)},
     {{"kernel_shape", Ints{3, 3}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}}},
    {"AveragePoolGrad", {random_tensor({2, 9, 4, 4}, 2)},
     {{"kernel_shape", Ints{3, 3}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}, {"shape", Ints{2, 9, 8, 7}}}},
});

std::vector<double> pool(const std::string& op, Shape shape, std::initializer_list<double> x, Attributes attrs, size_t output = 0) {
  const OpCase c{op, {Tensor::of<double>(std::move(shape), x)}, std::move(attrs), output + 1};
  return run_op(c, DType::kF32).at(output).to_doubles();
}

using Values = std::vector<double>;

// Values worked out by hand.
TEST(Pool, CeilModeDropsWindowsThatStartInTrailingPadding) {
  EXPECT_EQ(pool("MaxPool", {1, 1, 4}, {1, 2, 3, 4}, {{"kernel_shape", Ints{1}}, {"strides", Ints{2}}, {"ceil_mode", int64_t{1}}}),
            (Values{1, 3}));
  EXPECT_EQ(pool("MaxPool", {1, 1, 5}, {1, 2, 3, 4, 5}, {{"kernel_shape", Ints{2}}, {"strides", Ints{2}}, {"ceil_mode", int64_t{1}}}),
            (Values{2, 4, 5}));
}

TEST(Pool, AverageDividesByWhatThePaddingCovers) {
  const auto average = [](int64_t include) {
    return pool("AveragePool", {1, 1, 4}, {2, 4, 6, 8},
                {{"kernel_shape", Ints{3}}, {"strides", Ints{2}}, {"pads", Ints{1, 0}}, {"ceil_mode", int64_t{1}}, {"count_include_pad", include}});
  };
  EXPECT_EQ(average(0), (Values{3, 6}));
  EXPECT_EQ(average(1), (Values{2, 6}));
  // The last window reaches past the declared padding: that part never counts.
  EXPECT_EQ(pool("AveragePool", {1, 1, 4}, {2, 4, 6, 8},
                 {{"kernel_shape", Ints{3}}, {"strides", Ints{3}}, {"pads", Ints{0, 1}}, {"ceil_mode", int64_t{1}}, {"count_include_pad", int64_t{1}}}),
            (Values{4, 4}));
}

// Against a sum over each window: 3 x 2 x 3, dilated along one axis, strided along another, padded unevenly.
TEST(Pool, AveragesOfVolumes) {
  constexpr int64_t kD = 5, kH = 6, kW = 7;
  const Tensor x = random_tensor({2, 3, kD, kH, kW}, 8);
  for (const bool include : {false, true}) {
    const Attributes attrs = {{"kernel_shape", Ints{3, 2, 3}}, {"strides", Ints{1, 2, 1}}, {"dilations", Ints{1, 1, 2}}, {"pads", Ints{1, 1, 2, 0, 1, 1}},
                              {"count_include_pad", int64_t{include}}};
    const Tensor y = test::run_op({"AveragePool", {x}, attrs}, DType::kF32)[0];
    ASSERT_EQ(y.shape(), (Shape{2, 3, 4, 4, 6}));
    int64_t o = 0;
    for (int64_t plane = 0; plane < 6; ++plane)
      for (int64_t d = 0; d < 4; ++d)
        for (int64_t h = 0; h < 4; ++h)
          for (int64_t w = 0; w < 6; ++w, ++o) {
            double sum = 0;
            int64_t inside = 0;
            for (int64_t k = 0; k < 18; ++k) {
              const int64_t a = d - 1 + k / 6, b = 2 * h - 1 + k / 3 % 2, c = w - 2 + 2 * (k % 3);
              if (a < 0 || a >= kD || b < 0 || b >= kH || c < 0 || c >= kW) continue;
              sum += x.data<double>()[((plane * kD + a) * kH + b) * kW + c];
              ++inside;
            }
            ASSERT_NEAR(y.data<float>()[o], sum / static_cast<double>(include ? 18 : inside), 1e-6) << o;
          }
  }
}

TEST(Pool, IndicesPointIntoTheWholeTensor) {
  const Attributes attrs = {{"kernel_shape", Ints{2, 2}}};
  EXPECT_EQ(pool("MaxPool", {1, 2, 2, 3}, {1, 5, 2, 4, 3, 6, 9, 1, 1, 1, 1, 8}, attrs, 1), (Values{1, 5, 6, 11}));
  Attributes column = attrs;
  column["storage_order"] = int64_t{1};
  EXPECT_EQ(pool("MaxPool", {1, 2, 2, 3}, {1, 5, 2, 4, 3, 6, 9, 1, 1, 1, 1, 8}, column, 1), (Values{2, 5, 6, 11}));
}

TEST(Pool, BytesHaveMaxima) {
  for (DType dtype : {DType::kI8, DType::kU8}) {
    const OpCase c{"MaxPool", {Tensor::of<double>({1, 1, 4}, {1, 7, 3, 5}).cast(dtype)}, {{"kernel_shape", Ints{2}}}};
    EXPECT_EQ(run_op(c).at(0).dtype(), dtype);
    EXPECT_EQ(run_op(c).at(0).to_doubles(), (Values{7, 7, 5}));
  }
}

// As onnxruntime does: a window larger than the axis sees what there is, once, unless it is too large by a stride.
TEST(Pool, WindowLargerThanTheAxis) {
  EXPECT_EQ(pool("MaxPool", {1, 1, 3}, {1, 2, 3}, {{"kernel_shape", Ints{4}}, {"strides", Ints{2}}}), (Values{3}));
  EXPECT_EQ(pool("AveragePool", {1, 1, 3}, {1, 2, 3}, {{"kernel_shape", Ints{5}}, {"strides", Ints{3}}}), (Values{2}));
  EXPECT_EQ(pool("MaxPool", {1, 1, 3}, {1, 2, 3}, {{"kernel_shape", Ints{4}}}), (Values{}));
  EXPECT_EQ(pool("MaxPool", {1, 1, 3}, {1, 2, 3}, {{"kernel_shape", Ints{6}}, {"strides", Ints{2}}}), (Values{}));
}

TEST(Pool, NanIsNotLost) {
  const OpCase c{"MaxPool", {Tensor::of<double>({1, 1, 3}, {1, std::nan(""), 2})}, {{"kernel_shape", Ints{2}}}};
  const std::vector<double> y = run_op(c, DType::kF32, "portable/max_pool").at(0).to_doubles();
  EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1]));
}

TEST(PoolInference, RejectsImpossibleGeometry) {
  EXPECT_THROW(pool("MaxPool", {1, 1, 3}, {1, 2, 3}, {{"kernel_shape", Ints{5}}}), Error);
  EXPECT_THROW(pool("MaxPool", {1, 1, 3}, {1, 2, 3}, {{"kernel_shape", Ints{2}}, {"pads", Ints{2, 0}}}), Error);
  EXPECT_THROW(pool("MaxPool", {1, 1, 3}, {1, 2, 3}, {{"kernel_shape", Ints{2, 2}}}), Error);
  EXPECT_THROW(pool("MaxPool", {1, 1, 3}, {1, 2, 3}, {}), Error);
}

}  // namespace
}  // namespace ds::test
