// Operator-set versions 1 to 6: what they said otherwise.
#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/ir/onnx_versions.h"
#include "libds/ir/op_def.h"
#include "tests/ir/model_builder.h"

namespace ds {
namespace {

using test::ModelBuilder;
using test::expect_error;
using test::set_attr;
using Ints = std::vector<int64_t>;
using Strings = std::vector<std::string>;

// Node "n" of `op`, from `inputs` (x: f32[2,3,4,6] and what `more` adds) to y.
ModelBuilder model_of(int64_t opset, const std::string& op, const Strings& inputs, const std::function<void(ModelBuilder&, onnx::NodeProto&)>& more,
                      int dtype = 1) {
  ModelBuilder b(opset);
  b.input("x", {"2", "3", "4", "6"});
  more(b, b.node(op, inputs, {"y"}));
  b.output("y", {}, dtype);
  b.graph().mutable_output(0)->clear_type();
  return b;
}

std::shared_ptr<Graph> parsed(int64_t opset, const std::string& op, const Strings& inputs,
                              const std::function<void(ModelBuilder&, onnx::NodeProto&)>& more) {
  return parse_model(model_of(opset, op, inputs, more).bytes());
}

std::string type_of_y(const Graph& g) { return g.type_string(g.outputs()[0]); }
const Node& last_node(const Graph& g) { return g.node(g.last()); }
Strings ops_of(const Graph& g) {
  Strings ops;
  for (NodeId id : g.order()) ops.push_back(g.node(id).op);
  return ops;
}

TEST(OnnxVersionsEarly, BroadcastAtAnAxis) {
  for (const char* op : {"Add", "Sub", "Mul", "Div", "Pow"}) {
    const auto g = parsed(6, op, {"x", "b"}, [](auto& b, auto& n) {
      b.floats("b", {3, 4}, std::vector<float>(12, 2));
      set_attr(n, "broadcast", int64_t{1});
      set_attr(n, "axis", int64_t{1});
    });
    EXPECT_EQ(ops_of(*g), (Strings{"Unsqueeze", op}));
    EXPECT_EQ(g->type_string(last_node(*g).inputs[1]), "f32[3,4,1]");
    EXPECT_EQ(type_of_y(*g), "f32[2,3,4,6]");
    EXPECT_FALSE(last_node(*g).has_attr("axis") || last_node(*g).has_attr("broadcast"));
  }
  const auto suffix = parsed(1, "Add", {"x", "b"}, [](auto& b, auto& n) {
    b.floats("b", {4, 6}, std::vector<float>(24, 2));
    set_attr(n, "broadcast", int64_t{1});
    set_attr(n, "consumed_inputs", Ints{0, 0});
  });
  EXPECT_EQ(ops_of(*suffix), Strings{"Add"});
  EXPECT_TRUE(last_node(*suffix).attrs.empty());
  const auto bad = model_of(6, "Add", {"x", "b"}, [](auto& b, auto& n) {
    b.floats("b", {3, 4}, std::vector<float>(12, 2));
    set_attr(n, "broadcast", int64_t{1});
    set_attr(n, "axis", int64_t{3});
  });
  expect_error(ExitCode::kBadData, {"node 'n' (Add)", "does not fit at axis 3"}, [&] { parse_model(bad.bytes()); });
}

TEST(OnnxVersionsEarly, SlopePerChannel) {
  const auto g = parsed(6, "PRelu", {"x", "s"}, [](auto& b, auto&) { b.floats("s", {3}, {1, 2, 3}); });
  EXPECT_EQ(g->type_string(last_node(*g).inputs[1]), "f32[3,1,1]");
  const auto shared = parsed(6, "PRelu", {"x", "s"}, [](auto& b, auto&) { b.floats("s", {1}, {1}); });
  EXPECT_EQ(ops_of(*shared), Strings{"PRelu"});
}

TEST(OnnxVersionsEarly, InputsThatWereAttributes) {
  const auto reshape = parsed(1, "Reshape", {"x"}, [](auto&, auto& n) {
    set_attr(n, "shape", Ints{0, -1});
    set_attr(n, "consumed_inputs", Ints{0});
  });
  EXPECT_EQ(type_of_y(*reshape), "f32[2,72]");
  const auto pad = parsed(1, "Pad", {"x"}, [](auto&, auto& n) { set_attr(n, "paddings", Ints{0, 0, 1, 0, 0, 0, 0, 2}); });
  EXPECT_EQ(type_of_y(*pad), "f32[2,3,5,8]");
  const auto up = parsed(1, "Upsample", {"x"}, [](auto&, auto& n) {
    set_attr(n, "height_scale", 2.0f);
    set_attr(n, "width_scale", 3.0f);
    set_attr(n, "mode", std::string("bilinear"));
  });
  EXPECT_EQ(type_of_y(*up), "f32[2,3,8,18]");
  EXPECT_EQ(last_node(*up).attr_string("mode", ""), "linear");
}

TEST(OnnxVersionsEarly, InputsThatChanged) {
  const auto scalar = [](ModelBuilder& b, const char* name, float v) { b.floats(name, {}, {v}); };
  const auto tile = parsed(1, "Tile", {"x", "t", "a"}, [&](auto& b, auto&) {
    scalar(b, "t", 3);
    scalar(b, "a", 2);
  });
  EXPECT_EQ(type_of_y(*tile), "f32[2,3,12,6]");
  EXPECT_EQ(last_node(*tile).inputs.size(), 2u);
  const auto split = parsed(1, "Split", {"x", "s"}, [](auto& b, auto& n) {
    b.floats("s", {1}, {4});
    set_attr(n, "axis", int64_t{2});
  });
  EXPECT_EQ(type_of_y(*split), "f32[2,3,4,6]");
}

TEST(OnnxVersionsEarly, AttributesThatChanged) {
  const auto cast = parsed(1, "Cast", {"x"}, [](auto&, auto& n) { set_attr(n, "to", std::string("INT32")); });
  EXPECT_EQ(type_of_y(*cast), "i32[2,3,4,6]");
  const auto concat = parsed(1, "Concat", {"x", "x"}, [](auto&, auto&) {});
  EXPECT_EQ(type_of_y(*concat), "f32[2,6,4,6]");
  const auto selu = parsed(1, "Selu", {"x"}, [](auto&, auto&) {});
  EXPECT_EQ(last_node(*selu).attr_float("gamma", 0), 1.0507f);
  EXPECT_FALSE(last_node(*parsed(6, "Selu", {"x"}, [](auto&, auto&) {})).has_attr("gamma"));
}

TEST(OnnxVersionsEarly, TestModeIsInference) {
  const auto g = parsed(6, "BatchNormalization", {"x", "v", "v", "v", "v"}, [](auto& b, auto& n) {
    b.floats("v", {3}, {1, 1, 1});
    set_attr(n, "is_test", int64_t{1});
    n.add_output("unread");
  });
  EXPECT_EQ(last_node(*g).outputs.size(), 1u);
  EXPECT_FALSE(last_node(*g).has_attr("is_test"));
  EXPECT_EQ(last_node(*g).attr_int("training_mode", 0), 0);
  EXPECT_FALSE(last_node(*parsed(6, "Dropout", {"x"}, [](auto&, auto& n) { set_attr(n, "is_test", int64_t{1}); })).has_attr("is_test"));
}

// Without is_test the outputs say which mode is meant: "Y (test mode)" or all five.
TEST(OnnxVersionsEarly, TheOutputsSayTheModeOfBatchNormalization) {
  for (const bool spelt : {false, true}) {
    const auto make = [&](auto& b, auto& n) {
      b.floats("v", {3}, {1, 1, 1});
      if (spelt) set_attr(n, "is_test", int64_t{0});
    };
    const auto inference = parsed(6, "BatchNormalization", {"x", "v", "v", "v", "v"}, make);
    EXPECT_EQ(last_node(*inference).attr_int("training_mode", 0), 0);
    const auto training = parsed(6, "BatchNormalization", {"x", "v", "v", "v", "v"}, [&](auto& b, auto& n) {
      make(b, n);
      n.add_output("mean");
      n.add_output("var");
      b.output("mean", {"3"});
    });
    EXPECT_EQ(last_node(*training).attr_int("training_mode", 0), 1);
  }
}

// They are read, not written: what is saved says the same at version 7 or later.
TEST(OnnxVersionsEarly, AreWrittenAsSeven) {
  const auto g = parsed(1, "Reshape", {"x"}, [](auto&, auto& n) { set_attr(n, "shape", Ints{-1}); });
  onnx::ModelProto saved;
  ASSERT_TRUE(saved.ParseFromString(serialize_model(*g)));
  EXPECT_EQ(saved.opset_import(0).version(), 7);
  EXPECT_EQ(type_of_y(*parse_model(saved.SerializeAsString())), "f32[144]");
  expect_error(ExitCode::kUnsupported, {"opset 6 cannot be written"}, [&] { serialize_model(*g, {6}); });
}

}  // namespace
}  // namespace ds
