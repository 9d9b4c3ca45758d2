// onnx.GraphProto to Graph: of a model, and of the bodies of control-flow nodes. Internal to
// libds/ir/onnx_*.
//
// A body may use any name of the graphs around it. Names are looked up from the inside out; what is
// found outside becomes an input of the body and of its node (Node::captured), or, when it is a
// constant, the same constant.
#pragma once

#include <onnx/onnx_pb.h>

#include <cstdint>

#include "libds/ir/graph.h"
#include "libds/ir/onnx_tensor.h"

namespace ds {

struct GraphReadOptions {
  int64_t opset;  // of nodes that do not bring their own (onnx_functions.h)
  bool allow_unknown_ops;
  ExternalFiles& files;
};

// Whether the registry knows the operator, under today's name.
bool is_known_operator(const onnx::NodeProto& node);

// Fills `graph`, whose header has been read. The result is sorted, canonical and typed. `proto` is
// taken apart on the way.
void read_main_graph(onnx::GraphProto& proto, const GraphReadOptions& options, Graph& graph);

}  // namespace ds
