// What changed between ONNX operator-set versions, as tables read in both directions.
//
// The library knows one form of each operator, that of the newest version. upgrade_node() brings a
// node of an older file to it; downgrade_graph() brings a graph back to what a given version can
// say, and least_opset() tells the oldest version that can say it at all. Facts are those of the
// ONNX operator changelog.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "libds/ir/rewriter.h"

namespace ds {

inline constexpr int64_t kOldestReadOpset = 1;
inline constexpr int64_t kOldestOpset = 7;    // that is written: before it, broadcasting was an attribute
inline constexpr int64_t kNewestOpset = 28;
// Operators of this domain are kept as they are in the file: their attributes say which form it is.
inline constexpr std::string_view kMlDomain = "ai.onnx.ml";
inline constexpr int64_t kNewestMlOpset = 5;
inline constexpr int64_t kDefaultOpset = 17;  // of graphs that were not loaded from a file

// The name an operator has today ("Upsample" is "Resize", "Scatter" is "ScatterElements").
std::string_view current_op_name(std::string_view op);

// The operator set that an operator of domain ai.onnx began with; kOldestOpset for all that are as old or older.
int64_t first_opset(std::string_view op);

// Canonicalises one node that follows version `opset`. Called in execution order, with the types of
// the inputs known; the caller infers the node's own afterwards. May put nodes before or after it.
// Throws kUnsupported for old semantics that no longer exist.
void upgrade_node(Rewriter& rewriter, NodeId id, int64_t opset);

struct OpsetNeed {
  int64_t opset = kOldestOpset;
  NodeId node = kNone;  // the first one that needs it; kNone: nothing needs more than the oldest
};
OpsetNeed least_opset(const Graph& graph);

// Rewrites every node into its form of version `opset`, which must be at least least_opset().
// The result is for the serializer only: it is no longer canonical.
void downgrade_graph(Graph& graph, int64_t opset);

// The IR version that came with an operator-set version.
int64_t ir_version_of_opset(int64_t opset);

}  // namespace ds
