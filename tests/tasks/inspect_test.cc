#include "libds/tasks/inspect/inspect.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "libds/ir/onnx_export.h"
#include "libds/ir/rewriter.h"
#include "libds/run/input_shapes.h"

namespace ds {
namespace {

std::shared_ptr<Graph> linear_model() {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  g->producer_name = "tests";
  const ValueId x = rw.add_input("x", DType::kF32, {g->symbol("batch"), 4});
  const ValueId w = rw.add_constant("w", Tensor::of<float>({4, 3}, {1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}));
  rw.add_output(rw.emit("Relu", {rw.emit("MatMul", {x, w}, {}, "product")}, {}, "y"));
  return g;
}

// A model file that goes away with the test.
class Inspect : public testing::Test {
 protected:
  Inspect() : path_((std::filesystem::temp_directory_path() / ("ds-inspect-" + std::to_string(::getpid()) + ".onnx")).string()) {}
  ~Inspect() override { std::filesystem::remove(path_); }
  const std::string path_;
};

TEST_F(Inspect, CountsParametersOperatorsAndFlops) {
  save_model(*linear_model(), path_);
  const Inspection r = inspect_model(path_, {{"batch:5"}});
  EXPECT_EQ(r.parameters, 12);
  EXPECT_EQ(r.nonzero_parameters, 3);
  EXPECT_EQ(r.parameter_bytes, 48);
  EXPECT_EQ(r.nodes, 2);
  EXPECT_EQ(r.opsets.at(""), 17);
  EXPECT_EQ(r.producer, "tests");
  EXPECT_EQ(r.file_bytes, static_cast<int64_t>(std::filesystem::file_size(path_)));
  ASSERT_TRUE(r.cost.has_value()) << r.why_no_cost;
  EXPECT_EQ(r.cost->flops, 2 * 5 * 4 * 3);
  EXPECT_FALSE(r.assumed_dims);
  EXPECT_TRUE(r.unsupported.empty());
  EXPECT_TRUE(r.no_gradient.empty());
  const Inspection one = inspect_model(path_);
  EXPECT_TRUE(one.assumed_dims);
  EXPECT_EQ(one.cost->flops, 2 * 4 * 3);
}

TEST_F(Inspect, JsonAndTextSayTheSame) {
  save_model(*linear_model(), path_);
  const Inspection r = inspect_model(path_);
  const auto json = nlohmann::json::parse(inspection_json(r));
  EXPECT_EQ(json["parameters"], 12);
  EXPECT_EQ(json["flops"], 24);
  EXPECT_EQ(json["inputs"][0]["name"], "x");
  EXPECT_EQ(json["inputs"][0]["dims"][0], "batch");
  EXPECT_EQ(json["inputs"][0]["measured_shape"], (std::vector<int64_t>{1, 4}));
  EXPECT_EQ(json["ops"].size(), 2u);
  EXPECT_EQ(json["opsets"]["ai.onnx"], 17);
  const std::string text = inspection_text(r);
  for (const char* part : {"x f32[batch,4]", "24 FLOP", "MatMul 1", "12 (48 B, 75.0 % zero)", "taken as 1"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
}

TEST_F(Inspect, ShapesThatDoNotFitAreSaidNotThrown) {
  save_model(*linear_model(), path_);
  const Inspection r = inspect_model(path_, {{"x:2x5"}});
  EXPECT_FALSE(r.cost.has_value());
  EXPECT_NE(r.why_no_cost.find("'x'"), std::string::npos) << r.why_no_cost;
}

TEST(InputShapes, AreReadInEveryForm) {
  const auto g = linear_model();
  const auto shapes = [&](std::vector<std::string> given) { return resolve_input_shapes(*g, given).shapes[0]; };
  EXPECT_EQ(shapes({"x:2x4"}), (Shape{2, 4}));
  EXPECT_EQ(shapes({"x:[2,4]"}), (Shape{2, 4}));
  EXPECT_EQ(shapes({"batch:7"}), (Shape{7, 4}));
  EXPECT_EQ(shapes({"batch:7", "x:3x4"}), (Shape{3, 4}));
  EXPECT_EQ(shapes({}), (Shape{1, 4}));
  EXPECT_TRUE(resolve_input_shapes(*g, {}).assumed);
  for (const char* wrong : {"x", ":3", "x:", "x:2x", "x:-1", "x:2y4", "x:[2,4", "z:1x2", "depth:3", "x:99999999999999999999"}) {
    try {
      shapes({wrong});
      ADD_FAILURE() << wrong << " was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kUsage) << wrong;
    }
  }
}

}  // namespace
}  // namespace ds
