// Quantization operators against their formulas, and the fast 8-bit kernels against the plain loops, bit for bit.
#include <cmath>

#include "kernels/quant.h"
#include "libds/base/random.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;

Tensor run1(const std::string& op, std::vector<Tensor> inputs, Attributes attrs = {}, const std::string& kernel = {}) {
  return run_op({op, std::move(inputs), std::move(attrs)}, DType::kF64, kernel)[0];
}

Tensor f32(Shape shape, const std::vector<float>& v) { return Tensor::of<float>(std::move(shape), v); }
Tensor u8(Shape shape, const std::vector<uint8_t>& v) { return Tensor::of<uint8_t>(std::move(shape), v); }
Tensor i8(Shape shape, const std::vector<int8_t>& v) { return Tensor::of<int8_t>(std::move(shape), v); }

// Random bytes; one in eight is an extreme value.
Tensor random_bytes(DType dtype, Shape shape, uint64_t seed) {
  Tensor t = Tensor::empty(dtype, std::move(shape));
  Random random(seed, stream_of("quant_test"));
  auto* p = static_cast<uint8_t*>(t.mutable_raw());
  for (int64_t i = 0; i < t.numel(); ++i) {
    const uint32_t r = random.u32();
    p[i] = static_cast<uint8_t>(r % 8 != 0 ? r >> 8 : (r >> 8) % 2 != 0 ? (dtype == DType::kI8 ? 0x80 : 0xff) : 0x7f);
  }
  return t;
}

TEST(Quant, RoundsHalfToEvenAndSaturates) {
  const Tensor x = f32({8}, {-0.5f, 0.5f, 1.5f, 2.5f, -1.5f, 1000.0f, -1000.0f, std::nanf("")});
  const Tensor one = f32({}, {1.0f});
  EXPECT_EQ(run1("QuantizeLinear", {x, one, u8({}, {10})}).to_ints(), (Ints{10, 10, 12, 12, 8, 255, 0, 0}));
  EXPECT_EQ(run1("QuantizeLinear", {x, one, i8({}, {-3})}).to_ints(), (Ints{-3, -3, -1, -1, -5, 127, -128, -128}));
  EXPECT_EQ(run1("QuantizeLinear", {x, one}).dtype(), DType::kU8);
  EXPECT_EQ(run1("QuantizeLinear", {Tensor::of<int32_t>({2}, {7, -9}), f32({}, {2.0f}), i8({}, {0})}).to_ints(), (Ints{4, -4}));
}

TEST(Quant, OneScaleKernelsAgreeBitForBit) {
  for (int64_t n : {1, 31, 32, 33, 1000}) {
    Tensor x = random_tensor({n}, static_cast<uint64_t>(n), -20, 20).cast(DType::kF32);
    for (int64_t i = 0; i < n; i += 7) x.mutable_data<float>()[i] = static_cast<float>(i % 3) * 0.05f + 0.025f;  // halves
    x.mutable_data<float>()[n / 2] = n % 2 != 0 ? INFINITY : NAN;
    for (const Tensor& zero : {u8({}, {0}), u8({}, {200}), i8({}, {-128}), i8({}, {5})})
      EXPECT_TRUE(run1("QuantizeLinear", {x, f32({}, {0.05f}), zero}).equal_bits(run1("QuantizeLinear", {x, f32({}, {0.05f}), zero}, {}, "portable/quantize")));
  }
}

TEST(Quant, PerAxisAndBlocked) {
  const Tensor x = f32({2, 3, 2}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  const Tensor y = run1("QuantizeLinear", {x, f32({3}, {1, 2, 4}), u8({3}, {0, 10, 20})}, {{"axis", int64_t{1}}});
  EXPECT_EQ(y.to_ints(), (Ints{1, 2, 12, 12, 21, 22, 7, 8, 14, 15, 23, 23}));
  const Tensor back = run1("DequantizeLinear", {y, f32({3}, {1, 2, 4}), u8({3}, {0, 10, 20})}, {{"axis", int64_t{-2}}});
  EXPECT_EQ(back.to_doubles(), (std::vector<double>{1, 2, 4, 4, 4, 8, 7, 8, 8, 10, 12, 12}));
  const Tensor last = run1("DequantizeLinear", {i8({2, 2}, {1, 2, 3, 4}), f32({2}, {1, 0.5f}), i8({2}, {0, 1})}, {{"axis", int64_t{1}}});
  EXPECT_EQ(last.to_doubles(), (std::vector<double>{1, 0.5, 3, 1.5}));
  const Tensor blocked = run1("DequantizeLinear", {i8({3, 2}, {1, 2, 3, 4, 5, 6}), f32({2, 2}, {1, 10, 100, 1000})},
                              {{"axis", int64_t{0}}, {"block_size", int64_t{2}}});
  EXPECT_EQ(blocked.to_doubles(), (std::vector<double>{1, 20, 3, 40, 500, 6000}));
  EXPECT_EQ(run1("DequantizeLinear", {Tensor::of<int32_t>({2}, {-100000, 7}), f32({}, {0.5f})}).to_doubles(), (std::vector<double>{-50000, 3.5}));
}

TEST(Quant, Dynamic) {
  const auto y = run_op({"DynamicQuantizeLinear", {f32({6}, {0, 2, -3, -2.5f, 1.34f, 0.5f})}, {}, 3});
  EXPECT_EQ(y[0].to_ints(), (Ints{153, 255, 0, 26, 221, 179}));  // the example of the ONNX text
  EXPECT_FLOAT_EQ(y[1].data<float>()[0], 0.0196078438f);
  EXPECT_EQ(y[2].to_ints(), (Ints{153}));
}

TEST(Quant, IntegerProducts) {
  const Tensor a = u8({2, 3}, {11, 7, 3, 10, 6, 2}), b = u8({3, 2}, {1, 4, 2, 5, 3, 6});
  EXPECT_EQ(run1("MatMulInteger", {a, b, u8({}, {12}), u8({}, {0})}).to_ints(), (Ints{-38, -83, -44, -98}));
  // a - 12 = [-1 -5 -9; -2 -6 -10], b - [1 4] = [0 0; 1 1; 2 2]
  EXPECT_EQ(run1("MatMulInteger", {a, b, u8({}, {12}), u8({2}, {1, 4})}).to_ints(), (Ints{-23, -23, -26, -26}));
  const Tensor x = u8({1, 1, 3, 3}, {2, 3, 4, 5, 6, 7, 8, 9, 10}), w = u8({1, 1, 2, 2}, {1, 1, 1, 1});
  EXPECT_EQ(run1("ConvInteger", {x, w, u8({}, {1})}).to_ints(), (Ints{12, 16, 24, 28}));
  EXPECT_EQ(run1("ConvInteger", {x, w, u8({}, {1})}, {{"pads", Ints{1, 1, 1, 1}}}).to_ints(),
            (Ints{1, 3, 5, 3, 5, 12, 16, 9, 11, 24, 28, 15, 7, 15, 17, 9}));
}

// QLinearMatMul and QLinearConv by dequantize, float product, quantize in double.
TEST(Quant, QLinearAgreesWithRealArithmetic) {
  const Tensor a = random_bytes(DType::kU8, {2, 5, 7}, 1), b = random_bytes(DType::kI8, {7, 4}, 2);
  const float sa = 0.03f, sy = 0.7f;
  const std::vector<float> sb = {0.01f, 0.02f, 0.005f, 0.04f};
  const Tensor y = run1("QLinearMatMul", {a, f32({}, {sa}), u8({}, {100}), b, f32({4}, sb), i8({4}, {0, 3, -4, 0}), f32({}, {sy}), i8({}, {-7})});
  const Ints zb = {0, 3, -4, 0}, av = a.to_ints(), bv = b.to_ints(), yv = y.to_ints();
  ASSERT_EQ(y.shape(), (Shape{2, 5, 4}));
  for (int64_t m = 0; m < 10; ++m)
    for (int64_t n = 0; n < 4; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < 7; ++k)
        sum += static_cast<double>(av[static_cast<size_t>(m * 7 + k)] - 100) * static_cast<double>(bv[static_cast<size_t>(k * 4 + n)] - zb[static_cast<size_t>(n)]);
      const double real = sum * sa * sb[static_cast<size_t>(n)] / sy;
      EXPECT_NEAR(static_cast<double>(yv[static_cast<size_t>(m * 4 + n)]), std::clamp(std::nearbyint(real) - 7, -128.0, 127.0), std::abs(real - std::round(real)) > 0.499 ? 1 : 0);
    }
  const Tensor x = random_bytes(DType::kU8, {2, 4, 5, 6}, 3), w = random_bytes(DType::kI8, {6, 2, 3, 3}, 4);
  const Tensor bias = Tensor::of<int32_t>({6}, {100, -2000, 3, 40000, 0, -9});
  const Tensor c = run1("QLinearConv", {x, f32({}, {0.02f}), u8({}, {128}), w, f32({}, {0.01f}), i8({}, {0}), f32({}, {0.9f}), u8({}, {120}), bias},
                        {{"group", int64_t{2}}, {"pads", Ints{1, 0, 1, 1}}, {"strides", Ints{2, 1}}});
  ASSERT_EQ(c.shape(), (Shape{2, 6, 3, 5}));
  const Ints xv = x.to_ints(), wv = w.to_ints(), cv = c.to_ints(), bias_v = bias.to_ints();
  for (int64_t i = 0; i < c.numel(); ++i) {
    const int64_t ox = i % 5, oy = i / 5 % 3, m = i / 15 % 6, n = i / 90;
    double sum = static_cast<double>(bias_v[static_cast<size_t>(m)]);
    for (int64_t ch = 0; ch < 2; ++ch)
      for (int64_t k = 0; k < 9; ++k) {
        const int64_t iy = oy * 2 - 1 + k / 3, ix = ox + k % 3;
        if (iy < 0 || iy >= 5 || ix >= 6) continue;
        sum += static_cast<double>(xv[static_cast<size_t>(((n * 4 + m / 3 * 2 + ch) * 5 + iy) * 6 + ix)] - 128) *
               static_cast<double>(wv[static_cast<size_t>((m * 2 + ch) * 9 + k)]);
      }
    const double real = sum * 0.02f * 0.01f / 0.9f;
    EXPECT_NEAR(static_cast<double>(cv[static_cast<size_t>(i)]), std::clamp(std::nearbyint(real) + 120, 0.0, 255.0), std::abs(real - std::round(real)) > 0.499 ? 1 : 0);
  }
}

// --- fast kernels ---------------------------------------------------------------------------------------

struct ConvCase {
  Shape x, w;  // NHWC, [M, C/G, KH, KW]
  Attributes attrs;
};

const std::vector<ConvCase>& conv_cases() {
  static const std::vector<ConvCase> cases = {
      {{1, 5, 7, 3}, {5, 3, 3, 3}, {{"pads", Ints{1, 1, 1, 1}}}},
      {{2, 9, 8, 16}, {32, 16, 1, 1}, {}},
      {{1, 11, 13, 3}, {17, 3, 7, 7}, {{"pads", Ints{3, 3, 3, 3}}, {"strides", Ints{2, 2}}}},
      {{2, 6, 5, 70}, {33, 70, 3, 3}, {{"pads", Ints{1, 0, 0, 1}}, {"dilations", Ints{2, 2}}}},   // depth 630: two sweeps
      {{1, 7, 7, 513}, {19, 513, 1, 1}, {{"strides", Ints{2, 1}}}},                               // an odd depth over the block
      {{1, 4, 4, 12}, {18, 4, 3, 3}, {{"group", int64_t{3}}, {"pads", Ints{1, 1, 1, 1}}}},
      {{2, 6, 5, 19}, {19, 1, 3, 3}, {{"group", int64_t{19}}, {"pads", Ints{1, 1, 1, 1}}}},       // depthwise
      {{1, 9, 9, 32}, {32, 1, 5, 5}, {{"group", int64_t{32}}, {"pads", Ints{2, 2, 2, 2}}, {"strides", Ints{2, 2}}}},
      {{1, 20, 20, 8}, {300, 8, 1, 1}, {}},                                                       // several channel blocks
  };
  return cases;
}

TEST(QFused, ConvKernelsAgreeBitForBit) {
  uint64_t seed = 1;
  for (const ConvCase& c : conv_cases()) {
    for (DType x_type : {DType::kU8, DType::kI8}) {
      for (DType out : {DType::kU8, DType::kI8, DType::kF32}) {
        ++seed;
        const int64_t m = c.w[0];
        Attributes attrs = c.attrs;
        attrs["x_scale"] = 0.02f;
        attrs["x_zero"] = x_type == DType::kU8 ? int64_t{117} : int64_t{-5};
        attrs["y_scale"] = 0.5f;
        attrs["y_zero"] = out == DType::kI8 ? int64_t{-20} : int64_t{30};
        attrs["output"] = static_cast<int64_t>(out);
        attrs["relu"] = static_cast<int64_t>(seed % 2);
        if (seed % 2 == 1) attrs["lo"] = std::get<int64_t>(attrs["y_zero"]);
        const Tensor bias = random_tensor({m}, seed, -5000, 5000).cast(DType::kI32);
        const Tensor scale = random_tensor({m}, seed + 100, 0.001, 0.02).cast(DType::kF32);
        const Tensor float_bias = random_tensor({m}, seed + 200, -3, 3).cast(DType::kF32);
        const Tensor zero = seed % 3 == 0 ? random_bytes(DType::kI8, {m}, seed + 300) : Tensor();
        const std::vector<Tensor> inputs = {random_bytes(x_type, c.x, seed), random_bytes(DType::kI8, c.w, seed + 400), scale, zero, bias,
                                            seed % 2 == 0 ? float_bias : Tensor()};
        const Tensor expected = run1("QConv", inputs, attrs, "portable/qconv");
        EXPECT_TRUE(run1("QConv", inputs, attrs).equal_bits(expected)) << shape_string(c.x) << " " << shape_string(c.w);
        if (cpu_isa() >= Isa::kAvx2) {
          EXPECT_TRUE(run1("QConv", inputs, attrs, "avx2/qconv").equal_bits(expected)) << shape_string(c.w);
        }
      }
    }
  }
}

TEST(QFused, MatMulKernelsAgreeBitForBitAndWithTheFormula) {
  for (bool turned : {false, true}) {
    const int64_t depth = 531, columns = 21;
    const Tensor x = random_bytes(DType::kU8, {3, 5, depth}, 7);
    const Tensor w = random_bytes(DType::kI8, turned ? Shape{columns, depth} : Shape{depth, columns}, 8);
    const Tensor scale = random_tensor({columns}, 9, 0.001, 0.02).cast(DType::kF32);
    Attributes attrs = {{"x_scale", 0.05f}, {"x_zero", int64_t{100}}, {"output", static_cast<int64_t>(DType::kF32)}, {"trans_b", int64_t{turned}}};
    const Tensor y = run1("QMatMul", {x, w, scale}, attrs);
    EXPECT_TRUE(y.equal_bits(run1("QMatMul", {x, w, scale}, attrs, "portable/qmatmul")));
    const Ints xv = x.to_ints(), wv = w.to_ints();
    for (int64_t r = 0; r < 15; ++r)
      for (int64_t n = 0; n < columns; ++n) {
        int64_t sum = 0;
        for (int64_t k = 0; k < depth; ++k)
          sum += (xv[static_cast<size_t>(r * depth + k)] - 100) * wv[static_cast<size_t>(turned ? n * depth + k : k * columns + n)];
        EXPECT_EQ(y.data<float>()[r * columns + n], static_cast<float>(sum) * (0.05f * scale.data<float>()[n]));
      }
  }
}

std::vector<std::string> kernels_of(const char* op, std::initializer_list<const char*> isa_kernels) {
  std::vector<std::string> names = {"", std::string("portable/") + op};
  if (cpu_isa() >= Isa::kAvx2) names.insert(names.end(), isa_kernels.begin(), isa_kernels.end());
  return names;
}

// A residual of 8 bits in the epilogue: what QConv and QAdd give one after the other.
TEST(QFused, ProductsAddBytesAsTheSeparateOperatorDoes) {
  uint64_t seed = 50;
  for (const ConvCase& c : conv_cases())
    for (DType type : {DType::kU8, DType::kI8}) {
      ++seed;
      const int64_t m = c.w[0], zero = type == DType::kI8 ? -20 : 30;
      Attributes attrs = c.attrs;
      for (const auto& [key, value] : Attributes{{"x_scale", 0.02f}, {"x_zero", int64_t{7}}, {"y_scale", 0.5f}, {"y_zero", zero}, {"output", static_cast<int64_t>(type)}, {"hi", int64_t{120}}})
        attrs[key] = value;
      std::vector<Tensor> inputs = {random_bytes(type, c.x, seed), random_bytes(DType::kI8, c.w, seed + 400), random_tensor({m}, seed + 100, 0.001, 0.02).cast(DType::kF32),
                                    Tensor(), random_tensor({m}, seed, -5000, 5000).cast(DType::kI32)};
      const Tensor product = run1("QConv", inputs, attrs, "portable/qconv");
      const Tensor addend = random_bytes(type, product.shape(), seed + 500);
      const Tensor expected = run1("QAdd", {product, addend},
                                   {{"a_scale", 0.5f}, {"a_zero", zero}, {"b_scale", 0.3f}, {"b_zero", int64_t{11}}, {"y_scale", 0.6f}, {"y_zero", int64_t{25}},
                                    {"output", static_cast<int64_t>(type)}, {"lo", int64_t{25}}}, "portable/qadd");
      for (const auto& [key, value] : Attributes{{"a_scale", 0.5f}, {"b_scale", 0.3f}, {"b_zero", int64_t{11}}, {"sum_scale", 0.6f}, {"sum_zero", int64_t{25}}, {"sum_lo", int64_t{25}}})
        attrs[key] = value;
      inputs.resize(7);
      inputs[6] = addend;
      for (const std::string& kernel : kernels_of("qconv", {"avx2/qconv"}))
        EXPECT_TRUE(run1("QConv", inputs, attrs, kernel).equal_bits(expected)) << kernel << " " << shape_string(c.x) << " " << shape_string(c.w);
    }
}

// Residual, activation and quantization in float: the separate operators on the float result.
TEST(QFused, ProductsGoOnInFloat) {
  const int64_t depth = 70, columns = 21;
  const Tensor x = random_bytes(DType::kU8, {3, 5, depth}, 7), w = random_bytes(DType::kI8, {depth, columns}, 8);
  const Tensor scale = random_tensor({columns}, 9, 0.0001, 0.001).cast(DType::kF32), bias = random_tensor({columns}, 10).cast(DType::kF32);
  const Tensor addend = random_tensor({3, 5, columns}, 11).cast(DType::kF32);
  const Attributes plain = {{"x_scale", 0.05f}, {"x_zero", int64_t{100}}, {"output", static_cast<int64_t>(DType::kF32)}};
  const Tensor sum = run1("Add", {run1("QMatMul", {x, w, scale, Tensor(), Tensor(), bias}, plain, "portable/qmatmul"), addend});
  const std::vector<Tensor> inputs = {x, w, scale, Tensor(), Tensor(), bias, addend};
  struct Case {
    const char *activation, *op;
    Attributes attrs;
  };
  for (const Case& c : {Case{"", "Identity", {}}, Case{"gelu", "Gelu", {}}, Case{"gelu_tanh", "Gelu", {{"approximate", std::string("tanh")}}},
                        Case{"relu", "Relu", {}}, Case{"tanh", "Tanh", {}}, Case{"silu", "Swish", {}}, Case{"sigmoid", "Sigmoid", {}}}) {
    const Tensor expected = run1(c.op, {sum}, c.attrs);
    Attributes attrs = plain;
    attrs["activation"] = std::string(c.activation);
    for (const std::string& kernel : kernels_of("qmatmul", {"avx2/qmatmul"})) {
      SCOPED_TRACE(kernel + " " + c.activation);
      attrs["output"] = static_cast<int64_t>(DType::kF32);
      const Tensor y = run1("QMatMul", inputs, attrs, kernel);
      for (int64_t i = 0; i < y.numel(); ++i)
        ASSERT_NEAR(y.data<float>()[i], expected.data<float>()[i], 1e-6f * std::max(1.0f, std::abs(expected.data<float>()[i])));
      for (DType type : {DType::kU8, DType::kI8}) {
        attrs["output"] = static_cast<int64_t>(type);
        attrs["y_scale"] = 0.013f;
        attrs["y_zero"] = int64_t{31};
        const Tensor zero = type == DType::kU8 ? u8({}, {31}) : i8({}, {31});
        const Ints bytes = run1("QMatMul", inputs, attrs, kernel).to_ints(), wanted = run1("QuantizeLinear", {expected, f32({}, {0.013f}), zero}).to_ints();
        for (size_t i = 0; i < bytes.size(); ++i) ASSERT_NEAR(static_cast<double>(bytes[i]), static_cast<double>(wanted[i]), 1);
      }
    }
  }
}

TEST(Quant, MatMulIntegerKernelsAgreeBitForBit) {
  for (DType a_type : {DType::kU8, DType::kI8}) {
    const Tensor a = random_bytes(a_type, {2, 9, 77}, 21), b = random_bytes(DType::kI8, {77, 19}, 22);
    const Tensor za = random_bytes(a_type, {}, 23), zb = random_bytes(DType::kI8, {19}, 24);
    EXPECT_TRUE(run1("MatMulInteger", {a, b, za, zb}).equal_bits(run1("MatMulInteger", {a, b, za, zb}, {}, "portable/matmul_integer")));
  }
}

TEST(QFused, PointwiseAndPooling) {
  const Tensor a = u8({5}, {0, 10, 128, 200, 255}), b = u8({5}, {255, 0, 128, 7, 255});
  const Attributes add = {{"a_scale", 0.5f}, {"a_zero", int64_t{128}}, {"b_scale", 0.25f}, {"b_zero", int64_t{0}}, {"y_scale", 1.0f}, {"y_zero", int64_t{100}}};
  // (a-128)*0.5 + b*0.25 = -0.25, -59, 32, 37.75, 127.25
  EXPECT_EQ(run1("QAdd", {a, b}, add).to_ints(), (Ints{100, 41, 132, 138, 227}));
  Attributes relu = add;
  relu["lo"] = int64_t{100};
  EXPECT_EQ(run1("QAdd", {a, b}, relu).to_ints(), (Ints{100, 100, 132, 138, 227}));
  std::vector<uint8_t> table(256);
  for (size_t i = 0; i < 256; ++i) table[i] = static_cast<uint8_t>(255 - i);
  EXPECT_EQ(run1("QTable", {a, u8({256}, table)}).to_ints(), (Ints{255, 245, 127, 55, 0}));
  const Tensor x = i8({1, 2, 3, 2}, {-5, 1, -6, 2, -7, 3, -8, 9, -9, 8, -10, 7});
  EXPECT_EQ(run1("QMaxPool", {x}, {{"kernel_shape", Ints{2, 2}}, {"pads", Ints{0, 0, 0, 1}}}).to_ints(), (Ints{-5, 9, -6, 8, -7, 7}));
  const Attributes mean = {{"x_scale", 0.5f}, {"x_zero", int64_t{-1}}, {"y_scale", 0.25f}, {"y_zero", int64_t{3}}};
  // sums -45 and 30 over 6 pixels, zero -1: (-45+6)*0.5/6 = -3.25 -> -13+3; (30+6)*0.5/6 = 3 -> 12+3
  EXPECT_EQ(run1("QGlobalAveragePool", {x}, mean).to_ints(), (Ints{-10, 15}));
}

TEST(QFused, AddKernelsAgreeBitForBit) {
  for (DType t : {DType::kU8, DType::kI8}) {
    const std::vector<Tensor> in = {random_bytes(t, {3, 341}, 11), random_bytes(t, {3, 341}, 12)};
    const Attributes attrs = {{"a_scale", 0.031f}, {"a_zero", int64_t{12}}, {"b_scale", 0.017f}, {"b_zero", int64_t{-3}}, {"y_scale", 0.02f},
                              {"y_zero", int64_t{5}}, {"output", static_cast<int64_t>(t)}, {"lo", int64_t{-90}}};
    EXPECT_TRUE(run1("QAdd", in, attrs).equal_bits(run1("QAdd", in, attrs, "portable/qadd")));
  }
}

// --- bad input ------------------------------------------------------------------------------------------

void expect_bad(const std::string& op, std::vector<Tensor> inputs, Attributes attrs, const std::string& reason) {
  try {
    run_op({op, std::move(inputs), std::move(attrs)});
    FAIL() << op << " was accepted; expected: " << reason;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kBadData) << e.what();
    EXPECT_NE(std::string(e.what()).find(reason), std::string::npos) << e.what();
  }
}

TEST(Quant, BadInputNamesTheReason) {
  const Tensor x = f32({2, 3}, {1, 2, 3, 4, 5, 6}), one = f32({}, {1});
  expect_bad("QuantizeLinear", {x, f32({2}, {1, 2})}, {}, "2 scales for axis 1 of size 3");
  expect_bad("QuantizeLinear", {x, f32({3}, {1, 2, 3})}, {{"axis", int64_t{5}}}, "axis 5");
  expect_bad("QuantizeLinear", {x, one, f32({}, {0})}, {}, "f32 is not supported");
  expect_bad("QuantizeLinear", {x, f32({3}, {1, 2, 3}), u8({2}, {1, 2})}, {}, "scale is 3, zero point 2");
  expect_bad("DequantizeLinear", {x, one}, {}, "has type f32");
  expect_bad("DequantizeLinear", {u8({1}, {1}), one, i8({}, {0})}, {}, "the zero point has type i8");
  expect_bad("MatMulInteger", {u8({1, 2}, {1, 2}), u8({1, 2}, {1, 2})}, {}, "inner sizes differ");
  expect_bad("MatMulInteger", {u8({1, 2}, {1, 2}), u8({2, 1}, {1, 2}), u8({3}, {0, 0, 0})}, {}, "has 3 values");
  expect_bad("ConvInteger", {u8({1, 2, 1, 1}, {1, 2}), u8({1, 3, 1, 1}, {1, 2, 3})}, {}, "weight expects 3 channels, input has 2");
  expect_bad("QLinearMatMul", {u8({1, 1}, {1}), one, i8({}, {0}), u8({1, 1}, {1}), one, u8({}, {0}), one, u8({}, {0})}, {}, "has type i8");
  const std::vector<Tensor> product = {u8({1, 2}, {1, 2}), i8({2, 1}, {1, 2}), one, Tensor(), Tensor(), Tensor()};
  const auto with = [&](Tensor addend) {
    std::vector<Tensor> inputs = product;
    inputs.push_back(std::move(addend));
    return inputs;
  };
  expect_bad("QMatMul", with(i8({1, 1}, {0})), {}, "the addend has another type");
  expect_bad("QMatMul", with(f32({1, 1}, {0})), {}, "the addend has another type");
  expect_bad("QMatMul", with(u8({1, 2}, {0, 0})), {}, "the addend has another shape");
}

}  // namespace
}  // namespace ds::test
