#include <gtest/gtest.h>

#include "libds/ir/op_def.h"
#include "libds/ir/rewriter.h"

namespace ds {
namespace {

TEST(Graph, EmitInfersBroadcastAndKeepsUses) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {g.symbol("batch"), 3});
  const ValueId b = rw.add_constant("b", Tensor::zeros(DType::kF32, {3}));
  const ValueId y = rw.emit("Relu", {rw.emit("Add", {x, b}, {}, "sum")}, {}, "y");
  rw.add_output(y);
  EXPECT_EQ(g.type_string(y), "f32[batch,3]");
  verify_graph(g);
  EXPECT_EQ(g.value(x).users.size(), 1u);
}

TEST(Graph, ReplaceUsesKeepsInterfaceNames) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {2});
  const ValueId y = rw.emit("Relu", {x}, {}, "y");
  rw.add_output(y);
  const ValueId z = rw.emit("Relu", {x}, {}, "z");
  rw.replace_uses(y, z);
  EXPECT_EQ(g.value(g.outputs()[0]).name, "y");
  EXPECT_EQ(rw.remove_dead_nodes(), 1u);
  verify_graph(g);
}

TEST(Graph, CycleIsNamed) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {2});
  const ValueId y = rw.emit("Add", {x, x}, {}, "y");
  const ValueId z = rw.emit("Relu", {y}, {}, "z");
  rw.set_input(g.value(y).producer, 1, z);
  try {
    rw.sort();
    FAIL() << "a cycle was accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kBadData);
    EXPECT_NE(std::string(e.what()).find("cycle"), std::string::npos) << e.what();
  }
}

TEST(Graph, BroadcastMismatchNamesTheNode) {
  Graph g;
  Rewriter rw(g);
  const ValueId a = rw.add_input("a", DType::kF32, {3});
  const ValueId b = rw.add_input("b", DType::kF32, {4});
  try {
    rw.emit("Add", {a, b}, {}, "sum");
    FAIL() << "3 was broadcast with 4";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "node 'sum' (Add): cannot broadcast [3] with [4]");
  }
}

}  // namespace
}  // namespace ds
