#include "libds/ir/onnx_attributes.h"

#include <algorithm>

namespace ds {

std::string_view plain_domain(const std::string& domain) {
  return domain == "ai.onnx" ? std::string_view() : std::string_view(domain);
}

std::string label_of(const onnx::NodeProto& n) {
  return n.name().empty() && n.output_size() > 0 ? fmt::format("node making '{}' ({})", n.output(0), n.op_type())
                                                 : fmt::format("node '{}' ({})", n.name(), n.op_type());
}

onnx::AttributeProto::AttributeType type_of(const onnx::AttributeProto& a) {
  if (a.type() != onnx::AttributeProto::UNDEFINED) return a.type();
  if (a.has_f()) return onnx::AttributeProto::FLOAT;
  if (a.has_i()) return onnx::AttributeProto::INT;
  if (a.has_s()) return onnx::AttributeProto::STRING;
  if (a.has_t()) return onnx::AttributeProto::TENSOR;
  if (a.has_tp()) return onnx::AttributeProto::TYPE_PROTO;
  if (a.floats_size() > 0) return onnx::AttributeProto::FLOATS;
  if (a.ints_size() > 0) return onnx::AttributeProto::INTS;
  if (a.strings_size() > 0) return onnx::AttributeProto::STRINGS;
  return onnx::AttributeProto::UNDEFINED;
}

Attribute attribute_from_onnx(onnx::AttributeProto& a, ExternalFiles& files) {
  if (!a.ref_attr_name().empty()) bad_data("attribute '{}' refers to '{}' outside a function", a.name(), a.ref_attr_name());
  switch (type_of(a)) {
    case onnx::AttributeProto::FLOAT: return a.f();
    case onnx::AttributeProto::INT: return a.i();
    case onnx::AttributeProto::STRING: return a.s();
    case onnx::AttributeProto::FLOATS: return std::vector<float>(a.floats().begin(), a.floats().end());
    case onnx::AttributeProto::INTS: return std::vector<int64_t>(a.ints().begin(), a.ints().end());
    case onnx::AttributeProto::STRINGS: return std::vector<std::string>(a.strings().begin(), a.strings().end());
    case onnx::AttributeProto::TENSOR:
      return with_context([&] { return fmt::format("attribute '{}'", a.name()); }, [&] { return tensor_from_onnx(*a.mutable_t(), files); });
    default:
      fail(ExitCode::kUnsupported, "attribute '{}' has a type that is not supported ({})", a.name(),
           onnx::AttributeProto::AttributeType_Name(a.type()));
  }
}

Tensor constant_from_onnx(onnx::NodeProto& n, ExternalFiles& files) {
  if (n.attribute_size() != 1) bad_data("has {} attributes, expected the one that holds its value", n.attribute_size());
  onnx::AttributeProto& a = *n.mutable_attribute(0);
  static constexpr std::string_view kHolders[] = {"value",        "value_int",    "value_ints",  "value_float",
                                                  "value_floats", "value_string", "value_strings"};
  if (std::find(std::begin(kHolders), std::end(kHolders), a.name()) == std::end(kHolders))
    fail(ExitCode::kUnsupported, "a constant given by '{}' is not supported", a.name());
  const Attribute value = attribute_from_onnx(a, files);
  if (const auto* t = std::get_if<Tensor>(&value)) return *t;
  if (const auto* x = std::get_if<int64_t>(&value)) return Tensor::scalar(*x);
  if (const auto* x = std::get_if<float>(&value)) return Tensor::scalar(*x);
  if (const auto* x = std::get_if<std::vector<int64_t>>(&value)) return Tensor::vector<int64_t>(*x);
  if (const auto* x = std::get_if<std::vector<float>>(&value)) return Tensor::vector<float>(*x);
  if (const auto* x = std::get_if<std::string>(&value)) return Tensor::of_strings({}, {*x});
  if (const auto* x = std::get_if<std::vector<std::string>>(&value)) return Tensor::of_strings({static_cast<int64_t>(x->size())}, *x);
  bad_data("attribute '{}' holds no value", a.name());
}

bool is_constant_node(const onnx::NodeProto& n) { return n.op_type() == "Constant" && plain_domain(n.domain()).empty(); }

}  // namespace ds
