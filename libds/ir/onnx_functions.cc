#include "libds/ir/onnx_functions.h"

#include <google/protobuf/unknown_field_set.h>

#include <functional>
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
// Our mark on a node that follows another opset than the model's; a number no IR version uses.
constexpr int kNodeOpset = 100001;
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

// Position of the mark among the unknown fields; -1 when there is none.
int opset_mark(const onnx::NodeProto& n) {
  const auto& unknown = n.GetReflection()->GetUnknownFields(n);
  for (int i = 0; i < unknown.field_count(); ++i)
    if (unknown.field(i).number() == kNodeOpset && unknown.field(i).type() == google::protobuf::UnknownField::TYPE_VARINT) return i;
  return -1;
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
    if (functions_.empty()) return {};
    take_names(graph, 0);
    expand_graph(graph, opset_, 0);
    return std::move(result_);
  }

 private:
  const onnx::FunctionProto* function_of(const onnx::NodeProto& n) const {
    const auto it = functions_.find(Key{n.domain(), n.op_type(), unknown_string(n, kNodeOverload)});
    return it == functions_.end() ? nullptr : it->second;
  }

  void take_names(const onnx::GraphProto& graph, int depth) {
    if (depth > kDeepest) bad_data("subgraphs are nested more than {} deep", kDeepest);
    for (const auto& t : graph.initializer()) taken_.insert(t.name());
    for (const auto& i : graph.input()) taken_.insert(i.name());
    for (const auto& n : graph.node()) {
      for (const std::string& name : n.output()) taken_.insert(name);
      for (const auto& a : n.attribute())
        if (a.has_g()) take_names(a.g(), depth + 1);
    }
  }

  // Expands the calls in a graph and in the bodies inside it. `depth` counts calls.
  void expand_graph(onnx::GraphProto& graph, int64_t opset, int depth) {
    onnx::GraphProto out;
    for (onnx::NodeProto& n : *graph.mutable_node()) put(std::move(n), opset, depth, out);
    graph.mutable_node()->Swap(out.mutable_node());
  }

  // Adds a node to `out`, its body if it is a call.
  void put(onnx::NodeProto n, int64_t opset, int depth, onnx::GraphProto& out) {
    if (function_of(n) != nullptr) return expand(n, depth, out);
    if (++nodes_ > kMostNodes) fail(ExitCode::kUnsupported, "functions expand to more than {} nodes", kMostNodes);
    for (onnx::AttributeProto& a : *n.mutable_attribute())
      if (a.has_g()) expand_graph(*a.mutable_g(), opset, depth);
    if (opset != opset_) n.GetReflection()->MutableUnknownFields(&n)->AddVarint(kNodeOpset, static_cast<uint64_t>(opset));
    *out.add_node() = std::move(n);
  }

  std::string fresh(const std::string& base) {
    std::string name = base;
    // The counter makes many requests for one name cheap.
    while (!taken_.insert(name).second) name = base + "_" + std::to_string(++suffixes_[base]);
    return name;
  }

  void expand(const onnx::NodeProto& call, int depth, onnx::GraphProto& out) {
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
    if (opset != opset_) result_.opsets.push_back(opset);

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
        put(std::move(identity), opset_, depth, out);
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
      for (onnx::AttributeProto& a : *n.mutable_attribute())
        if (a.has_g()) rename_body(*a.mutable_g(), call, defaults, outside);
      put(std::move(n), opset, depth + 1, out);
    }
  }

  // A body inside a function: what it takes from the function's values has other names now, and its
  // own attributes may refer to the function's. `outside` maps a name of the graph around the body.
  static void rename_body(onnx::GraphProto& body, const onnx::NodeProto& call,
                          const std::map<std::string, onnx::AttributeProto>& defaults,
                          const std::function<std::string(const std::string&)>& outside) {
    std::set<std::string> own;
    for (const auto& t : body.initializer()) own.insert(t.name());
    for (const auto& i : body.input()) own.insert(i.name());
    for (const auto& n : body.node()) own.insert(n.output().begin(), n.output().end());
    const auto renamed = [&](const std::string& name) -> std::string { return own.count(name) ? name : outside(name); };
    for (onnx::NodeProto& n : *body.mutable_node()) {
      for (std::string& name : *n.mutable_input()) name = renamed(name);
      const onnx::NodeProto before = n;
      substitute_attributes(before, call, defaults, n);
      for (onnx::AttributeProto& a : *n.mutable_attribute())
        if (a.has_g()) rename_body(*a.mutable_g(), call, defaults, renamed);
    }
    for (onnx::ValueInfoProto& info : *body.mutable_output()) {
      if (!own.count(info.name())) info.set_name(outside(info.name()));
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
  InlinedFunctions result_;
  size_t nodes_ = 0;
  size_t calls_ = 0;
};

}  // namespace

int64_t node_opset(const onnx::NodeProto& n, int64_t otherwise) {
  const int at = opset_mark(n);
  return at < 0 ? otherwise : static_cast<int64_t>(n.GetReflection()->GetUnknownFields(n).field(at).varint());
}

int64_t take_node_opset(onnx::NodeProto& n, int64_t otherwise) {
  const int64_t opset = node_opset(n, otherwise);
  if (const int at = opset_mark(n); at >= 0) n.GetReflection()->MutableUnknownFields(&n)->DeleteSubrange(at, 1);
  return opset;
}

InlinedFunctions inline_functions(onnx::ModelProto& model, int64_t opset) {
  return Inliner(model, opset).run(*model.mutable_graph());
}

}  // namespace ds
