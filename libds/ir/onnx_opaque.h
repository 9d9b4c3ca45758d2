// What a file holds and this library does not understand: fields of a newer IR than the schema at
// hand, documentation of tensors, dimension denotations, quantization annotations, training info.
//
// It is kept as a skeleton: the message it came in, with everything the graph itself represents
// taken out. The exporter starts from the skeleton and fills the graph's part in, so nothing of the
// rest is lost. Internal to libds/ir/onnx_*.
#pragma once

#include <onnx/onnx_pb.h>

#include <string>

namespace ds {

// Whether any unknown field hangs on this message itself (not on its sub-messages).
bool has_unknown(const google::protobuf::Message& message);

// Serialized skeletons; empty when there is nothing to keep.
std::string model_skeleton(const onnx::ModelProto& model);  // with its graph's and its functions
// `kept` names attributes to keep whole (those the graph cannot represent).
std::string node_skeleton(const onnx::NodeProto& node, const std::vector<std::string>& kept);
// Of a value: its declaration (whole) and its initializer (without content); either may be null.
std::string value_skeleton(const onnx::ValueInfoProto* declared, const onnx::TensorProto* initializer);

// The reverse. An empty string gives an empty message.
onnx::ModelProto parse_model_skeleton(const std::string& bytes);
onnx::NodeProto parse_node_skeleton(const std::string& bytes);
struct ValueSkeleton {
  bool declared = false;
  onnx::ValueInfoProto info;
  onnx::TensorProto tensor;
};
ValueSkeleton parse_value_skeleton(const std::string& bytes);

}  // namespace ds
