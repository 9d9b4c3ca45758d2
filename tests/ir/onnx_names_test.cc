// Names: many nodes of one name, bodies whose names meet those around them, many captured values.
#include <set>

#include "libds/ir/free_name.h"
#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "tests/ir/model_builder.h"

namespace ds {
namespace {

using test::ModelBuilder;

std::string rewritten(const std::string& bytes) { return serialize_model(*parse_model(bytes)); }

void expect_unique_names(const Graph& g) {
  std::set<std::string> names;
  for (size_t i = 0; i < g.value_capacity(); ++i) {
    const std::string& name = g.value(static_cast<ValueId>(i)).name;
    EXPECT_TRUE(name.empty() || names.insert(name).second) << name;
  }
}

// In `n`, as attribute `name`.
void add_body(onnx::NodeProto& n, const std::string& name, const ModelBuilder& body) {
  auto& a = *n.add_attribute();
  a.set_name(name);
  a.set_type(onnx::AttributeProto::GRAPH);
  *a.mutable_g() = body.model.graph();
}

TEST(FreeName, IsTheLeastOneBehindTheTakenOnes) {
  std::set<std::string> taken;
  const auto next = [&](const std::string& base) {
    const std::string name = free_name(base, [&](const std::string& s) { return taken.count(s) > 0; });
    EXPECT_TRUE(taken.insert(name).second) << name;
    return name;
  };
  EXPECT_EQ(next("a"), "a");
  for (int i = 1; i <= 1000; ++i) ASSERT_EQ(next("a"), "a_" + std::to_string(i));
  taken = {"b", "b_1", "b_3"};
  EXPECT_EQ(next("b"), "b_2");
  for (int i = 0; i < 100; ++i) next("b");  // gaps or not, never one that is taken
  EXPECT_EQ(taken.size(), 104u);
}

// Each node gains a constant named after it. Linear in the nodes: this took minutes once.
TEST(OnnxNames, TwentyThousandNodesOfOneName) {
  constexpr int kNodes = 20000;
  ModelBuilder b(11);
  b.input("x", {"2", "3"});
  std::string last = "x";
  for (int i = 0; i < kNodes; ++i) {
    const std::string out = i + 1 == kNodes ? "y" : "v" + std::to_string(i);
    auto& n = b.node("ReduceMean", {last}, {out}, "same");
    test::set_attr(n, "axes", std::vector<int64_t>{1});
    last = out;
  }
  b.output("y", {"2", "1"});
  const auto g = parse_model(b.bytes());
  EXPECT_EQ(g->node_count(), static_cast<size_t>(kNodes));
  expect_unique_names(*g);
  EXPECT_NE(g->find_value("same.axes_" + std::to_string(kNodes - 1)), kNone);

  const std::string old = serialize_model(*g);
  EXPECT_EQ(old, rewritten(old));
  ExportOptions newest;
  newest.opset = 18;  // axes are inputs there
  const std::string now = serialize_model(*g, newest);
  const auto again = parse_model(now);
  expect_unique_names(*again);
  EXPECT_EQ(now, serialize_model(*again));
  EXPECT_EQ(again->initializers().size(), static_cast<size_t>(kNodes));
}

TEST(OnnxNames, ManyNodesWithoutAName) {
  ModelBuilder b;
  b.input("x", {"2"});
  for (int i = 0; i < 2000; ++i) b.node("Relu", {i == 0 ? "x" : "v" + std::to_string(i - 1)}, {"v" + std::to_string(i)}, i % 2 ? "" : "Relu_1");
  b.output("v1999", {"2"});
  const auto g = parse_model(b.bytes());
  EXPECT_EQ(g->node(1).name, "Relu_1_1");  // the file has a node of that name
  EXPECT_EQ(g->node(3).name, "Relu_3");
}

// Old Resize spells out its missing inputs; nodes of one name share what says "none".
TEST(OnnxNames, ResizesOfOneName) {
  ModelBuilder b(11);
  b.input("x", {"1", "1", "2", "2"});
  b.floats("none", {0}, {});
  b.ints("sizes", {1, 1, 2, 2});
  std::string last = "x";
  for (int i = 0; i < 50; ++i) {
    b.node("Resize", {last, "none", "none", "sizes"}, {"v" + std::to_string(i)}, "same");
    last = "v" + std::to_string(i);
  }
  b.output(last, {"1", "1", "2", "2"});
  const std::string once = rewritten(b.bytes());
  EXPECT_EQ(once, rewritten(once));
  onnx::ModelProto out;
  ASSERT_TRUE(out.ParseFromString(once));
  EXPECT_EQ(out.graph().initializer_size(), 3);
}

// A body's value that is called like one outside is renamed when it is written, and not to a name the body has.
TEST(OnnxNames, BodyNamesThatMeetThoseAround) {
  ModelBuilder b;
  b.input("x", {"n"});
  b.input("flag", {}, onnx::TensorProto::BOOL);
  b.node("Relu", {"x"}, {"t"}, "outer");
  auto& n = b.node("If", {"flag"}, {"y"}, "if");
  for (const char* side : {"then_branch", "else_branch"}) {
    ModelBuilder body;
    body.node("Neg", {"x"}, {"t"}, "inner");
    body.node("Abs", {"t"}, {"t_1"}, "inner_1");
    body.output("t_1", {"n"});
    add_body(n, side, body);
  }
  b.node("Add", {"t", "y"}, {"z"}, "sum");
  b.output("z", {"n"});
  const std::string once = rewritten(b.bytes());
  EXPECT_EQ(once, rewritten(once));
  onnx::ModelProto out;
  ASSERT_TRUE(out.ParseFromString(once));
  for (const onnx::AttributeProto& a : out.graph().node(1).attribute()) {
    ASSERT_EQ(a.g().node_size(), 2);
    EXPECT_EQ(a.g().node(0).output(0), "t_2");
    EXPECT_EQ(a.g().node(1).input(0), "t_2");
    EXPECT_EQ(a.g().node(1).output(0), "t_1");
  }
}

TEST(OnnxNames, BodiesThatCaptureThousandsOfValues) {
  constexpr int kValues = 5000;
  ModelBuilder b;
  b.input("x", {"1"});
  b.input("flag", {}, onnx::TensorProto::BOOL);
  std::vector<std::string> all;
  for (int i = 0; i < kValues; ++i) {
    all.push_back("v" + std::to_string(i));
    b.node("Relu", {"x"}, {all.back()}, "same");
  }
  auto& n = b.node("If", {"flag"}, {"y"}, "if");
  for (const char* side : {"then_branch", "else_branch"}) {
    ModelBuilder body;
    test::set_attr(body.node("Concat", all, {std::string(side) + "_y"}, side), "axis", int64_t{0});
    body.output(std::string(side) + "_y", {std::to_string(kValues)});
    add_body(n, side, body);
  }
  b.output("y", {std::to_string(kValues)});
  const auto g = parse_model(b.bytes());
  EXPECT_EQ(g->node(g->last()).captured, static_cast<size_t>(kValues));
  const std::string once = serialize_model(*g);
  EXPECT_EQ(once, rewritten(once));
}

}  // namespace
}  // namespace ds
