// onnx.TypeProto to ValueType, and to the text that attributes hold it as. Internal to libds/ir/onnx_*.
#pragma once

#include <onnx/onnx_pb.h>

#include <optional>
#include <string>
#include <string_view>

#include "libds/ir/type_text.h"

namespace ds {

// Dimensions of a declared tensor, symbols in those of `graph`; nullopt when it has no shape.
std::optional<Dims> dims_from_onnx(Graph& graph, const onnx::TypeProto::Tensor& type);
// A declared type; nullopt for kinds of value this library does not hold.
std::optional<ValueType> type_from_onnx(Graph& graph, const onnx::TypeProto& type);

// Whether the attribute of a node of domain ai.onnx is a type.
bool is_type_attribute(const Node& node, std::string_view attribute);
// The text of such an attribute, and back (type_text.h).
std::string type_attribute_from_onnx(const onnx::AttributeProto& attribute);
void type_attribute_to_onnx(const std::string& text, onnx::AttributeProto& attribute);

}  // namespace ds
