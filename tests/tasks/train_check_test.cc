#include "libds/tasks/train/check.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "libds/ir/onnx_export.h"
#include "libds/ir/op_def.h"
#include "libds/ir/rewriter.h"
#include "libds/tasks/init.h"
#include "tests/support/json_schema.h"

namespace ds {
namespace {

class TrainCheckFile : public testing::Test {
 protected:
  ~TrainCheckFile() override { std::filesystem::remove(path_); }
  TrainCheck check(const Graph& g) {
    save_model(g, path_);
    const TrainCheck c = check_trainable(path_);
    const auto problems = test::schema_problems(train_check_json(c), "ds-train-check.schema.json");
    EXPECT_TRUE(problems.empty()) << problems.front();
    return c;
  }
  // x[n,4] -> body -> MatMul with a weight -> tail -> y
  static std::shared_ptr<Graph> model(const std::string& in_front, const std::string& behind) {
    auto g = std::make_shared<Graph>();
    Rewriter rw(*g);
    // QuantizeLinear has no gradient, Sign stops it.
    const auto add = [&](const std::string& op, ValueId x, const char* name) {
      if (op != "QuantizeLinear") return rw.emit(op, {x}, {}, name);
      const ValueId scale = rw.add_constant("scale", Tensor::scalar<float>(0.1f));
      return rw.emit("DequantizeLinear", {rw.emit(op, {x, scale}, {}, name), scale}, {}, std::string(name) + "_back");
    };
    ValueId x = rw.add_input("x", DType::kF32, {4, 4});
    if (!in_front.empty()) x = add(in_front, x, "front");
    ValueId y = rw.emit("MatMul", {x, rw.add_constant("w", Tensor::zeros(DType::kF32, {4, 4}))}, {}, "product");
    if (!behind.empty()) y = add(behind, y, "behind");
    rw.add_output(rw.emit("Relu", {y}, {}, "y"));
    return g;
  }
  const std::string path_ = (std::filesystem::temp_directory_path() / ("ds-check-" + std::to_string(::getpid()) + ".onnx")).string();
};

TEST_F(TrainCheckFile, ModelsOfInitCanBeTrained) {
  ArchOptions arch;
  arch.arch = "lenet";
  const TrainCheck c = check(*build_arch(arch));
  EXPECT_TRUE(c.trainable) << c.reason;
  EXPECT_GT(c.parameters, 8);
  EXPECT_TRUE(c.unreached.empty());
  EXPECT_NE(train_check_text(c).find(": can be trained: "), std::string::npos);
}

TEST_F(TrainCheckFile, AnOperatorInTheWayIsNamed) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {1, 1, 4, 4});
  const ValueId maps = rw.emit("Conv", {x, rw.add_constant("w", Tensor::zeros(DType::kF32, {2, 1, 1, 1}))}, {}, "maps");
  const ValueId regions = rw.add_constant("regions", Tensor::zeros(DType::kF32, {1, 5}));
  rw.add_output(rw.emit("MaxRoiPool", {maps, regions}, {{"pooled_shape", std::vector<int64_t>{2, 2}}}, "pool"));
  const TrainCheck c = check(g);
  EXPECT_FALSE(c.trainable);
  EXPECT_EQ(c.reason, "no gradient for MaxRoiPool");
  ASSERT_EQ(c.no_gradient.size(), 1u);
  EXPECT_EQ(c.no_gradient[0].needed, (std::vector<std::string>{"node 'pool' (MaxRoiPool)"}));
  EXPECT_NE(train_check_text(c).find("MaxRoiPool: no gradient, 1 node; needed at node 'pool' (MaxRoiPool)"), std::string::npos);
}

TEST_F(TrainCheckFile, InFrontOfAllParametersItIsNotInTheWay) {
  const TrainCheck c = check(*model("QuantizeLinear", ""));
  EXPECT_TRUE(c.trainable) << c.reason;
  ASSERT_EQ(c.no_gradient.size(), 2u);
  EXPECT_TRUE(c.no_gradient[0].needed.empty());
  EXPECT_TRUE(c.no_gradient[1].needed.empty());
}

TEST_F(TrainCheckFile, NothingToTrain) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  rw.add_output(rw.emit("Relu", {rw.add_input("x", DType::kF32, {4})}, {}, "y"));
  const TrainCheck c = check(*g);
  EXPECT_FALSE(c.trainable);
  EXPECT_EQ(c.reason, "it has no trainable parameters");
}

TEST_F(TrainCheckFile, AStoppedGradientLeavesParametersUnreached) {
  const TrainCheck c = check(*model("", "Sign"));
  EXPECT_FALSE(c.trainable);
  EXPECT_EQ(c.reason, "the loss depends on no trainable parameter");
  EXPECT_EQ(c.unreached, (std::vector<std::string>{"w"}));
}

TEST_F(TrainCheckFile, BodiesAreGoneThroughAsWell) {
  const auto branch = [](bool quantized) {
    auto body = std::make_shared<Graph>();
    Rewriter rw(*body);
    ValueId x = rw.add_input("x", DType::kF32, {4});
    if (quantized) {
      const ValueId scale = rw.add_constant("scale", Tensor::scalar<float>(0.1f));
      x = rw.emit("DequantizeLinear", {rw.emit("QuantizeLinear", {x, scale}), scale});
    }
    rw.add_output(rw.emit("Relu", {x}, {}, quantized ? "in_else" : "in_then"));
    return std::shared_ptr<const Graph>(body);
  };
  Graph g;
  Rewriter rw(g);
  const ValueId yes = rw.add_input("yes", DType::kBool, {}), x = rw.add_input("x", DType::kF32, {4});
  const ValueId w = rw.add_constant("w", Tensor::zeros(DType::kF32, {4}));
  const ValueId product = rw.emit("MatMul", {x, w}, {}, "product");
  Node n;
  n.op = "If";
  n.name = "choose";
  n.def = OpRegistry::instance().find("", "If");
  n.inputs = {yes, x};
  n.captured = 1;
  n.outputs = {rw.add_value("y")};
  n.attrs["then_branch"] = branch(false);
  n.attrs["else_branch"] = branch(true);
  const NodeId id = rw.add_raw_node(std::move(n));
  rw.set_type(g.node(id).outputs[0], DType::kF32, Dims{4});
  rw.add_output(product);
  rw.add_output(g.node(id).outputs[0]);
  const TrainCheck c = check(g);
  EXPECT_TRUE(c.trainable) << c.reason;
  std::vector<std::string> ops;
  for (const auto& op : c.no_gradient) ops.push_back(op.op);
  EXPECT_EQ(ops, (std::vector<std::string>{"DequantizeLinear", "If", "QuantizeLinear"}));
}

TEST_F(TrainCheckFile, FrozenParametersDoNotCount) {
  save_model(*model("", ""), path_);
  const std::vector<std::string> freeze = {"w"};
  EXPECT_EQ(check_trainable(path_, freeze).reason, "it has no trainable parameters");
}

}  // namespace
}  // namespace ds
