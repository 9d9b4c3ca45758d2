// Graphs that no plan holds as a whole: how they are cut, and that parts give what eager execution gives, bit for bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>

#include "libds/compile/partition.h"
#include "libds/ir/op_def.h"
#include "libds/ir/rewriter.h"
#include "libds/run/session.h"

namespace ds {
namespace {

using ::testing::HasSubstr;

Tensor wave(Shape shape, float step = 0.37f) {
  Tensor t = Tensor::empty(DType::kF32, std::move(shape));
  for (int64_t i = 0; i < t.numel(); ++i) t.mutable_data<float>()[i] = std::sin(step * static_cast<float>(i + 1)) * 0.5f;
  return t;
}

Tensor whole(int64_t x, Shape shape = {}) {
  Tensor t = Tensor::empty(DType::kI64, std::move(shape));
  t.mutable_data<int64_t>()[0] = x;
  return t;
}

Tensor real(float x, Shape shape = {}) {
  Tensor t = Tensor::empty(DType::kF32, std::move(shape));
  t.mutable_data<float>()[0] = x;
  return t;
}

Tensor truth() {
  Tensor t = Tensor::empty(DType::kBool, {});
  t.mutable_data<bool>()[0] = true;
  return t;
}

using Build = std::function<void(Graph&, Rewriter&)>;

std::shared_ptr<Graph> build(const Build& write) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  write(*g, rw);
  return g;
}

ValueId ints(Rewriter& rw, std::vector<int64_t> values) { return rw.add_constant("ints", Tensor::vector<int64_t>(values)); }
ValueId scalar(Rewriter& rw, float x) { return rw.add_constant("scalar", real(x)); }

ValueId conv(Rewriter& rw, ValueId x, int64_t from, int64_t to, int64_t kernel, std::string_view name) {
  const ValueId w = rw.add_constant("w", wave({to, from, kernel, kernel}, 0.71f)), b = rw.add_constant("b", wave({to}));
  const int64_t pad = kernel / 2;
  return rw.emit("Conv", {x, w, b}, {{"pads", std::vector<int64_t>{pad, pad, pad, pad}}}, name);
}

// A node with bodies that read `captured` of the graph around them.
std::vector<ValueId> add_body_node(Rewriter& rw, std::string op, std::vector<ValueId> inputs, std::vector<ValueId> captured, Attributes bodies,
                                   size_t outputs, std::string name) {
  Node n;
  n.op = std::move(op);
  n.name = name;
  n.def = OpRegistry::instance().find("", n.op);
  n.inputs = std::move(inputs);
  n.captured = captured.size();
  n.inputs.insert(n.inputs.end(), captured.begin(), captured.end());
  n.attrs = std::move(bodies);
  for (size_t i = 0; i < outputs; ++i) n.outputs.push_back(rw.add_value(rw.unique_name(name)));
  const std::vector<ValueId> results = n.outputs;
  rw.infer(rw.add_raw_node(std::move(n)));
  return results;
}

Attribute body(const Build& write) { return std::shared_ptr<const Graph>(build(write)); }

Session exact(const std::shared_ptr<Graph>& graph) { return Session(graph, {.threads = 1, .layouts = false}); }

// Runs in parts, several times over, and eagerly; all results must be the same.
void expect_same(Session& parts, const std::shared_ptr<Graph>& graph, const std::vector<Tensor>& inputs, const char* reason) {
  Session eager(graph, {.threads = 1, .static_plan = false, .layouts = false});
  const std::vector<Tensor> expected = eager.run(inputs);
  for (int round = 0; round < 3; ++round) {
    const std::vector<Tensor> results = parts.run(inputs);
    EXPECT_THAT(parts.eager_reason(), HasSubstr(reason));
    ASSERT_EQ(results.size(), expected.size());
    for (size_t i = 0; i < results.size(); ++i) {
      EXPECT_TRUE(results[i].equal_bits(expected[i])) << "output " << i << " round " << round << ": " << shape_string(results[i].shape());
      EXPECT_EQ(results[i].shape(), expected[i].shape());
    }
  }
}

// Kinds of the parts in order: s(tatic), d(ynamic).
std::string kinds(const std::shared_ptr<Graph>& graph) {
  std::string text;
  for (const Part& p : cut_into_parts(*graph, *graph)) text += p.is_static ? 's' : 'd';
  return text;
}

// Parts that ran by plans: their steps have a cost.
std::set<int> planned_parts(const Session& session) {
  std::set<int> parts;
  for (const StepTime& s : session.profile())
    if (s.part >= 0 && s.cost.flops > 0) parts.insert(s.part);
  return parts;
}

// Convolutions, boxes and scores from them, NonMaxSuppression, and a product over what it picks.
std::shared_ptr<Graph> detector() {
  return build([](Graph& g, Rewriter& rw) {
    const ValueId x = rw.add_input("x", DType::kF32, {1, 3, g.symbol("h"), g.symbol("w")});
    ValueId y = rw.emit("Relu", {conv(rw, x, 3, 16, 3, "stem")});
    y = rw.emit("Relu", {conv(rw, y, 16, 16, 3, "body")});
    const ValueId corners = rw.emit("Reshape", {conv(rw, y, 16, 4, 1, "boxes"), ints(rw, {1, 4, -1})});
    const ValueId boxes = rw.emit("Transpose", {corners}, {{"perm", std::vector<int64_t>{0, 2, 1}}});
    const ValueId scores = rw.emit("Sigmoid", {rw.emit("Reshape", {conv(rw, y, 16, 2, 1, "scores"), ints(rw, {1, 2, -1})})});
    const ValueId most = rw.add_constant("most", whole(20, {1})), iou = rw.add_constant("iou", real(0.5f, {1}));
    const ValueId least = rw.add_constant("least", real(0.45f, {1}));
    const ValueId picked = rw.emit("NonMaxSuppression", {boxes, scores, most, iou, least}, {}, "picked");
    const ValueId rows = rw.emit("Squeeze", {rw.emit("Slice", {picked, ints(rw, {2}), ints(rw, {3}), ints(rw, {1})}), ints(rw, {1})});
    const ValueId kept = rw.emit("Gather", {rw.emit("Squeeze", {boxes, ints(rw, {0})}), rows}, {{"axis", int64_t{0}}}, "kept");
    const ValueId w = rw.add_constant("head", wave({4, 8}, 0.3f));
    const ValueId length = rw.emit("Shape", {rw.emit("Relu", {rw.emit("MatMul", {kept, w}, {}, "last")}, {}, "features")});
    rw.add_output(rw.emit("Reshape", {rw.emit("MatMul", {kept, w}, {}, "again"), length}));
    rw.add_output(picked);
    rw.add_output(length);
  });
}

TEST(Parts, ADetectorKeepsItsPlans) {
  const auto g = detector();
  EXPECT_EQ(kinds(g), "sds");
  Session session = exact(g);
  session.enable_profile();
  for (int64_t size : {9, 16, 9, 5}) expect_same(session, g, {wave({1, 3, size, size + 2})}, "NonMaxSuppression");
  EXPECT_EQ(planned_parts(session), (std::set<int>{0, 2}));
  std::set<std::string> one_by_one;
  for (const StepTime& s : session.profile())
    if (s.part == 1) one_by_one.insert(s.graph->node(s.node).op);
  EXPECT_TRUE(one_by_one.count("NonMaxSuppression"));
  EXPECT_FALSE(one_by_one.count("Conv"));
}

TEST(Parts, LayoutsAreWithinRounding) {
  const auto g = detector();
  Session plain = exact(g), blocked(g, {.threads = 2});
  const std::vector<Tensor> expected = plain.run(std::vector<Tensor>{wave({1, 3, 12, 12})}), got = blocked.run(std::vector<Tensor>{wave({1, 3, 12, 12})});
  ASSERT_TRUE(got[1].equal_bits(expected[1]));  // what was picked
  for (int64_t i = 0; i < got[0].numel(); ++i) EXPECT_NEAR(got[0].data<float>()[i], expected[0].data<float>()[i], 1e-5);
}

TEST(Parts, WeightsArePackedOnce) {
  const auto g = detector();
  Session session(g, {.threads = 1});
  session.run(std::vector<Tensor>{wave({1, 3, 12, 12})});
  const size_t packings = session.packed_weights().size();
  for (int64_t size : {14, 20, 6}) session.run(std::vector<Tensor>{wave({1, 3, size, size})});
  EXPECT_LE(session.packed_weights().size(), packings + 1);  // the product behind NonMaxSuppression may have come late
}

// x through convolutions on both sides of an If whose branches read the features.
std::shared_ptr<Graph> branching() {
  return build([](Graph& g, Rewriter& rw) {
    const ValueId x = rw.add_input("x", DType::kF32, {1, 4, g.symbol("h"), 8});
    const ValueId y = rw.emit("Relu", {conv(rw, x, 4, 8, 3, "before")}, {}, "features");
    const ValueId mean = rw.emit("ReduceMean", {y}, {{"keepdims", int64_t{0}}});
    const ValueId high = rw.emit("Greater", {mean, scalar(rw, 0.3f)}, {}, "high");
    const auto branch = [](std::string_view op) {
      return body([op](Graph& b, Rewriter& in) {
        const ValueId f = in.add_input("features", DType::kF32, {1, 8, b.symbol("h"), 8});
        in.add_output(in.emit(op, {f}));
      });
    };
    const ValueId chosen = add_body_node(rw, "If", {high}, {y}, {{"then_branch", branch("Neg")}, {"else_branch", branch("Exp")}}, 1, "choice")[0];
    rw.add_output(conv(rw, chosen, 8, 4, 3, "after"));
    rw.add_output(y);
  });
}

TEST(Parts, AnIfInTheMiddle) {
  const auto g = branching();
  EXPECT_EQ(kinds(g), "sds");
  Session session = exact(g);
  session.enable_profile();
  for (float scale : {1.0f, -4.0f, 9.0f})
    for (int64_t h : {3, 6}) {
      Tensor x = wave({1, 4, h, 8});
      for (int64_t i = 0; i < x.numel(); ++i) x.mutable_data<float>()[i] *= scale;
      expect_same(session, g, {x}, "(If)");
    }
  EXPECT_EQ(planned_parts(session), (std::set<int>{0, 2}));
}

// A vector that a Loop makes longer in each of `rounds`, with products before and behind.
std::shared_ptr<Graph> looping() {
  return build([](Graph& g, Rewriter& rw) {
    const ValueId x = rw.add_input("x", DType::kF32, {g.symbol("n"), 6}), rounds = rw.add_input("rounds", DType::kI64, {});
    const ValueId start = rw.emit("MatMul", {x, rw.add_constant("w", wave({6, 6}))}, {}, "start");
    const ValueId go = rw.add_constant("go", truth());
    const Attribute grow = body([](Graph& b, Rewriter& in) {
      in.add_input("round", DType::kI64, {});
      const ValueId condition = in.add_input("condition", DType::kBool, {});
      const ValueId v = in.add_input("v", DType::kF32, {b.symbol("rows"), 6}), extra = in.add_input("extra", DType::kF32, {b.symbol("n"), 6});
      in.add_output(in.emit("Identity", {condition}));
      in.add_output(in.emit("Concat", {v, in.emit("Mul", {extra, scalar(in, 0.5f)})}, {{"axis", int64_t{0}}}));
    });
    const ValueId longer = add_body_node(rw, "Loop", {rounds, go, start}, {start}, {{"body", grow}}, 1, "loop")[0];
    rw.add_output(rw.emit("MatMul", {longer, rw.add_constant("w2", wave({6, 5}))}, {}, "end"));
  });
}

TEST(Parts, ALoopThatGrows) {
  const auto g = looping();
  EXPECT_EQ(kinds(g), "sds");
  Session session = exact(g);
  for (int64_t rounds : {0, 1, 5, 5, 2})
    for (int64_t n : {1, 4}) expect_same(session, g, {wave({n, 6}), whole(rounds)}, "(Loop)");
}

TEST(Parts, SequencesAndOptionalsCross) {
  const auto g = build([](Graph& g, Rewriter& rw) {
    const ValueId x = rw.add_input("x", DType::kF32, {g.symbol("n"), 6}), at = rw.add_input("at", DType::kI64, {});
    const ValueId y = rw.emit("MatMul", {x, rw.add_constant("w", wave({6, 8}))}, {}, "y");
    const ValueId pieces = rw.emit("SplitToSequence", {y, rw.add_constant("half", whole(2))}, {{"axis", int64_t{0}}}, "pieces");
    const ValueId piece = rw.emit("SequenceAt", {pieces, at}, {}, "piece");
    const ValueId z = rw.emit("MatMul", {piece, rw.add_constant("w2", wave({8, 8}))}, {}, "z");
    const ValueId wrapped = rw.emit("Optional", {z}, {}, "wrapped");
    const ValueId longer = rw.emit("SequenceInsert", {pieces, z}, {}, "longer");
    rw.add_output(rw.emit("MatMul", {rw.emit("OptionalGetElement", {wrapped}), rw.add_constant("w3", wave({8, 3}))}));
    rw.add_output(rw.emit("ConcatFromSequence", {longer}, {{"axis", int64_t{0}}}, "joined"));
    rw.add_output(longer);
    rw.add_output(x);
  });
  EXPECT_EQ(kinds(g), "sdsds");
  Session session = exact(g);
  for (int64_t n : {2, 5, 9}) expect_same(session, g, {wave({n, 6}), whole(n / 2 - 1)}, "SplitToSequence");
}

// Small results of eager nodes stay where they are from run to run, unless somebody holds them.
TEST(Parts, WhatACallerHoldsDoesNotChange) {
  const auto g = build([](Graph& g, Rewriter& rw) {
    const ValueId x = rw.add_input("x", DType::kF32, {g.symbol("n")});
    const ValueId small = rw.emit("Neg", {x}, {}, "small");
    const ValueId items = rw.emit("SequenceConstruct", {small, rw.emit("Exp", {small})}, {}, "items");
    rw.add_output(items);
    rw.add_output(rw.emit("SequenceAt", {items, rw.add_constant("first", whole(0))}));
    rw.add_output(rw.emit("Optional", {small}));
  });
  Session session = exact(g);
  const std::vector<Tensor> held = session.run(std::vector<Tensor>{wave({8}, 0.2f)});
  for (float step : {0.9f, 0.7f}) session.run(std::vector<Tensor>{wave({8}, step)});
  Session fresh = exact(g);
  const std::vector<Tensor> expected = fresh.run(std::vector<Tensor>{wave({8}, 0.2f)});
  for (size_t i = 0; i < held.size(); ++i) EXPECT_TRUE(held[i].equal_bits(expected[i])) << i;
}

// Shape arithmetic over what NonZero makes decides shapes behind it: content for a plan, not something computed elsewhere.
TEST(Parts, ShapesBehindDynamicNodes) {
  const auto g = build([](Graph& g, Rewriter& rw) {
    const ValueId x = rw.add_input("x", DType::kF32, {g.symbol("n"), 6});
    const ValueId where = rw.emit("NonZero", {rw.emit("Relu", {rw.emit("MatMul", {x, rw.add_constant("w", wave({6, 6}))})})}, {}, "where");
    const ValueId positions = rw.emit("Transpose", {where}, {{"perm", std::vector<int64_t>{1, 0}}}, "positions");
    const ValueId rows = rw.emit("Gather", {rw.emit("Shape", {positions}), ints(rw, {0})}, {{"axis", int64_t{0}}}, "rows");
    const ValueId shape = rw.emit("Concat", {rows, ints(rw, {4})}, {{"axis", int64_t{0}}}, "shape");
    const ValueId means = rw.emit("Expand", {rw.emit("ReduceMean", {rw.emit("MatMul", {x, rw.add_constant("to4", wave({6, 4}))}), ints(rw, {0})}), shape}, {}, "rows_of_means");
    rw.add_output(rw.emit("MatMul", {means, rw.add_constant("w2", wave({4, 7}))}, {}, "product"));
    rw.add_output(shape);
    rw.add_output(rw.emit("Shape", {x}));
  });
  Session session = exact(g);
  session.enable_profile();
  for (int64_t n : {3, 1, 8}) expect_same(session, g, {wave({n, 6})}, "NonZero");
  EXPECT_EQ(planned_parts(session), (std::set<int>{0, 2}));
}

TEST(Parts, NothingToGain) {
  const auto small = build([](Graph& g, Rewriter& rw) {
    const ValueId x = rw.add_input("x", DType::kF32, {g.symbol("n")});
    rw.add_output(rw.emit("Neg", {rw.emit("NonZero", {rw.emit("Relu", {x})})}));
  });
  EXPECT_EQ(kinds(small), "");
  Session session = exact(small);
  expect_same(session, small, {wave({40})}, "NonZero");
  const auto plain = build([](Graph& g, Rewriter& rw) {
    rw.add_output(rw.emit("MatMul", {rw.add_input("x", DType::kF32, {g.symbol("n"), 6}), rw.add_constant("w", wave({6, 6}))}));
  });
  EXPECT_EQ(kinds(plain), "");
}

TEST(Parts, StatesStayWhole) {
  auto g = looping();
  EXPECT_NE(kinds(g), "");
  Rewriter rw(*g);
  const ValueId count = rw.add_constant("count", real(1, {1}));
  rw.add_state({count, rw.emit("Add", {count, count})});
  EXPECT_EQ(kinds(g), "");
}

TEST(Parts, ErrorsNameTheNodeAndLeaveTheSessionWhole) {
  const auto g = build([](Graph& g, Rewriter& rw) {
    const ValueId x = rw.add_input("x", DType::kF32, {g.symbol("n"), 6}), at = rw.add_input("at", DType::kI64, {1});
    const ValueId y = rw.emit("MatMul", {x, rw.add_constant("w", wave({6, 6}))}, {}, "before");
    const ValueId where = rw.emit("NonZero", {rw.emit("Relu", {y})}, {}, "where");
    const ValueId row = rw.emit("Gather", {y, rw.emit("Add", {at, rw.emit("ReduceMax", {where}, {{"keepdims", int64_t{0}}})})}, {{"axis", int64_t{0}}}, "row");
    rw.add_output(rw.emit("MatMul", {row, rw.add_constant("w2", wave({6, 2}))}, {}, "behind"));
  });
  Session session = exact(g);
  const std::vector<Tensor> good = {wave({7, 6}), whole(-3, {1})};
  expect_same(session, g, good, "NonZero");
  try {
    session.run(std::vector<Tensor>{wave({7, 6}), whole(1000, {1})});
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("'row' (Gather)"));
  }
  EXPECT_THROW(session.run(std::vector<Tensor>{wave({7, 5}), whole(0, {1})}), Error);
  expect_same(session, g, good, "NonZero");
}

}  // namespace
}  // namespace ds
