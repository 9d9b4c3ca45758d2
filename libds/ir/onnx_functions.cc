#include "libds/ir/onnx_functions.h"

#include <google/protobuf/unknown_field_set.h>

#include <map>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>

#include "libds/base/error.h"

namespace ds {
namespace {

// Fields of IR versions after this schema's.
constexpr int kNodeOverload = 8, kFunctionOverload = 13, kFunctionAttributeProto = 11;
constexpr int kDeepest = 64;
constexpr size_t kMostNodes = 1 << 18;
constexpr size_t kLongestName = 1024;  // names of nested calls are joined

std::string unknown_string(const google::protobuf::Message& message, int field) {
  const auto& unknown = message.GetReflection()->GetUnknownFields(message);
  for (int i = 0; i < unknown.field_count(); ++i)
    if (unknown.field(i).number() == field && unknown.field(i).type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED)
      return unknown.field(i).length_delimited();
  return {};
}

// Attributes a function declares with defaults.
std::map<std::string, onnx::AttributeProto> defaults_of(const onnx::FunctionProto& f) {
  std::map<std::string, onnx::AttributeProto> defaults;
  const auto& unknown = f.GetReflection()->GetUnknownFields(f);
  for (int i = 0; i < unknown.field_count(); ++i) {
    const auto& field = unknown.field(i);
    if (field.number() != kFunctionAttributeProto || field.type() != google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) continue;
    onnx::AttributeProto a;
    if (!a.ParseFromString(field.length_delimited())) bad_data("function '{}': a default attribute cannot be read", f.name());
    defaults[a.name()] = std::move(a);
  }
  return defaults;
}

using Key = std::tuple<std::string, std::string, std::string>;  // domain, name, overload

class Inliner {
 public:
  Inliner(const onnx::ModelProto& model, int64_t opset) : opset_(opset) {
    for (const onnx::FunctionProto& f : model.functions())
      if (!functions_.emplace(Key{f.domain(), f.name(), unknown_string(f, kFunctionOverload)}, &f).second)
        bad_data("function '{}.{}' is defined twice", f.domain(), f.name());
  }

  InlinedFunctions run(onnx::GraphProto& graph) {
    for (const auto& n : graph.node())
      for (const std::string& name : n.output()) taken_.insert(name);
    for (const auto& t : graph.initializer()) taken_.insert(t.name());
    for (const auto& i : graph.input()) taken_.insert(i.name());
    for (onnx::NodeProto& n : *graph.mutable_node()) {
      if (function_of(n) == nullptr) take(std::move(n), opset_);
      else expand(n, 0);
    }
    graph.mutable_node()->Swap(out_.mutable_node());
    return std::move(result_);
  }

 private:
  const onnx::FunctionProto* function_of(const onnx::NodeProto& n) const {
    const auto it = functions_.find(Key{n.domain(), n.op_type(), unknown_string(n, kNodeOverload)});
    return it == functions_.end() ? nullptr : it->second;
  }

  void take(onnx::NodeProto n, int64_t opset) {
    if (result_.opsets.size() >= kMostNodes) fail(ExitCode::kUnsupported, "functions expand to more than {} nodes", kMostNodes);
    *out_.add_node() = std::move(n);
    result_.opsets.push_back(opset);
  }

  std::string fresh(const std::string& base) {
    std::string name = base;
    // The counter makes many requests for one name cheap.
    while (!taken_.insert(name).second) name = base + "_" + std::to_string(++suffixes_[base]);
    return name;
  }

  void expand(const onnx::NodeProto& call, int depth) {
    const onnx::FunctionProto& f = *function_of(call);
    std::string call_name = call.name().empty() && call.output_size() > 0 ? call.output(0) : call.name();
    if (call_name.size() > kLongestName) call_name = fresh("call");
    const auto wrong = [&](const std::string& why) { bad_data("node '{}' ({}.{}): {}", call_name, call.domain(), call.op_type(), why); };
    if (++calls_ > kMostNodes) fail(ExitCode::kUnsupported, "functions expand to more than {} calls", kMostNodes);
    if (depth >= kDeepest) wrong("functions call each other without end");
    if (call.input_size() > f.input_size()) wrong(fmt::format("has {} inputs, the function takes {}", call.input_size(), f.input_size()));
    if (call.output_size() > f.output_size()) wrong(fmt::format("has {} outputs, the function gives {}", call.output_size(), f.output_size()));
    result_.any = true;
    const int64_t opset = opset_of(f);

    std::unordered_map<std::string, std::string> names;  // inside -> outside
    for (int i = 0; i < f.input_size(); ++i) names[f.input(i)] = i < call.input_size() ? call.input(i) : std::string();
    for (int i = 0; i < f.output_size() && i < call.output_size(); ++i) {
      if (call.output(i).empty()) continue;
      if (const auto it = names.find(f.output(i)); it != names.end()) {  // handed through, or given twice
        onnx::NodeProto identity;
        identity.set_op_type("Identity");
        identity.set_name(fresh(call_name + "/" + f.output(i)));
        if (it->second.empty()) wrong(fmt::format("output '{}' is an input that is left out", f.output(i)));
        identity.add_input(it->second);
        identity.add_output(call.output(i));
        take(std::move(identity), opset_);
      } else {
        names[f.output(i)] = call.output(i);
      }
    }
    const auto outside = [&](const std::string& inside) {
      if (inside.empty()) return inside;
      const auto it = names.find(inside);
      if (it != names.end()) return it->second;
      return names[inside] = fresh(call_name + "/" + inside);
    };
    const auto defaults = defaults_of(f);
    for (int i = 0; i < f.node_size(); ++i) {
      const onnx::NodeProto& inner = f.node(i);
      onnx::NodeProto n = inner;
      n.set_name(call_name + "/" + (inner.name().empty() ? inner.op_type() + "_" + std::to_string(i) : inner.name()));
      for (std::string& name : *n.mutable_input()) name = outside(name);
      for (std::string& name : *n.mutable_output()) name = outside(name);
      substitute_attributes(inner, call, defaults, n);
      if (function_of(n) != nullptr) expand(n, depth + 1);
      else take(std::move(n), opset);
    }
  }

  int64_t opset_of(const onnx::FunctionProto& f) const {
    for (const auto& import : f.opset_import())
      if (import.domain().empty() || import.domain() == "ai.onnx") return import.version();
    return opset_;
  }

  // An attribute that refers to one of the function's takes the call's value, or the default, or is left out.
  static void substitute_attributes(const onnx::NodeProto& inner, const onnx::NodeProto& call,
                                    const std::map<std::string, onnx::AttributeProto>& defaults, onnx::NodeProto& n) {
    n.clear_attribute();
    for (const onnx::AttributeProto& a : inner.attribute()) {
      if (a.ref_attr_name().empty()) {
        *n.add_attribute() = a;
        continue;
      }
      const onnx::AttributeProto* given = nullptr;
      if (const auto it = defaults.find(a.ref_attr_name()); it != defaults.end()) given = &it->second;
      for (const onnx::AttributeProto& c : call.attribute())
        if (c.name() == a.ref_attr_name()) given = &c;
      if (given == nullptr) continue;
      onnx::AttributeProto& copy = *n.add_attribute();
      copy = *given;
      copy.set_name(a.name());
    }
  }

  const int64_t opset_;
  std::map<Key, const onnx::FunctionProto*> functions_;
  std::set<std::string> taken_;
  std::unordered_map<std::string, int> suffixes_;
  onnx::GraphProto out_;
  InlinedFunctions result_;
  size_t calls_ = 0;
};

}  // namespace

InlinedFunctions inline_functions(onnx::ModelProto& model, int64_t opset) {
  return Inliner(model, opset).run(*model.mutable_graph());
}

}  // namespace ds
