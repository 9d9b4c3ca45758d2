// Optionals: types as attributes, content given for an optional, loops that take one and give what it holds.
#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/run/session.h"
#include "tests/ir/model_builder.h"

namespace ds {
namespace {

using test::ModelBuilder;
using test::expect_error;

onnx::TypeProto sequence_of_floats(bool shaped) {
  onnx::TypeProto type;
  auto& tensor = *type.mutable_sequence_type()->mutable_elem_type()->mutable_tensor_type();
  tensor.set_elem_type(onnx::TensorProto::FLOAT);
  if (shaped) {
    tensor.mutable_shape()->add_dim()->set_dim_value(5);
    tensor.mutable_shape()->add_dim()->set_dim_param("a \"name\", [odd]\n");
    tensor.mutable_shape()->add_dim();
  }
  return type;
}

// An empty optional of that type, and whether it holds something.
ModelBuilder empty_optional(const onnx::TypeProto& type) {
  ModelBuilder b(18);
  auto& a = *b.node("Optional", {}, {"o"}, "none").add_attribute();
  a.set_name("type");
  a.set_type(onnx::AttributeProto::TYPE_PROTO);
  *a.mutable_tp() = type;
  b.node("OptionalHasElement", {"o"}, {"y"}, "has");
  b.output("y", {}, onnx::TensorProto::BOOL);
  return b;
}

TEST(OnnxOptional, TypesAsAttributesAreKept) {
  for (const bool shaped : {false, true}) {
    const onnx::TypeProto type = sequence_of_floats(shaped);
    const auto g = parse_model(empty_optional(type).bytes());
    const ValueId o = g->find_value("o");
    EXPECT_EQ(g->type_string(o), shaped ? "optional(sequence(f32[5,a \"name\", [odd]\n,?]))" : "optional(sequence(f32[...]))");
    const std::string once = serialize_model(*g);
    onnx::ModelProto model;
    ASSERT_TRUE(model.ParseFromString(once));
    const onnx::AttributeProto& a = model.graph().node(0).attribute(0);
    EXPECT_EQ(a.type(), onnx::AttributeProto::TYPE_PROTO);
    EXPECT_EQ(a.tp().SerializeAsString(), type.SerializeAsString());
    EXPECT_EQ(once, serialize_model(*parse_model(once)));
    EXPECT_FALSE(Session(g).run(std::vector<Tensor>{})[0].data<bool>()[0]);
  }
}

TEST(OnnxOptional, AttributesThatAreNoTypes) {
  ModelBuilder b = empty_optional({});
  auto& a = *b.graph().mutable_node(0)->mutable_attribute(0);
  a.clear_tp();
  a.set_type(onnx::AttributeProto::STRING);
  a.set_s("sequence_type {}");
  expect_error(ExitCode::kBadData, {"node 'none' (Optional)", "attribute 'type' is not a type"}, [&] { parse_model(b.bytes()); });
  onnx::TypeProto map;
  map.mutable_map_type()->set_key_type(1);
  expect_error(ExitCode::kUnsupported, {"node 'none' (Optional)", "no tensor, sequence or optional"}, [&] { parse_model(empty_optional(map).bytes()); });
  onnx::TypeProto newer;
  newer.mutable_tensor_type()->set_elem_type(27);
  expect_error(ExitCode::kUnsupported, {"node 'none' (Optional)", "element type number 27"}, [&] { parse_model(empty_optional(newer).bytes()); });
}

onnx::ValueInfoProto named(const std::string& name, const onnx::TypeProto& type) {
  onnx::ValueInfoProto info;
  info.set_name(name);
  *info.mutable_type() = type;
  return info;
}

// Starts from what an optional sequence holds, or from nothing, and appends the number of the round.
ModelBuilder appending_loop() {
  onnx::TypeProto sequence = sequence_of_floats(false), optional;
  *optional.mutable_optional_type()->mutable_elem_type() = sequence;
  ModelBuilder b(18);
  b.input("rounds", {}, onnx::TensorProto::INT64);
  *b.graph().add_input() = named("given", optional);
  ModelBuilder body(18), there(18), absent(18);
  there.node("OptionalGetElement", {"in"}, {"held"}, "get");
  *there.graph().add_output() = named("held", sequence);
  absent.node("SequenceEmpty", {}, {"fresh"}, "empty");
  *absent.graph().add_output() = named("fresh", sequence);
  body.input("round", {}, onnx::TensorProto::INT64);
  body.input("go", {}, onnx::TensorProto::BOOL);
  *body.graph().add_input() = named("in", optional);
  body.node("OptionalHasElement", {"in"}, {"has"}, "has");
  auto& branch = body.node("If", {"has"}, {"list"}, "if");
  const auto add_body = [](onnx::NodeProto& n, const char* name, const ModelBuilder& inner) {
    auto& a = *n.add_attribute();
    a.set_name(name);
    a.set_type(onnx::AttributeProto::GRAPH);
    *a.mutable_g() = inner.model.graph();
  };
  add_body(branch, "then_branch", there);
  add_body(branch, "else_branch", absent);
  test::set_attr(body.node("Cast", {"round"}, {"number"}, "cast"), "to", int64_t{1});
  body.node("SequenceInsert", {"list", "number"}, {"out"}, "insert");
  body.node("Identity", {"go"}, {"go_on"}, "go");
  body.output("go_on", {}, onnx::TensorProto::BOOL);
  *body.graph().add_output() = named("out", sequence);
  auto& loop = b.node("Loop", {"rounds", "", "given"}, {"y"}, "loop");
  add_body(loop, "body", body);
  *b.graph().add_output() = named("y", sequence);
  return b;
}

std::vector<double> numbers(const Tensor& sequence) {
  std::vector<double> all;
  for (const Tensor& item : sequence.items()) all.push_back(item.to_doubles().at(0));
  return all;
}

TEST(OnnxOptional, ALoopMayTakeAnOptionalAndGiveWhatItHolds) {
  const auto g = parse_model(appending_loop().bytes());
  for (const bool plans : {true, false}) {
    SessionOptions options;
    options.static_plan = plans;
    Session session(g, options);
    const auto run = [&](int64_t rounds, const Tensor& given) { return numbers(session.run(std::vector<Tensor>{Tensor::scalar(rounds), given})[0]); };
    const Tensor seven = Tensor::sequence({Tensor::scalar(7.f)});
    EXPECT_EQ(run(3, Tensor::optional_of(Tensor())), (std::vector<double>{0, 1, 2}));
    EXPECT_EQ(run(2, Tensor::optional_of(seven)), (std::vector<double>{7, 0, 1}));
    EXPECT_EQ(run(2, seven), (std::vector<double>{7, 0, 1}));  // the content itself
    EXPECT_EQ(run(0, Tensor::optional_of(seven)), (std::vector<double>{7}));
    expect_error(ExitCode::kBadData, {"node 'loop' (Loop)", "carried value 0 is an empty optional"}, [&] { run(0, Tensor::optional_of(Tensor())); });
    expect_error(ExitCode::kBadData, {"input 'given' holds f32"}, [&] { run(1, Tensor::scalar(1.f)); });
  }
}

}  // namespace
}  // namespace ds
