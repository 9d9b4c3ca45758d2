#include "libds/passes/pipeline.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "libds/base/log.h"
#include "libds/passes/auto_cast.h"
#include "libds/passes/fuse_activation.h"
#include "libds/passes/fuse_attention.h"
#include "libds/passes/fuse_conv.h"
#include "libds/passes/fuse_dynamic_quant.h"
#include "libds/passes/fuse_elementwise.h"
#include "libds/passes/fuse_group_norm.h"
#include "libds/passes/fuse_matmul.h"
#include "libds/passes/fuse_norm.h"
#include "libds/passes/fuse_qdq.h"
#include "libds/passes/fuse_qepilogue.h"
#include "libds/passes/fuse_weight_only.h"
#include "libds/passes/move_shapes.h"
#include "libds/passes/widen_halves.h"

namespace ds {
namespace {

constexpr Pass kDeadCode = {"dead-code", "erase nodes whose results nobody uses", remove_dead_code};
constexpr Pass kLower = {"lower", "write operators without kernels in terms of others", lower_operators};
constexpr Pass kIdentities = {"identities", "remove nodes that return their input", remove_identities};
constexpr Pass kFoldConstants = {"fold-constants", "compute nodes whose operands are known", fold_constants};
constexpr Pass kWidenHalves = {"widen-halves", "16-bit floats are computed in f32 from edge to edge", widen_halves};
constexpr Pass kCommon = {"common-subexpressions", "merge nodes that compute the same", merge_common_subexpressions};
constexpr Pass kFuseActivation = {"fuse-activation", "activations spelled out in several nodes become one", fuse_activation};
constexpr Pass kFuseNorm = {"fuse-norm", "layer and RMS normalization spelled out in several nodes become one", fuse_norm};
constexpr Pass kFuseGroupNorm = {"fuse-group-norm", "group normalization written as that of reshaped instances becomes one node", fuse_group_norm};
constexpr Pass kFuseAttention = {"fuse-attention", "attention spelled out in several nodes becomes one, without its transposes", fuse_attention};
constexpr Pass kMoveTransposes = {"move-transposes", "transposes meet behind elementwise nodes and cancel", move_transposes};
constexpr Pass kMergeViews = {"merge-views", "reshapes in a row become one", merge_views};
constexpr Pass kFoldIntoConv = {"fold-into-conv", "batch norm and per-channel constants become weights", fold_into_conv};
constexpr Pass kFuseConv = {"fuse-conv", "convolutions take residual additions and activations along", fuse_conv};
constexpr Pass kFuseMatMul = {"fuse-matmul", "matrix products take bias, residual additions and activations along", fuse_matmul};
constexpr Pass kAutoCast = {"auto-cast", "products in bf16 or f16 where the precision asked for allows it", auto_cast};
constexpr Pass kFuseQdq = {"fuse-qdq", "run quantized operators on 8-bit integers", fuse_qdq};
constexpr Pass kFuseDynamicQuant = {"fuse-dynamic-quant", "products of tensors quantized by what they hold take their scales along", fuse_dynamic_quant};
constexpr Pass kFuseQEpilogue = {"fuse-qepilogue", "8-bit products take residual additions, activations and quantization along", fuse_qepilogue};
constexpr Pass kFuseWeightOnly = {"fuse-weight-only", "matrix products read weights of 4 and 8 bits as they are", fuse_weight_only};
constexpr Pass kFuseElementwise = {"fuse-elementwise", "elementwise operators in a chain or a tree run in one loop", fuse_elementwise};
constexpr Pass kDequantizeWeights = {"dequantize-weights", "weights of 8 bits that stay in float after all", dequantize_weights};

struct Pipeline {
  std::string_view name;
  std::vector<const Pass*> passes;
};

// Order matters: all others see few operators when lowering came first, folding exposes identities and equal nodes,
// fusions want a clean graph, quantized patterns are matched before float fusions take them apart, attention is found
// by its transposes before they move, what it makes of masks is folded and shared by all layers, and elementwise
// operators are chained last, when everything else has taken its parts and dead code reads nothing any more.
const std::vector<Pipeline>& pipelines() {
  static const std::vector<Pipeline> table = {
      {"inference",
       {
           &kDeadCode,
           &kLower,
           &kIdentities,
           &kFoldConstants,
           &kWidenHalves,
           &kFuseQdq,
           &kFuseDynamicQuant,
           &kFuseWeightOnly,
           &kDequantizeWeights,
           &kCommon,
           &kFuseActivation,
           &kFuseNorm,
           &kFuseGroupNorm,
           &kFuseAttention,
           &kMoveTransposes,
           &kMergeViews,
           &kFoldConstants,
           &kCommon,
           &kFoldIntoConv,
           &kFuseConv,
           &kFuseMatMul,
           &kFuseQEpilogue,
           &kAutoCast,
           &kDeadCode,
           &kFuseElementwise,
       }},
      {"train", {&kDeadCode, &kLower}},
  };
  return table;
}

void check_names(const std::vector<std::string>& names) {
  const std::vector<const Pass*> known = all_passes();
  for (const std::string& name : names) {
    if (std::any_of(known.begin(), known.end(), [&](const Pass* p) { return p->name == name; })) continue;
    std::string list;
    for (const Pass* p : known) list += fmt::format("{}{}", list.empty() ? "" : ", ", p->name);
    fail(ExitCode::kUsage, "there is no pass named '{}' (there are: {})", name, list);
  }
}

bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool verify_by_environment() {
  const char* setting = std::getenv("DS_VERIFY");
  return setting != nullptr && std::string_view(setting) != "0" && *setting != '\0';
}

}  // namespace

std::vector<char> state_values(const Graph& graph) {
  std::vector<char> is_state(graph.value_capacity(), 0);
  for (const State& s : graph.states()) is_state[static_cast<size_t>(s.value)] = 1;
  return is_state;
}

bool precedes(const Graph& graph, NodeId a, NodeId b) {
  for (NodeId i = a; i != kNone; i = graph.node(i).next)
    if (i == b) return true;
  return false;
}

std::vector<const Pass*> all_passes() {
  std::vector<const Pass*> list;
  for (const Pipeline& pipeline : pipelines())
    for (const Pass* pass : pipeline.passes)
      if (std::find(list.begin(), list.end(), pass) == list.end()) list.push_back(pass);
  return list;
}

std::vector<std::string_view> pipeline_names() {
  std::vector<std::string_view> names;
  for (const Pipeline& pipeline : pipelines()) names.push_back(pipeline.name);
  return names;
}

std::vector<const Pass*> pipeline_passes(std::string_view name) {
  for (const Pipeline& pipeline : pipelines())
    if (pipeline.name == name) return pipeline.passes;
  fail(ExitCode::kUsage, "there is no pipeline named '{}'", name);
}

std::vector<std::string> run_pipeline(Graph& graph, std::string_view name, const PipelineOptions& options) {
  check_names(options.disabled);
  check_names(options.dump_after);
  const bool verify = options.verify || verify_by_environment();
  std::vector<std::string> changed;
  PassContext context{options.evaluate, options.precision, options.isa, options.costs};
  for (const Pass* pass : pipeline_passes(name)) {
    if (contains(options.disabled, pass->name)) continue;
    with_context([&] { return fmt::format("pass '{}'", pass->name); }, [&] {
      Rewriter rewriter(graph);  // one a pass: a pass may use further ones inside
      const size_t before = graph.node_count();
      if (pass->run(rewriter, context)) changed.emplace_back(pass->name);
      log("passes", "{}: {} -> {} nodes", pass->name, before, graph.node_count());
      if (verify) verify_graph(graph);
    });
    if (!contains(options.dump_after, pass->name)) continue;
    const std::string text = print_graph(graph);
    if (options.dump) {
      options.dump(pass->name, text);
    } else {
      std::fprintf(stderr, "# after %s\n%s", std::string(pass->name).c_str(), text.c_str());
    }
  }
  return changed;
}

}  // namespace ds
