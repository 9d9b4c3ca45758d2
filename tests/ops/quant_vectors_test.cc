// 8-bit operators by vectors: every kernel against the definition, at sizes that no vector divides.
#include <cmath>

#include "kernels/quant_pointwise.h"
#include "libds/base/parallel.h"
#include "libds/base/random.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;

Tensor run1(const std::string& op, std::vector<Tensor> inputs, Attributes attrs = {}, const std::string& kernel = {}) {
  return run_op({op, std::move(inputs), std::move(attrs)}, DType::kF32, kernel)[0];
}

Tensor bytes(DType dtype, Shape shape, uint64_t seed) {
  Tensor t = Tensor::empty(dtype, std::move(shape));
  Random random(seed, stream_of("quant_vectors_test"));
  for (int64_t i = 0; i < t.numel(); ++i) static_cast<uint8_t*>(t.mutable_raw())[i] = static_cast<uint8_t>(random.u32());
  return t;
}
Tensor byte(DType dtype, int64_t v) { return Tensor::scalar<int64_t>(v).cast(dtype); }
Tensor number(float v) { return Tensor::scalar<float>(v); }

struct ScopedThreads {
  int before = num_threads();
  explicit ScopedThreads(int threads) { set_num_threads(threads); }
  ~ScopedThreads() { set_num_threads(before); }
};

// The kernels of an internal operator that this CPU runs at the level in force.
std::vector<std::string> kernels_here(const std::string& op) {
  std::vector<std::string> names;
  for (const KernelDef& k : find_op({op, {}})->kernels)
    if (k.isa <= cpu_isa() && (k.name != "avx512/qtable" || kernels::cpu_has_vbmi())) names.push_back(k.name);
  return names;
}

TEST(QuantVectors, DynamicQuantizeAgreesBitForBit) {
  uint64_t seed = 1;
  for (int64_t n : {0, 1, 7, 32, 77, 40001})
    for (auto [low, high] : {std::pair{-3.0, 5.0}, {1.0, 2.0}, {-9.0, -8.0}, {0.0, 0.0}, {-1e-40, 1e-40}})
      for (bool nan : {false, true}) {
        Tensor x = random_tensor({n}, ++seed, low, high).cast(DType::kF32);
        if (nan && n > 0) x.mutable_data<float>()[n / 2] = NAN;
        const OpCase c = {"DynamicQuantizeLinear", {x}, {}, 3};
        const auto want = run_op(c, DType::kF32, "portable/dynamic_quantize");
        for (const std::string& kernel : kernels_here("DynamicQuantizeLinear"))
          for (int threads : {1, 2}) {
            const ScopedThreads scope(threads);
            const auto got = run_op(c, DType::kF32, kernel);
            for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(got[i].equal_bits(want[i])) << kernel << " n " << n << " " << low << " " << high << " output " << i;
          }
      }
}

TEST(QuantVectors, TablesOfAnyLength) {
  const Tensor table = bytes(DType::kU8, {256}, 1);
  for (int64_t n : {1, 31, 63, 64, 65, 1000}) {
    const Tensor x = bytes(DType::kU8, {n}, static_cast<uint64_t>(n));
    Ints want;
    for (int64_t v : x.to_ints()) want.push_back(table.data<uint8_t>()[v]);
    for (const std::string& kernel : kernels_here("QTable")) EXPECT_EQ(run1("QTable", {x, table}, {}, kernel).to_ints(), want) << kernel << " " << n;
  }
  const Tensor all = Tensor::of<int64_t>({1, 256}, [] {
    Ints v;
    for (int64_t i = 0; i < 256; ++i) v.push_back(i);
    return v;
  }()).cast(DType::kU8);
  for (const std::string& kernel : kernels_here("QTable")) EXPECT_EQ(run1("QTable", {all, table}, {}, kernel).to_ints(), table.to_ints()) << kernel;
}

TEST(QuantVectors, AffineIsWhatThreeOperatorsMake) {
  for (DType from : {DType::kU8, DType::kI8})
    for (DType to : {DType::kU8, DType::kI8})
      for (int64_t n : {1, 8, 13, 40, 77}) {
        const int64_t zx = from == DType::kU8 ? 120 : -7, zy = to == DType::kU8 ? 90 : 11;
        const Tensor x = bytes(from, {3, 5, n}, static_cast<uint64_t>(n));
        const Tensor scale = random_tensor({n}, 2, -2, 2).cast(DType::kF32), shift = random_tensor({n}, 3).cast(DType::kF32);
        const Tensor real = run1("DequantizeLinear", {x, number(0.02f), byte(from, zx)});
        const Tensor want = run1("QuantizeLinear", {run1("Add", {run1("Mul", {real, scale}), shift}), number(0.017f), byte(to, zy)});
        Attributes attrs = {{"x_scale", 0.02f}, {"x_zero", zx}, {"y_scale", 0.017f}, {"y_zero", zy}, {"output", static_cast<int64_t>(to)}};
        for (const std::string& kernel : kernels_here("QAffine")) {
          EXPECT_TRUE(run1("QAffine", {x, scale, shift}, attrs, kernel).equal_bits(want)) << kernel << " " << n;
          Attributes bounded = attrs;
          bounded["lo"] = zy;
          bounded["hi"] = zy + 20;
          Ints cut = want.to_ints();
          for (int64_t& v : cut) v = std::clamp(v, zy, zy + 20);
          EXPECT_EQ(run1("QAffine", {x, scale, shift}, bounded, kernel).to_ints(), cut) << kernel << " " << n;
        }
      }
}

TEST(QuantVectors, BinaryIsWhatThreeOperatorsMake) {
  struct Shapes {
    Shape a, b;
  };
  for (const Shapes& s : {Shapes{{3, 37}, {3, 37}}, Shapes{{2, 3, 5, 19}, {2, 1, 1, 19}}, Shapes{{2, 1, 1, 33}, {2, 4, 9, 33}}, Shapes{{2, 4, 3, 11}, {2, 4, 3, 1}},
                          Shapes{{7}, {3, 1}}, Shapes{{4, 1, 9}, {1, 5, 1}}, Shapes{{}, {21}}, Shapes{{3, 20000}, {3, 1}}})
    for (DType ta : {DType::kU8, DType::kI8})
      for (const char* op : {"Add", "Sub", "Mul", "Div"}) {
        const DType tb = DType::kU8, ty = ta == DType::kU8 ? DType::kI8 : DType::kU8;
        const int64_t za = ta == DType::kU8 ? 100 : -3, zb = 90, zy = ty == DType::kU8 ? 131 : 5;
        const Tensor a = bytes(ta, s.a, 5), b = bytes(tb, s.b, 6);
        const Tensor real = run1(op, {run1("DequantizeLinear", {a, number(0.03f), byte(ta, za)}), run1("DequantizeLinear", {b, number(0.01f), byte(tb, zb)})});
        const Tensor want = run1("QuantizeLinear", {real, number(0.04f), byte(ty, zy)});  // of 0 / 0 and x / 0, too
        const Attributes attrs = {{"function", std::string(op)}, {"a_scale", 0.03f}, {"a_zero", za}, {"b_scale", 0.01f}, {"b_zero", zb},
                                  {"y_scale", 0.04f}, {"y_zero", zy}, {"output", static_cast<int64_t>(ty)}};
        for (const std::string& kernel : kernels_here("QBinary")) {
          const Tensor y = run1("QBinary", {a, b}, attrs, kernel);
          ASSERT_EQ(y.shape(), want.shape());
          EXPECT_TRUE(y.equal_bits(want)) << kernel << " " << op << " " << shape_string(s.a) << " " << shape_string(s.b);
        }
      }
}

TEST(QuantVectors, MatMulIntegerOnTiles) {
  if (cpu_isa() < Isa::kAvx2) GTEST_SKIP();
  uint64_t seed = 70;
  for (DType tx : {DType::kU8, DType::kI8})
    for (auto [rows, depth, columns] : {std::tuple<int64_t, int64_t, int64_t>{1, 40, 7}, {9, 77, 19}, {35, 300, 150}}) {
      const Tensor a = bytes(tx, {rows, depth}, ++seed), za = bytes(tx, {}, ++seed);
      Tensor b = bytes(DType::kI8, {depth, columns}, ++seed);
      for (int64_t i = 0; i < b.numel(); ++i) b.mutable_data<int8_t>()[i] = static_cast<int8_t>(b.data<int8_t>()[i] / 2);  // fits every tile
      for (const Tensor& zb : {Tensor(), byte(DType::kI8, -17), bytes(DType::kI8, {columns}, ++seed)}) {
        const Tensor want = run1("MatMulInteger", {a, b, za, zb}, {}, "portable/matmul_integer");
        for (int threads : {1, 2}) {
          const ScopedThreads scope(threads);
          EXPECT_TRUE(run1("MatMulInteger", {a, b, za, zb}, {}, "tile/matmul_integer").equal_bits(want)) << rows << " " << threads;
        }
        EXPECT_TRUE(run1("MatMulInteger", {a, b, za, zb}, {}, "avx2/matmul_integer").equal_bits(want));
      }
    }
}

// A scale and a zero point of x that come with it: the floats that MatMulInteger, Cast, Mul and Add give.
TEST(QuantVectors, QMatMulOfDynamicallyQuantized) {
  uint64_t seed = 30;
  for (DType tx : {DType::kU8, DType::kI8})
    for (DType tw : {DType::kI8, DType::kU8})
      for (bool symmetric : {true, false}) {
        const int64_t depth = 77, columns = 35;
        const Tensor x = bytes(tx, {2, 5, depth}, ++seed), xs = number(0.0173f), xz = bytes(tx, {}, ++seed);
        Tensor w = bytes(tw, {depth, columns}, ++seed);
        // Small around the zero point, so that tiles that saturate take the symmetric ones.
        for (int64_t i = 0; i < w.numel(); ++i) {
          auto* p = static_cast<uint8_t*>(w.mutable_raw()) + i;
          *p = static_cast<uint8_t>((*p & 63) + (tw == DType::kU8 ? 96 : 224));
        }
        const Tensor ws = random_tensor({columns}, ++seed, 0.01, 0.02).cast(DType::kF32), bias = random_tensor({columns}, ++seed).cast(DType::kF32);
        const Tensor wz = symmetric ? byte(tw, tw == DType::kU8 ? 128 : 0) : bytes(tw, {columns}, ++seed);
        const Tensor sums = run1("MatMulInteger", {x, w, xz, wz}, {}, "portable/matmul_integer");
        const Tensor want = run1("Add", {run1("Mul", {run1("Cast", {sums}, {{"to", int64_t{1}}}), run1("Mul", {xs, ws})}), bias});
        const Attributes attrs = {{"output", static_cast<int64_t>(DType::kF32)}};
        for (const std::string& kernel : kernels_here("QMatMul")) {
          for (int threads : {1, 2}) {
            const ScopedThreads scope(threads);
            EXPECT_TRUE(run1("QMatMul", {x, w, ws, wz, Tensor(), bias, Tensor(), xs, xz}, attrs, kernel).equal_bits(want)) << kernel << symmetric;
          }
        }
      }
  EXPECT_THROW(run1("QMatMul", {bytes(DType::kU8, {2, 3}, 1), bytes(DType::kI8, {3, 2}, 2), number(1), Tensor(), Tensor(), Tensor(), Tensor(), number(1)}), Error);  // to bytes
}

// Zero points of weights in convolutions: strides, padding and dilations, where what they add differs from pixel to pixel.
TEST(QuantVectors, QConvWithZeroPointsOfWeights) {
  struct Case {
    Shape x, w;
    Attributes attrs;
  };
  const std::vector<Case> cases = {{{2, 9, 7, 5}, {19, 5, 3, 2}, {{"pads", Ints{1, 2, 0, 1}}, {"strides", Ints{2, 1}}}},
                                   {{1, 11, 8, 40}, {33, 40, 3, 3}, {{"pads", Ints{2, 2, 2, 2}}, {"dilations", Ints{2, 2}}}},
                                   {{2, 6, 5, 17}, {9, 17, 1, 1}, {}},
                                   {{2, 6, 5, 17}, {9, 17, 1, 1}, {{"strides", Ints{2, 2}}}}};
  uint64_t seed = 300;
  for (const Case& c : cases)
    for (DType tx : {DType::kU8, DType::kI8})
      for (DType tw : {DType::kI8, DType::kU8}) {
        const Tensor x = bytes(tx, c.x, ++seed);
        Tensor w = bytes(tw, c.w, ++seed);
        for (int64_t i = 0; i < w.numel(); ++i) {
          auto* p = static_cast<uint8_t*>(w.mutable_raw()) + i;
          *p = static_cast<uint8_t>((*p & 63) + (tw == DType::kU8 ? 96 : 224));  // fits every tile
        }
        const Tensor ws = random_tensor({c.w[0]}, ++seed, 0.0001, 0.001).cast(DType::kF32);
        for (const Tensor& wz : {byte(tw, 33), bytes(tw, {c.w[0]}, ++seed)}) {
          Attributes attrs = c.attrs;
          for (const auto& [key, value] : Attributes{{"x_scale", 0.02f}, {"x_zero", int64_t{7}}, {"y_scale", 0.05f}, {"y_zero", int64_t{100}}}) attrs[key] = value;
          const Tensor want = run1("QConv", {x, w, ws, wz}, attrs, "portable/qconv");
          for (const std::string& kernel : kernels_here("QConv"))
            for (int threads : {1, 2}) {
              if (kernel == "avx2/qconv_depthwise") continue;
              const ScopedThreads scope(threads);
              EXPECT_TRUE(run1("QConv", {x, w, ws, wz}, attrs, kernel).equal_bits(want)) << kernel << " " << shape_string(c.x) << " " << shape_string(c.w);
            }
        }
      }
}

TEST(QuantVectors, SoftmaxOfMaskedScores) {
  const auto y = run1("Softmax", {Tensor::of<float>({1, 9}, {0, -100, -1e9f, -INFINITY, 1, -90, 0.5f, -88, -50})}).to_doubles();
  const double total = std::exp(0.0) + std::exp(1.0) + std::exp(0.5);
  const std::vector<double> want = {1 / total, 0, 0, 0, std::exp(1.0) / total, 0, std::exp(0.5) / total, 0, std::exp(-50.0) / total};
  for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], want[i], 1e-37 + 1e-6 * want[i]) << i;
}

}  // namespace
}  // namespace ds::test
