#include "libds/passes/fuse_elementwise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "libds/base/parallel.h"
#include "libds/base/random.h"
#include "libds/passes/pipeline.h"
#include "libds/run/session.h"
#include "tests/support/op_check.h"

namespace ds {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A graph under construction, and content for its inputs.
struct Formula {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  Rewriter rw{*graph};
  std::vector<Tensor> given;

  ValueId input(Shape shape, double low = -3, double high = 3) {
    given.push_back(test::random_tensor(shape, 7 + given.size(), low, high).cast(DType::kF32));
    return rw.add_input(fmt::format("in{}", given.size()), DType::kF32, to_dims(shape));
  }
  ValueId number(float v, Shape shape = {}) { return rw.add_constant("c", Tensor::of<float>(std::move(shape), {v})); }
  ValueId op(std::string_view name, std::vector<ValueId> inputs, Attributes attrs = {}) {
    return rw.emit(name, std::move(inputs), std::move(attrs), fmt::format("{}_{}", name, graph->node_count()));
  }
};

bool fuse(Graph& g) {
  Rewriter rw(g);
  PassContext context;
  const bool changed = fuse_elementwise(rw, context);
  verify_graph(g);
  return changed;
}

std::vector<Tensor> run(const Formula& f, Isa isa = cpu_isa(), int threads = 1) {
  CompileOptions options;
  options.isa = isa;
  options.threads = threads;
  set_num_threads(threads);
  auto results = make_eager_executor(f.graph, options)->run(f.given);
  set_num_threads(1);
  return results;
}

void expect_same_bits(const std::vector<Tensor>& got, const std::vector<Tensor>& expected, const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (size_t k = 0; k < got.size(); ++k) {
    ASSERT_EQ(got[k].shape(), expected[k].shape()) << what;
    ASSERT_EQ(got[k].dtype(), DType::kF32) << what;
    const float *g = got[k].data<float>(), *e = expected[k].data<float>();
    for (int64_t i = 0; i < got[k].numel(); ++i)
      ASSERT_TRUE(std::bit_cast<uint32_t>(g[i]) == std::bit_cast<uint32_t>(e[i]) || (std::isnan(g[i]) && std::isnan(e[i])))
          << what << ": " << g[i] << " instead of " << e[i] << " at " << i;
  }
}

// Instruction sets of this machine.
std::vector<Isa> sets() {
  std::vector<Isa> list;
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512})
    if (isa <= cpu_isa()) list.push_back(isa);
  return list;
}

// Fuses to `nodes` nodes that give the bits of before, at every instruction set, by one and two threads.
void becomes(Formula& f, size_t nodes, const std::string& what) {
  Formula before;
  before.graph = std::make_shared<Graph>(*f.graph);
  before.given = f.given;
  EXPECT_TRUE(fuse(*f.graph)) << what;
  EXPECT_EQ(f.graph->node_count(), nodes) << what << "\n" << print_graph(*f.graph);
  for (Isa isa : sets())
    for (int threads : {1, 2}) expect_same_bits(run(f, isa, threads), run(before, isa, threads), fmt::format("{}, {}", what, isa_name(isa)));
}

const Node& only(const Formula& f) { return f.graph->node(f.graph->first()); }

TEST(FuseElementwise, AChainIsOneNode) {
  for (const Shape& shape : {Shape{1}, Shape{7}, Shape{3, 50}, Shape{2, 3, 33, 31}, Shape{70001}}) {
    Formula f;
    const ValueId x = f.input(shape);
    const ValueId y = f.op("Mul", {x, f.op("Exp", {f.op("Neg", {x})})});
    f.rw.add_output(f.op("Add", {f.op("Mul", {y, f.number(2.5f)}), f.number(-1, {1})}));
    const std::string name = f.graph->node(f.graph->last()).name;
    becomes(f, 1, shape_string(shape));
    EXPECT_TRUE(only(f).is_internal("FusedElementwise"));
    EXPECT_EQ(only(f).name, name);
    EXPECT_EQ(only(f).inputs.size(), 1u);
    EXPECT_EQ(only(f).attr_strings("program"), (std::vector<std::string>{"Neg x0", "Exp t0", "Mul x0 t1", "Mul t2 2.5", "Add t3 -1"}));
  }
}

TEST(FuseElementwise, EveryFunctionKeepsItsBitsAndExtremes) {
  struct Case {
    const char* op;
    Attributes attrs = {};
  };
  const std::vector<Case> cases = {
      {"Relu"}, {"Sigmoid"}, {"Tanh"}, {"Exp"}, {"Log"}, {"Sqrt"}, {"Reciprocal"}, {"Neg"}, {"Abs"}, {"Erf"}, {"Floor"}, {"Ceil"}, {"Round"}, {"Sign"},
      {"Sin"}, {"Cos"}, {"Tan"}, {"Asin"}, {"Atan"}, {"Sinh"}, {"LeakyRelu", {{"alpha", 0.3f}}}, {"Elu", {{"alpha", 0.7f}}}, {"Celu"}, {"Selu"},
      {"ThresholdedRelu", {{"alpha", 0.4f}}}, {"Softplus"}, {"Softsign"}, {"HardSigmoid"}, {"HardSigmoid", {{"alpha", 0.3f}, {"beta", 0.1f}}},
      {"HardSwish"}, {"Gelu"}, {"Gelu", {{"approximate", std::string("tanh")}}}, {"Mish"}, {"Swish", {{"alpha", 1.7f}}}};
  for (const Case& c : cases) {
    Formula f;
    const ValueId x = f.input({1237}, -20, 20);
    float* data = f.given[0].mutable_data<float>();
    const float extremes[] = {kNan, kInf, -kInf, 0.0f, -0.0f, 0.5f, 1.5f, -2.5f, 1e-40f, -1e-40f, 3e38f, -3e38f, 88.8f, -103.5f};
    std::copy(std::begin(extremes), std::end(extremes), data + 40);
    std::copy(std::begin(extremes), std::end(extremes), data + 1237 - std::size(extremes));
    f.rw.add_output(f.op("Add", {f.op(c.op, {f.op("Mul", {x, f.number(1)})}, c.attrs), f.number(0.0f)}));
    becomes(f, 1, c.op);
  }
}

TEST(FuseElementwise, ArithmeticOfTwoOperandsKeepsItsBits) {
  for (const char* op : {"Add", "Sub", "Mul", "Div", "Min", "Max", "PRelu", "Pow", "Sum", "Mean"}) {
    Formula f;
    const ValueId a = f.input({9, 111}, -2, 4), b = f.input({9, 111}, -2, 4);
    for (int i = 0; i < 2; ++i)
      for (int64_t j = 0; j < 40; ++j) f.given[static_cast<size_t>(i)].mutable_data<float>()[j * (i + 3)] = j % 3 == 0 ? kNan : j % 3 == 1 ? kInf : -0.0f;
    f.rw.add_output(f.op("Sub", {f.op(op, {f.op("Neg", {a}), b}), f.op(op, {a, f.number(0.75f)})}));
    becomes(f, 1, op);
  }
}

TEST(FuseElementwise, FoldsOfManyOperands) {
  for (const char* op : {"Min", "Max", "Sum", "Mean"}) {
    Formula f;
    const ValueId a = f.input({5, 77}), b = f.input({77}), c = f.input({5, 1});
    f.rw.add_output(f.op("Relu", {f.op(op, {a, b, c, f.number(0.1f)})}));
    becomes(f, 1, op);
  }
}

TEST(FuseElementwise, ConditionsClipsAndSquares) {
  for (const char* op : {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}) {
    Formula f;
    const ValueId a = f.input({3, 333}), b = f.input({3, 333});
    f.given[0].mutable_data<float>()[5] = kNan;
    std::copy_n(f.given[0].data<float>() + 100, 60, f.given[1].mutable_data<float>() + 100);
    const ValueId close = f.op(op, {a, b}), far = f.op("Less", {f.op("Abs", {a}), f.number(2)});
    const ValueId either = f.op("Or", {f.op("And", {close, far}), f.op("Xor", {close, f.op("Not", {far})})});
    const ValueId chosen = f.op("Where", {either, f.op("Clip", {a, f.number(-1.5f), f.number(1)}), f.op("Clip", {b, kNone, f.number(2)})});
    const ValueId counted = f.op("Cast", {close}, {{"to", static_cast<int64_t>(DType::kF32)}});
    const ValueId two = f.rw.add_constant("two", Tensor::scalar<int64_t>(2));
    f.rw.add_output(f.op("Add", {f.op("Mul", {chosen, counted}), f.op("Mul", {f.op("Pow", {a, two}), f.op("Pow", {b, f.number(3)})})}));
    becomes(f, 1, op);
    EXPECT_EQ(only(f).inputs.size(), 2u);
  }
}

TEST(FuseElementwise, ConditionsFromOutside) {
  for (const Shape& shape : {Shape{4, 50}, Shape{4, 1}, Shape{50}, Shape{1}}) {
    Formula f;
    const ValueId x = f.input({4, 50});
    Tensor mask = Tensor::empty(DType::kBool, shape);
    for (int64_t i = 0; i < mask.numel(); ++i) mask.mutable_data<bool>()[i] = i % 3 == 0;
    f.given.push_back(mask);
    const ValueId m = f.rw.add_input("mask", DType::kBool, to_dims(shape));
    f.rw.add_output(f.op("Where", {m, f.op("Exp", {x}), f.number(-kInf)}));
    becomes(f, 1, shape_string(shape));
  }
}

// Rows much shorter than a block, about as long, and longer.
TEST(FuseElementwise, OperandsBroadcastInEveryWay) {
  for (int64_t width : {1, 3, 7, 49, 300, 511, 1025, 2600})
    for (const Shape& other : {Shape{}, Shape{width}, Shape{5, 1}, Shape{2, 1, 1}, Shape{2, 1, width}, Shape{1, 5, width}, Shape{2, 5, 1}, Shape{2, 5, width}}) {
      Formula f;
      const ValueId x = f.input({2, 5, width}), y = f.input(other), z = f.input({5, 1});
      const ValueId gate = f.op("Sigmoid", {f.op("Add", {f.op("Mul", {x, y}), z})});
      f.rw.add_output(f.op("Sub", {y, f.op("Mul", {gate, x})}));
      becomes(f, 1, fmt::format("width {}, {}", width, shape_string(other)));
    }
}

TEST(FuseElementwise, WhatIsSeenOutsideStays) {
  Formula f;
  const ValueId x = f.input({40});
  const ValueId seen = f.op("Exp", {x});
  f.rw.add_output(seen);
  f.rw.add_output(f.op("Relu", {f.op("Neg", {seen})}));
  becomes(f, 2, "an output");

  Formula both;  // also read by something that is no member
  const ValueId v = both.input({6, 40});
  const ValueId shared = both.op("Exp", {v});
  both.rw.add_output(both.op("Softmax", {shared}));
  both.rw.add_output(both.op("Relu", {both.op("Neg", {shared})}));
  becomes(both, 3, "a second reader");
}

TEST(FuseElementwise, AStateAndItsUpdateStay) {
  Formula f;
  const ValueId x = f.input({40}), state = f.rw.add_constant("state", Tensor::of<float>({}, {2.0f}));
  const ValueId update = f.op("Mul", {state, f.number(3)});
  const ValueId scaled = f.op("Exp", {f.op("Mul", {x, state})});
  f.rw.add_output(f.op("Add", {scaled, x}));
  f.rw.add_state({state, update});
  EXPECT_TRUE(fuse(*f.graph));
  const Node& fused = f.graph->node(f.graph->last());
  EXPECT_EQ(fused.inputs.size(), 2u) << "the state is an operand, not a number";
  EXPECT_EQ(f.graph->node_count(), 2u);
}

TEST(FuseElementwise, SmallerOperandsAreComputedAlone) {
  Formula f;
  const ValueId x = f.input({30, 40}), y = f.input({40});
  f.rw.add_output(f.op("Mul", {f.op("Relu", {x}), f.op("Exp", {f.op("Neg", {y})})}));
  becomes(f, 2, "a row");  // one of the row, one of the matrix
}

// Broadcasting of two symbols gives a third: q cos + rotated sin of decoders. Whatever they turn out to be, the result holds.
TEST(FuseElementwise, SizesThatAreNotKnown) {
  for (int64_t length : {1, 5})
    for (int64_t heads : {1, 3}) {
      Formula f;
      const auto input = [&](const char* name, Dims dims, const Shape& shape) {
        f.given.push_back(test::random_tensor(shape, 11 + f.given.size()).cast(DType::kF32));
        return f.rw.add_input(name, DType::kF32, std::move(dims));
      };
      const auto symbol = [&](const char* name) { return f.graph->symbol(name); };
      const ValueId q = input("q", {2, symbol("h"), symbol("s"), 16}, {2, heads, 5, 16}), r = input("r", {2, symbol("h"), symbol("s"), 16}, {2, heads, 5, 16});
      const ValueId cos = input("cos", {1, 1, symbol("t"), 16}, {1, 1, length, 16}), sin = input("sin", {1, 1, symbol("u"), 16}, {1, 1, length, 16});
      const ValueId shift = input("shift", {2, symbol("g"), symbol("v"), 16}, {2, 3, 5, 16});
      f.rw.add_output(f.op("Add", {f.op("Mul", {q, cos}), f.op("Mul", {r, sin})}));
      f.rw.add_output(f.op("Add", {f.op("Mul", {q, cos}), f.op("Neg", {shift})}));
      becomes(f, 2, fmt::format("{} of 5, {} of 3", length, heads));
    }
}

TEST(FuseElementwise, ReadTwiceInsideIsInside) {
  Formula f;
  const ValueId x = f.input({3, 41});
  const ValueId t = f.op("Tanh", {x}), u = f.op("Mul", {t, t});
  f.rw.add_output(f.op("Sub", {f.op("Mul", {u, t}), f.op("Add", {t, u})}));
  becomes(f, 1, "diamonds");
  EXPECT_EQ(only(f).inputs.size(), 1u);
}

// A value read in the region and by a product whose result comes back into it must not make a cycle.
TEST(FuseElementwise, APathOutAndBackIsNoCycle) {
  Formula f;
  const ValueId x = f.input({8, 8});
  const ValueId a = f.op("Exp", {x});
  const ValueId b = f.op("Softmax", {f.op("Neg", {a})});
  f.rw.add_output(f.op("Add", {f.op("Mul", {a, f.number(2)}), f.op("Abs", {b})}));
  fuse(*f.graph);
  EXPECT_EQ(f.graph->node_count(), 4u) << print_graph(*f.graph);
}

TEST(FuseElementwise, LimitsSplitARegion) {
  Formula f;
  ValueId sum = f.input({33});
  for (int i = 0; i < 20; ++i) sum = f.op("Add", {f.op("Neg", {sum}), f.input({33})});
  f.rw.add_output(sum);
  becomes(f, 3, "operands");

  Formula g;
  ValueId y = g.input({33});
  for (int i = 0; i < 70; ++i) y = g.op(i % 2 == 0 ? "Tanh" : "Neg", {y});
  g.rw.add_output(y);
  becomes(g, 3, "steps");
}

TEST(FuseElementwise, OtherTypesAndLoneNodesStay) {
  Formula f;
  const ValueId x = f.rw.add_input("x", DType::kF64, {5});
  f.rw.add_output(f.op("Neg", {f.op("Exp", {x})}));
  EXPECT_FALSE(fuse(*f.graph));
  Formula g;
  g.rw.add_output(g.op("Softmax", {g.op("Neg", {g.op("Softmax", {g.input({3, 5})})})}));
  EXPECT_FALSE(fuse(*g.graph));
}

// Random trees: what is fused, and how, must not be seen in any bit.
TEST(FuseElementwise, RandomExpressionsKeepTheirBits) {
  const char* unary[] = {"Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Erf", "Floor", "HardSwish", "Softsign", "Gelu"};
  const char* binary[] = {"Add", "Sub", "Mul", "Min", "Max", "PRelu"};
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Random random(seed, 1);
    Formula f;
    const Shape shape = {2, static_cast<int64_t>(1 + random.below(9)), static_cast<int64_t>(1 + random.below(700))};
    const Shape shapes[] = {shape, shape, {shape[1], 1}, {shape[2]}, {}, {2, 1, 1}};
    std::vector<ValueId> values = {f.input(shape)};
    for (int i = 0; i < 3; ++i) values.push_back(f.input(shapes[random.below(6)]));
    for (int i = 0; i < 24; ++i) {
      const auto any = [&] { return values[values.size() - 1 - random.below(std::min<uint64_t>(values.size(), 6))]; };
      if (random.below(3) == 0) values.push_back(f.op(unary[random.below(10)], {any()}));
      else if (random.below(5) == 0) values.push_back(f.op("Where", {f.op("Less", {any(), any()}), any(), any()}));
      else {
        const ValueId a = values[0] == kNone ? any() : f.op("Add", {values[0], any()});
        values.push_back(f.op(binary[random.below(6)], {a, any()}));
      }
    }
    f.rw.add_output(values.back());
    f.rw.remove_dead_nodes();
    Formula before;
    before.graph = std::make_shared<Graph>(*f.graph);
    before.given = f.given;
    fuse(*f.graph);
    for (Isa isa : sets()) expect_same_bits(run(f, isa, 2), run(before, isa, 2), fmt::format("seed {}", seed));
  }
}

// Between convolutions channels are last: the chain follows, whichever way its operands are broadcast.
TEST(FuseElementwise, FollowsLayouts) {
  for (const Shape& other : {Shape{1, 16, 1, 1}, Shape{16, 1, 1}, Shape{1, 16, 9, 7}, Shape{1, 1, 9, 7}}) {
    Formula f;
    const ValueId x = f.input({1, 16, 9, 7}), y = f.input(other);
    const auto conv = [&](ValueId v, uint64_t seed) {
      const ValueId w = f.rw.add_constant("w", test::random_tensor({16, 16, 3, 3}, seed, -0.2, 0.2).cast(DType::kF32));
      return f.op("Conv", {v, w}, {{"pads", std::vector<int64_t>{1, 1, 1, 1}}});
    };
    const ValueId a = conv(x, 1), b = conv(x, 2);
    const ValueId gated = f.op("Div", {f.op("Mul", {f.op("Sigmoid", {f.op("Mul", {a, y})}), b}), f.op("Add", {f.op("Exp", {b}), f.number(1)})});
    f.rw.add_output(conv(gated, 3));
    SessionOptions options;
    options.threads = 1;
    options.pipeline = "inference";
    options.plan_after = 0;
    Session fused(f.graph, options);
    options.disabled_passes = {"fuse-elementwise"};
    Session apart(f.graph, options);
    const Tensor got = fused.run(f.given).at(0), expected = apart.run(f.given).at(0);
    EXPECT_LE(test::relative_error(got, expected), 1e-5) << shape_string(other);
    const std::vector<Shape> shapes = {f.given[0].shape(), f.given[1].shape()};
    const auto count = [&](Session& session, const char* op) {
      const auto plan = session.plan(shapes);
      return std::count_if(plan->steps.begin(), plan->steps.end(), [&](const Step& s) { return plan->graph->node(s.node).is_internal(op); });
    };
    EXPECT_EQ(count(fused, "FusedElementwise"), 1);
    EXPECT_LE(count(fused, "Reorder"), count(apart, "Reorder")) << print_plan(*fused.plan(shapes));
  }
}

// The planner may let the result take an operand's place.
TEST(FuseElementwise, RunsInPlace) {
  Formula f;
  const ValueId x = f.input({3, 500});
  ValueId y = f.op("Softmax", {x});
  for (int i = 0; i < 3; ++i) y = f.op("Softmax", {f.op("Sub", {f.op("Exp", {f.op("Mul", {y, f.number(3)})}), y})});
  f.rw.add_output(y);
  Formula before;
  before.graph = std::make_shared<Graph>(*f.graph);
  before.given = f.given;
  const auto expected = run(before);
  ASSERT_TRUE(fuse(*f.graph));
  std::vector<Shape> shapes = {f.given[0].shape()};
  CompileOptions options;
  auto executor = make_plan_executor(compile(f.graph, options));
  expect_same_bits(executor->run(f.given), expected, "plan");
}

TEST(FuseElementwise, IsForInferenceOnly) {
  const auto passes = [](const char* name) {
    std::vector<std::string_view> names;
    for (const Pass* p : pipeline_passes(name)) names.push_back(p->name);
    return names;
  };
  EXPECT_EQ(passes("inference").back(), "fuse-elementwise");
  for (std::string_view name : passes("train")) EXPECT_NE(name, "fuse-elementwise");
}

}  // namespace
}  // namespace ds
