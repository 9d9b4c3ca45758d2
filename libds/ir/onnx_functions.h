// Model-local functions: calls are replaced by the function's body, so that the graph holds plain
// operators only. Internal to libds/ir/onnx_*.
#pragma once

#include <onnx/onnx_pb.h>

#include <cstdint>
#include <vector>

namespace ds {

struct InlinedFunctions {
  bool any = false;
  // Per node of the graph, the version of domain ai.onnx it follows: a function brings its own.
  std::vector<int64_t> opsets;
};

// Works on the model in place. Inner values and nodes are named after the call. Throws bad data for
// functions that call themselves, in however many steps, and for bodies that do not fit their call;
// kUnsupported when the result would be absurdly large. `opset`: that of the model.
InlinedFunctions inline_functions(onnx::ModelProto& model, int64_t opset);

}  // namespace ds
