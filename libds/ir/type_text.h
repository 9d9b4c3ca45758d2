// Types as attributes and numbers carry them, for operators, which see no protobuf.
#pragma once

#include <cstdint>
#include <string>

#include "libds/ir/graph.h"

namespace ds {

// Element type by its ONNX number. Numbers that ONNX defines and this library does not hold (complex
// numbers), and those that a newer ONNX is likely to mean by what is not known here, are unsupported;
// others are bad data.
DType dtype_of_number(int64_t number);

// An attribute of kind TYPE_PROTO (Optional's "type") is kept as protobuf's text on one line:
// "sequence_type { elem_type { tensor_type { elem_type: 1 } } }". Symbols get their place in `graph`.
// Kinds of value that this library does not hold are unsupported.
ValueType type_from_text(Graph& graph, const std::string& text);

}  // namespace ds
