#include "libds/tasks/inspect/inspect.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "libds/ir/onnx_export.h"
#include "libds/ir/op_def.h"
#include "libds/ir/rewriter.h"
#include "libds/run/input_shapes.h"
#include "libds/tasks/init.h"
#include "libds/tasks/inspect/html.h"
#include "tests/support/json_schema.h"

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

TEST_F(Inspect, JsonFollowsItsSchema) {
  ArchOptions arch;
  arch.arch = "lenet";
  for (const auto& g : {linear_model(), build_arch(arch)}) {
    save_model(*g, path_);
    for (const std::vector<std::string>& shapes : {std::vector<std::string>{}, {"batch:3"}, {fmt::format("{}:2x5", g->value(g->inputs()[0]).name)}}) {
      const auto problems = test::schema_problems(inspection_json(inspect_model(path_, {shapes})), "ds-bench-inspect.schema.json");
      EXPECT_TRUE(problems.empty()) << problems.front();
    }
  }
}

TEST_F(Inspect, ListsTypesDimensionsAndLargestTensors) {
  save_model(*linear_model(), path_);
  const Inspection r = inspect_model(path_, {{"batch:5"}});
  ASSERT_EQ(r.parameter_types.size(), 1u);
  EXPECT_EQ(r.parameter_types[0].dtype, DType::kF32);
  EXPECT_EQ(r.parameter_types[0].bytes, 48);
  ASSERT_EQ(r.dynamic_dims.size(), 1u);
  EXPECT_EQ(r.dynamic_dims[0].name, "batch");
  EXPECT_EQ(r.dynamic_dims[0].where, (std::vector<std::string>{"x[0]", "y[0]"}));
  ASSERT_EQ(r.largest_parameters.size(), 1u);
  EXPECT_EQ(r.largest_parameters[0].name, "w");
  ASSERT_EQ(r.largest_results.size(), 2u);
  EXPECT_EQ(r.largest_results[0].shape, (Shape{5, 3}));
  EXPECT_TRUE(r.external_files.empty());
  EXPECT_EQ(r.ops[0].parameters + r.ops[1].parameters, 12);
  EXPECT_EQ(r.ops[0].flops + r.ops[1].flops, r.cost->flops);
}

// Lowered operators have no kernels; their cost is that of what they become.
TEST_F(Inspect, CostOfLoweredOperatorsIsTheirOwn) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const OpDef* lowered = nullptr;
  for (const OpDef* def : OpRegistry::instance().all())
    if (def->lower && def->kernels.empty() && def->domain.empty() && def->name == "MeanVarianceNormalization") lowered = def;
  if (lowered == nullptr) GTEST_SKIP();
  const ValueId x = rw.add_input("x", DType::kF32, {2, 3, 4, 4});
  rw.add_output(rw.emit(lowered->name, {x}, {}, "y"));
  save_model(*g, path_);
  const Inspection r = inspect_model(path_);
  ASSERT_TRUE(r.cost.has_value()) << r.why_no_cost;
  EXPECT_EQ(r.ops.size(), 1u);
  EXPECT_GT(r.cost->moved_bytes, 0);
}

class InspectPage : public Inspect {
 protected:
  std::string page(const Graph& g) {
    save_model(g, path_);
    return inspection_html(inspect_model(path_));
  }
  static nlohmann::json data_of(const std::string& html) {
    const std::string open = "id=\"data\">";
    const size_t begin = html.find(open) + open.size();
    return nlohmann::json::parse(html.substr(begin, html.find("</script>", begin) - begin));
  }
};

TEST_F(InspectPage, HoldsTheGraphAndNeedsNothingElse) {
  const std::string html = page(*linear_model());
  EXPECT_EQ(html.rfind("<!DOCTYPE html>", 0), 0u);
  for (const char* outside : {"http:", "https:", "//cdn", "src=", "@import", "fetch(", "XMLHttpRequest"})
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
  const nlohmann::json data = data_of(html);
  ASSERT_EQ(data["nodes"].size(), 2u);
  EXPECT_EQ(data["nodes"][0]["op"], "MatMul");
  EXPECT_EQ(data["nodes"][0]["parameters"], 12);
  EXPECT_EQ(data["nodes"][0]["flops"], 24);
  const size_t value = data["nodes"][0]["out"][0];
  EXPECT_EQ(data["values"][value]["type"], "f32[batch,3]");
  EXPECT_EQ(data["values"][value]["at"], "1×3");
  EXPECT_NE(html.find("<text class=\"o\" x=\"4\" y=\"-2\">MatMul</text>"), std::string::npos);
  EXPECT_EQ(html, page(*linear_model()));  // the same each time
}

TEST_F(InspectPage, NamesAreTextWhateverTheyHold) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const std::string hostile = "</script><img src=x onerror=alert(1)>\"'&\x01\xff";
  g->producer_name = hostile;
  g->metadata[hostile] = hostile;
  const ValueId x = rw.add_input(hostile, DType::kF32, {g->symbol("<b>"), 4});
  rw.add_output(rw.emit("Relu", {x}, {}, "<i>" + hostile));
  const std::string html = page(*g);
  EXPECT_EQ(html.find("<img"), std::string::npos);
  EXPECT_EQ(html.find("<i>&lt;"), std::string::npos);
  size_t scripts = 0;
  for (size_t at = html.find("</script"); at != std::string::npos; at = html.find("</script", at + 1)) ++scripts;
  EXPECT_EQ(scripts, 2u);
  EXPECT_EQ(data_of(html)["nodes"].size(), 1u);
  EXPECT_EQ(page::escaped("a<b>&\"'\x01\xC3\xA9\xC3"), "a&lt;b&gt;&amp;&quot;&#39;\xEF\xBF\xBD\xC3\xA9\xEF\xBF\xBD");
}

TEST(InputShapes, Rounds) {
  const std::vector<std::string> given = {"batch:1", "x:2x4", "batch:3", "batch:5", "x:6x4"};
  const auto rounds = shape_rounds(given);
  ASSERT_EQ(rounds.size(), 3u);
  EXPECT_EQ(rounds[0], (std::vector<std::string>{"batch:1", "x:2x4"}));
  EXPECT_EQ(rounds[1], (std::vector<std::string>{"batch:3", "x:6x4"}));
  EXPECT_EQ(rounds[2], (std::vector<std::string>{"batch:5", "x:6x4"}));
  EXPECT_EQ(shape_rounds({}).size(), 1u);
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
