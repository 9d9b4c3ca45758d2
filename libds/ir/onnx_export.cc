#include "libds/ir/onnx_export.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <unordered_set>

#include "libds/base/file.h"
#include "libds/base/log.h"
#include "libds/base/random.h"
#include "libds/ir/free_name.h"
#include "libds/ir/onnx_opaque.h"
#include "libds/ir/onnx_sink.h"
#include "libds/ir/onnx_type.h"
#include "libds/ir/onnx_versions.h"

namespace ds {
namespace {

struct AttributeWriter {
  onnx::AttributeProto& a;
  TensorSink& sink;
  void operator()(int64_t v) {
    a.set_type(onnx::AttributeProto::INT);
    a.set_i(v);
  }
  void operator()(float v) {
    a.set_type(onnx::AttributeProto::FLOAT);
    a.set_f(v);
  }
  void operator()(const std::string& v) {
    a.set_type(onnx::AttributeProto::STRING);
    a.set_s(v);
  }
  void operator()(const std::vector<int64_t>& v) {
    a.set_type(onnx::AttributeProto::INTS);
    for (int64_t x : v) a.add_ints(x);
  }
  void operator()(const std::vector<float>& v) {
    a.set_type(onnx::AttributeProto::FLOATS);
    for (float x : v) a.add_floats(x);
  }
  void operator()(const std::vector<std::string>& v) {
    a.set_type(onnx::AttributeProto::STRINGS);
    for (const std::string& x : v) a.add_strings(x);
  }
  void operator()(const Tensor& v) {
    a.set_type(onnx::AttributeProto::TENSOR);
    sink.attribute(v, *a.mutable_t());
  }
  void operator()(const std::shared_ptr<const Graph>&) { fail(ExitCode::kInternal, "a body is written with its node"); }
};

void write_shape(const Graph& graph, const std::optional<Dims>& dims, onnx::TypeProto::Tensor& type) {
  if (!dims) return;
  onnx::TensorShapeProto& shape = *type.mutable_shape();
  const bool same_rank = shape.dim_size() == static_cast<int>(dims->size());
  if (!same_rank) shape.clear_dim();
  for (size_t i = 0; i < dims->size(); ++i) {
    const Dim d = (*dims)[i];
    onnx::TensorShapeProto::Dimension& dim = same_rank ? *shape.mutable_dim(static_cast<int>(i)) : *shape.add_dim();
    if (d.known()) {
      dim.set_dim_value(d.raw);
    } else if (dim.has_dim_param() && !dim.dim_param().empty()) {
      continue;  // the file's own name, even where inference knows the size by another
    } else if (const std::string& name = graph.symbol_name(d.symbol_id()); !name.empty()) {
      dim.set_dim_param(name);
    } else if (dim.has_dim_value() && dim.dim_value() >= 0) {
      dim.clear_dim_value();  // declared once, no longer true; a declared name or -1 stays
    }
  }
}

void write_type(const Graph& graph, const ValueType& v, onnx::TypeProto& type) {
  if (v.dtype == DType::kUndefined) return;
  if (is_container(v.dtype)) {
    onnx::TypeProto& element = v.dtype == DType::kSequence ? *type.mutable_sequence_type()->mutable_elem_type()
                                                           : *type.mutable_optional_type()->mutable_elem_type();
    if (v.element) write_type(graph, *v.element, element);
    return;
  }
  type.mutable_tensor_type()->set_elem_type(static_cast<int32_t>(v.dtype));
  write_shape(graph, v.dims, *type.mutable_tensor_type());
}

// Constants by the tensor they share, under the name that bodies may use for it.
using SharedConstants = std::map<const Tensor*, std::string>;

// Counts, over all bodies below `graph`, how often each constant is held.
void count_body_constants(const Graph& graph, std::map<std::shared_ptr<const Tensor>, int>& counts) {
  for (NodeId id : graph.order()) {
    for (const auto& [attr, body] : bodies_of(graph.node(id))) {
      for (ValueId v : body->initializers()) ++counts[body->value(v).constant];
      count_body_constants(*body, counts);
    }
  }
}

// Writes one graph, and the bodies in it. Names are unique from a body outwards, as ONNX asks.
class GraphWriter {
 public:
  GraphWriter(const Graph& graph, SharedConstants& shared, TensorSink& sink) : GraphWriter(graph, shared, sink, nullptr) {}

  // The model's own graph.
  void write(onnx::GraphProto& out) {
    std::map<std::shared_ptr<const Tensor>, int> counts;
    count_body_constants(graph_, counts);
    name_values({});
    share_constants(counts, out);
    write_graph(out);
  }

 private:
  // `outer`: the writer of the graph around this one, null for the model's own.
  GraphWriter(const Graph& graph, SharedConstants& shared, TensorSink& sink, const GraphWriter* outer)
      : graph_(graph), shared_(shared), sink_(sink), outer_(outer), output_ids_(graph.outputs().begin(), graph.outputs().end()) {}

  const std::string& name(ValueId id) const { return names_[static_cast<size_t>(id)]; }
  bool is_output(ValueId id) const { return output_ids_.count(id) > 0; }

  // Whether a body here would see something of that name.
  bool is_visible(const std::string& name) const { return visible_.count(name) > 0 || (outer_ != nullptr && outer_->is_visible(name)); }

  std::string new_name(const std::string& base) {
    std::string chosen = free_name(base, [&](const std::string& name) { return is_visible(name); });
    visible_.insert(chosen);
    return chosen;
  }

  // `captured`: what the last inputs are called around this body.
  void name_values(const std::vector<std::string>& captured) {
    names_.resize(graph_.value_capacity());
    std::vector<char> given(graph_.value_capacity(), 0);
    const size_t own = graph_.inputs().size() - captured.size();
    for (size_t i = 0; i < captured.size(); ++i) {
      const auto id = static_cast<size_t>(graph_.inputs()[own + i]);
      names_[id] = captured[i];
      given[id] = 1;
    }
    const bool is_body = body_inputs_.has_value();
    std::unordered_set<std::string> own_names;  // a new name must not be that of another value here
    for (size_t i = 0; is_body && i < names_.size(); ++i)
      if (!given[i]) own_names.insert(graph_.value(static_cast<ValueId>(i)).name);
    const auto is_taken = [&](const std::string& name) { return own_names.count(name) > 0 || is_visible(name); };
    for (size_t i = 0; i < names_.size(); ++i) {
      if (given[i]) continue;
      const Value& v = graph_.value(static_cast<ValueId>(i));
      if (is_body && v.is_constant()) {
        if (const auto it = shared_.find(v.constant.get()); it != shared_.end()) {
          names_[i] = it->second;
          continue;
        }
      }
      names_[i] = v.name;
      if (!is_body || !outer_->is_visible(v.name)) continue;
      names_[i] = free_name(v.name, is_taken);
      own_names.insert(names_[i]);
    }
    visible_.insert(names_.begin(), names_.end());
  }

  // Constants that several bodies hold are written once, in the model's graph; those that it had for
  // bodies alone keep their names.
  void share_constants(const std::map<std::shared_ptr<const Tensor>, int>& counts, onnx::GraphProto& out) {
    for (ValueId id : graph_.initializers())
      if (!is_output(id)) shared_.emplace(graph_.value(id).constant.get(), name(id));
    for (size_t i = 0; i < graph_.value_capacity(); ++i) {
      const auto id = static_cast<ValueId>(i);
      const Value& v = graph_.value(id);
      if (!v.is_constant() || !v.users.empty() || is_output(id) || counts.count(v.constant) == 0) continue;
      if (shared_.emplace(v.constant.get(), name(id)).second) write_initializer(id, *out.add_initializer());
    }
    for (const auto& [tensor, count] : in_order(counts)) {
      if (count < 2 || shared_.count(tensor.get())) continue;
      const std::string chosen = new_name("shared_constant");
      onnx::TensorProto& t = *out.add_initializer();
      t.set_name(chosen);
      sink_.initializer(*tensor, t);
      shared_.emplace(tensor.get(), chosen);
    }
  }

  // Where a tensor lies in memory must not decide the order in the file.
  std::vector<std::pair<std::shared_ptr<const Tensor>, int>> in_order(const std::map<std::shared_ptr<const Tensor>, int>& counts) const {
    std::vector<std::pair<std::shared_ptr<const Tensor>, int>> list;
    std::set<const Tensor*> seen;
    collect_in_order(graph_, counts, seen, list);
    return list;
  }

  static void collect_in_order(const Graph& graph, const std::map<std::shared_ptr<const Tensor>, int>& counts,
                               std::set<const Tensor*>& seen, std::vector<std::pair<std::shared_ptr<const Tensor>, int>>& list) {
    for (NodeId id : graph.order()) {
      for (const auto& [attr, body] : bodies_of(graph.node(id))) {
        for (ValueId v : body->initializers())
          if (const auto& t = body->value(v).constant; seen.insert(t.get()).second) list.emplace_back(t, counts.at(t));
        collect_in_order(*body, counts, seen, list);
      }
    }
  }

  void write_graph(onnx::GraphProto& out) {
    out.set_name(graph_.name.empty() ? "graph" : graph_.name);
    if (!graph_.doc.empty()) out.set_doc_string(graph_.doc);
    const bool is_body = body_inputs_.has_value();
    for (ValueId id : graph_.initializers()) {
      // An initializer may not be a graph output for every reader; a Constant node may.
      if (is_output(id)) write_constant_node(id, *out.add_node());
      else if (!is_body || shared_.count(graph_.value(id).constant.get()) == 0) write_initializer(id, *out.add_initializer());
    }
    for (NodeId id : graph_.order()) write_node(graph_.node(id), *out.add_node());
    const size_t inputs = is_body ? *body_inputs_ : graph_.inputs().size();
    for (size_t i = 0; i < inputs; ++i) write_value(graph_.inputs()[i], *out.add_input());
    const std::unordered_set<ValueId> captured(graph_.inputs().begin() + static_cast<std::ptrdiff_t>(inputs), graph_.inputs().end());
    for (ValueId id : graph_.outputs()) write_output(id, captured.count(id) > 0, out);
    for (NodeId id : graph_.order())
      for (ValueId made : graph_.node(id).outputs)
        if (made != kNone) write_declared(made, out);
  }

  // What a body hands through from outside needs a node of its own.
  void write_output(ValueId id, bool captured, onnx::GraphProto& out) {
    onnx::ValueInfoProto& info = *out.add_output();
    write_value(id, info);
    if (!captured) return;
    const std::string chosen = new_name(name(id) + "_out");
    onnx::NodeProto& identity = *out.add_node();
    identity.set_op_type("Identity");
    identity.set_name(chosen);
    identity.add_input(name(id));
    identity.add_output(chosen);
    info.set_name(chosen);
  }

  void write_initializer(ValueId id, onnx::TensorProto& t) {
    const Value& v = graph_.value(id);
    if (!v.opaque.empty()) t = parse_value_skeleton(v.opaque).tensor;
    t.set_name(name(id));
    sink_.initializer(*v.constant, t);
  }

  void write_constant_node(ValueId id, onnx::NodeProto& n) {
    const Value& v = graph_.value(id);
    n.set_op_type("Constant");
    n.set_name(name(id));
    n.add_output(name(id));
    onnx::AttributeProto& a = *n.add_attribute();
    a.set_name("value");
    AttributeWriter{a, sink_}(*v.constant);
  }

  void write_node(const Node& node, onnx::NodeProto& n) {
    if (node.domain == Graph::kInternalDomain) fail(ExitCode::kInternal, "{} is internal and cannot be written", node.label());
    n = parse_node_skeleton(node.opaque);
    std::vector<onnx::AttributeProto> kept(n.attribute().begin(), n.attribute().end());
    n.clear_attribute();
    n.set_op_type(node.op);
    n.set_name(node.name);
    if (!node.domain.empty()) n.set_domain(node.domain);
    if (!node.doc.empty()) n.set_doc_string(node.doc);
    for (size_t i = 0; i < node.own_inputs(); ++i) n.add_input(node.inputs[i] == kNone ? "" : name(node.inputs[i]));
    for (ValueId out : node.outputs) n.add_output(out == kNone ? "" : name(out));
    for (const auto& entry : node.attrs) {
      onnx::AttributeProto& a = *n.add_attribute();
      for (const onnx::AttributeProto& k : kept)
        if (k.name() == entry.first) a = k;
      a.set_name(entry.first);
      with_context([&] { return node.label(); }, [&] {
        if (const auto* body = std::get_if<std::shared_ptr<const Graph>>(&entry.second)) write_body(node, **body, a);
        else if (is_type_attribute(node, entry.first)) type_attribute_to_onnx(node.attr_string(entry.first, ""), a);
        else std::visit(AttributeWriter{a, sink_}, entry.second);
      });
    }
    for (const onnx::AttributeProto& k : kept)  // those the graph could not represent
      if (!node.has_attr(k.name()) && k.has_type()) *n.add_attribute() = k;
  }

  void write_body(const Node& node, const Graph& body, onnx::AttributeProto& a) {
    a.set_type(onnx::AttributeProto::GRAPH);
    std::vector<std::string> captured;
    for (size_t i = node.own_inputs(); i < node.inputs.size(); ++i) captured.push_back(name(node.inputs[i]));
    GraphWriter writer(body, shared_, sink_, this);
    writer.body_inputs_ = body.inputs().size() - captured.size();
    writer.name_values(captured);
    writer.write_graph(*a.mutable_g());
  }

  void write_value(ValueId id, onnx::ValueInfoProto& info) {
    const Value& v = graph_.value(id);
    if (!v.opaque.empty()) info = parse_value_skeleton(v.opaque).info;
    info.set_name(name(id));
    if (v.dtype != DType::kUndefined) write_type(graph_, v.type(), *info.mutable_type());
  }

  // Types of inner values are written where the file had them.
  void write_declared(ValueId id, onnx::GraphProto& out) {
    const Value& v = graph_.value(id);
    if (v.opaque.empty() || v.producer == kNone || v.dtype == DType::kUndefined || is_output(id)) return;
    if (parse_value_skeleton(v.opaque).declared) write_value(id, *out.add_value_info());
  }

  const Graph& graph_;
  SharedConstants& shared_;
  TensorSink& sink_;
  const GraphWriter* const outer_;
  const std::unordered_set<ValueId> output_ids_;
  std::unordered_set<std::string> visible_;  // names of this graph; those around it are the outer writers'
  std::vector<std::string> names_;  // by value
  std::optional<size_t> body_inputs_;  // of a body: how many inputs are its own, not captured
};

void write_header(const Graph& graph, int64_t opset, onnx::ModelProto& model) {
  model.set_ir_version(std::max({graph.ir_version, ir_version_of_opset(opset), int64_t{4}}));  // 4: initializers are no inputs
  if (!graph.producer_name.empty()) model.set_producer_name(graph.producer_name);
  if (!graph.producer_version.empty()) model.set_producer_version(graph.producer_version);
  if (!graph.model_domain.empty()) model.set_domain(graph.model_domain);
  if (!graph.model_doc.empty()) model.set_doc_string(graph.model_doc);
  if (graph.model_version != 0) model.set_model_version(graph.model_version);
  auto& main = *model.add_opset_import();
  main.set_domain("");
  main.set_version(opset);
  for (const auto& [domain, version] : graph.opsets) {
    if (domain.empty()) continue;
    auto& import = *model.add_opset_import();
    import.set_domain(domain);
    import.set_version(version);
  }
  for (const auto& [key, value] : graph.metadata) {
    auto& entry = *model.add_metadata_props();
    entry.set_key(key);
    entry.set_value(value);
  }
}

onnx::ModelProto write_model(const Graph& graph, int64_t opset, TensorSink& sink) {
  onnx::ModelProto model = parse_model_skeleton(graph.opaque);
  write_header(graph, opset, model);
  SharedConstants shared;
  GraphWriter(graph, shared, sink).write(*model.mutable_graph());
  return model;
}

int64_t choose_opset(const Graph& graph, const ExportOptions& options) {
  const OpsetNeed need = least_opset(graph);
  const auto own = graph.opsets.find("");
  int64_t opset = own == graph.opsets.end() ? kDefaultOpset : own->second;
  if (options.opset != 0) {
    if (options.opset < kOldestOpset || options.opset > kNewestOpset)
      fail(ExitCode::kUnsupported, "opset {} cannot be written ({} to {} can)", options.opset, kOldestOpset, kNewestOpset);
    if (need.opset > options.opset)
      fail(ExitCode::kUnsupported, "{} needs opset {}, {} was asked for", graph.node(need.node).label(), need.opset, options.opset);
    return options.opset;
  }
  if (need.opset <= opset) return opset;
  if (need.node == kNone) warn("opset raised from {} to {}, the oldest that is written", opset, need.opset);
  else if (own != graph.opsets.end())
    warn("opset raised from {} to {}: {} needs it", opset, need.opset, graph.node(need.node).label());
  return need.opset;
}

std::string name_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

struct Frame {
  explicit Frame(const std::string& data_file) : sink(data_file) {}

  TensorSink sink;
  wire::Layout layout;
};

// `data_file`: where external data is to go; empty: nowhere.
std::unique_ptr<Frame> make_frame(const Graph& graph, int64_t opset, const std::string& data_file = {}) {
  auto frame = std::make_unique<Frame>(data_file);
  frame->layout = frame->sink.layout(write_model(graph, opset, frame->sink));
  return frame;
}

Graph lowered(const Graph& graph, int64_t opset) {
  Graph copy = graph;  // constants are shared, not copied
  downgrade_graph(copy, opset);
  return copy;
}

}  // namespace

std::string serialize_model(const Graph& graph, const ExportOptions& options) {
  const int64_t opset = choose_opset(graph, options);
  const auto frame = make_frame(lowered(graph, opset), opset);
  if (frame->layout.total_bytes > options.most_bytes)
    fail(ExitCode::kUnsupported, "the model takes {} bytes, one file holds at most 2 GiB", frame->layout.total_bytes);
  std::string bytes;
  bytes.reserve(frame->layout.total_bytes);
  frame->sink.for_each_piece(frame->layout, [&](std::string_view piece) { bytes += piece; });
  return bytes;
}

uint64_t model_hash(const Graph& graph) {
  const int64_t opset = choose_opset(graph, {});
  const auto frame = make_frame(lowered(graph, opset), opset);
  uint64_t hash = stream_of({});
  frame->sink.for_each_piece(frame->layout, [&](std::string_view piece) { hash = stream_of(piece, hash); });
  return hash;
}

void save_model(const Graph& graph, const std::string& path, const ExportOptions& options) {
  const std::string shown = path == "-" ? "standard output" : path;
  const auto said = [&](const auto& body) { return with_context([&] { return shown; }, body); };
  const int64_t opset = said([&] { return choose_opset(graph, options); });
  const Graph written = said([&] { return lowered(graph, opset); });
  std::unique_ptr<Frame> frame;
  bool apart = options.external_data;
  if (!apart) {
    frame = said([&] { return make_frame(written, opset); });
    apart = frame->layout.total_bytes > options.most_bytes;
  }
  FileWriter model(path);
  if (apart && !model.has_folder())
    fail(ExitCode::kUnsupported, "{}: the weights need a file beside the model{}; write to a file", shown,
         frame != nullptr ? fmt::format(" (it takes {} bytes, one file holds at most 2 GiB)", frame->layout.total_bytes) : "");
  if (apart) {
    frame = said([&] { return make_frame(written, opset, name_of(path) + ".data"); });
    if (frame->layout.total_bytes > options.most_bytes)
      fail(ExitCode::kUnsupported, "{}: the model takes {} bytes without its weights, one file holds at most 2 GiB", shown,
           frame->layout.total_bytes);
  }
  // The weights first: a model is never there before what it refers to.
  std::optional<FileWriter> data;
  if (frame->sink.has_external()) {
    data.emplace(path + ".data");
    if (!data->has_folder()) fail(ExitCode::kCantCreate, "{}.data: is not a regular file", path);
    frame->sink.write_external(*data);
    data->sync();
  }
  frame->sink.for_each_piece(frame->layout, [&](std::string_view piece) { model.write(piece); });
  model.sync();
  if (data) data->commit();
  model.commit();
}

}  // namespace ds
