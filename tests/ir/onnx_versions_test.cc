// Canonicalisation in both directions.
#include "libds/ir/onnx_versions.h"

#include <algorithm>

#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/ir/op_def.h"
#include "tests/ir/model_builder.h"

namespace ds {
namespace {

using test::ModelBuilder;
using test::expect_error;
using test::set_attr;
using Ints = std::vector<int64_t>;

// What a node says: operator, inputs and attributes, without order or names of constants.
std::string essence(const onnx::NodeProto& n) {
  std::vector<std::string> attrs;
  for (const auto& a : n.attribute()) attrs.push_back(a.ShortDebugString());
  std::sort(attrs.begin(), attrs.end());
  return fmt::format("{}({}) {}", n.op_type(), fmt::join(n.input(), ","), fmt::join(attrs, " "));
}

std::string essence(const onnx::ModelProto& model) {
  std::string all = fmt::format("opset {}\n", model.opset_import(0).version());
  for (const auto& n : model.graph().node()) all += essence(n) + "\n";
  return all;
}

onnx::ModelProto saved(const Graph& g, int64_t opset = 0) {
  onnx::ModelProto model;
  EXPECT_TRUE(model.ParseFromString(serialize_model(g, {opset})));
  return model;
}

struct Case {
  std::string name;
  int64_t opset;
  std::function<void(ModelBuilder&)> build;  // makes node "n" from x (f32[2,1,4,6]) to y
  // Of the canonical node: constant content by input index, and attributes that must be gone.
  std::vector<std::pair<size_t, std::vector<double>>> inputs;
  std::vector<std::string> gone;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::vector<Case> cases() {
  const auto node = [](const char* op, std::function<void(onnx::NodeProto&)> attrs, std::vector<std::string> inputs = {"x"},
                       std::vector<std::string> outputs = {"y"}) {
    return [=](ModelBuilder& b) { attrs(b.node(op, inputs, outputs)); };
  };
  std::vector<Case> all = {
      {"Squeeze", 11, node("Squeeze", [](auto& n) { set_attr(n, "axes", Ints{1}); }), {{1, {1}}}, {"axes"}},
      {"SqueezeAll", 12, node("Squeeze", [](auto&) {}), {}, {}},
      {"Unsqueeze", 12, node("Unsqueeze", [](auto& n) { set_attr(n, "axes", Ints{0, 3}); }), {{1, {0, 3}}}, {"axes"}},
      {"Slice", 9, node("Slice", [](auto& n) {
         set_attr(n, "axes", Ints{2, 3});
         set_attr(n, "starts", Ints{1, 0});
         set_attr(n, "ends", Ints{3, -1});
       }), {{1, {1, 0}}, {2, {3, -1}}, {3, {2, 3}}}, {"axes", "starts", "ends"}},
      {"SliceNoAxes", 7, node("Slice", [](auto& n) {
         set_attr(n, "starts", Ints{1});
         set_attr(n, "ends", Ints{2});
       }), {{1, {1}}, {2, {2}}}, {"starts", "ends"}},
      {"Pad", 10, node("Pad", [](auto& n) {
         set_attr(n, "pads", Ints{0, 0, 1, 1, 0, 0, 1, 1});
         set_attr(n, "mode", std::string("constant"));
         set_attr(n, "value", 0.5f);
       }), {{1, {0, 0, 1, 1, 0, 0, 1, 1}}, {2, {0.5}}}, {"pads", "value"}},
      {"Split", 11, [](ModelBuilder& b) {
         auto& n = b.node("Split", {"x"}, {"y", "z"});
         set_attr(n, "axis", int64_t{3});
         set_attr(n, "split", Ints{2, 4});
       }, {{1, {2, 4}}}, {"split"}},
      {"SplitEqual", 13, [](ModelBuilder& b) { set_attr(b.node("Split", {"x"}, {"y", "z"}), "axis", int64_t{3}); }, {}, {}},
      {"MaxPool", 7, node("MaxPool", [](auto& n) { set_attr(n, "kernel_shape", Ints{2, 2}); }), {}, {}},
      {"AveragePool", 9, node("AveragePool", [](auto& n) { set_attr(n, "kernel_shape", Ints{2, 2}); }), {}, {}},
  };
  const auto reduce = [&](const char* op, int64_t opset) {
    all.push_back({op, opset, node(op, [](auto& n) {
                     set_attr(n, "axes", Ints{1, 3});
                     set_attr(n, "keepdims", int64_t{0});
                   }), {{1, {1, 3}}}, {"axes"}});
  };
  for (const char* op : {"ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"}) reduce(op, 17);
  reduce("ReduceSum", 12);
  all.push_back({"ReduceAll", 12, node("ReduceMean", [](auto&) {}), {}, {}});
  all.push_back({"Clip", 10, node("Clip", [](auto& n) {
                   set_attr(n, "min", -1.5f);
                   set_attr(n, "max", 6.0f);
                 }), {{1, {-1.5}}, {2, {6}}}, {"min", "max"}});
  all.push_back({"ClipMax", 7, node("Clip", [](auto& n) { set_attr(n, "max", 6.0f); }), {{2, {6}}}, {"max"}});
  all.push_back({"Dropout", 11, node("Dropout", [](auto& n) { set_attr(n, "ratio", 0.25f); }), {{1, {0.25}}}, {"ratio"}});
  all.push_back({"TopK", 9, [](ModelBuilder& b) {
                   auto& n = b.node("TopK", {"x"}, {"y", "z"});
                   set_attr(n, "k", int64_t{2});
                   set_attr(n, "axis", int64_t{3});
                 }, {{1, {2}}}, {"k"}});
  all.push_back({"GridSample", 16, [](ModelBuilder& b) {
                   b.floats("grid", {2, 1, 1, 2}, {0, 0, 0, 0});
                   set_attr(b.node("GridSample", {"x", "grid"}, {"y"}), "mode", std::string("bicubic"));
                 }, {}, {}});
  all.push_back({"RoiAlign", 10, [](ModelBuilder& b) {
                   b.floats("rois", {1, 4}, {0, 0, 1, 1});
                   b.ints("images", {0});
                   set_attr(b.node("RoiAlign", {"x", "rois", "images"}, {"y"}), "output_height", int64_t{2});
                 }, {}, {}});
  return all;
}

class OnnxVersions : public testing::TestWithParam<Case> {};

TEST_P(OnnxVersions, UpDownAndThroughTheNewest) {
  const Case& c = GetParam();
  ModelBuilder b(c.opset);
  b.input("x", {"2", "1", "4", "6"});
  c.build(b);
  const onnx::NodeProto& original = b.graph().node(0);
  if (OpRegistry::instance().find("", original.op_type()) == nullptr) FAIL() << "no operator " << original.op_type();
  for (const std::string& out : original.output()) {
    b.output(out, {});
    b.graph().mutable_output(b.graph().output_size() - 1)->clear_type();
  }
  const auto g = parse_model(b.bytes());
  ASSERT_EQ(g->node_count(), 1u);
  const Node& n = g->node(g->first());
  for (const auto& [index, content] : c.inputs) {
    ASSERT_NE(n.input(index), kNone) << index;
    ASSERT_TRUE(g->value(n.inputs[index]).is_constant());
    EXPECT_EQ(g->value(n.inputs[index]).constant->to_doubles(), content);
  }
  for (const std::string& key : c.gone) EXPECT_FALSE(n.has_attr(key)) << key;

  EXPECT_EQ(essence(saved(*g)), essence(b.model));
  // Written in the newest form, read again, and written back.
  const auto newest = parse_model(serialize_model(*g, {kNewestOpset}));
  EXPECT_EQ(newest->opsets.at(""), kNewestOpset);
  EXPECT_EQ(essence(saved(*newest, c.opset)), essence(b.model));
}

INSTANTIATE_TEST_SUITE_P(All, OnnxVersions, testing::ValuesIn(cases()), [](const auto& info) { return info.param.name; });

// --- softmax: flattened before 13 --------------------------------------------------------------

std::shared_ptr<Graph> softmax(int64_t opset, std::vector<std::string> dims, std::optional<int64_t> axis) {
  ModelBuilder b(opset);
  b.input("x", dims);
  auto& n = b.node("Softmax", {"x"}, {"y"}, "soft");
  if (axis) set_attr(n, "axis", *axis);
  b.output("y", dims);
  return parse_model(b.bytes());
}

TEST(OnnxVersionsSoftmax, OneWideAxisStaysOneNode) {
  const auto matrix = softmax(11, {"n", "10"}, std::nullopt);
  ASSERT_EQ(matrix->node_count(), 1u);
  EXPECT_EQ(matrix->node(matrix->first()).attr_int("axis", -1), 1);
  const auto image = softmax(9, {"n", "10", "1", "1"}, 1);
  ASSERT_EQ(image->node_count(), 1u);
  EXPECT_EQ(image->node(image->first()).attr_int("axis", -1), 1);
  EXPECT_EQ(saved(*image).opset_import(0).version(), 9);
}

TEST(OnnxVersionsSoftmax, SeveralWideAxesAreFlattened) {
  const auto g = softmax(11, {"n", "3", "4"}, 1);
  std::vector<std::string> ops;
  for (NodeId id : g->order()) ops.push_back(g->node(id).op);
  EXPECT_EQ(ops, (std::vector<std::string>{"Flatten", "Softmax", "Shape", "Reshape"}));
  EXPECT_EQ(g->value(g->outputs()[0]).name, "y");
  EXPECT_EQ(g->type_string(g->outputs()[0]), "f32[n,3,4]");
}

TEST(OnnxVersionsSoftmax, NewMeaningRaisesTheOpset) {
  const auto g = softmax(13, {"n", "3", "4"}, 1);
  EXPECT_EQ(least_opset(*g).opset, 13);
  g->opsets[""] = 11;
  EXPECT_EQ(saved(*g).opset_import(0).version(), 13);
  expect_error(ExitCode::kUnsupported, {"node 'soft' (Softmax) needs opset 13, 12 was asked for"}, [&] { serialize_model(*g, {12}); });
}

// --- others ------------------------------------------------------------------------------------

ModelBuilder batch_norm(int64_t opset, std::vector<std::string> outputs) {
  ModelBuilder b(opset);
  b.input("x", {"n", "2", "4", "4"});
  for (const char* name : {"scale", "bias", "mean", "var"}) b.floats(name, {2}, {1, 1});
  b.node("BatchNormalization", {"x", "scale", "bias", "mean", "var"}, std::move(outputs), "bn");
  b.output("y", {"n", "2", "4", "4"});
  return b;
}

TEST(OnnxVersionsBatchNorm, OutputsMeanTraining) {
  const auto inference = parse_model(batch_norm(9, {"y"}).bytes());
  EXPECT_EQ(inference->node(inference->first()).attr_int("training_mode", 0), 0);
  EXPECT_EQ(saved(*inference).opset_import(0).version(), 9);
  // Outputs nobody reads do not make it training.
  const auto unread = parse_model(batch_norm(9, {"y", "m", "v", "sm", "sv"}).bytes());
  EXPECT_EQ(unread->node(unread->first()).outputs.size(), 1u);
  ModelBuilder training = batch_norm(9, {"y", "m", "v"});
  training.output("m", {"2"});
  const auto g = parse_model(training.bytes());
  EXPECT_EQ(g->node(g->first()).attr_int("training_mode", 0), 1);
  EXPECT_EQ(saved(*g).opset_import(0).version(), 14);
  ModelBuilder saved_stats = batch_norm(9, {"y", "m", "v", "sm", "sv"});
  saved_stats.output("sm", {"2"});
  expect_error(ExitCode::kUnsupported, {"node 'bn' (BatchNormalization)", "saved statistics"}, [&] { parse_model(saved_stats.bytes()); });
  ModelBuilder spatial = batch_norm(7, {"y"});
  set_attr(*spatial.graph().mutable_node(0), "spatial", int64_t{0});
  expect_error(ExitCode::kUnsupported, {"node 'bn'", "spatial"}, [&] { parse_model(spatial.bytes()); });
}

TEST(OnnxVersionsResize, UpsampleAndBack) {
  ModelBuilder old(7);
  old.input("x", {"1", "2", "4", "4"});
  auto& n = old.node("Upsample", {"x"}, {"y"}, "up");
  set_attr(n, "mode", std::string("nearest"));
  set_attr(n, "scales", std::vector<float>{1, 1, 2, 2});
  old.output("y", {"1", "2", "8", "8"});
  const auto g = parse_model(old.bytes());
  const Node& resize = g->node(g->first());
  EXPECT_EQ(resize.op, "Resize");
  EXPECT_EQ(resize.attr_string("coordinate_transformation_mode", ""), "asymmetric");
  EXPECT_EQ(g->type_string(g->outputs()[0]), "f32[1,2,8,8]");
  EXPECT_EQ(essence(saved(*g)), essence(old.model));
  EXPECT_EQ(saved(*g, 9).graph().node(0).input_size(), 2);
  EXPECT_EQ(saved(*g, 10).graph().node(0).op_type(), "Resize");
  EXPECT_EQ(saved(*g, 11).graph().node(0).input_size(), 3);
  const auto newest = parse_model(serialize_model(*g, {kNewestOpset}));
  EXPECT_EQ(essence(saved(*newest, 7)), essence(old.model));
}

TEST(OnnxVersionsRaise, ToTheLeastThatCanSayIt) {
  Graph g;
  Rewriter rw(g);
  g.opsets[""] = 9;
  const ValueId x = rw.add_input("x", DType::kF32, {2, 4});
  const ValueId axes = rw.add_input("axes", DType::kI64, {1});
  rw.add_output(rw.emit("Unsqueeze", {x, axes}, {}, "u"));
  EXPECT_EQ(least_opset(g).opset, 13);  // the axes are computed: no attribute can hold them
  const onnx::ModelProto model = saved(g);
  EXPECT_EQ(model.opset_import(0).version(), 13);
  EXPECT_GE(model.ir_version(), 7);
}

TEST(OnnxVersionsRaise, NegativeAxesCountFromTheFrontInOldFiles) {
  Graph g;
  Rewriter rw(g);
  g.opsets[""] = 9;
  const ValueId x = rw.add_input("x", DType::kF32, {2, 4});
  const ValueId u = rw.emit("Unsqueeze", {x, rw.add_constant("axes", Tensor::vector<int64_t>(Ints{-1}))}, {}, "u");
  rw.add_output(rw.emit("Concat", {u, u}, {{"axis", int64_t{-2}}}, "c"));
  const onnx::ModelProto model = saved(g);
  EXPECT_EQ(model.opset_import(0).version(), 9);
  EXPECT_EQ(model.graph().node(0).attribute(0).ints(0), 2);
  EXPECT_EQ(model.graph().node(1).attribute(0).i(), 1);
}

TEST(OnnxVersionsRaise, UnevenSplitIsSpelledOut) {
  Graph g;
  Rewriter rw(g);
  g.opsets[""] = 12;
  const ValueId x = rw.add_input("x", DType::kF32, {7});
  const NodeId split = rw.add_node("Split", {x}, {{"axis", int64_t{0}}, {"num_outputs", int64_t{2}}}, "s", 2);
  for (ValueId out : Ints(g.node(split).outputs.begin(), g.node(split).outputs.end())) rw.add_output(static_cast<ValueId>(out));
  const onnx::ModelProto model = saved(g);
  EXPECT_EQ(essence(model.graph().node(0)).find("num_outputs"), std::string::npos);
  const auto again = parse_model(model.SerializeAsString());
  EXPECT_EQ(again->type_string(again->outputs()[0]), "f32[4]");
  EXPECT_EQ(again->type_string(again->outputs()[1]), "f32[3]");
}

}  // namespace
}  // namespace ds
