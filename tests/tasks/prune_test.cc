#include "libds/tasks/prune/prune.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/ir/rewriter.h"
#include "tests/support/op_check.h"

namespace ds {
namespace {

// conv (3 -> 32) relu conv (32 -> 16) relu, then a classifier.
std::shared_ptr<Graph> small_net() {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const auto weight = [&](const char* name, Shape shape, uint64_t seed) {
    return rw.add_constant(name, test::random_tensor(std::move(shape), seed).cast(DType::kF32));
  };
  const Attributes same = {{"pads", std::vector<int64_t>{1, 1, 1, 1}}};
  ValueId x = rw.add_input("x", DType::kF32, {g->symbol("batch"), 3, 8, 8});
  x = rw.emit("Relu", {rw.emit("Conv", {x, weight("a.w", {32, 3, 3, 3}, 1), weight("a.b", {32}, 2)}, same, "a")});
  x = rw.emit("Relu", {rw.emit("Conv", {x, weight("b.w", {16, 32, 3, 3}, 3)}, same, "b")});
  x = rw.emit("Flatten", {x}, {{"axis", int64_t{1}}});
  rw.add_output(rw.emit("Gemm", {x, weight("c.w", {10, 1024}, 4)}, {{"transB", int64_t{1}}}, "c"));
  return g;
}

TEST(PruneTask, MagnitudeReportsWhatItDid) {
  const auto g = small_net();
  PruneOptions options;
  options.target_sparsity = 0.7;
  options.exclude = {"a"};
  const PruneReport r = prune(*g, options);
  ASSERT_EQ(r.layers.size(), 3u);
  EXPECT_EQ(r.layers[0].zeros_after, 0);
  EXPECT_FALSE(r.layers[0].kept_because.empty());
  EXPECT_EQ(r.prunable, 16 * 32 * 9 + 10240);
  EXPECT_EQ(r.zeros, std::llround(0.7 * static_cast<double>(r.prunable)));
  EXPECT_EQ(r.layers[1].zeros_after + r.layers[2].zeros_after, r.zeros);
  EXPECT_EQ(r.bytes_before, r.bytes_after);
  const auto manifest = nlohmann::json::parse(g->metadata.at("ds.prune"));
  EXPECT_EQ(manifest["method"], "magnitude");
  EXPECT_EQ(manifest["target_sparsity"], 0.7);
}

TEST(PruneTask, ChannelsReportWhatTheyDid) {
  const auto g = small_net();
  PruneOptions options;
  options.structured = true;
  options.target_flops = 0.6;
  options.shapes = {"batch:2"};
  const PruneReport r = prune(*g, options);
  EXPECT_FALSE(r.shapes_assumed);
  EXPECT_LE(r.flops_ratio(), 0.6);
  // Either hidden layer, or both, may give up channels; whichever comes nearest to the target.
  EXPECT_LT(r.layers[0].channels_after + r.layers[1].channels_after, r.layers[0].channels_before + r.layers[1].channels_before);
  for (size_t i : {0, 1}) EXPECT_EQ(r.layers[i].channels_after % 8, 0);
  EXPECT_EQ(r.layers[2].channels_after, 10);
  EXPECT_NE(r.layers[2].kept_because.find("output of the model"), std::string::npos) << r.layers[2].kept_because;
  EXPECT_LT(r.parameters_after, r.parameters_before);
  const auto j = nlohmann::json::parse(prune_report_json(r));
  EXPECT_EQ(j["schema"], "ds-prune/1");
  EXPECT_EQ(j["layers"].size(), 3u);
  EXPECT_EQ(j["layers"][0]["shape"]["after"][0], r.layers[0].channels_after);
  EXPECT_EQ(j["layers"][1]["shape"]["after"][0], r.layers[1].channels_after);
  EXPECT_NE(prune_report_text(r).find("FLOPs"), std::string::npos);
}

TEST(PruneTask, TheSameCommandGivesTheSameBytes) {
  for (const bool structured : {false, true}) {
    PruneOptions options;
    options.structured = structured;
    std::string files[2];
    for (std::string& file : files) {
      const auto g = small_net();
      prune(*g, options);
      file = serialize_model(*g);
    }
    EXPECT_EQ(files[0], files[1]);
  }
}

TEST(PruneTask, PruningTwiceComposes) {
  const auto g = small_net();
  PruneOptions options;
  options.structured = true;
  options.target_flops = 0.8;
  prune(*g, options);
  const auto again = parse_model(serialize_model(*g));
  options.structured = false;
  options.target_sparsity = 0.5;
  const PruneReport r = prune(*again, options);
  EXPECT_EQ(r.zeros, std::llround(0.5 * static_cast<double>(r.prunable)));
}

TEST(PruneTask, NothingToPruneIsSaid) {
  Graph g;
  Rewriter rw(g);
  rw.add_output(rw.emit("Relu", {rw.add_input("x", DType::kF32, {2})}));
  for (const bool structured : {false, true}) {
    PruneOptions options;
    options.structured = structured;
    try {
      prune(g, options);
      FAIL() << "a model without weights was pruned";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kUnsupported);
    }
  }
}

}  // namespace
}  // namespace ds
