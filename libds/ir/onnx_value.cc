#include "libds/ir/onnx_value.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

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

}  // namespace

Tensor parse_onnx_tensor(std::string_view bytes) {
  auto proto = parse_proto<onnx::TensorProto>(bytes);
  ExternalFiles none("");
  return tensor_from_onnx(proto, none);
}

}  // namespace ds
