// Depthwise convolution on AVX2 and AVX-512 and the epilogue of products on AVX-512 against the portable kernels in f64; interleaving.
#include "kernels/depthwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/conv.h"
#include "kernels/epilogue.h"
#include "kernels/interleave.h"
#include "libds/base/cpu.h"

namespace ds::kernels {
namespace {

std::vector<float> random_floats(size_t n, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> draw(-2, 2);
  std::vector<float> v(n);
  for (float& x : v) x = draw(engine);
  return v;
}

const std::vector<Epilogue>& epilogues() {
  static const std::vector<Epilogue> kAll = {
      {},
      {Activation::kRelu},
      {Activation::kClip, -0.5f, 1.5f},
      {Activation::kHardSwish, 0, 0, false, 0.75f, -0.25f},
      {Activation::kRelu, 0, 0, false, -2.0f, 1.0f},
      {Activation::kSigmoid, 0, 0, false, 3.0f, 0.5f},
      {Activation::kSilu},
      {Activation::kGelu, 0, 0, false, 1.0f, 2.0f},
      {Activation::kTanh}};
  return kAll;
}

struct Case {
  int64_t batch, channels, height, width, kernel_h, kernel_w, stride, dilation, pad_h, pad_w;
};

NhwcConv geometry(const Case& c) {
  NhwcConv s;
  s.batch = c.batch;
  s.channels = s.out_channels = s.groups = c.channels;
  s.height = c.height;
  s.width = c.width;
  s.kernel_h = c.kernel_h;
  s.kernel_w = c.kernel_w;
  s.stride_h = s.stride_w = c.stride;
  s.dilation_h = s.dilation_w = c.dilation;
  s.pad_top = c.pad_h;
  s.pad_left = c.pad_w;
  s.out_height = (c.height + 2 * c.pad_h - (c.kernel_h - 1) * c.dilation - 1) / c.stride + 1;
  s.out_width = (c.width + 2 * c.pad_w - (c.kernel_w - 1) * c.dilation - 1) / c.stride + 1;
  return s;
}

// [N, P, C] from [N, C, P] or back.
template <typename To, typename From>
std::vector<To> turned(const std::vector<From>& from, int64_t batch, int64_t a, int64_t b) {
  std::vector<To> to(from.size());
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t i = 0; i < a; ++i)
      for (int64_t j = 0; j < b; ++j) to[static_cast<size_t>((n * b + j) * a + i)] = static_cast<To>(from[static_cast<size_t>((n * a + i) * b + j)]);
  return to;
}

// Those that this CPU has.
std::vector<DepthwiseFn*> functions() {
  std::vector<DepthwiseFn*> all;
  if (cpu_isa() >= Isa::kAvx2) all.push_back(depthwise_avx2);
  if (cpu_isa() >= Isa::kAvx512) all.push_back(depthwise_avx512);
  return all;
}

void check(DepthwiseFn* depthwise, const Case& c, const Epilogue& epilogue, bool with_bias, bool with_addend, bool in_place) {
  const NhwcConv s = geometry(c);
  const auto size = [](int64_t n) { return static_cast<size_t>(n); };
  const int64_t in = s.batch * s.height * s.width * s.channels, out = s.pixels() * s.channels, taps = s.kernel_h * s.kernel_w;
  const std::vector<float> x = random_floats(size(in), 1), w = random_floats(size(s.channels * taps), 2);
  const std::vector<float> bias = random_floats(size(s.channels), 3), addend = random_floats(size(out), 4);

  ConvShape reference;
  reference.batch = s.batch;
  reference.groups = reference.in_channels = reference.out_channels = s.channels;
  reference.in = {1, s.height, s.width};
  reference.out = {1, s.out_height, s.out_width};
  reference.kernel = {1, s.kernel_h, s.kernel_w};
  reference.stride = {1, s.stride_h, s.stride_w};
  reference.dilation = {1, s.dilation_h, s.dilation_w};
  reference.pad_begin = reference.pad_end = {0, s.pad_top, s.pad_left};
  const std::vector<double> wide(w.begin(), w.end()), wide_bias(bias.begin(), bias.end());
  std::vector<double> expected(size(out));
  conv_forward<double>(reference, turned<double>(x, s.batch, s.height * s.width, s.channels).data(), wide.data(),
                       with_bias ? wide_bias.data() : nullptr, expected.data());
  Epilogue with_add = epilogue;
  with_add.add = with_addend;
  apply_epilogue<double>(with_add, out, turned<double>(addend, s.batch, s.out_height * s.out_width, s.channels).data(), expected.data());
  expected = turned<double>(expected, s.batch, s.channels, s.out_height * s.out_width);

  std::vector<float> packed(size(depthwise_panels(s) * taps * kDepthwisePanel));
  pack_depthwise(s, w.data(), packed.data());
  // Misaligned, with a guard at the end.
  std::vector<float> y(size(out) + 2, 77.0f);
  if (in_place) std::copy(addend.begin(), addend.end(), y.begin() + 1);
  Finish finish;
  finish.epilogue = epilogue;
  finish.bias = with_bias ? bias.data() : nullptr;
  finish.addend = !with_addend ? nullptr : in_place ? y.data() + 1 : addend.data();
  finish.y = y.data() + 1;
  finish.channels = s.channels;
  depthwise(s, x.data(), packed.data(), finish);
  EXPECT_EQ(y.front(), 77.0f);
  EXPECT_EQ(y.back(), 77.0f);
  for (size_t i = 0; i < size(out); ++i)
    ASSERT_NEAR(y[i + 1], expected[i], 2e-5 * std::max(1.0, std::abs(expected[i])))
        << "channels " << c.channels << ", " << c.height << "x" << c.width << ", kernel " << c.kernel_h << "x" << c.kernel_w << ", stride " << c.stride
        << ", dilation " << c.dilation << ", activation " << static_cast<int>(epilogue.activation) << ", element " << i;
}

constexpr Case kCases[] = {
    {1, 16, 9, 23, 3, 3, 1, 1, 1, 1},  {2, 24, 7, 7, 5, 5, 1, 1, 2, 2},   {1, 1, 5, 40, 3, 3, 1, 1, 1, 1},    {1, 100, 8, 19, 5, 5, 2, 1, 2, 2},
    {1, 17, 3, 3, 3, 3, 1, 2, 2, 2},   {2, 64, 1, 30, 1, 5, 1, 1, 0, 2},  {1, 72, 11, 17, 3, 3, 2, 1, 0, 0},   {1, 33, 2, 2, 7, 7, 1, 1, 3, 3},
    {1, 130, 6, 31, 3, 5, 1, 2, 2, 4}, {1, 48, 10, 10, 2, 2, 3, 1, 1, 1}, {1, 15, 4, 100, 1, 1, 1, 1, 0, 0},   {1, 20, 3, 5, 3, 3, 2, 3, 6, 6},    {1, 150, 4, 90, 5, 5, 1, 1, 2, 2}};  // the last: channels in chunks

TEST(Depthwise, AgreesWithDouble) {
  if (functions().empty()) GTEST_SKIP() << "needs AVX2";
  for (DepthwiseFn* f : functions())
    for (const Case& c : kCases) {
      check(f, c, {}, false, false, false);
      check(f, c, {Activation::kHardSwish}, true, true, false);
      check(f, c, {Activation::kSigmoid}, true, true, true);
      check(f, c, {Activation::kRelu}, false, true, true);
    }
}

TEST(Depthwise, EveryEpilogue) {
  if (functions().empty()) GTEST_SKIP() << "needs AVX2";
  for (DepthwiseFn* f : functions())
    for (const Epilogue& e : epilogues()) check(f, kCases[3], e, true, false, false);
}

TEST(Depthwise, NanPasses) {
  if (functions().empty()) GTEST_SKIP() << "needs AVX2";
  const NhwcConv s = geometry({1, 16, 1, 4, 1, 1, 1, 1, 0, 0});
  std::vector<float> x(64, 1.0f), w(16, 1.0f), packed(16), y(64);
  x[20] = std::numeric_limits<float>::quiet_NaN();
  pack_depthwise(s, w.data(), packed.data());
  for (const Activation a : {Activation::kNone, Activation::kRelu, Activation::kClip, Activation::kHardSwish}) {
    Finish finish;
    finish.epilogue = {a, -1, 1};
    finish.y = y.data();
    finish.channels = 16;
    for (DepthwiseFn* f : functions()) {
      f(s, x.data(), packed.data(), finish);
      for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i == 20) << i;
    }
  }
}

TEST(Finish, Avx512AgreesWithDouble) {
  if (cpu_isa() < Isa::kAvx512) GTEST_SKIP() << "needs AVX-512";
  constexpr int64_t kRows = 5, kChannels = 75, kColumn = 16, kStride = 64;
  for (const int64_t columns : {1, 15, 16, 31, 32, 59})
    for (const Epilogue& e : epilogues())
      for (const bool with_addend : {false, true}) {
        const std::vector<float> sums = random_floats(kRows * kStride, 5), bias = random_floats(kChannels, 6);
        std::vector<float> addend = random_floats(kRows * kChannels, 7), y(kRows * kChannels, 77.0f);
        Finish f;
        f.epilogue = e;
        f.bias = bias.data();
        f.addend = with_addend ? addend.data() : nullptr;
        f.y = y.data();
        f.channels = kChannels;
        finish_avx512(f, 1, kRows - 2, kColumn, columns, sums.data(), kStride);
        for (int64_t r = 0; r < kRows; ++r)
          for (int64_t c = 0; c < kChannels; ++c) {
            const auto at = static_cast<size_t>(r * kChannels + c);
            const bool written = r >= 1 && r < kRows - 1 && c >= kColumn && c < kColumn + columns;
            double expected = 77;
            if (written) {
              expected = static_cast<double>(sums[static_cast<size_t>((r - 1) * kStride + c - kColumn)]) + bias[static_cast<size_t>(c)] +
                         (with_addend ? addend[at] : 0.0f);
              apply_epilogue<double>(e, 1, nullptr, &expected);
            }
            ASSERT_NEAR(y[at], expected, 1e-5 * std::max(1.0, std::abs(expected))) << "row " << r << ", column " << c << " of " << columns;
          }
      }
}

TEST(Interleave, MovesEveryValue) {
  if (cpu_isa() < Isa::kAvx512) GTEST_SKIP() << "needs AVX-512";
  for (const int64_t plane : {1, 15, 16, 17, 100, 20000}) {
    const int64_t batch = 2;
    const std::vector<float> x = random_floats(static_cast<size_t>(3 * batch * plane), 8);
    std::vector<float> y(x.size() + 1, 77.0f);
    interleave3_avx512(batch, plane, x.data(), y.data());
    EXPECT_EQ(y.back(), 77.0f);
    y.pop_back();
    EXPECT_EQ(y, turned<float>(x, batch, 3, plane)) << plane;
  }
}

}  // namespace
}  // namespace ds::kernels
