// Operators of onnxruntime on quantized tensors: packed weights against their formula, and what is lowered against
// real arithmetic. tests/python/ops_vs_ort.py compares them with onnxruntime itself.
#include <cmath>

#include "libds/base/parallel.h"
#include "libds/base/random.h"
#include "libds/ir/rewriter.h"
#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;

// One node of com.microsoft whose inputs are constants, except the first.
Tensor contrib(const std::string& op, const std::vector<Tensor>& inputs, Attributes attrs = {}) {
  auto graph = std::make_shared<Graph>();
  Rewriter rw(*graph);
  Node n;
  n.domain = "com.microsoft";
  n.op = n.name = op;
  n.def = OpRegistry::instance().find(n.domain, op);
  n.attrs = std::move(attrs);
  for (size_t i = 0; i < inputs.size(); ++i)
    n.inputs.push_back(!inputs[i].defined() ? kNone
                       : i == 0             ? rw.add_input("x", inputs[i].dtype(), to_dims(inputs[i].shape()))
                                            : rw.add_constant(fmt::format("c{}", i), inputs[i]));
  n.outputs = {rw.add_value("y")};
  const ValueId y = n.outputs[0];
  rw.infer(rw.add_raw_node(std::move(n)));
  rw.add_output(y);
  CompileOptions options;
  options.threads = num_threads();
  return make_eager_executor(graph, options)->run(std::vector<Tensor>{inputs[0]})[0];
}

Tensor f32(Shape shape, const std::vector<float>& v) { return Tensor::of<float>(std::move(shape), v); }
Tensor u8(Shape shape, const std::vector<uint8_t>& v) { return Tensor::of<uint8_t>(std::move(shape), v); }

Tensor random_u8(Shape shape, uint64_t seed) {
  Tensor t = Tensor::empty(DType::kU8, std::move(shape));
  Random random(seed, stream_of("contrib_quant_test"));
  for (int64_t i = 0; i < t.numel(); ++i) t.mutable_data<uint8_t>()[i] = static_cast<uint8_t>(random.u32());
  return t;
}

int value_at(const uint8_t* q, int bits, int64_t i) { return (q[i * bits / 8] >> (i * bits % 8)) & ((1 << bits) - 1); }

struct NBits {
  int64_t rows, depth, columns, block;
  int bits;
  int zero;  // 0: none, 1: packed, 2: floats
  bool group = false, bias = false;
};

void check_nbits(const NBits& p, DType dtype) {
  const int64_t blocks = (p.depth + p.block - 1) / p.block, row_bytes = blocks * p.block * p.bits / 8, zero_bytes = (blocks * p.bits + 7) / 8;
  const Tensor x = random_tensor({2, p.rows, p.depth}, 1).cast(dtype), scale = random_tensor({p.columns * blocks}, 2, 0.01, 0.1).cast(dtype);
  const Tensor q = random_u8({p.columns, blocks, p.block * p.bits / 8}, 3);
  const Tensor packed = random_u8({p.columns * zero_bytes}, 4), floats = random_tensor({p.columns * blocks}, 5, 0, 9).cast(dtype);
  const Tensor bias = random_tensor({p.columns}, 6).cast(dtype);
  Tensor group = Tensor::empty(DType::kI32, {p.depth});
  for (int64_t k = 0; k < p.depth; ++k) group.mutable_data<int32_t>()[k] = static_cast<int32_t>((k * 7 + 3) % blocks);
  const Tensor y = contrib("MatMulNBits",
                           {x, q, scale, p.zero == 1 ? packed : p.zero == 2 ? floats : Tensor(), p.group ? group : Tensor(), p.bias ? bias : Tensor()},
                           {{"K", p.depth}, {"N", p.columns}, {"bits", int64_t{p.bits}}, {"block_size", p.block}});
  ASSERT_EQ(y.dtype(), dtype);
  ASSERT_EQ(y.shape(), (Shape{2, p.rows, p.columns}));
  const std::vector<double> xv = x.to_doubles(), sv = scale.to_doubles(), fv = floats.to_doubles(), bv = bias.to_doubles(), yv = y.to_doubles();
  const double unit = dtype == DType::kF16 ? 1e-3 : 8e-3;
  for (int64_t r = 0; r < 2 * p.rows; ++r)
    for (int64_t n = 0; n < p.columns; ++n) {
      double sum = p.bias ? bv[static_cast<size_t>(n)] : 0, size = std::abs(sum);
      for (int64_t k = 0; k < p.depth; ++k) {
        const int64_t b = p.group ? group.data<int32_t>()[k] : k / p.block;
        const double zero = p.zero == 1   ? value_at(packed.data<uint8_t>() + n * zero_bytes, p.bits, b)
                            : p.zero == 2 ? fv[static_cast<size_t>(n * blocks + b)]
                                          : 1 << (p.bits - 1);
        const double term = xv[static_cast<size_t>(r * p.depth + k)] * (value_at(q.data<uint8_t>() + n * row_bytes, p.bits, k) - zero) * sv[static_cast<size_t>(n * blocks + b)];
        sum += term;
        size += std::abs(term);
      }
      // f32: a few roundings of the terms' size, however they cancel.
      const double bound = dtype == DType::kF32 ? 3e-7 * size : unit * std::max(1.0, std::abs(sum)) * (p.bits == 8 ? 16 : 1);
      ASSERT_NEAR(yv[static_cast<size_t>(r * p.columns + n)], sum, bound)
          << p.bits << " bits, block " << p.block << ", zero " << p.zero;
    }
}

TEST(ContribQuant, MatMulNBits) {
  for (int bits : {2, 4, 8})
    for (int zero : {0, 1, 2}) {
      check_nbits({1, 64, 7, 16, bits, zero}, DType::kF32);
      check_nbits({3, 75, 9, 32, bits, zero, false, true}, DType::kF32);  // a block cut short, odd rows and columns
      check_nbits({2, 1500, 5, 128, bits, zero}, DType::kF32);            // more than one sweep
      check_nbits({1, 96, 6, 32, bits, zero, true}, DType::kF32);
      check_nbits({2, 64, 4, 32, bits, zero, false, true}, DType::kF16);
      check_nbits({4, 300, 37, 64, bits, zero, false, true}, DType::kF32);   // the most rows of one sweep
      check_nbits({20, 1100, 35, 16, bits, zero, false, true}, DType::kF32);  // many rows
      check_nbits({150, 531, 150, 512, bits, zero}, DType::kF32);             // pieces of a block, of the rows, of the columns
    }
  check_nbits({2, 64, 4, 32, 4, 2}, DType::kBF16);
}

// accuracy_level 4 rounds activations to 8 bits, block by block, where the kernel is made for it; else it means nothing.
TEST(ContribQuant, MatMulNBitsOfRoundedActivations) {
  for (int bits : {2, 4, 8})
    for (int64_t block : {16, 32, 256})
      for (int64_t rows : {1, 3, 8, 19}) {
        const int64_t depth = 301, columns = 37, blocks = (depth + block - 1) / block, row_bytes = blocks * block * bits / 8;
        const Tensor x = random_tensor({rows, depth}, 1).cast(DType::kF32), scale = random_tensor({columns * blocks}, 2, 0.01, 0.1).cast(DType::kF32);
        const Tensor q = random_u8({columns, blocks, block * bits / 8}, 3), zero = random_u8({columns * ((blocks * bits + 7) / 8)}, 4);
        const Tensor y = contrib("MatMulNBits", {x, q, scale, zero},
                                 {{"K", depth}, {"N", columns}, {"bits", int64_t{bits}}, {"block_size", block}, {"accuracy_level", int64_t{4}}});
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t n = 0; n < columns; ++n) {
            double exact = 0, rounded = 0, size = 0;
            for (int64_t b = 0; b < blocks; ++b) {
              const float* from = x.data<float>() + r * depth + b * block;
              const int64_t count = std::min(block, depth - b * block);
              float largest = 0;
              for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(from[i]));
              for (int64_t i = 0; i < count; ++i) {
                const double s = scale.data<float>()[n * blocks + b];
                const double w = s * (value_at(q.data<uint8_t>() + n * row_bytes, bits, b * block + i) -
                                      value_at(zero.data<uint8_t>() + n * ((blocks * bits + 7) / 8), bits, b));
                exact += from[i] * w;
                rounded += std::nearbyint(from[i] * (127.0f / largest)) * (largest / 127.0) * w;
                size += std::abs(from[i] * w);
              }
            }
            const double wanted = cpu_isa() >= Isa::kVnni ? rounded : exact;
            ASSERT_NEAR(y.data<float>()[r * columns + n], wanted, 1e-6 * size) << bits << " bits, block " << block << ", rows " << rows;
          }
      }
}

TEST(ContribQuant, MatMulNBitsNamesWhatIsWrong) {
  const auto expect = [](Attributes attrs, int64_t bytes, ExitCode code, const std::string& reason) {
    try {
      contrib("MatMulNBits", {f32({1, 32}, std::vector<float>(32)), random_u8({2, 1, bytes}, 1), f32({2}, {1, 1})}, std::move(attrs));
      FAIL() << reason;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      EXPECT_NE(std::string(e.what()).find(reason), std::string::npos) << e.what();
    }
  };
  const int64_t two = 2, k = 32, four = 4;
  expect({{"K", k}, {"N", two}, {"bits", int64_t{3}}, {"block_size", k}}, 16, ExitCode::kUnsupported, "3 bits");
  expect({{"K", k}, {"N", two}, {"bits", four}, {"block_size", int64_t{24}}}, 16, ExitCode::kBadData, "block_size is 24");
  expect({{"K", k}, {"N", two}, {"bits", four}, {"block_size", k}}, 15, ExitCode::kBadData, "b has 30 values, expected 32");
  expect({{"K", int64_t{33}}, {"N", two}, {"bits", four}, {"block_size", k}}, 32, ExitCode::kBadData, "the scales have 2");
}

TEST(ContribQuant, GatherBlockQuantized) {
  const Tensor data = random_u8({5, 3, 17}, 1);  // 34 values in three blocks of 16
  const Tensor scale = random_tensor({5, 3, 3}, 2, 0.1, 1).cast(DType::kF32), zero = random_u8({5, 3, 2}, 3);
  const Tensor indices = Tensor::of<int64_t>({2, 2}, {4, 0, -2, 3});
  const Attributes attrs = {{"bits", int64_t{4}}, {"block_size", int64_t{16}}, {"gather_axis", int64_t{0}}, {"quantize_axis", int64_t{2}}};
  for (bool with_zero : {false, true}) {
    const Tensor y = contrib("GatherBlockQuantized", {data, indices, scale, with_zero ? zero : Tensor()}, attrs);
    ASSERT_EQ(y.shape(), (Shape{2, 2, 3, 34}));
    const Ints rows = {4, 0, 3, 3};
    for (int64_t i = 0; i < y.numel(); ++i) {
      const int64_t row = rows[static_cast<size_t>(i / 102)] * 3 + i / 34 % 3, k = i % 34, b = k / 16;
      const int z = with_zero ? value_at(zero.data<uint8_t>() + row * 2, 4, b) : 8;
      EXPECT_EQ(y.data<float>()[i], static_cast<float>(value_at(data.data<uint8_t>() + row * 17, 4, k) - z) * scale.data<float>()[row * 3 + b]);
    }
  }
}

TEST(ContribQuant, ScaledBytes) {
  const Tensor a = u8({2, 2}, {10, 128, 200, 255}), half = f32({}, {0.5f}), one = f32({1}, {1}), z = u8({}, {128}), none;
  EXPECT_EQ(contrib("QLinearAdd", {a, half, z, u8({2}, {0, 4}), one, none, half, z}).to_ints(), (Ints{10, 136, 200, 255}));
  EXPECT_EQ(contrib("QLinearMul", {a, half, z, u8({2}, {0, 4}), one, none, one, z}).to_ints(), (Ints{128, 128, 128, 255}));
  EXPECT_EQ(contrib("QLinearLeakyRelu", {a, half, z, half, z}, {{"alpha", 0.25f}}).to_ints(), (Ints{98, 128, 200, 255}));
  EXPECT_EQ(contrib("QLinearSigmoid", {a, f32({}, {0.1f}), z, f32({}, {1.0f / 256}), none}).to_ints(), (Ints{0, 128, 255, 255}));
  EXPECT_EQ(contrib("QLinearConcat", {half, z, a, half, z, a, one, z}, {{"axis", int64_t{1}}}).to_ints(), (Ints{10, 128, 0, 128, 200, 255, 255, 255}));
  const Tensor last = u8({1, 2, 2, 1}, {1, 2, 3, 10});
  EXPECT_EQ(contrib("QLinearGlobalAveragePool", {last, half, none, one, none}, {{"channels_last", int64_t{1}}}).to_ints(), Ints{2});
  EXPECT_EQ(contrib("QLinearAveragePool", {last, one, none, one, none}, {{"channels_last", int64_t{1}}, {"kernel_shape", Ints{1, 2}}}).shape(), (Shape{1, 2, 1, 1}));
  const Tensor p = contrib("QLinearSoftmax", {u8({1, 2, 2}, {0, 0, 0, 0}), one, none, f32({}, {1.0f / 256}), none}, {{"axis", int64_t{1}}, {"opset", int64_t{11}}});
  EXPECT_EQ(p.to_ints(), (Ints{64, 64, 64, 64}));
}

TEST(ContribQuant, Products) {
  const Tensor a = u8({2, 3}, {1, 2, 3, 4, 5, 6}), b = u8({2, 3}, {1, 0, 2, 3, 1, 1}), scale = f32({}, {0.5f}), none;
  const Tensor columns = f32({2}, {1, 2}), zeros = u8({2}, {0, 0});
  // a * b^T = [7 8; 16 23]; alpha 2, scales 0.5 and {1, 2}: {7, 16; 16, 46}; bias 10 in units {1, 2}: {17, 36; 26, 66}
  const Tensor bias = Tensor::of<int32_t>({2}, {10, 10});
  const Attributes attrs = {{"transB", int64_t{1}}, {"alpha", 2.0f}};
  EXPECT_EQ(contrib("QGemm", {a, scale, u8({}, {0}), b, columns, zeros, bias}, attrs).to_doubles(), (std::vector<double>{17, 36, 26, 66}));
  EXPECT_EQ(contrib("QGemm", {a, scale, u8({}, {0}), b, columns, zeros, bias, f32({}, {2}), u8({}, {1})}, attrs).to_ints(), (Ints{9, 19, 14, 34}));
  const Tensor bt = u8({3, 2}, {1, 3, 0, 1, 2, 1});
  EXPECT_EQ(contrib("MatMulIntegerToFloat", {a, bt, scale, columns, none, none, f32({2}, {0.5f, 0})}).to_doubles(), (std::vector<double>{4, 8, 8.5, 23}));
  const Tensor x = f32({1, 3}, {0, 1, 255});  // quantized without loss
  EXPECT_EQ(contrib("DynamicQuantizeMatMul", {x, bt, columns, none, f32({2}, {1, 1})}).to_doubles(), (std::vector<double>{511, 513}));
}

}  // namespace
}  // namespace ds::test
