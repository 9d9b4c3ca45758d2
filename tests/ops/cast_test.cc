// Conversions between element types: those for storage only, and strings.
#include <cmath>
#include <limits>

#include "libds/ir/rewriter.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Doubles = std::vector<double>;
using Ints = std::vector<int64_t>;
constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

Tensor cast(const Tensor& x, DType to, Attributes attrs = {}) {
  attrs["to"] = static_cast<int64_t>(to);
  return run_op({"Cast", {x}, attrs})[0];
}

Tensor floats(std::vector<float> v) { return Tensor::vector<float>(v); }

const Attributes kNoSaturate = {{"saturate", int64_t{0}}};

TEST(Cast, Float8RoundsToEvenAndSaturates) {
  const Tensor x = floats({0, 1, 1.0625f, 1.1875f, 448, 460, 480, 1e6f, -kInf, 0.001f, 0.0009f});
  EXPECT_EQ(cast(x, DType::kF8E4M3FN).to_doubles(), (Doubles{0, 1, 1, 1.25, 448, 448, 448, 448, -448, 0.001953125, 0}));
  const Doubles loose = cast(x, DType::kF8E4M3FN, kNoSaturate).to_doubles();
  EXPECT_EQ(loose[5], 448);  // rounds down into range
  for (size_t i : {6, 7, 8}) EXPECT_TRUE(std::isnan(loose[i])) << i;
  const Doubles ieee = cast(floats({57344, 61440, -kInf}), DType::kF8E5M2, kNoSaturate).to_doubles();
  EXPECT_EQ(ieee, (Doubles{57344, kInf, -kInf}));
  EXPECT_EQ(cast(floats({61440, -kInf}), DType::kF8E5M2).to_doubles(), (Doubles{57344, -57344}));
  const Tensor zero = cast(floats({-0.0f}), DType::kF8E4M3FNUZ);
  EXPECT_EQ(static_cast<const uint8_t*>(zero.raw())[0], 0);  // that format has no -0
  for (DType to : {DType::kF8E4M3FN, DType::kF8E4M3FNUZ, DType::kF8E5M2, DType::kF8E5M2FNUZ, DType::kF8E8M0})
    EXPECT_TRUE(std::isnan(cast(floats({kNan}), to).to_doubles()[0])) << dtype_name(to);
}

// Every pattern of every type survives a trip through f32.
TEST(Cast, Float8ThereAndBack) {
  for (DType to : {DType::kF8E4M3FN, DType::kF8E4M3FNUZ, DType::kF8E5M2, DType::kF8E5M2FNUZ, DType::kF8E8M0}) {
    Tensor all = Tensor::empty(to, {256});
    for (int i = 0; i < 256; ++i) static_cast<uint8_t*>(all.mutable_raw())[i] = static_cast<uint8_t>(i);
    const Tensor back = cast(cast(all, DType::kF32), to, kNoSaturate);
    const Doubles a = all.to_doubles(), b = back.to_doubles();
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) << dtype_name(to) << " " << i;
  }
}

TEST(Cast, PowersOfTwo) {
  const auto powers = [](std::vector<float> x, const char* mode, int64_t saturate = 1) {
    return cast(floats(std::move(x)), DType::kF8E8M0, {{"round_mode", std::string(mode)}, {"saturate", saturate}}).to_doubles();
  };
  EXPECT_EQ(powers({0.5f, 1.1f, 1.5f, 1.9f}, "up"), (Doubles{0.5, 2, 2, 2}));
  EXPECT_EQ(powers({0.5f, 1.1f, 1.5f, 1.9f}, "down"), (Doubles{0.5, 1, 1, 1}));
  EXPECT_EQ(powers({0.5f, 1.1f, 1.5f, 1.9f}, "nearest"), (Doubles{0.5, 1, 2, 2}));
  EXPECT_EQ(powers({0, kInf, 3e38f, 1e-45f}, "up"), (Doubles{0x1p-127, 0x1p127, 0x1p127, 0x1p-127}));
  for (double v : powers({0, kInf, 3e38f, 1e-45f, -1}, "nearest", 0)) EXPECT_TRUE(std::isnan(v)) << v;
  EXPECT_THROW(powers({1}, "sideways"), Error);
}

TEST(Cast, PackedIntegersDropHighBits) {
  EXPECT_EQ(cast(floats({-9, -8, 7, 8, 15, 1.9f}), DType::kI4).to_doubles(), (Doubles{7, -8, 7, -8, -1, 1}));
  EXPECT_EQ(cast(floats({-9, -1, 7, 17, 15}), DType::kU4).to_doubles(), (Doubles{7, 15, 7, 1, 15}));
  EXPECT_EQ(cast(floats({-3, -2, -1, 0, 1, 2, 3}), DType::kI2).to_doubles(), (Doubles{1, -2, -1, 0, 1, -2, -1}));
  EXPECT_EQ(cast(floats({-1, 0, 1, 2, 3}), DType::kU2).to_doubles(), (Doubles{3, 0, 1, 2, 3}));
  const Tensor odd = cast(floats({1, -2, 3}), DType::kI4);
  EXPECT_EQ(odd.bytes(), 2u);
  EXPECT_EQ(cast(odd, DType::kI8).to_ints(), (Ints{1, -2, 3}));
  EXPECT_EQ(cast(odd, DType::kU4).to_doubles(), (Doubles{1, 14, 3}));
  EXPECT_EQ(cast(odd, DType::kF16).to_doubles(), (Doubles{1, -2, 3}));
  EXPECT_EQ(cast(Tensor::vector<int64_t>(Ints{17, -1}), DType::kU4).to_doubles(), (Doubles{1, 15}));
}

TEST(Cast, Float4) {
  const Tensor x = floats({0.25f, 0.26f, 1.05f, 2.5f, 5, -3.5f, 9, -kInf, -0.0f});
  const Tensor f4 = cast(x, DType::kF4E2M1);
  EXPECT_EQ(f4.bytes(), 5u);
  EXPECT_EQ(cast(f4, DType::kF32).to_doubles(), (Doubles{0, 0.5, 1, 2, 4, -4, 6, -6, 0}));
}

// More elements than one chunk, and a length that fills no byte.
TEST(Cast, LongTensors) {
  std::vector<int32_t> values(10007);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int32_t>(i * 7 % 16) - 8;
  const Tensor x = Tensor::vector<int32_t>(values);
  EXPECT_TRUE(cast(cast(x, DType::kI4), DType::kI32).equal_bits(x));
  EXPECT_TRUE(cast(cast(x, DType::kF8E4M3FN), DType::kI32).equal_bits(x));
}

TEST(Cast, Strings) {
  const Tensor x = floats({0.1f, 1e-7f, -2, kInf, -kInf, kNan, 100000000});
  const Tensor text = cast(x, DType::kString);
  EXPECT_EQ(text.strings()[0], "0.1");
  EXPECT_EQ(text.strings()[1], "1e-07");
  EXPECT_EQ(text.strings()[3], "INF");
  EXPECT_EQ(text.strings()[4], "-INF");
  EXPECT_EQ(text.strings()[5], "NaN");
  const Doubles back = cast(text, DType::kF32).to_doubles();
  for (size_t i : {0, 1, 2, 3, 4, 6}) EXPECT_EQ(back[i], x.to_doubles()[i]) << i;
  EXPECT_TRUE(std::isnan(back[5]));
  const Tensor words = Tensor::of_strings({4}, {" +inf", "1E3", "-7", "2.5"});
  EXPECT_EQ(cast(words, DType::kF64).to_doubles(), (Doubles{kInf, 1000, -7, 2.5}));
  EXPECT_EQ(cast(Tensor::of_strings({2}, {"9007199254740993", "3.7"}), DType::kI64).to_ints(), (Ints{9007199254740993, 3}));
  EXPECT_EQ(cast(Tensor::of_strings({1}, {"3"}), DType::kI4).to_doubles(), (Doubles{3}));
  EXPECT_THROW(cast(Tensor::of_strings({1}, {"Hello World!"}), DType::kF32), Error);
  EXPECT_THROW(cast(Tensor::of_strings({1}, {"1.5x"}), DType::kI32), Error);
}

TEST(Cast, LikeAnother) {
  EXPECT_EQ(run_op({"CastLike", {floats({500}), cast(floats({0}), DType::kF8E4M3FN)}})[0].to_doubles(), (Doubles{448}));
}

TEST(Cast, FloatsOf8BitsAreClassified) {
  const Tensor x = cast(floats({1, kNan, kInf, -kInf}), DType::kF8E5M2, kNoSaturate);
  EXPECT_EQ(run_op({"IsNaN", {x}})[0].to_ints(), (Ints{0, 1, 0, 0}));
  EXPECT_EQ(run_op({"IsInf", {x}, {{"detect_negative", int64_t{0}}}})[0].to_ints(), (Ints{0, 0, 1, 0}));
}

}  // namespace
}  // namespace ds::test
