// QuantizeLinear and DequantizeLinear in every stored type, granularity and precision.
#include <cmath>

#include "libds/base/float8.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;
using Doubles = std::vector<double>;

Tensor run1(const std::string& op, std::vector<Tensor> inputs, Attributes attrs = {}, const std::string& kernel = {}) {
  return run_op({op, std::move(inputs), std::move(attrs)}, DType::kF64, kernel)[0];
}

Tensor f32(Shape shape, const std::vector<float>& v) { return Tensor::of<float>(std::move(shape), v); }
Tensor i8(Shape shape, const std::vector<int8_t>& v) { return Tensor::of<int8_t>(std::move(shape), v); }
int64_t type(DType t) { return static_cast<int64_t>(t); }
// Integers of any type from bytes.
Tensor stored(DType t, Shape shape, const std::vector<int8_t>& v) {
  const Tensor bytes = i8(std::move(shape), v);
  return is_packed(t) ? bytes.pack_as(t) : bytes.cast(t);
}
Ints ints(const Tensor& t) { return t.unpacked().to_ints(); }

TEST(QuantFormats, LessThanAByte) {
  const Tensor x = f32({7}, {-9, -2.5f, -1, 0.5f, 1.5f, 2.6f, 40}), one = f32({}, {1});
  const struct {
    DType type;
    Ints expected;
  } cases[] = {{DType::kU4, {0, 0, 0, 0, 2, 3, 15}}, {DType::kI4, {-8, -2, -1, 0, 2, 3, 7}}, {DType::kU2, {0, 0, 0, 0, 2, 3, 3}}, {DType::kI2, {-2, -2, -1, 0, 1, 1, 1}}};
  for (const auto& c : cases) {
    const Tensor y = run1("QuantizeLinear", {x, one}, {{"output_dtype", type(c.type)}});
    ASSERT_EQ(y.dtype(), c.type);
    EXPECT_EQ(y.bytes(), (7 * dtype_bits(c.type) + 7) / 8);
    EXPECT_EQ(ints(y), c.expected) << dtype_name(c.type);
    const Tensor back = run1("DequantizeLinear", {y, f32({}, {0.5f}), stored(c.type, {}, {1})});
    for (size_t i = 0; i < 7; ++i) EXPECT_EQ(back.data<float>()[i], static_cast<float>(c.expected[i] - 1) * 0.5f);
  }
  const Tensor with_zero = run1("QuantizeLinear", {x, one, stored(DType::kU4, {}, {8})});
  EXPECT_EQ(ints(with_zero), (Ints{0, 6, 7, 8, 10, 11, 15}));
}

TEST(QuantFormats, SixteenBits) {
  const Tensor x = f32({4}, {-40000, -1.5f, 300.25f, 70000});
  EXPECT_EQ(run1("QuantizeLinear", {x, f32({}, {1}), Tensor::scalar<int16_t>(-5)}).to_ints(), (Ints{-32768, -7, 295, 32767}));
  EXPECT_EQ(run1("QuantizeLinear", {x, f32({}, {1}), Tensor::scalar<uint16_t>(32767)}).to_ints(), (Ints{0, 32765, 33067, 65535}));
  EXPECT_EQ(run1("QuantizeLinear", {x, f32({}, {1}).cast(DType::kF16), Tensor::scalar<uint16_t>(32767)}).to_ints(), (Ints{0, 32765, 33067, 65535}));
}

// The general kernel against the plain loops, on every granularity.
TEST(QuantFormats, GranularitiesAgreeBitForBit) {
  const Shape shape = {5, 7, 13};
  const Tensor x = random_tensor(shape, 3, -9, 9).cast(DType::kF32);
  for (int64_t axis = 0; axis < 3; ++axis) {
    for (int64_t block : {0, 1, 2, 3, 20}) {
      Shape scales = shape;
      auto& along = scales[static_cast<size_t>(axis)];
      if (block > 0) along = (along + block - 1) / block;
      else scales = {along};
      const Tensor scale = random_tensor(scales, 4, 0.05, 0.3).cast(DType::kF32), zero = random_tensor(scales, 5, 0, 200).cast(DType::kU8);
      const Attributes attrs = {{"axis", axis - 3}, {"block_size", block}};
      const Tensor y = run1("QuantizeLinear", {x, scale, zero}, attrs, "portable/quantize");
      EXPECT_TRUE(run1("QuantizeLinear", {x, scale, zero}, attrs, "portable/quantize_any").equal_bits(y));
      const Tensor real = run1("DequantizeLinear", {y, scale, zero}, attrs, "portable/dequantize");
      EXPECT_TRUE(run1("DequantizeLinear", {y, scale, zero}, attrs, "portable/dequantize_any").equal_bits(real));
      for (int64_t i = 0; i < x.numel(); ++i) {  // by indices
        const Ints at = {i / 91, i / 13 % 7, i % 13};
        int64_t k = 0;
        for (size_t d = 0; d < 3; ++d) {
          const bool here = static_cast<int64_t>(d) == axis;
          if (block == 0 && !here) continue;
          k = k * scales[block == 0 ? 0 : d] + (here && block > 0 ? at[d] / block : at[d]);
        }
        const float expected = (static_cast<float>(y.data<uint8_t>()[i]) - static_cast<float>(zero.data<uint8_t>()[k])) * scale.data<float>()[k];
        ASSERT_EQ(real.data<float>()[i], expected) << "axis " << axis << " block " << block << " element " << i;
      }
    }
  }
}

// Several chunks, with blocks of packed values that end inside a byte.
TEST(QuantFormats, LongPackedTensorsInBlocks) {
  for (DType t : {DType::kI4, DType::kU2}) {
    const Tensor bytes = random_tensor({37, 91}, 6, t == DType::kI4 ? -8 : 0, t == DType::kI4 ? 7.99 : 3.99).cast(DType::kI8);
    const Tensor scale = random_tensor({37, 10}, 7, 0.1, 2).cast(DType::kF32);
    const Tensor y = run1("DequantizeLinear", {bytes.pack_as(t), scale}, {{"axis", int64_t{1}}, {"block_size", int64_t{10}}});
    EXPECT_TRUE(y.equal_bits(run1("DequantizeLinear", {bytes, scale}, {{"axis", int64_t{1}}, {"block_size", int64_t{10}}})));
    const Tensor back = run1("QuantizeLinear", {y, scale}, {{"axis", int64_t{1}}, {"block_size", int64_t{10}}, {"output_dtype", type(t)}});
    EXPECT_TRUE(back.equal_bits(bytes.pack_as(t)));
  }
}

TEST(QuantFormats, SmallFloats) {
  const Tensor x = f32({6}, {0, 1.06f, -3, 500, -1e9f, INFINITY}), two = f32({}, {2});
  const Tensor saturated = run1("QuantizeLinear", {x, two}, {{"output_dtype", type(DType::kF8E4M3FN)}});
  const Tensor back = run1("DequantizeLinear", {saturated, two});
  EXPECT_EQ(back.to_doubles(), (Doubles{0, 1.0, -3, 512, -896, 896}));
  const Tensor open = run1("QuantizeLinear", {x, two}, {{"output_dtype", type(DType::kF8E5M2)}, {"saturate", int64_t{0}}});
  EXPECT_EQ(run1("DequantizeLinear", {open, two}).to_doubles(), (Doubles{0, 1.0, -3, 512, -INFINITY, INFINITY}));
  for (DType t : {DType::kF8E4M3FNUZ, DType::kF8E5M2FNUZ, DType::kF4E2M1}) {
    const Tensor y = run1("QuantizeLinear", {f32({4}, {1, -3, 0, 12}), two}, {{"output_dtype", type(t)}});
    EXPECT_EQ(run1("DequantizeLinear", {y, two}).to_doubles(), (Doubles{1, -3, 0, 12})) << dtype_name(t);
  }
}

TEST(QuantFormats, ScalesOfSixteenBitsAndExponents) {
  const Tensor x = i8({2, 2}, {-128, 127, 3, -4});
  for (DType t : {DType::kF16, DType::kBF16}) {
    const Tensor scale = f32({2}, {0.1f, 3}).cast(t);
    const Tensor y = run1("DequantizeLinear", {x, scale}, {{"axis", int64_t{1}}});
    ASSERT_EQ(y.dtype(), t);
    const Tensor wide = run1("DequantizeLinear", {x, scale}, {{"axis", int64_t{1}}, {"output_dtype", type(DType::kF32)}});
    EXPECT_EQ(wide.data<float>()[0], -128.0f * static_cast<float>(scale.to_doubles()[0]));
    EXPECT_TRUE(y.equal_bits(wide.cast(t)));
  }
  Tensor exponents = Tensor::empty(DType::kF8E8M0, {2});
  static_cast<uint8_t*>(exponents.mutable_raw())[0] = 127 - 3;
  static_cast<uint8_t*>(exponents.mutable_raw())[1] = 127 + 2;
  const Attributes real = {{"axis", int64_t{1}}, {"output_dtype", type(DType::kBF16)}};
  const Tensor y = run1("DequantizeLinear", {x, exponents}, real);
  ASSERT_EQ(y.dtype(), DType::kBF16);
  EXPECT_EQ(y.to_doubles(), (Doubles{-16, 508, 0.375, -16}));
  EXPECT_EQ(run1("QuantizeLinear", {y, exponents, i8({2}, {0, 0})}, {{"axis", int64_t{1}}}).to_ints(), (Ints{-128, 127, 3, -4}));
}

TEST(QuantFormats, TheDivisionHasThePrecisionAskedFor) {
  const Tensor x = f32({1}, {65.49f}), one = f32({}, {1});
  EXPECT_EQ(run1("QuantizeLinear", {x, one}).to_ints(), Ints{65});
  EXPECT_EQ(run1("QuantizeLinear", {x, one}, {{"precision", type(DType::kF16)}}).to_ints(), Ints{66});  // 65.5, to even
  EXPECT_EQ(run1("QuantizeLinear", {x, one.cast(DType::kF16)}).to_ints(), Ints{66});
  EXPECT_EQ(run1("QuantizeLinear", {x, one.cast(DType::kF16)}, {{"precision", type(DType::kF32)}}).to_ints(), Ints{65});
}

void expect_error(const std::string& op, std::vector<Tensor> inputs, Attributes attrs, ExitCode code, const std::string& reason) {
  try {
    run_op({op, std::move(inputs), std::move(attrs)});
    FAIL() << op << " was accepted; expected: " << reason;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_NE(std::string(e.what()).find(reason), std::string::npos) << e.what();
  }
}

TEST(QuantFormats, BadInputNamesTheReason) {
  const Tensor x = f32({2}, {1, 2}), one = f32({}, {1});
  Tensor exponent = Tensor::zeros(DType::kF8E8M0, {});
  expect_error("QuantizeLinear", {x, one, stored(DType::kI4, {}, {0})}, {{"output_dtype", type(DType::kU4)}}, ExitCode::kBadData, "output_dtype is u4");
  expect_error("QuantizeLinear", {x, one}, {{"output_dtype", int64_t{999}}}, ExitCode::kBadData, "attribute 'output_dtype': unknown element type 999");
  expect_error("QuantizeLinear", {x, one}, {{"precision", type(DType::kI32)}}, ExitCode::kBadData, "precision i32");
  expect_error("QuantizeLinear", {x, Tensor::scalar<int32_t>(1)}, {}, ExitCode::kUnsupported, "scale of integers");
  expect_error("DequantizeLinear", {i8({1}, {1}), exponent}, {}, ExitCode::kBadData, "cannot have type f8e8m0");
  expect_error("DequantizeLinear", {i8({1}, {1}), one}, {{"output_dtype", type(DType::kF64)}}, ExitCode::kBadData, "cannot have type f64");
}

}  // namespace
}  // namespace ds::test
