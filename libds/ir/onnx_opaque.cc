#include "libds/ir/onnx_opaque.h"

#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <vector>

#include "libds/base/error.h"

namespace ds {
namespace {

std::string bytes_of(const google::protobuf::Message& message) {
  std::string bytes;
  message.SerializePartialToString(&bytes);
  return bytes;
}

template <typename Message>
Message parsed(const std::string& bytes) {
  Message message;
  DS_CHECK(message.ParsePartialFromString(bytes));  // we wrote it
  return message;
}

void copy_unknown(const google::protobuf::Message& from, google::protobuf::Message& to) {
  if (!has_unknown(from)) return;
  to.GetReflection()->MutableUnknownFields(&to)->MergeFrom(from.GetReflection()->GetUnknownFields(from));
}

}  // namespace

bool has_unknown(const google::protobuf::Message& message) {
  return message.GetReflection()->GetUnknownFields(message).field_count() > 0;
}

std::string model_skeleton(const onnx::ModelProto& model) {
  onnx::ModelProto keep;
  copy_unknown(model, keep);
  *keep.mutable_training_info() = model.training_info();
  *keep.mutable_functions() = model.functions();
  const onnx::GraphProto& graph = model.graph();
  if (has_unknown(graph) || graph.quantization_annotation_size() > 0) {
    copy_unknown(graph, *keep.mutable_graph());
    *keep.mutable_graph()->mutable_quantization_annotation() = graph.quantization_annotation();
  }
  return bytes_of(keep);
}

std::string node_skeleton(const onnx::NodeProto& node, const std::vector<std::string>& kept) {
  onnx::NodeProto keep;
  copy_unknown(node, keep);
  for (const onnx::AttributeProto& a : node.attribute()) {
    if (std::find(kept.begin(), kept.end(), a.name()) != kept.end()) {
      *keep.add_attribute() = a;
    } else if (has_unknown(a) || a.has_doc_string()) {
      onnx::AttributeProto& rest = *keep.add_attribute();
      rest.set_name(a.name());
      if (a.has_doc_string()) rest.set_doc_string(a.doc_string());
      copy_unknown(a, rest);
    }
  }
  return bytes_of(keep);
}

std::string value_skeleton(const onnx::ValueInfoProto* declared, const onnx::TensorProto* initializer) {
  onnx::GraphProto keep;  // a container for the two
  if (declared != nullptr) {
    *keep.add_value_info() = *declared;
    keep.mutable_value_info(0)->clear_name();
  }
  if (initializer != nullptr && (has_unknown(*initializer) || initializer->has_doc_string())) {
    onnx::TensorProto& rest = *keep.add_initializer();
    copy_unknown(*initializer, rest);
    if (initializer->has_doc_string()) rest.set_doc_string(initializer->doc_string());
  }
  return bytes_of(keep);
}

onnx::ModelProto parse_model_skeleton(const std::string& bytes) { return parsed<onnx::ModelProto>(bytes); }
onnx::NodeProto parse_node_skeleton(const std::string& bytes) { return parsed<onnx::NodeProto>(bytes); }

ValueSkeleton parse_value_skeleton(const std::string& bytes) {
  ValueSkeleton skeleton;
  const auto keep = parsed<onnx::GraphProto>(bytes);
  if (keep.value_info_size() > 0) {
    skeleton.declared = true;
    skeleton.info = keep.value_info(0);
  }
  if (keep.initializer_size() > 0) skeleton.tensor = keep.initializer(0);
  return skeleton;
}

}  // namespace ds
