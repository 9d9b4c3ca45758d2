// Tensor data that stays where it is: in the bytes of the model file, or in files beside it. Internal to
// libds/ir/onnx_*.
//
// A tensor points into the map where the data is aligned to its elements. Elsewhere its memory is deferred
// (mem/tensor.h): copied from the map when somebody reads it, and not held by who only packs it.
#pragma once

#include <onnx/onnx_pb.h>

#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libds/base/file.h"
#include "libds/ir/onnx_wire.h"
#include "libds/mem/tensor.h"

namespace ds {

// The tensor of this type and shape over `bytes` (as many as it needs) of `file`; without a file they are
// copied.
Tensor tensor_in_place(std::string_view bytes, const std::shared_ptr<const MappedFile>& file, DType dtype, Shape shape);

// What was taken out of one model file before protobuf read it.
class Payloads {
 public:
  // Takes out the tensors of `least` bytes or more. Returns what protobuf is to read: a frame, or `model`
  // itself when there is nothing to take out or it is not well-formed. With `file`, which holds the
  // bytes, tensors may keep pointing into it.
  std::string_view take_out(std::string_view model, size_t least, std::shared_ptr<MappedFile> file);

  // The payload that a tensor's marker stands for; null when its data is in the message.
  const wire::Payload* find(const onnx::TensorProto& tensor) const;
  const std::shared_ptr<const MappedFile>& file() const { return file_; }
  // Puts data back into an attribute that is kept as a message.
  void put_back(onnx::AttributeProto& attribute) const;

 private:
  void align(std::span<std::byte> bytes);

  wire::Marker marker_;
  std::string frame_;
  std::vector<wire::Payload> payloads_;
  std::shared_ptr<const MappedFile> file_;
};

// The typed fields of a TensorProto, packed in a payload, as repeated fields are read: size() and Get(i)
// with i rising from 0.
template <typename T>
class PackedField {
 public:
  explicit PackedField(std::string_view bytes = {})
      : varints_(bytes), bytes_(bytes),
        size_(std::is_integral_v<T> ? wire::Varints::count(bytes) : static_cast<int64_t>(bytes.size() / sizeof(T))) {}
  int64_t size() const { return size_; }
  T Get([[maybe_unused]] int64_t i) const {
    if constexpr (std::is_integral_v<T>) {
      uint64_t value = 0;
      varints_.next(value);  // size() counted them
      return static_cast<T>(value);
    } else {
      T value;
      std::memcpy(&value, bytes_.data() + static_cast<size_t>(i) * sizeof(T), sizeof(T));
      return value;
    }
  }

 private:
  mutable wire::Varints varints_;
  std::string_view bytes_;
  int64_t size_;
};

// A payload as the fields of a TensorProto: one holds it, the others are empty.
class PayloadFields {
 public:
  explicit PayloadFields(const wire::Payload& payload) : payload_(payload) {}
  PackedField<float> float_data() const { return field<float>(wire::Field::kFloats); }
  PackedField<double> double_data() const { return field<double>(wire::Field::kDoubles); }
  PackedField<int32_t> int32_data() const { return field<int32_t>(wire::Field::kInt32s); }
  PackedField<int64_t> int64_data() const { return field<int64_t>(wire::Field::kInt64s); }
  PackedField<uint64_t> uint64_data() const { return field<uint64_t>(wire::Field::kUint64s); }

 private:
  template <typename T>
  PackedField<T> field(wire::Field which) const {
    return PackedField<T>(payload_.field == which ? payload_.bytes : std::string_view());
  }
  const wire::Payload& payload_;
};

}  // namespace ds
