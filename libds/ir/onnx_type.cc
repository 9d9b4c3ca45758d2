#include "libds/ir/onnx_type.h"

#include <google/protobuf/text_format.h>

#include "libds/base/error.h"

namespace ds {

DType dtype_of_number(int64_t number) {
  constexpr int64_t kLastKnown = 26, kComplex64 = 14, kComplex128 = 15;
  constexpr int64_t kLastPlausible = 127;  // ONNX has added about two a year
  if (number == 0) bad_data("element type is undefined");
  if (number < 0 || number > kLastPlausible) bad_data("unknown element type {}", number);
  if (number > kLastKnown)
    fail(ExitCode::kUnsupported, "element type number {} is not supported: those up to {} are known here, it may be of a newer ONNX", number, kLastKnown);
  if (number == kComplex64 || number == kComplex128)
    fail(ExitCode::kUnsupported, "element type complex{} is not supported", number == kComplex64 ? 64 : 128);
  DS_CHECK(dtype_known(static_cast<int32_t>(number)));
  return static_cast<DType>(number);
}

std::optional<Dims> dims_from_onnx(Graph& graph, const onnx::TypeProto::Tensor& type) {
  if (!type.has_shape()) return std::nullopt;
  Dims dims;
  Shape known;
  for (const auto& d : type.shape().dim()) {
    if (!d.dim_param().empty()) dims.push_back(graph.symbol(d.dim_param()));
    else if (d.has_dim_value() && d.dim_value() >= 0) dims.push_back(Dim(d.dim_value()));
    else dims.push_back(graph.fresh_dim());
    if (dims.back().known()) known.push_back(dims.back().raw);
  }
  checked_mul(checked_numel(known), 16);  // of any element type
  return dims;
}

namespace {

std::optional<ValueType> container(Graph& graph, DType dtype, const onnx::TypeProto& element) {
  std::optional<ValueType> inner = type_from_onnx(graph, element);
  if (!inner) return std::nullopt;
  return ValueType{dtype, std::nullopt, std::make_shared<const ValueType>(std::move(*inner))};
}

}  // namespace

std::optional<ValueType> type_from_onnx(Graph& graph, const onnx::TypeProto& type) {
  switch (type.value_case()) {
    case onnx::TypeProto::kTensorType: return ValueType{dtype_of_number(type.tensor_type().elem_type()), dims_from_onnx(graph, type.tensor_type())};
    case onnx::TypeProto::kSequenceType: return container(graph, DType::kSequence, type.sequence_type().elem_type());
    case onnx::TypeProto::kOptionalType: return container(graph, DType::kOptional, type.optional_type().elem_type());
    default: return std::nullopt;
  }
}

ValueType type_from_text(Graph& graph, const std::string& text) {
  onnx::TypeProto proto;
  if (!google::protobuf::TextFormat::ParseFromString(text, &proto)) fail(ExitCode::kInternal, "'{}' is not the text of a type", text);
  std::optional<ValueType> type = type_from_onnx(graph, proto);
  if (!type) fail(ExitCode::kUnsupported, "a type that is no tensor, sequence or optional is not supported");
  return std::move(*type);
}

bool is_type_attribute(const Node& node, std::string_view attribute) { return node.is("Optional") && attribute == "type"; }

std::string type_attribute_from_onnx(const onnx::AttributeProto& attribute) {
  if (!attribute.has_tp()) bad_data("attribute '{}' is not a type", attribute.name());
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  printer.SetHideUnknownFields(true);  // they could not be read back
  std::string text;
  DS_CHECK(printer.PrintToString(attribute.tp(), &text));
  if (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

void type_attribute_to_onnx(const std::string& text, onnx::AttributeProto& attribute) {
  attribute.set_type(onnx::AttributeProto::TYPE_PROTO);
  DS_CHECK(google::protobuf::TextFormat::ParseFromString(text, attribute.mutable_tp()));  // we wrote it
}

}  // namespace ds
