// onnx.AttributeProto to Attribute, and the content of Constant nodes. Internal to libds/ir/onnx_*.
#pragma once

#include <onnx/onnx_pb.h>

#include <string>
#include <string_view>

#include "libds/ir/graph.h"
#include "libds/ir/onnx_tensor.h"

namespace ds {

// "ai.onnx" is written "".
std::string_view plain_domain(const std::string& domain);
// What messages call a node.
std::string label_of(const onnx::NodeProto& node);

// The type, guessed from the content where the file does not say it (IR below 2).
onnx::AttributeProto::AttributeType type_of(const onnx::AttributeProto& attribute);
// Everything but graphs.
Attribute attribute_from_onnx(onnx::AttributeProto& attribute, ExternalFiles& files);

bool is_constant_node(const onnx::NodeProto& node);
// Content of a Constant node, whichever attribute holds it.
Tensor constant_from_onnx(onnx::NodeProto& node, ExternalFiles& files);

}  // namespace ds
