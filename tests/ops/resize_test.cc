#include <gtest/gtest.h>

#include "tests/support/op_check.h"

namespace ds {
namespace {

using test::random_tensor;
using Text = std::string;

Tensor scales(std::initializer_list<float> values) { return Tensor::of<float>({static_cast<int64_t>(values.size())}, values); }
Tensor sizes(std::initializer_list<int64_t> values) { return Tensor::of<int64_t>({static_cast<int64_t>(values.size())}, values); }

const bool added = test::add_cases({
    {.op = "Resize", .inputs = {random_tensor({2, 3, 4, 5}, 1), {}, {}, sizes({2, 3, 7, 3})}, .attrs = {{"mode", Text("linear")}}, .name = "linear"},
    {.op = "Resize", .inputs = {random_tensor({1, 2, 5, 4}, 2), {}, {}, sizes({1, 2, 8, 9})},
     .attrs = {{"mode", Text("linear")}, {"coordinate_transformation_mode", Text("align_corners")}}, .name = "align_corners"},
    {.op = "Resize", .inputs = {random_tensor({1, 1, 4, 6}, 3), {}, {}, sizes({1, 1, 9, 4})}, .attrs = {{"mode", Text("cubic")}}, .name = "cubic"},
    {.op = "Resize", .inputs = {random_tensor({1, 1, 4, 4}, 4), {}, {}, sizes({1, 1, 6, 6})},
     .attrs = {{"mode", Text("cubic")}, {"exclude_outside", int64_t{1}}}, .name = "cubic_inside"},
    {.op = "Resize", .inputs = {random_tensor({2, 2, 3, 3}, 5), {}, {}, sizes({2, 2, 7, 2})}, .attrs = {{"mode", Text("nearest")}}, .name = "nearest"},
    {.op = "Resize", .inputs = {random_tensor({1, 2, 9, 7}, 5), {}, scales({0.6f, 0.45f})},
     .attrs = {{"mode", Text("linear")}, {"antialias", int64_t{1}}, {"axes", std::vector<int64_t>{2, 3}}}, .name = "linear_antialias"},
    {.op = "Resize", .inputs = {random_tensor({1, 2, 9, 7}, 5), {}, {}, sizes({1, 2, 4, 9})},
     .attrs = {{"mode", Text("cubic")}, {"antialias", int64_t{1}}, {"exclude_outside", int64_t{1}}}, .name = "cubic_antialias"},
    {.op = "Resize", .inputs = {random_tensor({1, 1, 5, 6}, 5), Tensor::of<float>({4}, {0.4f, -0.2f, 0.6f, 1.1f}), {}, sizes({4, 3})},
     .attrs = {{"mode", Text("linear")}, {"coordinate_transformation_mode", Text("tf_crop_and_resize")}, {"extrapolation_value", 10.0f},
               {"axes", std::vector<int64_t>{2, 3}}}, .name = "crop"},
    {.op = "Resize", .inputs = {random_tensor({1, 1, 5, 6, 4}, 5), {}, {}, sizes({7, 8, 9})},
     .attrs = {{"mode", Text("linear")}, {"keep_aspect_ratio_policy", Text("not_larger")}, {"axes", std::vector<int64_t>{2, 3, 4}}}, .name = "volume"},
    {.op = "ResizeGrad", .inputs = {random_tensor({2, 3, 7, 3}, 6)},
     .attrs = {{"mode", Text("linear")}, {"input_shape", std::vector<int64_t>{2, 3, 4, 5}}}, .name = "linear"},
    {.op = "ResizeGrad", .inputs = {random_tensor({1, 1, 9, 5}, 7)},
     .attrs = {{"mode", Text("cubic")}, {"input_shape", std::vector<int64_t>{1, 1, 4, 7}}}, .name = "cubic"},
});

TEST(Resize, NearestByScales) {
  const Tensor x = Tensor::of<float>({1, 1, 2, 2}, {1, 2, 3, 4});
  const auto y = test::run_op({.op = "Resize", .inputs = {x, {}, scales({1, 1, 2, 1.5f})}, .attrs = {{"coordinate_transformation_mode", Text("asymmetric")}, {"nearest_mode", Text("floor")}}},
                              DType::kF32);
  EXPECT_EQ(y[0].shape(), (Shape{1, 1, 4, 3}));
  EXPECT_EQ(y[0].to_doubles(), (std::vector<double>{1, 1, 2, 1, 1, 2, 3, 3, 4, 3, 3, 4}));
}

// Values of onnxruntime.
TEST(Resize, IntegersAreCutOffWhenLinearAndRoundedOtherwise) {
  const Tensor x = Tensor::of<uint8_t>({1, 1, 1, 4}, {10, 3, 200, 77});
  const auto resized = [&](Attributes attrs, int64_t n) {
    const auto y = test::run_op({.op = "Resize", .inputs = {x, {}, {}, sizes({1, 1, 1, n})}, .attrs = std::move(attrs)});
    EXPECT_EQ(y[0].dtype(), DType::kU8);
    return y[0].to_doubles();
  };
  EXPECT_EQ(resized({{"mode", Text("linear")}}, 5), (std::vector<double>{10, 5, 101, 163, 77}));
  EXPECT_EQ(resized({{"mode", Text("nearest")}}, 5), (std::vector<double>{10, 3, 3, 200, 77}));
  EXPECT_EQ(resized({{"mode", Text("cubic")}}, 5).size(), 5u);
}

// ONNX's own case: the ends of the 2.4 elements that 0.6 of 4 would be.
TEST(Resize, AlignCornersCountsWhatWasNotRounded) {
  const Tensor x = Tensor::of<float>({1, 4}, {1, 2, 3, 4});
  const auto y = test::run_op({.op = "Resize", .inputs = {x, {}, scales({1, 0.6f})}, .attrs = {{"mode", Text("linear")}, {"coordinate_transformation_mode", Text("align_corners")}}});
  ASSERT_EQ(y[0].numel(), 2);
  EXPECT_NEAR(y[0].to_doubles()[1], 3.142857, 1e-6);
}

TEST(Resize, LinearIsExactOnALine) {
  const Tensor x = Tensor::of<float>({1, 4}, {0, 1, 2, 3});
  const auto y = test::run_op({.op = "Resize", .inputs = {x, {}, {}, sizes({1, 7})}, .attrs = {{"mode", Text("linear")}, {"coordinate_transformation_mode", Text("align_corners")}}},
                              DType::kF32);
  EXPECT_EQ(y[0].to_doubles(), (std::vector<double>{0, 0.5, 1, 1.5, 2, 2.5, 3}));
}

TEST(Resize, RefusesWhatItCannotDo) {
  const auto error = [](const test::OpCase& c) -> Text {
    try {
      test::run_op(c, DType::kF32);
    } catch (const Error& e) {
      return e.what();
    }
    return "nothing was thrown";
  };
  const Tensor x = Tensor::zeros(DType::kF32, {1, 1, 2, 2});
  EXPECT_NE(error({.op = "Resize", .inputs = {x}}).find("scales and sizes"), Text::npos);
  EXPECT_NE(error({.op = "Resize", .inputs = {x, {}, scales({1, 2})}}).find("2 scales"), Text::npos);
  EXPECT_NE(error({.op = "Resize", .inputs = {x, {}, scales({1, 1, 0, 1})}}).find("not positive"), Text::npos);
  EXPECT_NE(error({.op = "Resize", .inputs = {x, {}, scales({1, 1, 2, 2})}, .attrs = {{"mode", Text("lanczos")}}}).find("lanczos"), Text::npos);
  EXPECT_NE(error({.op = "Resize", .inputs = {x, {}, scales({1, 1, 2, 2})}, .attrs = {{"antialias", int64_t{1}}}}).find("antialias"), Text::npos);
}

}  // namespace
}  // namespace ds
