// Where the exporter leaves the content of tensors: it writes a frame (onnx_wire.h), and the weights go from
// the tensors to the file without passing through a message. Internal to libds/ir/onnx_*.
#pragma once

#include <onnx/onnx_pb.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "libds/base/file.h"
#include "libds/ir/onnx_wire.h"
#include "libds/mem/tensor.h"

namespace ds {

class TensorSink {
 public:
  // `data_file`: name of the file for external data, as the model refers to it; empty: all in the model.
  explicit TensorSink(std::string data_file = {}) : data_file_(std::move(data_file)) {}

  // Fills in type, dims and what stands for the content. The tensor is kept until it is written.
  void initializer(const Tensor& tensor, onnx::TensorProto& proto);
  void attribute(const Tensor& tensor, onnx::TensorProto& proto);  // never external: not every reader takes it

  // The message with room for the tensors that go into it. Throws kUnsupported when it is too large without them.
  wire::Layout layout(const onnx::ModelProto& frame) const;
  // Calls `write` with the bytes of the model, piece by piece.
  void for_each_piece(const wire::Layout& layout, const std::function<void(std::string_view)>& write) const;
  bool has_external() const { return !external_.empty(); }
  void write_external(FileWriter& file) const;

 private:
  struct External {
    Tensor tensor;
    uint64_t offset = 0;
  };

  std::string data_file_;
  wire::Marker marker_;
  std::vector<Tensor> inside_;
  std::vector<External> external_;
  uint64_t external_bytes_ = 0;
};

}  // namespace ds
