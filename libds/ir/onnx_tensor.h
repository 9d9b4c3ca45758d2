// onnx.TensorProto to and from Tensor. Internal to libds/ir/onnx_*.
//
// Nothing is allocated before the amount of data has been compared with what the shape needs, so a
// file cannot ask for more memory than it holds bytes.
#pragma once

#include <onnx/onnx_pb.h>

#include <map>
#include <memory>
#include <string>

#include "libds/base/file.h"
#include "libds/mem/tensor.h"

namespace ds {

// Element type by its ONNX number. Types ONNX defines and this library does not hold are
// unsupported; other numbers are bad data. Strings are unsupported.
DType dtype_from_onnx(int32_t data_type);

// Files a model keeps tensor data in. They must lie in the model's folder or below it: relative
// paths without "..", no symbolic link on the way, no second hard link to the file, and the range
// asked for inside the file. Each file is mapped once; tensors keep the mapping alive.
class ExternalFiles {
 public:
  // An empty folder means that there is none (standard input): external data is refused.
  explicit ExternalFiles(std::string folder) : folder_(std::move(folder)) {}
  // `bytes` from the place `tensor.external_data` names. Borrowed from the map where alignment allows.
  Tensor read(const onnx::TensorProto& tensor, DType dtype, Shape shape);

 private:
  std::shared_ptr<const MappedFile> open(const std::string& location);

  std::string folder_;
  std::map<std::string, std::shared_ptr<const MappedFile>> open_;
};

// Content of `tensor`; its data is released on the way, so that a model is not held twice.
// Error messages start with the tensor's name when it has one.
Tensor tensor_from_onnx(onnx::TensorProto& tensor, ExternalFiles& files);

// dtype, dims and raw_data (little endian); the name is left alone.
void tensor_to_onnx(const Tensor& tensor, onnx::TensorProto& proto);

}  // namespace ds
