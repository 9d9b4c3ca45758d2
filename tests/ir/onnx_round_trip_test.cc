// What is written can be read, and written again to the same bytes, names and all.
#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "tests/ir/model_builder.h"

namespace ds {
namespace {

using test::ModelBuilder;

std::string rewritten(const std::string& bytes) { return serialize_model(*parse_model(bytes)); }

onnx::ModelProto parsed(const std::string& bytes) {
  onnx::ModelProto model;
  EXPECT_TRUE(model.ParseFromString(bytes));
  return model;
}

// Versions 11 and 12 spell out inputs that later ones omit; the constants for that keep one name.
TEST(OnnxRoundTrip, EmptyInputsOfAnOldResize) {
  ModelBuilder b(11);
  b.input("x", {"1", "2", "4", "4"});
  b.floats("resize.roi", {0}, {});
  b.floats("none", {0}, {});
  b.ints("sizes", {1, 2, 8, 8});
  b.node("Resize", {"x", "resize.roi", "none", "sizes"}, {"y"}, "resize");
  b.output("y", {"1", "2", "8", "8"});
  const std::string once = rewritten(b.bytes());
  EXPECT_EQ(once, rewritten(once));
  const onnx::ModelProto out = parsed(once);
  ASSERT_EQ(out.graph().node(0).input_size(), 4);
  EXPECT_EQ(out.graph().node(0).input(1), "resize.roi");
  EXPECT_EQ(out.graph().node(0).input(2), "resize.scales");
  EXPECT_EQ(out.graph().initializer_size(), 3);
}

// Operators of ai.onnx.ml stay as they were, as does the domain's version.
TEST(OnnxRoundTrip, ClassicalModels) {
  ModelBuilder b;
  b.input("x", {"n", "2"});
  auto* import = b.model.add_opset_import();
  import->set_domain("ai.onnx.ml");
  import->set_version(3);
  auto& scaler = b.node("Scaler", {"x"}, {"s"}, "scaler");
  scaler.set_domain("ai.onnx.ml");
  auto& scale = *scaler.add_attribute();
  scale.set_name("scale");
  scale.set_type(onnx::AttributeProto::FLOATS);
  scale.add_floats(2);
  auto& classifier = b.node("LinearClassifier", {"s"}, {"label", "score"}, "classifier");
  classifier.set_domain("ai.onnx.ml");
  auto& coefficients = *classifier.add_attribute();
  coefficients.set_name("coefficients");
  coefficients.set_type(onnx::AttributeProto::FLOATS);
  for (float v : {1.0f, 2.0f, 3.0f, 4.0f}) coefficients.add_floats(v);
  auto& labels = *classifier.add_attribute();
  labels.set_name("classlabels_strings");
  labels.set_type(onnx::AttributeProto::STRINGS);
  for (const char* v : {"no", "yes"}) labels.add_strings(v);
  b.output("label", {"n"}, onnx::TensorProto::STRING);
  b.output("score", {"n", "2"});
  const std::string once = rewritten(b.bytes());
  EXPECT_EQ(once, rewritten(once));
  const onnx::ModelProto out = parsed(once);
  ASSERT_EQ(out.opset_import_size(), 2);
  EXPECT_EQ(out.opset_import(1).domain(), "ai.onnx.ml");
  EXPECT_EQ(out.opset_import(1).version(), 3);
  ASSERT_EQ(out.graph().node_size(), 2);
  EXPECT_EQ(out.graph().node(1).op_type(), "LinearClassifier");
  EXPECT_EQ(out.graph().node(1).attribute_size(), 2);
}

// Initializers of the model that only bodies read stay where they are, under their names.
TEST(OnnxRoundTrip, ConstantsThatOnlyBodiesRead) {
  ModelBuilder b;
  b.input("x", {"n"});
  b.input("flag", {}, onnx::TensorProto::BOOL);
  b.floats("both", {1}, {2});
  b.floats("one", {1}, {3}).set_doc_string("kept");
  auto& n = b.node("If", {"flag"}, {"y"}, "if");
  for (const char* side : {"then_branch", "else_branch"}) {
    ModelBuilder body;
    const bool is_then = std::string(side) == "then_branch";
    body.node("Mul", {"x", "both"}, {std::string(side) + "_m"}, std::string(side) + "_mul");
    body.node("Add", {std::string(side) + "_m", is_then ? "one" : "both"}, {std::string(side) + "_y"}, std::string(side) + "_add");
    body.output(std::string(side) + "_y", {"n"});
    auto& a = *n.add_attribute();
    a.set_name(side);
    a.set_type(onnx::AttributeProto::GRAPH);
    *a.mutable_g() = body.graph();
  }
  b.output("y", {"n"});
  const std::string once = rewritten(b.bytes());
  EXPECT_EQ(once, rewritten(once));
  const onnx::ModelProto out = parsed(once);
  ASSERT_EQ(out.graph().initializer_size(), 2);
  EXPECT_EQ(out.graph().initializer(0).name(), "both");
  EXPECT_EQ(out.graph().initializer(1).name(), "one");
  EXPECT_EQ(out.graph().initializer(1).doc_string(), "kept");
  for (const onnx::AttributeProto& a : out.graph().node(0).attribute()) EXPECT_EQ(a.g().initializer_size(), 0);
}

// Two names for what is one size: each stays where the file has it.
TEST(OnnxRoundTrip, NamesOfDimensionsAreTheFilesOwn) {
  ModelBuilder b;
  b.input("x", {"batch", "width"});
  b.node("Relu", {"x"}, {"y"});
  b.output("y", {"rows", "width"});
  const onnx::ModelProto out = parsed(rewritten(b.bytes()));
  EXPECT_EQ(out.graph().output(0).type().tensor_type().shape().dim(0).dim_param(), "rows");
  EXPECT_EQ(out.graph().input(0).type().tensor_type().shape().dim(0).dim_param(), "batch");
}

}  // namespace
}  // namespace ds
