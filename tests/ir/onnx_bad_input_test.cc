// What the importer refuses: one line that names file, node and reason, and the right exit code.
#include "libds/ir/onnx_import.h"
#include "tests/ir/model_builder.h"

namespace ds {
namespace {

using test::Folder;
using test::ModelBuilder;
using test::expect_error;

void expect_bad(const ModelBuilder& b, const std::vector<std::string>& parts, ExitCode code = ExitCode::kBadData) {
  expect_error(code, parts, [&] { parse_model(b.bytes()); });
}

// x -> Relu -> y, to break.
ModelBuilder relu_model(int64_t opset = 17) {
  ModelBuilder b(opset);
  b.input("x", {"2"});
  b.node("Relu", {"x"}, {"y"}, "act");
  b.output("y", {"2"});
  return b;
}

TEST(OnnxBadInput, MissingFileAndFolder) {
  Folder folder;
  expect_error(ExitCode::kNoInput, {"nowhere.onnx"}, [&] { load_model(folder / "nowhere.onnx"); });
  expect_error(ExitCode::kNoInput, {"not a regular file"}, [&] { load_model(folder / ""); });
}

TEST(OnnxBadInput, EmptyTruncatedAndForeignFiles) {
  Folder folder;
  expect_error(ExitCode::kBadData, {"e.onnx: is empty"}, [&] { load_model(folder.write("e.onnx", "")); });
  expect_error(ExitCode::kBadData, {"t.txt: not an ONNX model"}, [&] { load_model(folder.write("t.txt", "hello, this is text\n")); });
  expect_error(ExitCode::kBadData, {"not an ONNX model"}, [&] { parse_model(std::string(4096, '\0')); });
  const std::string whole = relu_model().bytes();
  for (size_t n = 1; n < whole.size(); ++n) {
    try {
      parse_model(whole.substr(0, n));
      // Some prefixes are complete messages by themselves; they lack trailing fields only.
    } catch (const Error& e) {
      EXPECT_TRUE(e.code() == ExitCode::kBadData || e.code() == ExitCode::kUnsupported) << n << ": " << e.what();
    }
  }
  expect_error(ExitCode::kBadData, {"truncated"}, [&] { parse_model(whole.substr(0, whole.size() - 1)); });
}

TEST(OnnxBadInput, DeepNestingIsRefusedNotFollowed) {
  onnx::ModelProto model = relu_model().model;
  onnx::GraphProto* g = model.mutable_graph();
  for (int i = 0; i < 5000; ++i) {
    auto* n = g->add_node();
    n->set_op_type("If");
    g = n->add_attribute()->mutable_g();
  }
  std::string bytes;
  model.SerializeToString(&bytes);
  expect_error(ExitCode::kBadData, {"nested too deep"}, [&] { parse_model(bytes); });
}

// A length-delimited field around `body`.
std::string field(int number, const std::string& body) {
  std::string text(1, static_cast<char>((number << 3) | 2));
  size_t n = body.size();
  for (; n >= 0x80; n >>= 7) text.push_back(static_cast<char>(n | 0x80));
  text.push_back(static_cast<char>(n));
  return text + body;
}

TEST(OnnxBadInput, TenThousandLevelsOfAnything) {
  const std::string whole = relu_model().bytes();
  std::string graph, type, group(20000, '\xcb'), sparse;
  for (int i = 0; i < 10000; ++i) {
    graph = field(1, field(5, field(6, graph)));  // graph { node { attribute { g
    type = field(4, field(1, type));              // sequence_type { elem_type
  }
  for (size_t i = 1; i < group.size(); i += 2) group[i] = '\x06';  // groups that never end
  expect_error(ExitCode::kBadData, {"nested too deep"}, [&] { parse_model(whole + field(7, graph)); });
  expect_error(ExitCode::kBadData, {"not an ONNX model"}, [&] { parse_model(whole + field(7, field(11, field(2, type)))); });
  expect_error(ExitCode::kBadData, {"not an ONNX model"}, [&] { parse_model(whole + group); });
  expect_error(ExitCode::kBadData, {"not an ONNX model"}, [&] { parse_model(whole + field(7, field(5, group))); });
}

TEST(OnnxBadInput, OpsetAndOperatorsAtOnce) {
  ModelBuilder b = relu_model(1000);
  b.node("Frobnicate", {"x"}, {"a"}, "f1");
  b.node("FusedThing", {"x"}, {"c"}, "ft").set_domain("com.example");
  expect_bad(b, {"opset 1000 is not supported", "Frobnicate", "com.example.FusedThing"}, ExitCode::kUnsupported);
}

TEST(OnnxBadInput, Opsets) {
  expect_bad(relu_model(0), {"opset 0 is not supported"}, ExitCode::kUnsupported);
  expect_bad(relu_model(1000), {"opset 1000"}, ExitCode::kUnsupported);
  expect_bad(relu_model(-1), {"opset -1"}, ExitCode::kUnsupported);
  ModelBuilder none = relu_model();
  none.model.clear_opset_import();
  expect_bad(none, {"no opset is given"});
  ModelBuilder twice = relu_model();
  auto* import = twice.model.add_opset_import();
  import->set_domain("ai.onnx");
  import->set_version(9);
  expect_bad(twice, {"given twice"});
  ModelBuilder old = relu_model();
  old.model.set_ir_version(1);
  expect_bad(old, {"IR version 1"}, ExitCode::kUnsupported);
}

ModelBuilder ml_model(int64_t opset) {
  ModelBuilder b = relu_model();
  b.node("Binarizer", {"x"}, {"a"}, "ml").set_domain("ai.onnx.ml");
  auto* import = b.model.add_opset_import();
  import->set_domain("ai.onnx.ml");
  import->set_version(opset);
  return b;
}

TEST(OnnxBadInput, OpsetsOfTheClassicalDomain) {
  for (int64_t opset = 1; opset <= 5; ++opset) EXPECT_NO_THROW(parse_model(ml_model(opset).bytes()));
  for (int64_t opset : {0, 6, -1}) expect_bad(ml_model(opset), {fmt::format("opset {} of domain ai.onnx.ml", opset)}, ExitCode::kUnsupported);
  ModelBuilder none = ml_model(3);
  none.model.mutable_opset_import()->RemoveLast();
  expect_bad(none, {"no opset is given for domain ai.onnx.ml"});
}

TEST(OnnxBadInput, MapsAreRefusedWithAdvice) {
  ModelBuilder b = ml_model(3);
  b.node("ZipMap", {"a"}, {"z"}, "zip").set_domain("ai.onnx.ml");
  expect_bad(b, {"ai.onnx.ml.ZipMap", "node 'zip'", "maps are not supported", "'zipmap': False"}, ExitCode::kUnsupported);
}

TEST(OnnxBadInput, AllUnknownOperatorsAtOnce) {
  ModelBuilder b = relu_model();
  b.node("Frobnicate", {"x"}, {"a"}, "f1");
  b.node("Frobnicate", {"x"}, {"b"}, "f2");
  b.node("FusedThing", {"x"}, {"c"}, "ft").set_domain("com.example");
  b.node("ReluGrad", {"x", "x"}, {"d"}, "sneaky").set_domain("ai.ds");
  auto* inner = b.node("If", {"x"}, {"e"}, "branch").add_attribute();
  inner->set_name("then_branch");
  inner->set_type(onnx::AttributeProto::GRAPH);
  auto* n = inner->mutable_g()->add_node();
  n->set_op_type("Innermost");
  n->set_name("deep");
  expect_bad(b, {"Frobnicate", "'f1', 'f2'", "com.example.FusedThing", "'ft'", "Innermost", "'deep'", "ReluGrad", "ai.onnx 17"},
             ExitCode::kUnsupported);
  ImportOptions look;
  look.allow_unknown_ops = true;
  EXPECT_EQ(parse_model(b.bytes(), {}, look)->node_count(), 6u);
}

TEST(OnnxBadInput, CycleNamesANode) {
  ModelBuilder b;
  b.input("x", {"2"});
  b.node("Add", {"x", "q"}, {"p"}, "one");
  b.node("Relu", {"p"}, {"q"}, "two");
  b.output("q", {"2"});
  expect_bad(b, {"cycle", "node '"});
}

TEST(OnnxBadInput, DuplicateNames) {
  ModelBuilder inputs = relu_model();
  inputs.input("x", {"2"});
  expect_bad(inputs, {"two inputs are named 'x'"});
  ModelBuilder outputs = relu_model();
  outputs.output("y", {"2"});
  expect_bad(outputs, {"two outputs are named 'y'"});
  ModelBuilder made = relu_model();
  made.node("Relu", {"x"}, {"y"}, "again");
  expect_bad(made, {"node 'again' (Relu)", "'y' is made by something else"});
  ModelBuilder over = relu_model();
  over.node("Relu", {"x"}, {"x"}, "over");
  expect_bad(over, {"node 'over' (Relu)", "'x'"});
  ModelBuilder weights = relu_model();
  weights.floats("w", {1}, {1});
  weights.floats("w", {1}, {2});
  expect_bad(weights, {"two initializers are named 'w'"});
}

TEST(OnnxBadInput, DanglingInputsAndOutputs) {
  ModelBuilder in = relu_model();
  in.node("Add", {"x", "nobody"}, {"z"}, "dangling");
  expect_bad(in, {"node 'dangling' (Add)", "'nobody' is not made"});
  ModelBuilder out = relu_model();
  out.output("ghost", {"2"});
  expect_bad(out, {"output 'ghost' is not made"});
  ModelBuilder none = relu_model();
  none.graph().clear_output();
  expect_bad(none, {"no outputs"});
}

TEST(OnnxBadInput, Arity) {
  ModelBuilder few = relu_model();
  few.node("Add", {"x"}, {"z"}, "lonely");
  expect_bad(few, {"node 'lonely' (Add): has 1 inputs, expected 2"});
  ModelBuilder many = relu_model();
  many.node("Relu", {"x", "x"}, {"z"}, "crowd");
  expect_bad(many, {"node 'crowd' (Relu): has 2 inputs, expected 1"});
  ModelBuilder omitted = relu_model();
  omitted.node("Add", {"", "x"}, {"z"}, "gap");
  expect_bad(omitted, {"node 'gap' (Add): input 0 is left out"});
  ModelBuilder outputs = relu_model();
  outputs.node("Relu", {"x"}, {"z", "w"}, "twins");
  expect_bad(outputs, {"node 'twins' (Relu): has 2 outputs, expected 1"});
  ModelBuilder nothing = relu_model();
  nothing.node("Relu", {"x"}, {}, "mute");
  expect_bad(nothing, {"node 'mute' (Relu): has 0 outputs"});
}

TEST(OnnxBadInput, TensorData) {
  const auto with = [](const std::function<void(ModelBuilder&)>& add) {
    ModelBuilder b = relu_model();
    add(b);
    return b;
  };
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {2}, 1).set_raw_data("1234567"); }), {"tensor 'w'", "7 bytes", "needs 8"});
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {2}, 1).set_raw_data("123456789"); }), {"9 bytes"});
  expect_bad(with([](ModelBuilder& b) { b.floats("w", {2}, {1}); }), {"tensor 'w'", "1 elements", "needs 2"});
  expect_bad(with([](ModelBuilder& b) { b.floats("w", {2}, {1, 2, 3}); }), {"3 elements"});
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {1LL << 40, 1LL << 40}, 1); }), {"tensor 'w'", "overflows"});
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {1LL << 61}, 11); }), {"overflows"});
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {1LL << 40}, 1); }), {"0 elements"});
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {-2}, 1); }), {"negative dimension"});
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {1}, 999); }), {"unknown element type 999"});
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {1}, 0); }), {"element type is undefined"});
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {1}, -1); }), {"unknown element type -1"});
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {2}, 8).add_string_data("s"); }), {"1 strings", "needs 2"});
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {1LL << 40}, 8); }), {"0 strings"});
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {3}, 22).add_int32_data(1); }), {"1 bytes", "needs 2"});
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {1}, 14); }), {"complex64 is not supported"}, ExitCode::kUnsupported);
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {1}, 3).add_int32_data(300); }), {"300", "does not fit i8"});
  expect_bad(with([](ModelBuilder& b) { b.initializer("w", {1}, 10).add_int32_data(-1); }), {"not a 16-bit pattern"});
  expect_bad(with([](ModelBuilder& b) { b.floats("", {1}, {1}); }), {"an initializer has no name"});
  expect_bad(with([](ModelBuilder& b) { b.graph().add_sparse_initializer(); }), {"sparse"}, ExitCode::kUnsupported);
}

// 27 and 28 are the 6-bit floats of onnx 1.23; what comes after them is as likely a newer type.
TEST(OnnxBadInput, ElementTypesOfANewerOnnx) {
  for (const int number : {27, 28, 29, 100}) {
    const std::string named = "element type number " + std::to_string(number);
    ModelBuilder weight = relu_model();
    weight.initializer("w", {4}, number).set_raw_data("123");
    expect_bad(weight, {"tensor 'w'", named, "26"}, ExitCode::kUnsupported);
    ModelBuilder input = relu_model();
    input.input("packed", {"4"}, number);
    expect_bad(input, {"input 'packed'", named}, ExitCode::kUnsupported);
    ModelBuilder cast = relu_model();
    test::set_attr(cast.node("Cast", {"x"}, {"z"}, "cast"), "to", int64_t{number});
    expect_bad(cast, {"node 'cast' (Cast)", named}, ExitCode::kUnsupported);
  }
  ModelBuilder cast = relu_model();
  test::set_attr(cast.node("Cast", {"x"}, {"z"}, "cast"), "to", int64_t{1001});
  expect_bad(cast, {"node 'cast' (Cast)", "unknown element type 1001"});
}

TEST(OnnxBadInput, Types) {
  ModelBuilder none = relu_model();
  none.graph().add_input()->set_name("untyped");
  expect_bad(none, {"input 'untyped'", "no type"});
  ModelBuilder map = relu_model();
  auto* info = map.graph().add_input();
  info->set_name("list");
  info->mutable_type()->mutable_map_type();
  expect_bad(map, {"input 'list'", "only tensors"}, ExitCode::kUnsupported);
  ModelBuilder huge = relu_model();
  huge.input("big", {"4611686018427387904", "4"});
  expect_bad(huge, {"input 'big'", "overflows"});
  ModelBuilder lies = relu_model();
  lies.graph().mutable_output(0)->mutable_type()->mutable_tensor_type()->set_elem_type(7);
  expect_bad(lies, {"output 'y' is declared as i64, but is f32"});
  ModelBuilder unnamed = relu_model();
  unnamed.input("", {"2"});
  expect_bad(unnamed, {"an input has no name"});
}

TEST(OnnxBadInput, Attributes) {
  ModelBuilder twice = relu_model();
  test::set_attr(*twice.graph().mutable_node(0), "a", int64_t{1});
  test::set_attr(*twice.graph().mutable_node(0), "a", int64_t{1});
  expect_bad(twice, {"node 'act' (Relu)", "'a' is given twice"});
  ModelBuilder reference = relu_model();
  auto* a = reference.graph().mutable_node(0)->add_attribute();
  a->set_name("alpha");
  a->set_type(onnx::AttributeProto::FLOAT);
  a->set_ref_attr_name("beta");
  expect_bad(reference, {"node 'act' (Relu)", "outside a function"});
  ModelBuilder graph = relu_model();
  auto* g = graph.graph().mutable_node(0)->add_attribute();
  g->set_name("body");
  g->set_type(onnx::AttributeProto::GRAPH);
  g->mutable_g();
  expect_bad(graph, {"node 'act' (Relu)", "'body'", "is a graph"}, ExitCode::kUnsupported);
  ModelBuilder constant = relu_model();
  constant.node("Constant", {}, {"c"}, "c");
  expect_bad(constant, {"node 'c' (Constant)", "0 attributes"});
}

TEST(OnnxBadInput, ShapesThatDoNotFitNameTheNode) {
  ModelBuilder b = relu_model();
  b.floats("w", {3}, {1, 2, 3});
  b.node("Add", {"x", "w"}, {"z"}, "sum");
  expect_bad(b, {"node 'sum' (Add): cannot broadcast [2] with [3]"});
}

}  // namespace
}  // namespace ds
