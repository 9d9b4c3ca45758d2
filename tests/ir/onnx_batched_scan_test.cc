// Scan of operator set 8, with its batch axis, is read as two of the newer one.
#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/run/session.h"
#include "tests/ir/model_builder.h"

namespace ds {
namespace {

using test::ModelBuilder;
using test::expect_error;

// Running sums of x [2,3,2] from `initial` [2,2], each step times w, which the body captures.
ModelBuilder running_sum(std::vector<int64_t> directions, const std::string& lengths = "") {
  ModelBuilder b(8, 3);
  b.input("initial", {"2", "2"});
  b.input("x", {"2", "3", "2"});
  b.input("w", {"2"});
  if (!lengths.empty()) b.input(lengths, {"2"}, onnx::TensorProto::INT64);
  auto& n = b.node("Scan", {lengths, "initial", "x"}, {"y", "z"}, "scan");
  test::set_attr(n, "num_scan_inputs", int64_t{1});
  if (!directions.empty()) test::set_attr(n, "directions", directions);
  ModelBuilder body(8, 3);
  body.input("sum", {"2"});
  body.input("next", {"2"});
  body.node("Mul", {"next", "w"}, {"x/sequence"}, "mul");  // a name that the conversion would give
  body.node("Add", {"sum", "x/sequence"}, {"sum_out"}, "add");
  body.node("Identity", {"sum_out"}, {"step_out"}, "id");
  body.output("sum_out", {"2"});
  body.output("step_out", {"2"});
  auto& a = *n.add_attribute();
  a.set_name("body");
  a.set_type(onnx::AttributeProto::GRAPH);
  *a.mutable_g() = body.graph();
  b.output("y", {"2", "2"});
  b.output("z", {"2", "3", "2"});
  return b;
}

std::vector<Tensor> run(std::shared_ptr<const Graph> g) {
  return Session(std::move(g)).run(std::vector<Tensor>{Tensor::of<float>({2, 2}, {0, 0, 100, 200}),
                                                       Tensor::of<float>({2, 3, 2}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}),
                                                       Tensor::of<float>({2}, {1, 10})});
}

// numpy: initial[b] + cumsum(x[b] * w, axis=0)
TEST(OnnxBatchedScan, EachSequenceByItself) {
  const auto g = parse_model(running_sum({}).bytes());
  EXPECT_EQ(g->type_string(g->outputs()[0]), "f32[2,2]");
  EXPECT_EQ(g->type_string(g->outputs()[1]), "f32[2,3,2]");
  const auto out = run(g);
  EXPECT_EQ(out[0].to_doubles(), (std::vector<double>{9, 120, 127, 500}));
  EXPECT_EQ(out[1].to_doubles(), (std::vector<double>{1, 20, 4, 60, 9, 120, 107, 280, 116, 380, 127, 500}));
}

// numpy: initial[b] + cumsum(x[b, ::-1] * w, axis=0)
TEST(OnnxBatchedScan, Backwards) {
  const auto out = run(parse_model(running_sum({1}).bytes()));
  EXPECT_EQ(out[0].to_doubles(), (std::vector<double>{9, 120, 127, 500}));
  EXPECT_EQ(out[1].to_doubles(), (std::vector<double>{5, 60, 8, 100, 9, 120, 111, 320, 120, 420, 127, 500}));
}

TEST(OnnxBatchedScan, IsWrittenAsTheNewerOne) {
  const std::string once = serialize_model(*parse_model(running_sum({1}).bytes()));
  onnx::ModelProto model;
  ASSERT_TRUE(model.ParseFromString(once));
  EXPECT_EQ(model.opset_import(0).version(), 9);
  ASSERT_EQ(model.graph().node_size(), 1);
  EXPECT_EQ(model.graph().node(0).name(), "scan");
  EXPECT_EQ(once, serialize_model(*parse_model(once)));
  EXPECT_EQ(run(parse_model(once))[1].to_doubles(), run(parse_model(running_sum({1}).bytes()))[1].to_doubles());
}

TEST(OnnxBatchedScan, LengthsAreRefused) {
  expect_error(ExitCode::kUnsupported, {"node 'scan' (Scan)", "sequence lengths ('lengths')"},
               [] { parse_model(running_sum({}, "lengths").bytes()); });
}

}  // namespace
}  // namespace ds
