// Model-local functions: calls are replaced by the function's body, so that the graph holds plain
// operators only. Internal to libds/ir/onnx_*.
#pragma once

#include <onnx/onnx_pb.h>

#include <cstdint>
#include <vector>

namespace ds {

struct InlinedFunctions {
  bool any = false;
  std::vector<int64_t> opsets;  // versions of domain ai.onnx that functions brought along
};

// Works on the model in place, bodies of control-flow nodes included. Inner values and nodes are named after the call. Throws bad data for
// functions that call themselves, in however many steps, and for bodies that do not fit their call;
// kUnsupported when the result would be absurdly large. `opset`: that of the model.
InlinedFunctions inline_functions(onnx::ModelProto& model, int64_t opset);

// The version of domain ai.onnx that a node follows: that of the function it came from, else
// `otherwise`. take_ takes the mark off the node.
int64_t node_opset(const onnx::NodeProto& node, int64_t otherwise);
int64_t take_node_opset(onnx::NodeProto& node, int64_t otherwise);

}  // namespace ds
