// Transforms, windows, blocks of images, and layers with a carried state.
#include <cmath>
#include <complex>

#include "tests/support/op_check.h"

namespace ds::test {
namespace {

Tensor ints(const std::vector<int64_t>& v) { return Tensor::vector<int64_t>(v); }
Tensor number(int64_t v) { return Tensor::scalar<int64_t>(v); }
Attribute text(const char* s) { return std::string(s); }

Attributes heads(int64_t query, int64_t key, const char* rule) {
  return {{"q_num_heads", query}, {"kv_num_heads", key}, {"update_rule", text(rule)}};
}

const bool added = add_cases({
    {"DFT", {random_tensor({2, 12, 1}, 1)}},
    {"DFT", {random_tensor({2, 7, 3, 2}, 1), Tensor(), number(1)}, {{"inverse", int64_t{1}}}, 1, {}, 1e-5, "inverse"},
    {"DFT", {random_tensor({3, 10, 1}, 1), number(9)}, {{"onesided", int64_t{1}}}, 1, {}, 1e-5, "onesided"},
    {"DFT", {random_tensor({3, 6, 2}, 1), number(11)}, {{"onesided", int64_t{1}}, {"inverse", int64_t{1}}}, 1, {}, 1e-5, "real_inverse"},
    {"STFT", {random_tensor({2, 40, 1}, 1), number(5), random_tensor({15}, 2)}},
    {"STFT", {random_tensor({2, 30, 2}, 1), number(7), Tensor(), number(16)}, {{"onesided", int64_t{0}}}, 1, {}, 1e-5, "complex"},
    {"HannWindow", {number(10)}},
    {"HammingWindow", {number(9)}, {{"periodic", int64_t{0}}}},
    {"BlackmanWindow", {number(1)}, {{"periodic", int64_t{0}}, {"output_datatype", static_cast<int64_t>(DType::kF64)}}},
    {"Col2Im", {random_tensor({2, 12, 6}, 1), ints({3, 6}), ints({2, 2})}, {{"strides", std::vector<int64_t>{1, 2}}}},
    {"Col2Im", {random_tensor({1, 6, 20}, 1), ints({4, 5}), ints({2, 3})},
     {{"pads", std::vector<int64_t>{1, 1, 1, 1}}, {"dilations", std::vector<int64_t>{2, 1}}}, 1, {}, 1e-5, "padded"},
    {"Im2Col", {random_tensor({2, 3, 4, 5}, 1)}, {{"block_shape", std::vector<int64_t>{3, 2}}, {"pads", std::vector<int64_t>{1, 0, 0, 1}}}},
    {"LinearAttention", {random_tensor({2, 5, 8}, 1), random_tensor({2, 5, 8}, 2), random_tensor({2, 5, 6}, 3)}, heads(2, 2, "linear"), 2, {-1}, 1e-5, "linear"},
    {"LinearAttention",
     {random_tensor({2, 5, 16}, 1), random_tensor({2, 5, 8}, 2), random_tensor({2, 5, 6}, 3), random_tensor({2, 2, 4, 3}, 4),
      random_tensor({2, 5, 8}, 5, -1, 0), random_tensor({2, 5, 1}, 6, 0, 1)}, heads(4, 2, "gated_delta"), 2, {-1}, 1e-5, "gated_delta"},
    {"CausalConvWithState", {random_tensor({2, 3, 5}, 1), random_tensor({3, 1, 4}, 2)}, {}, 2, {}, 1e-5, "plain"},
    {"CausalConvWithState", {random_tensor({2, 3, 5}, 1), random_tensor({3, 1, 4}, 2), random_tensor({3}, 3), random_tensor({2, 3, 3}, 4)},
     {{"activation", text("silu")}}, 2, {}, 1e-5, "silu"},
});

// Every length up to 70 and one with a large prime factor: products of small primes, primes, ...
TEST(Dft, FollowsItsDefinitionAtEveryLength) {
  std::vector<int64_t> lengths;
  for (int64_t n = 1; n <= 70; ++n) lengths.push_back(n);
  lengths.push_back(2 * 131);
  for (int64_t n : lengths) {
    const Tensor x = random_tensor({n, 2}, static_cast<uint64_t>(n));
    const Tensor y = run_op({"DFT", {x}})[0], back = run_op({"DFT", {y}, {{"inverse", int64_t{1}}}})[0];
    for (int64_t k = 0; k < n; ++k) {
      std::complex<double> sum = 0;
      for (int64_t j = 0; j < n; ++j)
        sum += std::complex<double>(x.data<double>()[2 * j], x.data<double>()[2 * j + 1]) *
               std::polar(1.0, -2 * M_PI * static_cast<double>(j * k % n) / static_cast<double>(n));
      EXPECT_NEAR(y.data<double>()[2 * k], sum.real(), 1e-11) << n;
      EXPECT_NEAR(y.data<double>()[2 * k + 1], sum.imag(), 1e-11) << n;
    }
    EXPECT_LE(relative_error(back, x), 1e-13) << n;
  }
}

TEST(Dft, TheRealInverseUndoesTheOneSidedTransform) {
  for (int64_t n : {8, 9}) {
    const Tensor x = random_tensor({2, n, 3, 1}, 1);
    const Attributes half = {{"onesided", int64_t{1}}}, back = {{"onesided", int64_t{1}}, {"inverse", int64_t{1}}};
    const Tensor y = run_op({"DFT", {x, Tensor(), number(-3)}, half})[0];
    EXPECT_EQ(y.shape(), (Shape{2, n / 2 + 1, 3, 2}));
    EXPECT_LE(relative_error(run_op({"DFT", {y, number(n), number(1)}, back})[0], x), 1e-13);
  }
}

TEST(Signal, WrongModelsAreBadData) {
  const Tensor x = random_tensor({2, 8, 1}, 1), z = random_tensor({2, 8, 2}, 1);
  const Attributes half = {{"onesided", int64_t{1}}};
  EXPECT_THROW(run_op({"DFT", {x, Tensor(), number(2)}}), Error);
  EXPECT_THROW(run_op({"DFT", {x, number(0)}}), Error);
  EXPECT_THROW(run_op({"DFT", {z}, half}), Error);
  EXPECT_THROW(run_op({"DFT", {random_tensor({2, 3}, 1)}}), Error);
  EXPECT_THROW(run_op({"STFT", {x, number(0)}}), Error);
  EXPECT_THROW(run_op({"STFT", {x, number(1), Tensor(), number(9)}}), Error);
  EXPECT_THROW(run_op({"STFT", {x, number(1), random_tensor({5}, 1), number(4)}}), Error);
  EXPECT_THROW(run_op({"STFT", {z, number(1)}}), Error);
  EXPECT_THROW(run_op({"HannWindow", {number(-1)}}), Error);
  EXPECT_THROW(run_op({"Col2Im", {random_tensor({1, 4, 5}, 1), ints({3, 3}), ints({2, 2})}}), Error);
  EXPECT_THROW(run_op({"LinearAttention", {x, x, x}, heads(1, 1, "gated"), 2}), Error);
  EXPECT_THROW(run_op({"LinearAttention", {x, x, x}, heads(2, 1, "linear"), 2}), Error);
}

TEST(MelWeightMatrix, BandsBeyondTheSpectrumAreBadData) {
  const auto run = [](float high) {
    return run_op({"MelWeightMatrix", {number(8), number(16), number(8192), Tensor::scalar(0.0f), Tensor::scalar(high)}});
  };
  EXPECT_EQ(run(4096).at(0).shape(), (Shape{9, 8}));
  EXPECT_THROW(run(20000), Error);
}

}  // namespace
}  // namespace ds::test
