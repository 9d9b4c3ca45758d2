// Resize: the examples of the ONNX text, and refusals.
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

Tensor f32(Shape shape, const std::vector<float>& v) { return Tensor::of<float>(std::move(shape), v); }
const Tensor kNothing;

const bool added = add_cases({
    {"Resize", {random_tensor({2, 3, 5, 4}, 1), kNothing, kNothing, Tensor::of<int64_t>({4}, {2, 3, 7, 9})}, {{"mode", std::string("linear")}}, 1, {-1}},
    {"Resize", {random_tensor({1, 2, 6, 5}, 2), kNothing, f32({2}, {0.6f, 1.5f})},
     {{"mode", std::string("cubic")}, {"axes", std::vector<int64_t>{2, 3}}}, 1, {-1}, 1e-5, "cubic"},
});

std::vector<double> resize(const Tensor& x, const Tensor& scales, Attributes attrs) {
  return run_op({"Resize", {x, kNothing, scales}, std::move(attrs)}, DType::kF32)[0].to_doubles();
}

void expect_close(const std::vector<double>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-5) << i;
}

TEST(Resize, ExamplesOfTheSpecification) {
  const Tensor x = Tensor::of<double>({1, 1, 2, 2}, {1, 2, 3, 4});
  expect_close(resize(x, f32({4}, {1, 1, 2, 3}), {{"mode", std::string("nearest")}}),
               {1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 3, 3, 3, 4, 4, 4});
  expect_close(resize(x, f32({4}, {1, 1, 2, 2}), {{"mode", std::string("linear")}}),
               {1, 1.25, 1.75, 2, 1.5, 1.75, 2.25, 2.5, 2.5, 2.75, 3.25, 3.5, 3, 3.25, 3.75, 4});
  expect_close(resize(x, f32({4}, {1, 1, 2, 2}), {{"mode", std::string("linear")}, {"coordinate_transformation_mode", std::string("align_corners")}}),
               {1, 4.0 / 3, 5.0 / 3, 2, 5.0 / 3, 2, 7.0 / 3, 8.0 / 3, 7.0 / 3, 8.0 / 3, 3, 10.0 / 3, 3, 10.0 / 3, 11.0 / 3, 4});
  const Tensor y = Tensor::of<double>({1, 1, 2, 4}, {1, 2, 3, 4, 5, 6, 7, 8});
  expect_close(resize(y, f32({4}, {1, 1, 0.6f, 0.6f}), {{"mode", std::string("linear")}}), {8.0 / 3, 13.0 / 3});
  expect_close(resize(y, f32({4}, {1, 1, 0.6f, 0.6f}), {{"mode", std::string("nearest")}}), {1, 3});
}

TEST(Resize, BadInputNamesTheReason) {
  const Tensor x = random_tensor({1, 1, 2, 2}, 1);
  const auto reason = [&](std::vector<Tensor> inputs, Attributes attrs) {
    try {
      run_op({"Resize", std::move(inputs), std::move(attrs)});
      return std::string("accepted");
    } catch (const Error& e) {
      return std::string(e.what());
    }
  };
  EXPECT_NE(reason({x, kNothing, f32({3}, {1, 1, 2})}, {}).find("3 scales or sizes for 4 axes"), std::string::npos);
  EXPECT_NE(reason({x, kNothing, f32({4}, {1, 1, -2, 1})}, {}).find("is not positive"), std::string::npos);
  EXPECT_NE(reason({x, kNothing, f32({4}, {1, 1, 2, 1})}, {{"mode", std::string("best")}}).find("unknown mode 'best'"), std::string::npos);
  EXPECT_NE(reason({x, kNothing, f32({4}, {1, 1, 2, 1})}, {{"antialias", int64_t{1}}}).find("antialiasing"), std::string::npos);
}

}  // namespace
}  // namespace ds::test
