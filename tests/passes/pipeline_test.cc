#include "libds/passes/pipeline.h"

#include <gtest/gtest.h>

#include "libds/ir/op_def.h"
#include "libds/run/executor.h"
#include "libds/run/session.h"
#include "tests/support/op_check.h"

namespace ds {
namespace {

// The operators of a graph in order: "Relu Add".
std::string ops_of(const Graph& g) {
  std::string list;
  for (NodeId id : g.order()) list += (list.empty() ? "" : " ") + g.node(id).op;
  return list;
}

std::vector<Tensor> run(const Graph& g, std::vector<Tensor> inputs) {
  SessionOptions options;
  options.pipeline.clear();
  return Session(std::make_shared<Graph>(g), options).run(inputs);
}

// Runs one pass alone, verifies, and checks that results stay the same bits.
std::string after(Graph& g, const std::string& pass, const std::vector<Tensor>& inputs) {
  const std::vector<Tensor> before = run(g, inputs);
  PipelineOptions options;
  options.verify = true;
  options.evaluate = evaluate_node;
  for (const Pass* p : all_passes())
    if (p->name != pass) options.disabled.emplace_back(p->name);
  run_pipeline(g, "inference", options);
  const std::vector<Tensor> now = run(g, inputs);
  EXPECT_EQ(before.size(), now.size());
  for (size_t i = 0; i < now.size(); ++i) EXPECT_TRUE(before[i].equal_bits(now[i])) << "output " << i;
  return ops_of(g);
}

Tensor sample(Shape shape) { return test::random_tensor(std::move(shape), 7).cast(DType::kF32); }

TEST(Pipeline, DeadCodeGoes) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {2, 3});
  rw.emit("Relu", {rw.emit("Add", {x, x})});
  rw.add_output(rw.emit("Mul", {x, x}, {}, "y"));
  EXPECT_EQ(ops_of(g), "Add Relu Mul");
  EXPECT_EQ(after(g, "dead-code", {sample({2, 3})}), "Mul");
}

TEST(Pipeline, OperatorsWithoutKernelsAreWrittenInTermsOfOthers) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {2, 3}), y = rw.add_input("y", DType::kF32, {2, 3});
  rw.add_output(rw.emit("SwiGLU", {x, y}, {}, "z"));
  EXPECT_EQ(after(g, "lower", {sample({2, 3}), sample({2, 3})}), "Swish Mul");
}

TEST(Pipeline, IdentitiesGoAndTheOutputKeepsItsName) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {2, 3});
  const ValueId a = rw.emit("Transpose", {x}, {{"perm", std::vector<int64_t>{0, 1}}});
  const ValueId r = rw.emit("Relu", {a}, {}, "r");
  const ValueId shape = rw.add_constant("shape", Tensor::of<int64_t>({2}, {2, 3}));
  const ValueId axes = rw.add_constant("axes", Tensor::of<int64_t>({1}, {0}));
  rw.add_output(rw.emit("Reshape", {rw.emit("Concat", {r}, {{"axis", int64_t{0}}}), shape}, {}, "y"));
  rw.add_output(rw.emit("Squeeze", {rw.emit("Unsqueeze", {r, axes}), axes}, {}, "z"));
  EXPECT_EQ(after(g, "identities", {sample({2, 3})}), "Relu Unsqueeze Squeeze");
  EXPECT_EQ(g.value(g.outputs()[0]).name, "y");
  EXPECT_EQ(g.value(g.outputs()[1]).name, "z");
}

TEST(Pipeline, AnIdentityBetweenInputAndOutputStays) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {2, 3});
  rw.add_output(rw.emit("Transpose", {x}, {{"perm", std::vector<int64_t>{0, 1}}}, "y"));
  EXPECT_EQ(after(g, "identities", {sample({2, 3})}), "Transpose");
}

TEST(Pipeline, SymbolicReshapeOfTheSameSizeIsRemovedOthersStay) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {g.symbol("n"), 6});
  const ValueId same = rw.add_constant("same", Tensor::of<int64_t>({2}, {0, 6}));
  const ValueId other = rw.add_constant("other", Tensor::of<int64_t>({3}, {0, 2, 3}));
  const ValueId r = rw.emit("Relu", {rw.emit("Reshape", {x, same})});
  rw.add_output(rw.emit("Reshape", {r, other}, {}, "y"));
  EXPECT_EQ(after(g, "identities", {sample({4, 6})}), "Relu Reshape");
}

TEST(Pipeline, ConstantsFoldAndShapesOfTypedValuesToo) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {2, 3});
  const ValueId c = rw.add_constant("c", sample({3}));
  const ValueId w = rw.emit("Add", {rw.emit("Relu", {c}), c});
  const ValueId flat = rw.emit("Shape", {rw.emit("Mul", {x, x})});
  const ValueId y = rw.emit("Reshape", {rw.emit("Add", {x, w}), flat}, {}, "y");
  rw.add_output(y);
  EXPECT_EQ(after(g, "fold-constants", {sample({2, 3})}), "Add Reshape");
}

TEST(Pipeline, FoldingNeverGrowsTheModelByMuch) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {1});
  const ValueId one = rw.add_constant("one", sample({1}));
  const ValueId size = rw.add_constant("size", Tensor::of<int64_t>({1}, {400000}));
  const ValueId small = rw.add_constant("small", Tensor::of<int64_t>({1}, {4}));
  rw.add_output(rw.emit("Add", {x, rw.emit("Expand", {one, size})}));
  rw.add_output(rw.emit("Add", {x, rw.emit("Expand", {one, small})}));
  EXPECT_EQ(after(g, "fold-constants", {sample({1})}), "Expand Add Add");
}

TEST(Pipeline, StatesAreNotConstants) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {3});
  const ValueId s = rw.add_constant("s", sample({3}));
  const ValueId doubled = rw.emit("Add", {s, s});
  rw.add_state({s, doubled});
  rw.add_output(rw.emit("Mul", {x, rw.emit("Relu", {s})}, {}, "y"));
  EXPECT_EQ(after(g, "fold-constants", {sample({3})}), "Add Relu Mul");
}

TEST(Pipeline, CommonSubexpressionsMerge) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {2, 6});
  const auto shape = [&](const char* name) { return rw.add_constant(name, Tensor::of<int64_t>({2}, {3, 4})); };
  const ValueId a = rw.emit("Relu", {rw.emit("Reshape", {x, shape("s1")})});
  const ValueId b = rw.emit("Relu", {rw.emit("Reshape", {x, shape("s2")})});
  const ValueId other = rw.emit("Reshape", {x, rw.add_constant("s3", Tensor::of<int64_t>({2}, {4, 3}))});
  rw.add_output(rw.emit("Add", {a, b}));
  rw.add_output(other);
  EXPECT_EQ(after(g, "common-subexpressions", {sample({2, 6})}), "Reshape Relu Reshape Add");
}

TEST(Pipeline, TwoOutputsOfEqualContentBothStay) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {2});
  rw.add_output(rw.emit("Relu", {x}, {}, "a"));
  rw.add_output(rw.emit("Relu", {x}, {}, "b"));
  EXPECT_EQ(after(g, "common-subexpressions", {sample({2})}), "Relu Relu");
  EXPECT_EQ(g.value(g.outputs()[1]).name, "b");
}

TEST(Pipeline, WrongNamesAreUsageErrorsThatListTheRightOnes) {
  Graph g;
  PipelineOptions options;
  options.disabled = {"no-such-pass"};
  try {
    run_pipeline(g, "inference", options);
    FAIL() << "an unknown pass was accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(e.what()).find("dead-code"), std::string::npos) << e.what();
  }
  EXPECT_THROW(run_pipeline(g, "no-such-pipeline"), Error);
}

TEST(Pipeline, PlansDropIdentitiesThatOnlySizesReveal) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const ValueId x = rw.add_input("x", DType::kF32, {g->symbol("rows"), g->symbol("columns")});
  const ValueId y = rw.add_input("y", DType::kF32, {g->symbol("others")});
  rw.add_output(rw.emit("Relu", {rw.emit("Expand", {rw.emit("Abs", {x}), rw.emit("Shape", {y})})}, {}, "z"));
  SessionOptions options;
  options.plan_after = 1;
  Session session(g, options);
  const std::vector<Shape> same = {{2, 3}, {3}}, wider = {{2, 1}, {3}};
  ASSERT_NE(session.plan(same), nullptr);
  EXPECT_EQ(ops_of(*session.plan(same)->graph), "Abs Relu");
  EXPECT_EQ(ops_of(*session.plan(wider)->graph), "Abs Expand Relu");
}

TEST(Pipeline, DumpAfterGivesTheGraphAtThatPoint) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {2});
  rw.emit("Relu", {x}, {}, "unused");
  rw.add_output(rw.emit("Add", {x, x}, {}, "y"));
  PipelineOptions options;
  std::vector<std::string> dumps;
  options.dump_after = {"dead-code"};
  options.dump = [&](std::string_view pass, const std::string& text) {
    EXPECT_EQ(pass, "dead-code");
    dumps.push_back(text);
  };
  const std::vector<std::string> changed = run_pipeline(g, "train", options);
  EXPECT_EQ(changed, std::vector<std::string>{"dead-code"});
  ASSERT_EQ(dumps.size(), 1u);
  EXPECT_EQ(dumps[0].find("unused"), std::string::npos) << dumps[0];
}

}  // namespace
}  // namespace ds
