// GridSample, AffineGrid, RoiAlign, MaxRoiPool, NonMaxSuppression, DeformConv, MaxUnpool.
#include <cmath>

#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;
using Values = std::vector<double>;

Attributes grid_attrs(const char* mode, const char* padding, int64_t align) {
  return {{"mode", std::string(mode)}, {"padding_mode", std::string(padding)}, {"align_corners", align}};
}

std::vector<OpCase> grid_cases() {
  std::vector<OpCase> cases;
  int64_t align = 0;
  for (const char* mode : {"nearest", "linear", "cubic"})
    for (const char* padding : {"zeros", "border", "reflection"}) {
      align = 1 - align;
      const std::vector<int> wrt = std::string(mode) == "nearest" ? std::vector<int>{0} : std::vector<int>{};
      cases.push_back({"GridSample", {random_tensor({2, 3, 5, 4}, 1), random_tensor({2, 3, 7, 2}, 2, -1.4, 1.4)},
                       grid_attrs(mode, padding, align), 1, wrt, 1e-5, std::string(mode) + "_" + padding});
    }
  cases.push_back({"GridSample", {random_tensor({1, 2, 3, 4, 5}, 1), random_tensor({1, 2, 3, 2, 3}, 2, -1.2, 1.2)},
                   grid_attrs("linear", "zeros", 0), 1, {}, 1e-5, "volume"});
  cases.push_back({"GridSampleGradX", {random_tensor({1, 2, 5, 4}, 1), random_tensor({1, 3, 3, 2}, 2), random_tensor({1, 2, 3, 3}, 3)},
                   grid_attrs("linear", "border", 1)});
  cases.push_back({"GridSampleGradGrid", {random_tensor({1, 2, 5, 4}, 1), random_tensor({1, 3, 3, 2}, 2), random_tensor({1, 2, 3, 3}, 3)},
                   grid_attrs("cubic", "zeros", 1)});
  for (int64_t corners : {0, 1}) {
    cases.push_back({"AffineGrid", {random_tensor({2, 2, 3}, 1), Tensor::vector<int64_t>(Ints{2, 1, 3, 5})}, {{"align_corners", corners}}});
    cases.push_back({"AffineGrid", {random_tensor({1, 3, 4}, 1), Tensor::vector<int64_t>(Ints{1, 1, 2, 3, 4})}, {{"align_corners", corners}},
                     1, {}, 1e-5, corners ? "volume_corners" : "volume"});
  }
  return cases;
}

Tensor regions() { return Tensor::of<double>({3, 4}, {0.3, 0.7, 4.1, 5.2, 1, 1, 2, 3, -2, 3, 9, 7.5}); }

const bool grids_added = add_cases(grid_cases());
const bool added = add_cases({
    {"RoiAlign", {random_tensor({2, 3, 8, 7}, 1), regions(), Tensor::vector<int64_t>(Ints{0, 1, 0})},
     {{"output_height", int64_t{2}}, {"output_width", int64_t{3}}, {"sampling_ratio", int64_t{2}}}, 1, {0}},
    {"RoiAlign", {random_tensor({2, 3, 8, 7}, 1), regions(), Tensor::vector<int64_t>(Ints{0, 1, 0})},
     {{"output_height", int64_t{3}}, {"output_width", int64_t{2}}, {"spatial_scale", 0.5f},
      {"coordinate_transformation_mode", std::string("output_half_pixel")}}, 1, {0}, 1e-5, "adaptive"},
    {"RoiAlign", {random_tensor({1, 2, 6, 6}, 1), regions(), Tensor::vector<int64_t>(Ints{0, 0, 0})},
     {{"output_height", int64_t{2}}, {"output_width", int64_t{2}}, {"sampling_ratio", int64_t{2}}, {"mode", std::string("max")}}, 1, {0}, 1e-5, "max"},
    {"RoiAlign", {random_distinct({1, 2, 6, 6}, 1), regions(), Tensor::vector<int64_t>(Ints{0, 0, 0})},
     {{"output_height", int64_t{2}}, {"output_width", int64_t{3}}, {"mode", std::string("max")}}, 1, {0}, 1e-5, "adaptive_max"},
    {"RoiAlignGrad", {random_tensor({3, 2, 2, 2}, 1), regions(), Tensor::vector<int64_t>(Ints{0, 0, 1})},
     {{"output_height", int64_t{2}}, {"output_width", int64_t{2}}, {"shape", Ints{2, 2, 6, 6}}}, 1, {-1}},
    {"MaxRoiPool", {random_tensor({2, 3, 8, 7}, 1), Tensor::of<double>({2, 5}, {0, 0, 1, 4, 6, 1, 2, 2, 3, 9})}, {{"pooled_shape", Ints{2, 3}}}, 1, {-1}},
});

const bool moved_added = add_cases({
    {"DeformConv", {random_tensor({2, 4, 6, 5}, 1), random_tensor({6, 4, 2, 3}, 2), random_tensor({2, 12, 5, 3}, 3, -1.3, 1.3)}},
    {"DeformColumns", {random_tensor({2, 4, 6, 5}, 1), random_tensor({2, 12, 5, 3}, 3, -1.3, 1.3)},
     {{"kernel_shape", Ints{2, 3}}, {"strides", Ints{1, 1}}, {"dilations", Ints{1, 1}}, {"pads", Ints{0, 0, 0, 0}}, {"offset_group", int64_t{1}}}},
    {"DeformConv",
     {random_tensor({2, 4, 6, 5}, 1), random_tensor({6, 2, 3, 2}, 2), random_tensor({2, 24, 4, 4}, 3, -1.3, 1.3), random_tensor({6}, 4),
      random_tensor({2, 12, 4, 4}, 5, 0, 1)},
     {{"group", int64_t{2}}, {"offset_group", int64_t{2}}, {"strides", Ints{2, 2}}, {"pads", Ints{2, 1, 2, 2}}, {"dilations", Ints{1, 1}}},
     1, {}, 1e-5, "groups"},
    {"MaxUnpool", {random_tensor({1, 2, 2, 2}, 1), Tensor::of<int64_t>({1, 2, 2, 2}, {0, 3, 9, 15, 17, 19, 28, 31})},
     {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}}},
    {"MaxUnpool", {random_tensor({1, 1, 2, 2}, 1), Tensor::of<int64_t>({1, 1, 2, 2}, {5, 7, 13, 15}), Tensor::vector<int64_t>(Ints{1, 1, 5, 5})},
     {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}}, 1, {}, 1e-5, "larger"},
});

// A value of onnxruntime: 0.45 behind the last element, the cubic still weighs the one before it.
TEST(Vision, CubicBorderClampsElementsNotTheCoordinate) {
  const OpCase c{"GridSample", {Tensor::of<double>({1, 1, 1, 4}, {1, 2, 4, 8}), Tensor::of<double>({1, 1, 1, 2}, {1.3, 0})}, grid_attrs("cubic", "border", 1)};
  EXPECT_NEAR(run_op(c).at(0).to_doubles()[0], 8.408375, 1e-6);
}

// A window without offsets is that of Conv.
TEST(Vision, DeformConvWithoutOffsetsIsConv) {
  const Tensor x = random_tensor({1, 2, 5, 6}, 1), w = random_tensor({3, 2, 3, 3}, 2), zeros = random_tensor({1, 18, 5, 6}, 3, 0, 0);
  const Attributes pads = {{"pads", Ints{1, 1, 1, 1}}};
  EXPECT_LE(relative_error(run_op({"DeformConv", {x, w, zeros}, pads}).at(0), run_op({"Conv", {x, w}, pads}).at(0)), 1e-12);
}

// Values worked out by hand.
TEST(Vision, MaxRoiPoolRoundsRegionsAndLeavesEmptyBinsZero) {
  Tensor x = Tensor::empty(DType::kF64, {1, 1, 3, 3});
  for (int i = 0; i < 9; ++i) x.mutable_data<double>()[i] = i + 1;
  const OpCase c{"MaxRoiPool", {x, Tensor::of<double>({1, 5}, {0, 0.6, 0.6, 2.2, 5})}, {{"pooled_shape", Ints{2, 2}}}};
  EXPECT_EQ(run_op(c, DType::kF32).at(0).to_doubles(), (Values{8, 9, 0, 0}));
}

std::vector<double> suppressed(std::vector<Tensor> optional, int64_t center = 0) {
  std::vector<Tensor> in = {Tensor::of<double>({1, 4, 4}, {0, 0, 1, 1, 0, 0.1, 1, 1.1, 1, 11, 0, 10, 0, 20, 1, 21}).cast(DType::kF32),
                            Tensor::of<double>({1, 2, 4}, {0.9, 0.75, 0.6, 0.95, 0.1, 0.2, 0.2, 0.1}).cast(DType::kF32)};
  in.insert(in.end(), optional.begin(), optional.end());
  return run_op({"NonMaxSuppression", in, {{"center_point_box", center}}}).at(0).to_doubles();
}

TEST(Vision, NonMaxSuppressionTakesTheBestAndDropsWhatOverlaps) {
  const Tensor most = Tensor::vector<int64_t>(Ints{3}), iou = Tensor::scalar(0.5f), least = Tensor::scalar(0.15f);
  EXPECT_EQ(suppressed({most, iou, least}), (Values{0, 0, 3, 0, 0, 0, 0, 0, 2, 0, 1, 1, 0, 1, 2}));
  EXPECT_EQ(suppressed({}), Values{});  // at most none, when not said otherwise
  EXPECT_EQ(suppressed({Tensor::vector<int64_t>(Ints{1}), iou}), (Values{0, 0, 3, 0, 1, 1}));
}

TEST(VisionInference, RejectsWhatDoesNotFit) {
  const auto rejected = [](OpCase c) { EXPECT_THROW(run_op(c, DType::kF32), Error); };
  rejected({"GridSample", {random_tensor({1, 1, 3, 3}, 1), random_tensor({1, 2, 2, 3}, 1)}});
  rejected({"GridSample", {random_tensor({1, 1, 3, 3}, 1), random_tensor({2, 2, 2, 2}, 1)}});
  rejected({"GridSample", {random_tensor({1, 1, 3, 3}, 1), random_tensor({1, 2, 2, 2}, 1)}, {{"mode", std::string("bilinear")}}});
  rejected({"RoiAlign", {random_tensor({1, 1, 3, 3}, 1), random_tensor({1, 4}, 1), Tensor::vector<int64_t>(Ints{1})}});
  rejected({"RoiAlign", {random_tensor({1, 1, 3, 3}, 1), random_tensor({1, 5}, 1), Tensor::vector<int64_t>(Ints{0})}});
  rejected({"AffineGrid", {random_tensor({1, 2, 3}, 1), Tensor::vector<int64_t>(Ints{1, 1, 2, 3, 4})}});
}

}  // namespace
}  // namespace ds::test
