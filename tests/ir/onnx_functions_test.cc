// Model-local functions are inlined.
#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/ir/op_def.h"
#include "tests/ir/model_builder.h"

namespace ds {
namespace {

using test::ModelBuilder;
using test::expect_error;

onnx::FunctionProto& function(ModelBuilder& b, const std::string& name, const std::vector<std::string>& inputs,
                              const std::vector<std::string>& outputs, int64_t opset = 17) {
  auto& f = *b.model.add_functions();
  f.set_name(name);
  f.set_domain("local");
  for (const auto& i : inputs) f.add_input(i);
  for (const auto& o : outputs) f.add_output(o);
  auto& import = *f.add_opset_import();
  import.set_domain("");
  import.set_version(opset);
  return f;
}

onnx::NodeProto& inner(onnx::FunctionProto& f, const std::string& op, const std::vector<std::string>& inputs, const std::vector<std::string>& outputs) {
  auto& n = *f.add_node();
  n.set_op_type(op);
  for (const auto& i : inputs) n.add_input(i);
  for (const auto& o : outputs) n.add_output(o);
  return n;
}

ModelBuilder calling(const std::string& name) {
  ModelBuilder b;
  b.input("x", {"n", "3"});
  b.node(name, {"x"}, {"y"}, "call").set_domain("local");
  b.output("y", {"n", "3"});
  return b;
}

std::vector<std::string> ops_of(const Graph& g) {
  std::vector<std::string> ops;
  for (NodeId id : g.order()) ops.push_back(g.node(id).op);
  return ops;
}

TEST(OnnxFunctions, BodyReplacesTheCall) {
  ModelBuilder b = calling("Twice");
  b.node("Twice", {"y"}, {"z"}, "again").set_domain("local");
  b.output("z", {"n", "3"});
  auto& f = function(b, "Twice", {"a"}, {"r"});
  inner(f, "Add", {"a", "a"}, {"t"});
  inner(f, "Relu", {"t"}, {"r"});
  const auto g = parse_model(b.bytes());
  EXPECT_EQ(ops_of(*g), (std::vector<std::string>{"Add", "Relu", "Add", "Relu"}));
  EXPECT_EQ(g->node(g->first()).name, "call/Add_0");
  onnx::ModelProto out;
  ASSERT_TRUE(out.ParseFromString(serialize_model(*g)));
  EXPECT_EQ(out.functions_size(), 0);
}

TEST(OnnxFunctions, AttributesComeFromTheCallOrAreLeftOut) {
  ModelBuilder b = calling("Turn");
  auto& f = function(b, "Turn", {"a"}, {"r"});
  f.add_attribute("order");
  auto& a = *inner(f, "Transpose", {"a"}, {"r"}).add_attribute();
  a.set_name("perm");
  a.set_type(onnx::AttributeProto::INTS);
  a.set_ref_attr_name("order");
  ModelBuilder given = b;
  test::set_attr(*given.graph().mutable_node(0), "order", std::vector<int64_t>{0, 1});
  const auto with = parse_model(given.bytes());
  EXPECT_EQ(with->node(with->first()).attr_ints("perm"), (std::vector<int64_t>{0, 1}));
  b.graph().mutable_output(0)->mutable_type()->mutable_tensor_type()->clear_shape();
  const auto without = parse_model(b.bytes());
  EXPECT_FALSE(without->node(without->first()).has_attr("perm"));
}

TEST(OnnxFunctions, CallEachOtherAndPassInputsThrough) {
  ModelBuilder b = calling("Outer");
  auto& outer = function(b, "Outer", {"a"}, {"r"});
  inner(outer, "Inner", {"a"}, {"m", "same"}).set_domain("local");
  inner(outer, "Add", {"m", "same"}, {"r"});
  auto& i = function(b, "Inner", {"a"}, {"m", "a"});
  inner(i, "Relu", {"a"}, {"m"});
  const auto g = parse_model(b.bytes());
  EXPECT_EQ(ops_of(*g), (std::vector<std::string>{"Identity", "Relu", "Add"}));
}

TEST(OnnxFunctions, FollowTheirOwnOpset) {
  ModelBuilder b = calling("Old");
  b.graph().mutable_output(0)->mutable_type()->mutable_tensor_type()->clear_shape();
  auto& f = function(b, "Old", {"a"}, {"r"}, 12);
  test::set_attr(inner(f, "Unsqueeze", {"a"}, {"r"}), "axes", std::vector<int64_t>{0});
  const auto g = parse_model(b.bytes());
  EXPECT_EQ(g->type_string(g->outputs()[0]), "f32[1,n,3]");
  EXPECT_EQ(g->node(g->first()).inputs.size(), 2u);
}

TEST(OnnxFunctions, AreRefusedWhenTheyDoNotEndOrDoNotFit) {
  ModelBuilder endless = calling("Self");
  inner(function(endless, "Self", {"a"}, {"r"}), "Self", {"a"}, {"r"}).set_domain("local");
  expect_error(ExitCode::kBadData, {"local.Self", "without end"}, [&] { parse_model(endless.bytes()); });
  ModelBuilder mutual = calling("Ping");
  inner(function(mutual, "Ping", {"a"}, {"r"}), "Pong", {"a"}, {"r"}).set_domain("local");
  inner(function(mutual, "Pong", {"a"}, {"r"}), "Ping", {"a"}, {"r"}).set_domain("local");
  expect_error(ExitCode::kBadData, {"without end"}, [&] { parse_model(mutual.bytes()); });
  ModelBuilder hidden = calling("Deep");  // the call is in a branch
  auto& branch = *inner(function(hidden, "Deep", {"a"}, {"r"}), "If", {"a"}, {"r"}).add_attribute();
  branch.set_name("then_branch");
  branch.set_type(onnx::AttributeProto::GRAPH);
  auto& again = *branch.mutable_g()->add_node();
  again.set_op_type("Deep");
  again.set_domain("local");
  again.add_input("a");
  again.add_output("b");
  branch.mutable_g()->add_output()->set_name("b");
  expect_error(ExitCode::kBadData, {"without end"}, [&] { parse_model(hidden.bytes()); });
  ModelBuilder bomb = calling("B0");  // 2^40 calls
  for (int i = 0; i < 40; ++i) {
    auto& f = function(bomb, "B" + std::to_string(i), {"a"}, {"r"});
    const std::string next = "B" + std::to_string(i + 1);
    inner(f, next, {"a"}, {"t"}).set_domain("local");
    inner(f, next, {"t"}, {"r"}).set_domain("local");
  }
  inner(function(bomb, "B40", {"a"}, {"r"}), "Relu", {"a"}, {"r"});
  expect_error(ExitCode::kUnsupported, {"expand to more than"}, [&] { parse_model(bomb.bytes()); });
  ModelBuilder many = calling("One");
  many.graph().mutable_node(0)->add_input("x");
  inner(function(many, "One", {"a"}, {"r"}), "Relu", {"a"}, {"r"});
  expect_error(ExitCode::kBadData, {"node 'call' (local.One)", "2 inputs"}, [&] { parse_model(many.bytes()); });
  ModelBuilder twice = calling("One");
  function(twice, "One", {"a"}, {"r"});
  function(twice, "One", {"a"}, {"r"});
  expect_error(ExitCode::kBadData, {"defined twice"}, [&] { parse_model(twice.bytes()); });
  ModelBuilder unknown = calling("Odd");
  inner(function(unknown, "Odd", {"a"}, {"r"}), "Frobnicate", {"a"}, {"r"});
  expect_error(ExitCode::kUnsupported, {"Frobnicate", "call/Frobnicate_0"}, [&] { parse_model(unknown.bytes()); });
}

TEST(OnnxFunctions, UnusedOnesAreKept) {
  ModelBuilder b;
  b.input("x", {"2"});
  b.node("Relu", {"x"}, {"y"});
  b.output("y", {"2"});
  inner(function(b, "Spare", {"a"}, {"r"}), "Relu", {"a"}, {"r"});
  onnx::ModelProto out;
  ASSERT_TRUE(out.ParseFromString(serialize_model(*parse_model(b.bytes()))));
  EXPECT_EQ(out.functions_size(), 1);
}

}  // namespace
}  // namespace ds
