// verify against models, and --bisect: what is named when something is wrong on purpose.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "libds/base/file.h"
#include "libds/ir/onnx_export.h"
#include "libds/ir/rewriter.h"
#include "libds/run/random_inputs.h"
#include "libds/tasks/init.h"
#include "libds/tasks/verify/verify.h"
#include "tests/support/json_schema.h"

namespace ds {
namespace {

struct NetOptions {
  std::string prefix = {};       // of all names inside
  float second_weight = 0.5f;
  std::string activation = "Relu";
  bool cast_in_front = false;    // a node the other model does not have
};

// x[n,4] -> MatMul -> Relu -> MatMul -> Sigmoid -> y, weights constant.
std::shared_ptr<Graph> net(const NetOptions& o = {}) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  ValueId x = rw.add_input("x", DType::kF32, {g->symbol("n"), 4});
  if (o.cast_in_front) x = rw.emit("Identity", {x}, {}, "extra");
  const auto weight = [&](const char* name, float w) {
    Tensor t = Tensor::zeros(DType::kF32, {4, 4});
    for (int i = 0; i < 16; ++i) t.mutable_data<float>()[i] = w * static_cast<float>(i % 5 - 2);
    return rw.add_constant(o.prefix + name, t);
  };
  const ValueId a = rw.emit("MatMul", {x, weight("w1", 0.25f)}, {}, o.prefix + "first");
  const ValueId b = rw.emit(o.activation, {a}, {}, o.prefix + "act");
  const ValueId c = rw.emit("MatMul", {b, weight("w2", o.second_weight)}, {}, o.prefix + "second");
  const ValueId y = rw.emit("Sigmoid", {c}, {}, "y");
  rw.add_output(y);
  return g;
}

class BisectFile : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string saved(const Graph& g, const std::string& name) {
    const std::string path = (folder_ / name).string();
    save_model(g, path);
    return path;
  }
  VerifyOptions options(const Graph& a, const Graph& b) {
    VerifyOptions o;
    o.model = saved(a, "a.onnx");
    o.reference = saved(b, "b.onnx");
    o.bisect = true;
    return o;
  }
  const std::filesystem::path folder_ = std::filesystem::temp_directory_path() / fmt::format("ds_bisect_{}", ::getpid());
};

TEST_F(BisectFile, EqualModelsAgreeInEveryRound) {
  VerifyOptions o = options(*net(), *net());
  o.shapes = {"n:1", "n:3", "n:7"};
  const VerifyReport r = verify(o);
  EXPECT_TRUE(r.ok());
  ASSERT_EQ(r.rounds.size(), 3u);
  EXPECT_EQ(r.rounds[2].inputs[0].second, (Shape{7, 4}));
  EXPECT_TRUE(r.bisections.empty());  // nothing to find
  EXPECT_TRUE(test::schema_problems(verify_json(r), "ds-bench-verify.schema.json").empty());
}

TEST_F(BisectFile, NamesTheNodeWhoseWeightDiffers) {
  const VerifyReport r = verify(options(*net({.second_weight = 0.6f}), *net()));
  EXPECT_FALSE(r.ok());
  ASSERT_EQ(r.bisections.size(), 1u);
  ASSERT_TRUE(r.bisections[0].first.has_value());
  const Divergence& d = *r.bisections[0].first;
  EXPECT_EQ(d.value, "second");
  EXPECT_EQ(d.node, "node 'second' (MatMul)");
  ASSERT_EQ(d.operands.size(), 2u);
  EXPECT_TRUE(d.operands[0].difference->ok());
  EXPECT_EQ(d.operands[1].kind, BisectOperand::Kind::kConstant);
  EXPECT_FALSE(d.operands[1].difference->ok());
  ASSERT_TRUE(d.alone.has_value());
  EXPECT_FALSE(d.alone->ok());
  EXPECT_EQ(r.bisections[0].compared, 3);
  EXPECT_NE(verify_text(r).find("first divergence at node 'second' (MatMul), after 2 values that agree"), std::string::npos) << verify_text(r);
  const auto problems = test::schema_problems(verify_json(r), "ds-bench-verify.schema.json");
  EXPECT_TRUE(problems.empty()) << problems.front();
  EXPECT_EQ(nlohmann::json::parse(verify_json(r))["bisections"][0]["first"]["node"], "node 'second' (MatMul)");
}

TEST_F(BisectFile, MatchesByStructureWhereNamesDiffer) {
  const VerifyReport r = verify(options(*net({.prefix = "t/", .second_weight = 0.6f, .cast_in_front = true}), *net()));
  ASSERT_EQ(r.bisections.size(), 1u);
  ASSERT_TRUE(r.bisections[0].first.has_value());
  EXPECT_EQ(r.bisections[0].first->value, "t/second");
  EXPECT_EQ(r.bisections[0].first->reference_node, "node 'second' (MatMul)");
  EXPECT_EQ(r.bisections[0].compared, 3);
}

TEST_F(BisectFile, AnotherOperatorUnderTheSameNameIsTheDivergence) {
  const VerifyReport r = verify(options(*net({.activation = "Tanh"}), *net()));
  ASSERT_TRUE(r.bisections.at(0).first.has_value());
  EXPECT_EQ(r.bisections[0].first->node, "node 'act' (Tanh)");
  EXPECT_EQ(r.bisections[0].first->reference_node, "node 'act' (Relu)");
}

TEST_F(BisectFile, InPiecesAsWellAsAtOnce) {
  VerifyOptions o = options(*net({.second_weight = 0.6f}), *net());
  const VerifyReport whole = verify(o);
  o.bisect_memory = 1;  // one value at a time
  const VerifyReport pieces = verify(o);
  EXPECT_EQ(verify_json(whole), verify_json(pieces));
}

TEST_F(BisectFile, TheOptimizedModelIsComparedWithItself) {
  ArchOptions arch;
  arch.arch = "lenet";
  VerifyOptions o;
  o.model = saved(*build_arch(arch), "lenet.onnx");
  o.bisect = true;
  o.shapes = {"batch:1", "batch:5"};
  const VerifyReport r = verify(o);
  EXPECT_TRUE(r.ok()) << verify_text(r);
  ASSERT_EQ(r.bisections.size(), 2u);
  for (const Bisection& b : r.bisections) EXPECT_EQ(b.compared, b.values);  // names survive the fusions
  EXPECT_TRUE(test::schema_problems(verify_json(r), "ds-bench-verify.schema.json").empty());
}

// A rewrite that is wrong: what --bisect is for.
TEST(Bisect, FindsAWrongRewrite) {
  const auto original = net();
  auto broken = std::make_shared<Graph>(*original);
  Rewriter rw(*broken);
  const NodeId act = broken->value(broken->find_value("act")).producer;
  rw.insert_after(act);
  rw.replace_uses(broken->node(act).outputs[0], rw.emit("Softplus", {broken->node(act).inputs[0]}, {}, "fused"));
  rw.remove_dead_nodes();
  const std::vector<Tensor> inputs = random_inputs(*original, std::vector<Shape>{{2, 4}}, 0);
  SessionOptions plain;
  plain.pipeline.clear();
  const Bisection b = bisect({broken, plain, inputs}, {original, plain, inputs}, pair_rewritten(*broken, *original), {});
  ASSERT_TRUE(b.first.has_value());
  EXPECT_EQ(b.first->node, "node 'fused' (Softplus)");
  EXPECT_EQ(b.first->value, "act");
  EXPECT_EQ(b.first->reference_node, "node 'act' (Relu)");
  EXPECT_FALSE(b.first->kernel.empty());
  EXPECT_TRUE(b.first->operands.at(0).difference->ok());
}

TEST(RandomInputs, IndicesCoverTheTableAndMasksAreZeroOrOne) {
  Graph g;
  Rewriter rw(g);
  const ValueId ids = rw.add_input("ids", DType::kI64, {g.symbol("n")});
  const ValueId mask = rw.add_input("mask", DType::kI64, {g.symbol("n")});
  const ValueId table = rw.add_constant("table", Tensor::zeros(DType::kF32, {50, 2}));
  rw.add_output(rw.emit("Gather", {table, ids}, {}, "rows"));
  rw.add_output(rw.emit("Mul", {mask, mask}, {}, "squares"));
  const std::vector<Tensor> inputs = random_inputs(g, std::vector<Shape>{{1000}, {1000}}, 7);
  const auto [low, high] = std::minmax_element(inputs[0].span<int64_t>().begin(), inputs[0].span<int64_t>().end());
  EXPECT_GE(*low, 0);
  EXPECT_GT(*high, 40);
  EXPECT_LT(*high, 50);
  for (int64_t x : inputs[1].span<int64_t>()) EXPECT_TRUE(x == 0 || x == 1);
  EXPECT_TRUE(inputs[0].equal_bits(random_inputs(g, std::vector<Shape>{{1000}, {1000}}, 7)[0]));
}

TEST_F(BisectFile, UsageIsChecked) {
  const auto code = [](const VerifyOptions& o) {
    try {
      verify(o);
    } catch (const Error& e) {
      return e.code();
    }
    return ExitCode::kOk;
  };
  VerifyOptions o = options(*net(), *net());
  o.reference.clear();
  o.bisect = false;
  EXPECT_EQ(code(o), ExitCode::kUsage);
  o.reference = (folder_ / "y.npz").string();
  write_npz(o.reference, {{"y", Tensor::zeros(DType::kF32, {1, 4})}});
  EXPECT_EQ(code(o), ExitCode::kUsage);  // expected outputs without inputs
  o.input = (folder_ / "x.npz").string();
  write_npz(o.input, {{"x", Tensor::zeros(DType::kF32, {1, 4})}});
  EXPECT_EQ(code(o), ExitCode::kOk);
  o.shapes = {"n:3"};
  EXPECT_EQ(code(o), ExitCode::kUsage);
  o.shapes.clear();
  o.reference = "/nowhere/b.onnx";
  EXPECT_EQ(code(o), ExitCode::kNoInput);
}

}  // namespace
}  // namespace ds
