#include "libds/passes/fuse_gates.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "libds/passes/fuse_conv.h"
#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds {
namespace {

// A graph of one input x, [3, 50] of f32, and what is written with it.
struct Formula {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  Rewriter rw{*graph};
  ValueId x = rw.add_input("x", DType::kF32, {3, 50});

  ValueId number(double v, Shape shape = {}) { return rw.add_constant("c", Tensor::of<float>(std::move(shape), {static_cast<float>(v)})); }
  ValueId op(std::string_view name, ValueId a, ValueId b) { return rw.emit(name, {a, b}); }
  ValueId op(std::string_view name, ValueId a) { return rw.emit(name, {a}); }
  void output(ValueId y) { rw.add_output(rw.emit("Identity", {y}, {}, "y")); }
};

using Write = std::function<ValueId(Formula&)>;

Tensor run(const Formula& f) {
  const Tensor x = test::random_tensor({3, 50}, 1, -6, 6).cast(DType::kF32);
  return make_eager_executor(f.graph, {})->run(std::span(&x, 1)).at(0);
}

bool fuse(Formula& f) {
  Rewriter rw(*f.graph);
  return fuse_gates(rw);
}

// Fuses to one node of this operator, with the same result; gives that node.
Node becomes(const Write& write, std::string_view op, const std::string& what) {
  Formula f;
  f.output(write(f));
  const Tensor before = run(f);
  EXPECT_TRUE(fuse(f)) << what;
  verify_graph(*f.graph);
  EXPECT_EQ(f.graph->node_count(), 2u) << what << "\n" << print_graph(*f.graph);
  EXPECT_LE(test::relative_error(run(f), before), 1e-6) << what;
  const Node n = f.graph->node(f.graph->first());
  EXPECT_TRUE(n.is(op)) << what << ": " << n.op;
  return n;
}

void stays(const Write& write, const std::string& what) {
  Formula f;
  f.output(write(f));
  EXPECT_FALSE(fuse(f)) << what << "\n" << print_graph(*f.graph);
}

// erf(x / sqrt 2) with the quotient as Div or Mul, the constant of rank 0 or 1.
ValueId erf(Formula& f, int form) {
  const double root = std::numbers::sqrt2;
  const ValueId u = form == 0   ? f.op("Div", f.x, f.number(root))
                    : form == 1 ? f.op("Mul", f.x, f.number(1 / root))
                    : form == 2 ? f.op("Mul", f.number(1 / root, {1}), f.x)
                                : f.op("Div", f.x, f.op("Sqrt", f.number(2)));
  return f.op("Erf", u);
}

// The argument of tanh.
ValueId cubic(Formula& f, int form) {
  const double k = std::sqrt(2 / std::numbers::pi), c = 0.044715;
  const ValueId x = f.x;
  const ValueId cube = form % 3 == 0   ? f.op("Pow", x, f.number(3))
                       : form % 3 == 1 ? f.op("Mul", x, f.op("Mul", x, x))
                                       : f.op("Mul", f.op("Pow", x, f.number(2)), x);
  if (form < 3) return f.op("Mul", f.op("Add", x, f.op("Mul", f.number(c), cube)), f.number(k));
  if (form < 6) return f.op("Mul", f.number(k), f.op("Add", f.op("Mul", cube, f.number(c)), x));
  // x k (1 + c x^2), as FastGelu and some of TensorFlow's files have it
  const ValueId one = f.op("Add", f.op("Mul", f.op("Mul", x, x), f.number(c)), f.number(1));
  return form == 6 ? f.op("Mul", f.op("Mul", x, f.number(k)), one) : f.op("Mul", x, f.op("Mul", f.number(k), one));
}

// All orders and both associations of x, 1/2 and 1 + g, and the half inside.
std::vector<Write> halves(const std::function<ValueId(Formula&)>& gate) {
  std::vector<Write> list;
  for (int order = 0; order < 12; ++order)
    list.push_back([order, gate](Formula& f) {
      const ValueId g = gate(f);
      std::vector<ValueId> factors = {f.x, f.number(0.5), order % 2 == 0 ? f.op("Add", g, f.number(1)) : f.op("Add", f.number(1, {1}), g)};
      std::sort(factors.begin(), factors.end());
      for (int i = 0; i < order / 2; ++i) std::next_permutation(factors.begin(), factors.end());
      return order % 3 == 0 ? f.op("Mul", factors[0], f.op("Mul", factors[1], factors[2])) : f.op("Mul", f.op("Mul", factors[0], factors[1]), factors[2]);
    });
  list.push_back([gate](Formula& f) { return f.op("Div", f.op("Mul", f.x, f.op("Add", gate(f), f.number(1))), f.number(2)); });
  list.push_back([gate](Formula& f) {
    const ValueId g = gate(f);
    return f.op("Mul", f.x, f.op("Add", f.op("Mul", g, f.number(0.5)), f.number(0.5)));
  });
  list.push_back([gate](Formula& f) {
    const ValueId half = f.op("Mul", f.x, f.number(0.5));
    return f.op("Add", half, f.op("Mul", half, gate(f)));
  });
  return list;
}

TEST(FuseGates, EverySpellingOfGelu) {
  for (int form = 0; form < 3; ++form) {
    size_t i = 0;
    for (const Write& write : halves([form](Formula& f) { return erf(f, form); }))
      EXPECT_EQ(becomes(write, "Gelu", fmt::format("erf {}/{}", form, i++)).attr_string("approximate", "none"), "none");
  }
}

TEST(FuseGates, EverySpellingOfGeluByTanh) {
  for (int form = 0; form < 8; ++form) {
    size_t i = 0;
    for (const Write& write : halves([form](Formula& f) { return f.op("Tanh", cubic(f, form)); }))
      EXPECT_EQ(becomes(write, "Gelu", fmt::format("tanh {}/{}", form, i++)).attr_string("approximate", "none"), "tanh");
  }
  const Write by_sigmoid = [](Formula& f) { return f.op("Mul", f.x, f.op("Sigmoid", f.op("Mul", f.number(2), cubic(f, 0)))); };
  EXPECT_EQ(becomes(by_sigmoid, "Gelu", "sigmoid").attr_string("approximate", "none"), "tanh");
}

TEST(FuseGates, SwishAndQuickGelu) {
  EXPECT_EQ(becomes([](Formula& f) { return f.op("Mul", f.x, f.op("Sigmoid", f.x)); }, "Swish", "silu").attr_float("alpha", 1), 1.0f);
  EXPECT_EQ(becomes([](Formula& f) { return f.op("Mul", f.op("Sigmoid", f.op("Mul", f.number(1.702), f.x)), f.x); }, "Swish", "quick").attr_float("alpha", 1), 1.702f);
}

TEST(FuseGates, Mish) {
  becomes([](Formula& f) { return f.op("Mul", f.x, f.op("Tanh", f.op("Softplus", f.x))); }, "Mish", "softplus");
  becomes([](Formula& f) { return f.op("Mul", f.op("Tanh", f.op("Log", f.op("Add", f.op("Exp", f.x), f.number(1)))), f.x); }, "Mish", "log");
}

TEST(FuseGates, TheOperandMayBeASumOrAProductItself) {
  for (const char* op : {"Add", "Mul"}) {
    Formula f;
    const ValueId z = f.op(op, f.x, f.op("Abs", f.x));
    f.output(f.op("Mul", f.op("Mul", z, f.number(0.5)), f.op("Add", f.op("Erf", f.op("Div", z, f.number(std::numbers::sqrt2))), f.number(1))));
    const Tensor before = run(f);
    EXPECT_TRUE(fuse(f));
    EXPECT_EQ(f.graph->node_count(), 4u) << print_graph(*f.graph);
    EXPECT_LE(test::relative_error(run(f), before), 1e-6);
  }
}

TEST(FuseGates, OtherFormulasStay) {
  stays([](Formula& f) { return f.op("Mul", f.op("Mul", f.x, f.number(0.6)), f.op("Add", erf(f, 0), f.number(1))); }, "another factor");
  stays([](Formula& f) { return f.op("Mul", f.op("Mul", f.x, f.number(0.5)), f.op("Add", erf(f, 0), f.number(2))); }, "another addend");
  stays([](Formula& f) { return f.op("Mul", f.op("Mul", f.x, f.number(0.5)), f.op("Add", f.op("Erf", f.op("Div", f.x, f.number(1.4))), f.number(1))); }, "another root");
  stays([](Formula& f) { return f.op("Mul", f.op("Abs", f.x), f.op("Sigmoid", f.x)); }, "another operand");
  stays([](Formula& f) { return f.op("Mul", f.x, f.op("Sigmoid", f.op("Add", f.x, f.number(1)))); }, "a shifted gate");
  stays([](Formula& f) { return f.op("Mul", f.op("Mul", f.x, f.number(0.5, {1, 1, 1})), f.op("Add", erf(f, 0), f.number(1))); }, "a rank more");
  stays([](Formula& f) {
    const ValueId g = f.op("Sigmoid", f.x);
    f.rw.add_output(g);
    return f.op("Mul", f.x, g);
  }, "a gate that callers see");
  stays([](Formula& f) {
    const ValueId g = f.op("Sigmoid", f.x);
    return f.op("Add", f.op("Mul", f.x, g), g);
  }, "a gate that others read");
}

// Convolutions still take it along.
TEST(FuseGates, SwishBehindAConvolution) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const ValueId x = rw.add_input("x", DType::kF32, {1, 3, 8, 8});
  const ValueId y = rw.emit("Conv", {x, rw.add_constant("w", test::random_tensor({4, 3, 3, 3}, 3).cast(DType::kF32))});
  rw.add_output(rw.emit("Mul", {y, rw.emit("Sigmoid", {y})}, {}, "y"));
  const Tensor in = test::random_tensor({1, 3, 8, 8}, 4).cast(DType::kF32);
  const Tensor before = make_eager_executor(g, {})->run(std::span(&in, 1)).at(0);
  EXPECT_TRUE(fuse_gates(rw));
  PassContext context;
  EXPECT_TRUE(fuse_conv(rw, context));
  ASSERT_EQ(g->node_count(), 1u) << print_graph(*g);
  EXPECT_EQ(g->node(g->first()).attr_string("activation", ""), "silu");
  EXPECT_LE(test::relative_error(make_eager_executor(g, {})->run(std::span(&in, 1)).at(0), before), 1e-6);
}

}  // namespace
}  // namespace ds
