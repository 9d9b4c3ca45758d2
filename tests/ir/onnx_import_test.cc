// What the importer accepts, and that it is read right.
#include "libds/ir/onnx_import.h"

#include "libds/ir/onnx_export.h"
#include "tests/ir/model_builder.h"

namespace ds {
namespace {

using test::Folder;
using test::ModelBuilder;
using test::expect_error;

ModelBuilder add_model() {
  ModelBuilder b;
  b.input("x", {"batch", "3"});
  b.floats("b", {3}, {1, 2, 3});
  b.node("Add", {"x", "b"}, {"s"}, "sum");
  b.node("Relu", {"s"}, {"y"}, "");
  b.output("y", {"batch", "3"});
  return b;
}

TEST(OnnxImport, ReadsTypesNamesAndContent) {
  const auto g = parse_model(add_model().bytes());
  ASSERT_EQ(g->inputs().size(), 1u);
  EXPECT_EQ(g->type_string(g->inputs()[0]), "f32[batch,3]");
  EXPECT_EQ(g->type_string(g->outputs()[0]), "f32[batch,3]");
  const ValueId b = g->find_value("b");
  ASSERT_TRUE(g->value(b).is_constant());
  EXPECT_EQ(g->value(b).constant->to_doubles(), (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(g->node(g->first()).name, "sum");
  EXPECT_EQ(g->node(g->last()).name, "Relu_1");
  EXPECT_EQ(g->opsets.at(""), 17);
}

TEST(OnnxImport, UnsortedNodesAreSorted) {
  ModelBuilder b;
  b.input("x", {"2"});
  b.node("Relu", {"s"}, {"y"}, "second");
  b.node("Relu", {"x"}, {"s"}, "first");
  b.output("y", {"2"});
  const auto g = parse_model(b.bytes());
  EXPECT_EQ(g->node(g->first()).name, "first");
}

TEST(OnnxImport, DimensionsKnownSymbolicAndUnknown) {
  ModelBuilder b;
  b.input("x", {"-1", "", "n", "4"});
  b.node("Relu", {"x"}, {"y"});
  b.output("y", {"-1", "", "n", "4"});
  const auto g = parse_model(b.bytes());
  EXPECT_EQ(g->type_string(g->inputs()[0]), "f32[?,?,n,4]");
  const Dims& dims = *g->value(g->inputs()[0]).dims;
  EXPECT_NE(dims[0], dims[1]);
}

// Every element type, in raw_data and in the typed field that holds it.
TEST(OnnxImport, EveryElementType) {
  struct Case {
    DType dtype;
    std::function<void(onnx::TensorProto&, int)> add;
  };
  const auto i32 = [](onnx::TensorProto& t, int v) { t.add_int32_data(v); };
  const auto u64 = [](onnx::TensorProto& t, int v) { t.add_uint64_data(static_cast<uint64_t>(v)); };
  const std::vector<Case> cases = {
      {DType::kF32, [](onnx::TensorProto& t, int v) { t.add_float_data(static_cast<float>(v)); }},
      {DType::kF64, [](onnx::TensorProto& t, int v) { t.add_double_data(v); }},
      {DType::kI64, [](onnx::TensorProto& t, int v) { t.add_int64_data(v); }},
      {DType::kU64, u64}, {DType::kU32, u64}, {DType::kI32, i32}, {DType::kI16, i32}, {DType::kU16, i32},
      {DType::kI8, i32}, {DType::kU8, i32}, {DType::kBool, i32},
      {DType::kF16, [](onnx::TensorProto& t, int v) { t.add_int32_data(f16(static_cast<float>(v)).bits); }},
      {DType::kBF16, [](onnx::TensorProto& t, int v) { t.add_int32_data(bf16(static_cast<float>(v)).bits); }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(dtype_name(c.dtype));
    ModelBuilder b;
    b.input("x", {"2"});
    b.node("Relu", {"x"}, {"y"});
    b.output("y", {"2"});
    const Tensor expected = Tensor::of<double>({3}, {1, 0, c.dtype == DType::kBool ? 1.0 : 3.0}).cast(c.dtype);
    auto& typed = b.initializer("typed", {3}, static_cast<int>(c.dtype));
    for (double v : expected.to_doubles()) c.add(typed, static_cast<int>(v));
    auto& raw = b.initializer("raw", {3}, static_cast<int>(c.dtype));
    raw.set_raw_data(std::string(static_cast<const char*>(expected.raw()), expected.bytes()));
    b.output("typed", {"3"}, static_cast<int>(c.dtype));
    b.output("raw", {"3"}, static_cast<int>(c.dtype));
    const auto g = parse_model(b.bytes());
    EXPECT_TRUE(g->value(g->find_value("typed")).constant->equal_bits(expected));
    EXPECT_TRUE(g->value(g->find_value("raw")).constant->equal_bits(expected));
  }
}

TEST(OnnxImport, BooleanBytesAreNormalised) {
  ModelBuilder b;
  b.initializer("b", {2}, 9).set_raw_data(std::string("\x02\x00", 2));
  b.output("b", {"2"}, 9);
  const auto g = parse_model(b.bytes());
  EXPECT_EQ(static_cast<const uint8_t*>(g->value(g->outputs()[0]).constant->raw())[0], 1);
}

TEST(OnnxImport, EmptyAndScalarTensors) {
  ModelBuilder b;
  b.initializer("empty", {0, 3}, 1);
  b.floats("scalar", {}, {5});
  b.output("empty", {"0", "3"});
  b.output("scalar", {});
  const auto g = parse_model(b.bytes());
  EXPECT_EQ(g->value(g->find_value("empty")).constant->numel(), 0);
  EXPECT_EQ(g->value(g->find_value("scalar")).constant->to_doubles(), std::vector<double>{5});
}

TEST(OnnxImport, InitializersThatAreAlsoInputsAreConstants) {
  ModelBuilder b(9, 3);
  b.input("x", {"2"});
  b.input("w", {"2"});
  b.floats("w", {2}, {1, 2});
  b.node("Mul", {"x", "w"}, {"y"});
  b.output("y", {"2"});
  const auto g = parse_model(b.bytes());
  ASSERT_EQ(g->inputs().size(), 1u);
  EXPECT_TRUE(g->value(g->find_value("w")).is_constant());
}

TEST(OnnxImport, ConstantNodesBecomeConstants) {
  ModelBuilder b;
  b.input("x", {"2"});
  auto& tensor = b.node("Constant", {}, {"c"}, "c");
  auto& a = *tensor.add_attribute();
  a.set_name("value");
  a.set_type(onnx::AttributeProto::TENSOR);
  a.mutable_t()->set_data_type(1);
  a.mutable_t()->add_dims(2);
  a.mutable_t()->add_float_data(3);
  a.mutable_t()->add_float_data(4);
  test::set_attr(b.node("Constant", {}, {"ints"}, "i"), "value_ints", std::vector<int64_t>{7, 8});
  test::set_attr(b.node("Constant", {}, {"one"}, "o"), "value_float", 0.5f);
  b.node("Add", {"x", "c"}, {"s"});
  b.node("Mul", {"s", "one"}, {"y"});
  b.output("y", {"2"});
  b.output("ints", {"2"}, 7);
  const auto g = parse_model(b.bytes());
  EXPECT_EQ(g->node_count(), 2u);
  EXPECT_EQ(g->value(g->find_value("c")).constant->to_doubles(), (std::vector<double>{3, 4}));
  EXPECT_EQ(g->value(g->find_value("ints")).constant->to_ints(), (std::vector<int64_t>{7, 8}));
  EXPECT_EQ(g->value(g->find_value("one")).constant->rank(), 0);
}

TEST(OnnxImport, DeclaredTypesFillWhatInferenceCannotTell) {
  ModelBuilder b = add_model();
  b.graph().mutable_output(0)->mutable_type()->mutable_tensor_type()->mutable_shape()->mutable_dim(0)->set_dim_param("batch");
  EXPECT_EQ(parse_model(b.bytes())->type_string(parse_model(b.bytes())->outputs()[0]), "f32[batch,3]");
}

// --- external data -----------------------------------------------------------------------------

onnx::TensorProto& external(ModelBuilder& b, const std::string& location, const std::string& offset, const std::string& length) {
  auto& t = b.initializer("b", {3}, 1);
  t.set_data_location(onnx::TensorProto::EXTERNAL);
  const auto add = [&](const char* key, const std::string& value) {
    auto& e = *t.add_external_data();
    e.set_key(key);
    e.set_value(value);
  };
  add("location", location);
  if (!offset.empty()) add("offset", offset);
  if (!length.empty()) add("length", length);
  return t;
}

ModelBuilder external_model(const std::string& location, const std::string& offset = "4", const std::string& length = "12") {
  ModelBuilder b;
  b.input("x", {"3"});
  external(b, location, offset, length);
  b.node("Add", {"x", "b"}, {"y"});
  b.output("y", {"3"});
  return b;
}

std::string four_floats() {
  const float values[] = {9, 1, 2, 3};
  return std::string(reinterpret_cast<const char*>(values), sizeof values);
}

TEST(OnnxExternalData, IsReadFromTheModelsFolderAndBelow) {
  Folder folder;
  folder.write("w.bin", four_floats());
  std::filesystem::create_directory(folder / "sub");
  folder.write("sub/w.bin", four_floats());
  for (const char* location : {"w.bin", "sub/w.bin", "./w.bin"}) {
    const auto g = load_model(folder.write("m.onnx", external_model(location).bytes()));
    EXPECT_EQ(g->value(g->find_value("b")).constant->to_doubles(), (std::vector<double>{1, 2, 3})) << location;
  }
}

TEST(OnnxExternalData, MisalignedOffsetsAreCopied) {
  Folder folder;
  folder.write("w.bin", "x" + four_floats().substr(4));
  const auto g = load_model(folder.write("m.onnx", external_model("w.bin", "1").bytes()));
  EXPECT_EQ(g->value(g->find_value("b")).constant->to_doubles(), (std::vector<double>{1, 2, 3}));
}

TEST(OnnxExternalData, IsConfinedToTheFolder) {
  Folder outside, folder;
  const std::string secret = outside.write("secret.bin", four_floats());
  std::filesystem::create_symlink(secret, folder / "link.bin");
  std::filesystem::create_directory_symlink(std::filesystem::path(secret).parent_path(), folder / "linked");
  std::filesystem::create_hard_link(secret, folder / "hard.bin");
  std::filesystem::create_directory(folder / "dir");
  const auto load = [&](const std::string& location) { load_model(folder.write("m.onnx", external_model(location).bytes())); };
  expect_error(ExitCode::kBadData, {"m.onnx", "tensor 'b'", "leaves the model's folder"}, [&] { load("../secret.bin"); });
  expect_error(ExitCode::kBadData, {"leaves the model's folder"}, [&] { load("dir/../../x"); });
  expect_error(ExitCode::kBadData, {"not a relative path"}, [&] { load(secret); });
  expect_error(ExitCode::kBadData, {"symbolic link"}, [&] { load("link.bin"); });
  expect_error(ExitCode::kBadData, {"symbolic link"}, [&] { load("linked/secret.bin"); });
  expect_error(ExitCode::kBadData, {"hard links"}, [&] { load("hard.bin"); });
  expect_error(ExitCode::kBadData, {"not a regular file"}, [&] { load("dir"); });
  expect_error(ExitCode::kNoInput, {"missing.bin"}, [&] { load("missing.bin"); });
  expect_error(ExitCode::kBadData, {"no location"}, [&] { load(""); });
}

TEST(OnnxExternalData, RangesAreChecked) {
  Folder folder;
  folder.write("w.bin", four_floats());
  const auto load = [&](const std::string& offset, const std::string& length) {
    load_model(folder.write("m.onnx", external_model("w.bin", offset, length).bytes()));
  };
  expect_error(ExitCode::kBadData, {"ends at byte 16"}, [&] { load("8", "12"); });
  expect_error(ExitCode::kBadData, {"overflows"}, [&] { load("9223372036854775807", "12"); });
  expect_error(ExitCode::kBadData, {"needs 12"}, [&] { load("0", "16"); });
  expect_error(ExitCode::kBadData, {"expected a number"}, [&] { load("-4", "12"); });
  expect_error(ExitCode::kBadData, {"expected a number"}, [&] { load("0x0", "12"); });
  expect_error(ExitCode::kUnsupported, {"on disk"}, [&] { parse_model(external_model("w.bin").bytes()); });
}

// The only inputs that an operator of any number of inputs may do without.
TEST(OnnxImport, ALoopMayLeaveOutItsBoundAndItsCondition) {
  for (const auto& [rounds, condition] : std::vector<std::pair<std::string, std::string>>{{"", "go"}, {"m", ""}, {"", ""}}) {
    ModelBuilder body;
    body.input("i", {}, onnx::TensorProto::INT64);
    body.input("on", {}, onnx::TensorProto::BOOL);
    body.input("v", {"2"});
    body.node("Identity", {"on"}, {"again"}, "keep");
    body.node("Relu", {"v"}, {"next"}, "step");
    body.output("again", {}, onnx::TensorProto::BOOL);
    body.output("next", {"2"});
    ModelBuilder b;
    b.input("m", {}, onnx::TensorProto::INT64);
    b.input("go", {}, onnx::TensorProto::BOOL);
    b.input("x", {"2"});
    auto& a = *b.node("Loop", {rounds, condition, "x"}, {"y"}, "loop").add_attribute();
    a.set_name("body");
    a.set_type(onnx::AttributeProto::GRAPH);
    *a.mutable_g() = body.graph();
    b.output("y", {"2"});
    const auto g = parse_model(b.bytes());
    EXPECT_EQ(g->node(g->first()).input(0) == kNone, rounds.empty());
    EXPECT_EQ(g->node(g->first()).input(1) == kNone, condition.empty());
    b.graph().mutable_node(0)->set_input(2, "");
    b.graph().mutable_node(0)->add_input("x");
    expect_error(ExitCode::kBadData, {"node 'loop' (Loop)", "carried value 0 is left out"}, [&] { parse_model(b.bytes()); });
  }
}

// --- round trip --------------------------------------------------------------------------------

TEST(OnnxExport, SameGraphSameBytesAndStable) {
  const auto g = parse_model(add_model().bytes());
  const std::string once = serialize_model(*g);
  EXPECT_EQ(once, serialize_model(*g));
  EXPECT_EQ(once, serialize_model(*parse_model(once)));
}

TEST(OnnxExport, KeepsNamesMetadataAndOpset) {
  ModelBuilder b = add_model();
  b.model.set_producer_name("someone");
  b.model.set_producer_version("1.2");
  b.model.set_domain("org.example");
  b.model.set_model_version(7);
  b.model.set_doc_string("what it is");
  b.graph().set_doc_string("graph doc");
  b.graph().mutable_node(0)->set_doc_string("node doc");
  b.graph().mutable_initializer(0)->set_doc_string("weights of b");
  b.graph().mutable_input(0)->mutable_type()->mutable_tensor_type()->mutable_shape()->mutable_dim(0)->set_denotation("DATA_BATCH");
  auto& entry = *b.model.add_metadata_props();
  entry.set_key("labels");
  entry.set_value("a,b");
  onnx::ModelProto out;
  ASSERT_TRUE(out.ParseFromString(serialize_model(*parse_model(b.bytes()))));
  EXPECT_EQ(out.producer_name(), "someone");
  EXPECT_EQ(out.producer_version(), "1.2");
  EXPECT_EQ(out.domain(), "org.example");
  EXPECT_EQ(out.model_version(), 7);
  EXPECT_EQ(out.doc_string(), "what it is");
  EXPECT_EQ(out.graph().name(), "g");
  EXPECT_EQ(out.graph().doc_string(), "graph doc");
  EXPECT_EQ(out.graph().node(0).doc_string(), "node doc");
  EXPECT_EQ(out.graph().node(0).name(), "sum");
  EXPECT_EQ(out.graph().initializer(0).doc_string(), "weights of b");
  EXPECT_EQ(out.graph().input(0).type().tensor_type().shape().dim(0).denotation(), "DATA_BATCH");
  EXPECT_EQ(out.graph().input(0).type().tensor_type().shape().dim(0).dim_param(), "batch");
  EXPECT_EQ(out.graph().output(0).type().tensor_type().shape().dim(0).dim_param(), "batch");
  ASSERT_EQ(out.metadata_props_size(), 1);
  EXPECT_EQ(out.metadata_props(0).value(), "a,b");
  EXPECT_EQ(out.opset_import(0).version(), 17);
  EXPECT_EQ(out.ir_version(), 8);
}

// Fields this schema does not have (metadata_props of nodes and tensors, and whatever comes next).
TEST(OnnxExport, KeepsFieldsOfNewerVersions) {
  ModelBuilder b = add_model();
  constexpr int kField = 777;
  const auto mark = [](google::protobuf::Message& m, const std::string& text) {
    m.GetReflection()->MutableUnknownFields(&m)->AddLengthDelimited(kField, text);
  };
  const auto marked = [](const google::protobuf::Message& m) {
    const auto& unknown = m.GetReflection()->GetUnknownFields(m);
    return unknown.field_count() == 1 && unknown.field(0).number() == kField ? unknown.field(0).length_delimited() : std::string();
  };
  mark(b.model, "model");
  mark(b.graph(), "graph");
  mark(*b.graph().mutable_node(0), "node");
  mark(*b.graph().mutable_initializer(0), "tensor");
  mark(*b.graph().mutable_input(0), "input");
  mark(*b.graph().mutable_output(0), "output");
  ModelBuilder::set_type(*b.graph().add_value_info(), "s", {"batch", "3"}, 1);
  mark(*b.graph().mutable_value_info(0), "inner");
  onnx::ModelProto out;
  ASSERT_TRUE(out.ParseFromString(serialize_model(*parse_model(b.bytes()))));
  EXPECT_EQ(marked(out), "model");
  EXPECT_EQ(marked(out.graph()), "graph");
  EXPECT_EQ(marked(out.graph().node(0)), "node");
  EXPECT_EQ(marked(out.graph().initializer(0)), "tensor");
  EXPECT_EQ(marked(out.graph().input(0)), "input");
  EXPECT_EQ(marked(out.graph().output(0)), "output");
  ASSERT_EQ(out.graph().value_info_size(), 1);
  EXPECT_EQ(marked(out.graph().value_info(0)), "inner");
}

TEST(OnnxExport, SavesAndLoadsFiles) {
  Folder folder;
  const auto g = parse_model(add_model().bytes());
  save_model(*g, folder / "m.onnx");
  EXPECT_EQ(serialize_model(*load_model(folder / "m.onnx")), serialize_model(*g));
  expect_error(ExitCode::kCantCreate, {"missing/m.onnx"}, [&] { save_model(*g, folder / "missing/m.onnx"); });
}

}  // namespace
}  // namespace ds
