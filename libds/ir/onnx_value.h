// Values stored as files of their own (test_data_set_N/input_0.pb) to Tensor.
#pragma once

#include <string_view>

#include "libds/mem/tensor.h"

namespace ds {

// A serialized onnx.TensorProto. Its data must be in `bytes`: there is no folder for external data.
// Errors as for a model's initializers: 65 for what is malformed, 69 for element types not held.
Tensor parse_onnx_tensor(std::string_view bytes);

// The message that a value of type `dtype` is stored in: SequenceProto for kSequence, OptionalProto for
// kOptional, else TensorProto. Maps and sparse tensors are unsupported.
Tensor parse_onnx_value(std::string_view bytes, DType dtype);

}  // namespace ds
