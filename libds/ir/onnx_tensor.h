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
#include "libds/ir/graph.h"
#include "libds/ir/onnx_payload.h"
#include "libds/mem/tensor.h"

namespace ds {

// Files a model keeps tensor data in. They must lie in the model's folder or below it: relative
// paths without "..", no symbolic link on the way, no second hard link to the file, and the range
// asked for inside the file. Each file is mapped once; tensors keep the mapping alive.
class ExternalFiles {
 public:
  // An empty folder means that there is none (standard input): external data is refused.
  // `payloads`: what was taken out of the model file itself, if anything was.
  explicit ExternalFiles(std::string folder, const Payloads* payloads = nullptr) : folder_(std::move(folder)), payloads_(payloads) {}
  const Payloads* payloads() const { return payloads_; }
  // The content from the place `tensor.external_data` names, left there where alignment allows.
  Tensor read(const onnx::TensorProto& tensor, DType dtype, Shape shape);
  // Those read from so far, by name.
  std::vector<ExternalFile> used() const;

 private:
  std::shared_ptr<const MappedFile> open(const std::string& location);

  std::string folder_;
  const Payloads* payloads_;
  struct Opened {
    std::shared_ptr<const MappedFile> file;
    int64_t tensors = 0;  // read from it
  };
  std::map<std::string, Opened> open_;
};

// Content of `tensor`; its data is released on the way, so that a model is not held twice.
// Error messages start with the tensor's name when it has one.
Tensor tensor_from_onnx(onnx::TensorProto& tensor, ExternalFiles& files);

// dtype and dims; the name is left alone.
void type_to_onnx(const Tensor& tensor, onnx::TensorProto& proto);
// The same and the content, in raw_data (little endian).
void tensor_to_onnx(const Tensor& tensor, onnx::TensorProto& proto);

}  // namespace ds
