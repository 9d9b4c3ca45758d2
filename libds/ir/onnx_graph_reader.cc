#include "libds/ir/onnx_graph_reader.h"

#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "libds/ir/free_name.h"
#include "libds/ir/onnx_attributes.h"
#include "libds/ir/onnx_functions.h"
#include "libds/ir/onnx_opaque.h"
#include "libds/ir/onnx_type.h"
#include "libds/ir/onnx_versions.h"
#include "libds/ir/op_def.h"
#include "libds/ir/rewriter.h"

namespace ds {

bool is_known_operator(const onnx::NodeProto& n) {
  const std::string_view domain = plain_domain(n.domain());
  if (domain == Graph::kInternalDomain) return false;  // ours, and never in a file
  return is_constant_node(n) || OpRegistry::instance().find(domain, domain.empty() ? current_op_name(n.op_type()) : n.op_type()) != nullptr;
}

namespace {

class GraphReader {
 public:
  // `outer`: the graph around it, null for the model's own.
  GraphReader(onnx::GraphProto& proto, const GraphReadOptions& options, Graph& graph, GraphReader* outer)
      : proto_(proto), options_(options), outer_(outer), graph_(graph), rw_(graph) {}

  // Nodes, values and bodies, in execution order; not yet canonical, not yet typed.
  void read() {
    graph_.name = proto_.name();
    graph_.doc = proto_.doc_string();
    if (proto_.sparse_initializer_size() > 0) fail(ExitCode::kUnsupported, "sparse initializers are not supported");
    for (const auto& info : proto_.value_info()) declared_.emplace(info.name(), &info);
    read_inputs();
    read_initializers();
    read_constant_nodes();
    declare_node_outputs();
    read_nodes();
    read_outputs();
    rw_.set_inputs(inputs_);
    rw_.sort();
  }

  // Precondition: the types of the inputs are set.
  void canonicalise_and_infer() {
    for (NodeId id : graph_.order()) {
      // Behind an unknown operator, or around one.
      if (options_.allow_unknown_ops && (has_untyped_input(graph_.node(id)) || holds_unknown(graph_.node(id)))) continue;
      if (graph_.node(id).def != nullptr || graph_.node(id).domain.empty()) upgrade_node(rw_, id, opset_of(id));
      with_context([&] { return graph_.node(id).label(); }, [&] {
        check_arity(graph_.node(id));
        finish_bodies(id);
      });
      rw_.infer(id);
      for (ValueId out : std::vector<ValueId>(graph_.node(id).outputs))
        if (out != kNone) with_context([&] { return graph_.node(id).label(); }, [&] { complete_type(out); });
    }
  }

  void check_outputs() const {
    for (ValueId id : graph_.outputs())
      if (graph_.value(id).dtype == DType::kUndefined && !options_.allow_unknown_ops)
        bad_data("the type of output '{}' cannot be told", graph_.value(id).name);
  }

 private:
  // A body of one of this graph's nodes while it is read.
  struct Body {
    std::string attr;
    std::shared_ptr<Graph> graph;
    std::unique_ptr<GraphReader> reader;
  };

  ValueId new_value(const std::string& name) {
    const ValueId id = rw_.add_value(name);
    ids_.emplace(name, id);
    return id;
  }

  void read_inputs() {
    std::set<std::string> initialized, seen;
    for (const auto& t : proto_.initializer()) initialized.insert(t.name());
    for (const auto& info : proto_.input()) {
      if (info.name().empty()) bad_data("an input has no name");
      if (!seen.insert(info.name()).second) bad_data("two inputs are named '{}'", info.name());
      if (initialized.count(info.name())) {  // IR below 4 lists initializers as inputs: they are constants
        declared_.emplace(info.name(), &info);
        continue;
      }
      with_context([&] { return fmt::format("input '{}'", info.name()); }, [&] {
        const ValueId id = new_value(info.name());
        if (info.type().value_case() == onnx::TypeProto::VALUE_NOT_SET) {
          if (outer_ == nullptr) bad_data("has no type");  // that of a body's input may be left to its node
        } else if (outer_ == nullptr || !info.type().has_tensor_type() || info.type().tensor_type().elem_type() != 0) {
          std::optional<ValueType> type = type_from_onnx(graph_, info.type());
          if (!type) fail(ExitCode::kUnsupported, "only tensors, sequences and optionals are supported");
          rw_.set_type(id, std::move(*type));
        }
        rw_.set_opaque(id, value_skeleton(&info, nullptr));
        inputs_.push_back(id);
      });
    }
  }

  void add_constant(const std::string& name, Tensor content, const onnx::TensorProto* initializer) {
    const ValueId id = new_value(name);
    rw_.set_constant(id, std::make_shared<const Tensor>(std::move(content)));
    if (initializer != nullptr) rw_.set_opaque(id, value_skeleton(nullptr, initializer));
  }

  void read_initializers() {
    for (onnx::TensorProto& t : *proto_.mutable_initializer()) {
      if (t.name().empty()) bad_data("an initializer has no name");
      if (ids_.count(t.name())) bad_data("two initializers are named '{}'", t.name());
      Tensor content = with_context([] { return "initializer"; }, [&] { return tensor_from_onnx(t, options_.files); });
      add_constant(t.name(), std::move(content), &t);
    }
  }

  void check_new_output(const onnx::NodeProto& n, const std::string& name) const {
    if (ids_.count(name)) bad_data("{}: its output '{}' is made by something else too", label_of(n), name);
  }

  void read_constant_nodes() {
    for (onnx::NodeProto& n : *proto_.mutable_node()) {
      if (!is_constant_node(n)) continue;
      with_context([&] { return label_of(n); }, [&] {
        if (n.output_size() != 1 || n.output(0).empty() || n.input_size() != 0) bad_data("a constant has one output and no inputs");
        Tensor content = constant_from_onnx(n, options_.files);
        if (ids_.count(n.output(0))) bad_data("its output '{}' is made by something else too", n.output(0));
        add_constant(n.output(0), std::move(content), nullptr);
      });
    }
  }

  void declare_node_outputs() {
    for (const onnx::NodeProto& n : proto_.node()) {
      if (is_constant_node(n)) continue;
      for (const std::string& name : n.output()) {
        if (name.empty()) continue;
        check_new_output(n, name);
        const ValueId id = new_value(name);
        if (const auto it = declared_.find(name); it != declared_.end()) rw_.set_opaque(id, value_skeleton(it->second, nullptr));
      }
    }
  }

  void read_nodes() {
    std::set<std::string> taken;
    for (const auto& n : proto_.node()) taken.insert(n.name());
    int64_t position = -1;
    for (onnx::NodeProto& n : *proto_.mutable_node()) {
      ++position;
      if (is_constant_node(n)) continue;
      Node node;
      node.domain = plain_domain(n.domain());
      node.op = n.op_type();
      node.name = n.name();
      if (node.name.empty()) {
        node.name = free_name(fmt::format("{}_{}", node.op, position), [&](const std::string& name) { return taken.count(name) > 0; });
        taken.insert(node.name);
      }
      node.doc = n.doc_string();
      const int64_t opset = take_node_opset(n, options_.opset);
      if (is_known_operator(n)) node.def = OpRegistry::instance().find(node.domain, node.op);
      std::vector<Body> bodies;
      with_context([&] { return node.label(); }, [&] {
        read_attributes(n, node, bodies);
        for (const std::string& name : n.input()) node.inputs.push_back(name.empty() ? kNone : value_named(name));
        for (const std::string& name : n.output()) node.outputs.push_back(name.empty() ? kNone : ids_.at(name));
        while (!node.inputs.empty() && node.inputs.back() == kNone) node.inputs.pop_back();
        while (!node.outputs.empty() && node.outputs.back() == kNone) node.outputs.pop_back();
        capture(node, bodies);
      });
      const NodeId id = rw_.add_raw_node(std::move(node));
      if (!bodies.empty()) bodies_.emplace(id, std::move(bodies));
      if (opset != options_.opset) node_opsets_[id] = opset;
    }
  }

  // The value of that name, here or in a graph around this one.
  ValueId value_named(const std::string& name) {
    const ValueId id = find_value(name);
    if (id == kNone) bad_data("its input '{}' is not made by any node, input or initializer", name);
    return id;
  }

  ValueId find_value(const std::string& name) {
    if (const auto it = ids_.find(name); it != ids_.end()) return it->second;
    const ValueId outside = outer_ == nullptr ? kNone : outer_->find_value(name);
    if (outside == kNone) return kNone;
    const Value& v = outer_->graph_.value(outside);
    const ValueId id = new_value(name);
    if (v.is_constant()) {
      rw_.set_constant(id, v.constant);
    } else {
      captured_.emplace_back(outside, id);
    }
    return id;
  }

  // Gives every body an input for whatever one of them captures, in one order.
  void capture(Node& node, std::vector<Body>& bodies) {
    std::vector<ValueId> all;
    std::unordered_set<ValueId> seen;
    for (const Body& body : bodies)
      for (const auto& [outside, inside] : body.reader->captured_)
        if (seen.insert(outside).second) all.push_back(outside);
    for (Body& body : bodies) {
      Rewriter& rw = body.reader->rw_;
      std::vector<ValueId> inputs = body.graph->inputs();
      const std::unordered_map<ValueId, ValueId> captured(body.reader->captured_.begin(), body.reader->captured_.end());
      for (ValueId outside : all) {
        const auto it = captured.find(outside);
        inputs.push_back(it != captured.end() ? it->second : rw.add_value(rw.unique_name(graph_.value(outside).name)));
      }
      rw.set_inputs(std::move(inputs));
      node.attrs.emplace(body.attr, std::shared_ptr<const Graph>(body.graph));
    }
    node.captured = all.size();
    node.inputs.insert(node.inputs.end(), all.begin(), all.end());
  }

  void read_attributes(onnx::NodeProto& n, Node& node, std::vector<Body>& bodies) {
    std::vector<std::string> kept;
    std::set<std::string> seen;
    const bool known = is_known_operator(n);
    for (onnx::AttributeProto& a : *n.mutable_attribute()) {
      if (a.name().empty()) bad_data("an attribute has no name");
      if (!seen.insert(a.name()).second) bad_data("attribute '{}' is given twice", a.name());
      const auto type = type_of(a);
      const bool representable = type >= onnx::AttributeProto::FLOAT && type <= onnx::AttributeProto::STRINGS &&
                                 type != onnx::AttributeProto::GRAPH;
      if (!known && !representable) {
        kept.push_back(a.name());  // only looked at, never run
        if (options_.files.payloads() != nullptr) options_.files.payloads()->put_back(a);
      } else if (type == onnx::AttributeProto::GRAPH) {
        if (node.def == nullptr || !node.def->body_inputs) fail(ExitCode::kUnsupported, "attribute '{}' is a graph, which this operator does not take", a.name());
        Body body{a.name(), std::make_shared<Graph>(), nullptr};
        body.reader = std::make_unique<GraphReader>(*a.mutable_g(), options_, *body.graph, this);
        with_context([&] { return fmt::format("body '{}'", a.name()); }, [&] { body.reader->read(); });
        bodies.push_back(std::move(body));
      } else if (is_type_attribute(node, a.name())) {
        node.attrs.emplace(a.name(), type_attribute_from_onnx(a));
      } else {
        node.attrs.emplace(a.name(), attribute_from_onnx(a, options_.files));
      }
    }
    node.opaque = node_skeleton(n, kept);
  }

  // Types, canonicalises and checks the bodies of a node whose own inputs are typed.
  void finish_bodies(NodeId id) {
    const auto it = bodies_.find(id);
    if (it == bodies_.end()) return;
    const Node& n = graph_.node(id);
    for (Body& body : it->second) {
      with_context([&] { return fmt::format("body '{}'", body.attr); }, [&] {
        std::vector<ValueType> types = n.def->body_inputs(graph_, n, body.attr);
        for (size_t i = n.own_inputs(); i < n.inputs.size(); ++i) types.push_back(graph_.value(n.inputs[i]).type());
        body.reader->type_inputs(graph_, types, n.captured);
        body.reader->canonicalise_and_infer();
      });
    }
  }

  // Types from the node around this body; what they leave open may be declared.
  void type_inputs(const Graph& around, const std::vector<ValueType>& types, size_t captured) {
    if (graph_.inputs().size() != types.size())
      bad_data("has {} inputs, expected {}", graph_.inputs().size() - captured, types.size() - captured);
    for (size_t i = 0; i < types.size(); ++i) {
      const ValueId id = graph_.inputs()[i];
      const ValueType declared = graph_.value(id).type();
      ValueType given = graph_.translate(around, types[i]);
      if (given.dtype == DType::kUndefined) given.dtype = declared.dtype;
      if (!given.dims) given.dims = declared.dims;
      if (given.element == nullptr) given.element = declared.element;
      rw_.set_type(id, std::move(given));
    }
  }

  void read_outputs() {
    std::set<std::string> seen;
    const std::unordered_set<ValueId> inputs(inputs_.begin(), inputs_.end());
    for (const auto& info : proto_.output()) {
      if (!seen.insert(info.name()).second) bad_data("two outputs are named '{}'", info.name());
      const ValueId id = find_value(info.name());
      if (id == kNone) bad_data("output '{}' is not made by any node", info.name());
      const auto kind = info.type().value_case();
      if (kind == onnx::TypeProto::kSparseTensorType || kind == onnx::TypeProto::kMapType || kind == onnx::TypeProto::kOpaqueType)
        fail(ExitCode::kUnsupported, "output '{}': only tensors, sequences and optionals are supported", info.name());
      rw_.add_output(id);
      output_ids_.insert(id);
      declared_.insert_or_assign(info.name(), &info);
      if (inputs.count(id) == 0) rw_.set_opaque(id, value_skeleton(&info, nullptr));
    }
    if (graph_.outputs().empty() && outer_ == nullptr) bad_data("the graph has no outputs");
  }

  void check_arity(const Node& n) const {
    if (n.def == nullptr) return;
    const OpDef& def = *n.def;
    const auto inputs = static_cast<int>(n.own_inputs()), outputs = static_cast<int>(n.outputs.size());
    const auto range = [](int least, int most) {
      return most < 0 ? fmt::format("{} or more", least) : least == most ? std::to_string(least) : fmt::format("{} to {}", least, most);
    };
    if (inputs < def.min_inputs || (def.max_inputs >= 0 && inputs > def.max_inputs))
      bad_data("has {} inputs, expected {}", inputs, range(def.min_inputs, def.max_inputs));
    if (outputs < def.min_outputs || (def.max_outputs >= 0 && outputs > def.max_outputs))
      bad_data("has {} outputs, expected {}", outputs, range(def.min_outputs, def.max_outputs));
    // Of any number none may be left out, but for the first ones of Loop, whose kernel looks itself.
    const int required = def.max_inputs < 0 && !def.body_inputs ? inputs : def.min_inputs;
    for (int i = 0; i < required; ++i)
      if (n.inputs[static_cast<size_t>(i)] == kNone) bad_data("input {} is left out, but required", i);
  }

  int64_t opset_of(NodeId id) const {
    const auto it = node_opsets_.find(id);
    return it == node_opsets_.end() ? options_.opset : it->second;
  }

  bool has_untyped_input(const Node& n) const {
    return std::any_of(n.inputs.begin(), n.inputs.end(),
                       [&](ValueId in) { return in != kNone && graph_.value(in).dtype == DType::kUndefined; });
  }

  static bool holds_unknown(const Node& n) {
    for (const auto& [attr, body] : bodies_of(n))
      for (NodeId id : body->order())
        if (body->node(id).def == nullptr || holds_unknown(body->node(id))) return true;
    return false;
  }

  // What inference could not tell is taken from the file; what both tell must agree in type.
  void complete_type(ValueId id) {
    const Value& v = graph_.value(id);
    if (v.dims) {
      Shape known;
      for (Dim d : *v.dims)
        if (d.known()) known.push_back(d.raw);
      checked_mul(checked_numel(known), 16);
    }
    const auto it = declared_.find(v.name);
    if (it == declared_.end()) return;
    if (!it->second->type().has_tensor_type()) {
      if (v.element != nullptr || (v.dtype != DType::kUndefined && !is_container(v.dtype))) return;
      if (std::optional<ValueType> declared = type_from_onnx(graph_, it->second->type())) rw_.set_type(id, std::move(*declared));
      return;
    }
    const auto& type = it->second->type().tensor_type();
    DType dtype = v.dtype;
    if (type.elem_type() != onnx::TensorProto::UNDEFINED) {
      const DType declared = dtype_of_number(type.elem_type());
      if (dtype == DType::kUndefined) dtype = declared;
      else if (dtype != declared && output_ids_.count(id) > 0)
        bad_data("output '{}' is declared as {}, but is {}", v.name, dtype_name(declared), dtype_name(dtype));
    }
    std::optional<Dims> dims = v.dims;
    if (!type.has_shape()) return rw_.set_type(id, dtype, std::move(dims));
    const std::optional<Dims> declared = dims_from_onnx(graph_, type);
    if (!dims) {
      dims = declared;
    } else if (output_ids_.count(id) > 0 && dims->size() == declared->size()) {
      for (size_t i = 0; i < dims->size(); ++i) {
        Dim& d = (*dims)[i];
        if (!d.known() && graph_.symbol_name(d.symbol_id()).empty()) d = (*declared)[i];
      }
    }
    rw_.set_type(id, dtype, std::move(dims));
  }

  onnx::GraphProto& proto_;
  const GraphReadOptions options_;
  GraphReader* const outer_;
  Graph& graph_;
  Rewriter rw_;
  std::vector<ValueId> inputs_;                        // without captured ones
  std::vector<std::pair<ValueId, ValueId>> captured_;  // in the graph around, here
  std::unordered_map<NodeId, std::vector<Body>> bodies_;
  std::unordered_map<NodeId, int64_t> node_opsets_;    // where it is not the model's
  std::unordered_set<ValueId> output_ids_;
  std::unordered_map<std::string, ValueId> ids_;
  std::unordered_map<std::string, const onnx::ValueInfoProto*> declared_;
};

}  // namespace

void read_main_graph(onnx::GraphProto& proto, const GraphReadOptions& options, Graph& graph) {
  GraphReader reader(proto, options, graph, nullptr);
  reader.read();
  reader.canonicalise_and_infer();
  reader.check_outputs();
}

}  // namespace ds
