#include "libds/ir/onnx_sink.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <limits>

#include "libds/ir/onnx_tensor.h"

namespace ds {
namespace {

constexpr size_t kLeastMarked = 64;       // smaller content is as easily copied
constexpr size_t kLeastExternal = 1024;   // as the onnx package has it
constexpr uint64_t kExternalAlignment = 4096;  // so that readers can map each tensor by itself

std::string_view bytes_of(const Tensor& t) { return {static_cast<const char*>(t.raw()), t.bytes()}; }

std::string serialized(const onnx::ModelProto& frame) {
  const size_t size = frame.ByteSizeLong();
  if (size > static_cast<size_t>(std::numeric_limits<int>::max()))
    fail(ExitCode::kUnsupported, "the model takes {} bytes without its weights, one file holds at most 2 GiB", size);
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  DS_CHECK(frame.SerializeToCodedStream(&coded));
  coded.Trim();
  return bytes;
}

}  // namespace

void TensorSink::attribute(const Tensor& tensor, onnx::TensorProto& proto) {
  if (is_object(tensor.dtype()) || tensor.bytes() < kLeastMarked) return tensor_to_onnx(tensor, proto);
  type_to_onnx(tensor, proto);
  proto.set_raw_data(marker_.text(static_cast<uint32_t>(inside_.size())));
  inside_.push_back(tensor);
}

void TensorSink::initializer(const Tensor& tensor, onnx::TensorProto& proto) {
  if (data_file_.empty() || is_object(tensor.dtype()) || tensor.bytes() < kLeastExternal) return attribute(tensor, proto);
  type_to_onnx(tensor, proto);
  const uint64_t offset = (external_bytes_ + kExternalAlignment - 1) / kExternalAlignment * kExternalAlignment;
  external_.push_back({tensor, offset});
  external_bytes_ = offset + tensor.bytes();
  proto.set_data_location(onnx::TensorProto::EXTERNAL);
  const auto entry = [&](const char* key, std::string value) {
    onnx::StringStringEntryProto& e = *proto.add_external_data();
    e.set_key(key);
    e.set_value(std::move(value));
  };
  entry("location", data_file_);
  entry("offset", std::to_string(offset));
  entry("length", std::to_string(tensor.bytes()));
}

wire::Layout TensorSink::layout(const onnx::ModelProto& frame) const {
  return wire::put_in(serialized(frame), wire::Message::kModel, marker_, [&](uint32_t index) {
    return wire::Room{wire::Field::kRaw, inside_[index].bytes()};
  });
}

void TensorSink::for_each_piece(const wire::Layout& layout, const std::function<void(std::string_view)>& write) const {
  const std::string_view frame = layout.frame;
  size_t done = 0;
  for (const wire::Cut& cut : layout.cuts) {
    write(frame.substr(done, cut.at - done));
    write(bytes_of(inside_[cut.index].transient()));
    done = cut.at;
  }
  write(frame.substr(done));
}

void TensorSink::write_external(FileWriter& file) const {
  for (const External& e : external_) {
    file.align(kExternalAlignment);
    DS_CHECK(file.written() == e.offset);
    file.write(bytes_of(e.tensor.transient()));
  }
}

}  // namespace ds
