#include "libds/ir/onnx_value.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <onnx/onnx-data_pb.h>

#include <limits>

#include "libds/base/error.h"
#include "libds/ir/onnx_tensor.h"

namespace ds {
namespace {

template <typename Proto>
Proto parse_proto(std::string_view bytes) {
  if (bytes.size() > static_cast<size_t>(std::numeric_limits<int>::max()))
    fail(ExitCode::kUnsupported, "is larger than 2 GB, which protobuf cannot hold");
  google::protobuf::io::ArrayInputStream array(bytes.data(), static_cast<int>(bytes.size()));
  google::protobuf::io::CodedInputStream coded(&array);
  Proto proto;
  if (!proto.ParseFromCodedStream(&coded) || !coded.ConsumedEntireMessage())
    bad_data("is not a serialized {}", proto.GetTypeName());
  return proto;
}

// Protobuf bounds the depth of what it parses, and with it that of these.
Tensor value_from(onnx::TensorProto& proto) {
  ExternalFiles none("");
  return tensor_from_onnx(proto, none);
}

Tensor value_from(onnx::OptionalProto& proto);

Tensor value_from(onnx::SequenceProto& proto) {
  std::vector<Tensor> items;
  const auto take = [&](auto* list) {
    for (auto& item : *list) items.push_back(value_from(item));
  };
  switch (proto.elem_type()) {
    case onnx::SequenceProto::TENSOR: take(proto.mutable_tensor_values()); break;
    case onnx::SequenceProto::SEQUENCE: take(proto.mutable_sequence_values()); break;
    case onnx::SequenceProto::OPTIONAL: take(proto.mutable_optional_values()); break;
    case onnx::SequenceProto::UNDEFINED: break;  // an empty one
    default: fail(ExitCode::kUnsupported, "sequences of maps or sparse tensors are not supported");
  }
  return Tensor::sequence(std::move(items));
}

Tensor value_from(onnx::OptionalProto& proto) {
  if (proto.has_tensor_value()) return Tensor::optional_of(value_from(*proto.mutable_tensor_value()));
  if (proto.has_sequence_value()) return Tensor::optional_of(value_from(*proto.mutable_sequence_value()));
  if (proto.has_optional_value()) return Tensor::optional_of(value_from(*proto.mutable_optional_value()));
  if (proto.has_map_value() || proto.has_sparse_tensor_value())
    fail(ExitCode::kUnsupported, "optional maps and sparse tensors are not supported");
  return Tensor::optional_of(Tensor());
}

template <typename Proto>
Tensor parse_as(std::string_view bytes) {
  auto proto = parse_proto<Proto>(bytes);
  return value_from(proto);
}

}  // namespace

Tensor parse_onnx_tensor(std::string_view bytes) { return parse_as<onnx::TensorProto>(bytes); }

Tensor parse_onnx_value(std::string_view bytes, DType dtype) {
  if (dtype == DType::kSequence) return parse_as<onnx::SequenceProto>(bytes);
  if (dtype == DType::kOptional) return parse_as<onnx::OptionalProto>(bytes);
  return parse_as<onnx::TensorProto>(bytes);
}

}  // namespace ds
