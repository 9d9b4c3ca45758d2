// Integer products: every kernel and every form of scales and zero points against sums in 64 bits.
#include <cmath>

#include "libds/base/random.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;

Tensor run1(const std::string& op, std::vector<Tensor> inputs, Attributes attrs = {}, const std::string& kernel = {}) {
  return run_op({op, std::move(inputs), std::move(attrs)}, DType::kF64, kernel)[0];
}

Tensor bytes(DType dtype, Shape shape, uint64_t seed) {
  Tensor t = Tensor::empty(dtype, std::move(shape));
  Random random(seed, stream_of("qproduct_test"));
  for (int64_t i = 0; i < t.numel(); ++i) static_cast<uint8_t*>(t.mutable_raw())[i] = static_cast<uint8_t>(random.u32());
  return t;
}

// Element i of a parameter with one value, one per row or column (`index`), or those for each matrix.
int64_t pick(int64_t numel, int64_t per, int64_t matrix, int64_t index) { return numel == 1 ? 0 : numel == per ? index : matrix * per + index; }

struct Sizes {
  int64_t a_batch, b_batch, rows, depth, columns;
  int64_t batch() const { return std::max(a_batch, b_batch); }
};

// The sum for matrix i, row m, column n.
int64_t sum_of(const Sizes& s, const Ints& a, const Ints& za, const Ints& b, const Ints& zb, int64_t i, int64_t m, int64_t n) {
  const int64_t am = s.a_batch == 1 ? 0 : i, bm = s.b_batch == 1 ? 0 : i;
  const int64_t x = za[static_cast<size_t>(pick(static_cast<int64_t>(za.size()), s.rows, am, m))];
  const int64_t y = zb[static_cast<size_t>(pick(static_cast<int64_t>(zb.size()), s.columns, bm, n))];
  int64_t sum = 0;
  for (int64_t k = 0; k < s.depth; ++k)
    sum += (a[static_cast<size_t>((am * s.rows + m) * s.depth + k)] - x) * (b[static_cast<size_t>((bm * s.depth + k) * s.columns + n)] - y);
  return sum;
}

TEST(QProduct, MatMulIntegerInAllForms) {
  uint64_t seed = 1;
  const auto check = [&](const Sizes& s, Shape za_shape, Shape zb_shape) {
    for (DType t : {DType::kU8, DType::kI8}) {
      seed += 10;
      const Tensor a = bytes(t, {s.a_batch, s.rows, s.depth}, seed), b = bytes(DType::kI8, {s.b_batch, s.depth, s.columns}, seed + 1);
      const Tensor za = bytes(t, za_shape, seed + 2), zb = bytes(DType::kI8, zb_shape, seed + 3);
      const Tensor y = run1("MatMulInteger", {a, b, za, zb});
      ASSERT_EQ(y.shape(), (Shape{s.batch(), s.rows, s.columns}));
      const Ints av = a.to_ints(), bv = b.to_ints(), zav = za.to_ints(), zbv = zb.to_ints(), yv = y.to_ints();
      for (int64_t i = 0; i < y.numel(); ++i)
        ASSERT_EQ(yv[static_cast<size_t>(i)],
                  sum_of(s, av, zav, bv, zbv, i / (s.rows * s.columns), i / s.columns % s.rows, i % s.columns))
            << shape_string(za_shape) << " " << shape_string(zb_shape);
      EXPECT_TRUE(run1("MatMulInteger", {a, b, za, zb}, {}, "portable/matmul_integer").equal_bits(y));
      if (za.numel() == 1 && cpu_isa() >= Isa::kAvx2) {
        EXPECT_TRUE(run1("MatMulInteger", {a, b, za, zb}, {}, "avx2/matmul_integer_blocked").equal_bits(y));
      }
    }
  };
  check({2, 2, 5, 77, 19}, {}, {});
  check({2, 1, 5, 77, 19}, {1}, {19});
  check({2, 2, 5, 77, 19}, {5}, {2, 1, 19});
  check({1, 3, 6, 600, 33}, {1, 6, 1}, {3, 1, 33});
  check({3, 1, 4, 9, 1}, {3, 4, 1}, {1, 1, 1});
  check({1, 1, 1, 40, 7}, {}, {7});
}

TEST(QProduct, QLinearMatMulInAllForms) {
  uint64_t seed = 500;
  const auto check = [&](const Sizes& s, Shape a_shape, Shape b_shape, DType scales) {
    seed += 10;
    const Tensor a = bytes(DType::kU8, {s.a_batch, s.rows, s.depth}, seed), b = bytes(DType::kI8, {s.b_batch, s.depth, s.columns}, seed + 1);
    const Tensor za = bytes(DType::kU8, a_shape, seed + 2), zb = bytes(DType::kI8, b_shape, seed + 3);
    const Tensor sa = random_tensor(a_shape, seed + 4, 0.01, 0.03).cast(scales), sb = random_tensor(b_shape, seed + 5, 0.01, 0.03).cast(scales);
    const Tensor sy = random_tensor({}, seed + 6, 0.5, 0.6).cast(scales), zy = Tensor::scalar<int8_t>(9);
    const Tensor y = run1("QLinearMatMul", {a, sa, za, b, sb, zb, sy, zy});
    ASSERT_EQ(y.dtype(), DType::kI8);
    const Ints av = a.to_ints(), bv = b.to_ints(), zav = za.to_ints(), zbv = zb.to_ints(), yv = y.to_ints();
    const std::vector<double> sav = sa.to_doubles(), sbv = sb.to_doubles();
    for (int64_t i = 0; i < y.numel(); ++i) {
      const int64_t matrix = i / (s.rows * s.columns), m = i / s.columns % s.rows, n = i % s.columns;
      const double scale = sav[static_cast<size_t>(pick(sa.numel(), s.rows, s.a_batch == 1 ? 0 : matrix, m))] *
                           sbv[static_cast<size_t>(pick(sb.numel(), s.columns, s.b_batch == 1 ? 0 : matrix, n))];
      const double real = static_cast<double>(sum_of(s, av, zav, bv, zbv, matrix, m, n)) * scale / sy.to_doubles()[0];
      const double expected = std::clamp(std::nearbyint(real) + 9, -128.0, 127.0);
      ASSERT_NEAR(static_cast<double>(yv[static_cast<size_t>(i)]), expected, std::abs(std::abs(real - std::round(real)) - 0.5) < 1e-4 ? 1 : 0);
    }
    if (scales != DType::kF32) return;
    EXPECT_TRUE(run1("QLinearMatMul", {a, sa, za, b, sb, zb, sy, zy}, {}, "portable/qlinear_matmul").equal_bits(y));
  };
  for (DType t : {DType::kF32, DType::kF16, DType::kBF16}) {
    check({2, 2, 5, 31, 19}, {}, {}, t);
    check({1, 1, 5, 31, 19}, {5}, {19}, t);
    check({2, 1, 5, 31, 19}, {2, 5, 1}, {1, 1, 19}, t);
    check({1, 3, 2, 31, 4}, {1}, {3, 1, 4}, t);
  }
}

TEST(QProduct, QLinearMatMulOfSmallFloats) {
  const auto small = [](const std::vector<float>& v, Shape shape) {
    return run1("QuantizeLinear", {Tensor::of<float>(std::move(shape), v), Tensor::scalar<float>(1)}, {{"output_dtype", static_cast<int64_t>(DType::kF8E4M3FN)}});
  };
  const Tensor one = Tensor::scalar<float>(1), half = Tensor::scalar<float>(0.5f), none = small({0}, {});
  const Tensor y = run1("QLinearMatMul", {small({1, 2, -3, 0.5f}, {2, 2}), one, none, small({4, 1, 2, -1}, {2, 2}), half, none, one, none});
  EXPECT_EQ(run1("DequantizeLinear", {y, one}).to_doubles(), (std::vector<double>{4, -0.5, -5.5, -1.75}));
}

TEST(QProduct, ConvIntegerKernelsAgreeBitForBit) {
  const struct {
    Shape x, w;
    Attributes attrs;
  } cases[] = {
      {{2, 3, 9, 7}, {5, 3, 3, 3}, {{"pads", Ints{1, 0, 1, 2}}}},
      {{1, 4, 8, 9}, {6, 2, 3, 2}, {{"group", int64_t{2}}, {"strides", Ints{2, 1}}, {"dilations", Ints{1, 2}}}},
      {{2, 6, 31}, {9, 6, 5}, {{"pads", Ints{2, 2}}, {"strides", Ints{3}}}},
      {{1, 35, 6, 6}, {35, 1, 3, 3}, {{"group", int64_t{35}}, {"pads", Ints{1, 1, 1, 1}}}},
  };
  uint64_t seed = 900;
  for (const auto& c : cases)
    for (DType t : {DType::kU8, DType::kI8}) {
      seed += 10;
      const std::vector<Tensor> in = {bytes(t, c.x, seed), bytes(DType::kI8, c.w, seed + 1), bytes(t, {}, seed + 2), bytes(DType::kI8, {c.w[0]}, seed + 3)};
      const Tensor expected = run1("ConvInteger", in, c.attrs, "portable/conv_integer");
      EXPECT_TRUE(run1("ConvInteger", in, c.attrs).equal_bits(expected)) << shape_string(c.x);
    }
}

}  // namespace
}  // namespace ds::test
