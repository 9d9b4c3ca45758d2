#include "libds/ir/onnx_export.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <limits>

#include "libds/base/file.h"
#include "libds/base/log.h"
#include "libds/ir/onnx_opaque.h"
#include "libds/ir/onnx_tensor.h"
#include "libds/ir/onnx_versions.h"

namespace ds {
namespace {

struct AttributeWriter {
  onnx::AttributeProto& a;
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
    tensor_to_onnx(v, *a.mutable_t());
  }
  void operator()(const std::shared_ptr<Graph>&) {
    fail(ExitCode::kUnsupported, "attribute '{}': a subgraph cannot be written", a.name());
  }
};

void write_type(const Graph& graph, const Value& v, onnx::ValueInfoProto& info) {
  onnx::TypeProto::Tensor& type = *info.mutable_type()->mutable_tensor_type();
  type.set_elem_type(static_cast<int32_t>(v.dtype));
  if (!v.dims) return;
  onnx::TensorShapeProto& shape = *type.mutable_shape();
  const bool same_rank = shape.dim_size() == static_cast<int>(v.dims->size());
  if (!same_rank) shape.clear_dim();
  for (size_t i = 0; i < v.dims->size(); ++i) {
    const Dim d = (*v.dims)[i];
    onnx::TensorShapeProto::Dimension& dim = same_rank ? *shape.mutable_dim(static_cast<int>(i)) : *shape.add_dim();
    if (d.known()) {
      dim.set_dim_value(d.raw);
    } else if (const std::string& name = graph.symbol_name(d.symbol_id()); !name.empty()) {
      dim.set_dim_param(name);
    } else if (dim.has_dim_value() && dim.dim_value() >= 0) {
      dim.clear_dim_value();  // declared once, no longer true; a declared name or -1 stays
    }
  }
}

class Writer {
 public:
  explicit Writer(const Graph& graph) : graph_(graph), model_(parse_model_skeleton(graph.opaque)) {}

  onnx::ModelProto write(int64_t opset) {
    write_header(opset);
    onnx::GraphProto& out = *model_.mutable_graph();
    out.set_name(graph_.name.empty() ? "graph" : graph_.name);
    if (!graph_.doc.empty()) out.set_doc_string(graph_.doc);
    for (ValueId id : graph_.initializers()) {
      // An initializer may not be a graph output for every reader; a Constant node may.
      if (graph_.is_output(id)) write_constant_node(id, *out.add_node());
      else write_initializer(id, *out.add_initializer());
    }
    for (NodeId id : graph_.order()) write_node(graph_.node(id), *out.add_node());
    for (ValueId id : graph_.inputs()) write_value(id, *out.add_input());
    for (ValueId id : graph_.outputs()) write_value(id, *out.add_output());
    for (size_t i = 0; i < graph_.value_capacity(); ++i) write_declared(static_cast<ValueId>(i), out);
    return std::move(model_);
  }

 private:
  void write_header(int64_t opset) {
    model_.set_ir_version(std::max({graph_.ir_version, ir_version_of_opset(opset), int64_t{4}}));  // 4: initializers are no inputs
    if (!graph_.producer_name.empty()) model_.set_producer_name(graph_.producer_name);
    if (!graph_.producer_version.empty()) model_.set_producer_version(graph_.producer_version);
    if (!graph_.model_domain.empty()) model_.set_domain(graph_.model_domain);
    if (!graph_.model_doc.empty()) model_.set_doc_string(graph_.model_doc);
    if (graph_.model_version != 0) model_.set_model_version(graph_.model_version);
    auto& main = *model_.add_opset_import();
    main.set_domain("");
    main.set_version(opset);
    for (const auto& [domain, version] : graph_.opsets) {
      if (domain.empty()) continue;
      auto& import = *model_.add_opset_import();
      import.set_domain(domain);
      import.set_version(version);
    }
    for (const auto& [key, value] : graph_.metadata) {
      auto& entry = *model_.add_metadata_props();
      entry.set_key(key);
      entry.set_value(value);
    }
  }

  void write_initializer(ValueId id, onnx::TensorProto& t) {
    const Value& v = graph_.value(id);
    if (!v.opaque.empty()) t = parse_value_skeleton(v.opaque).tensor;
    t.set_name(v.name);
    tensor_to_onnx(*v.constant, t);
  }

  void write_constant_node(ValueId id, onnx::NodeProto& n) {
    const Value& v = graph_.value(id);
    n.set_op_type("Constant");
    n.set_name(v.name);
    n.add_output(v.name);
    onnx::AttributeProto& a = *n.add_attribute();
    a.set_name("value");
    AttributeWriter{a}(*v.constant);
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
    for (ValueId in : node.inputs) n.add_input(in == kNone ? "" : graph_.value(in).name);
    for (ValueId out : node.outputs) n.add_output(out == kNone ? "" : graph_.value(out).name);
    for (const auto& entry : node.attrs) {
      onnx::AttributeProto& a = *n.add_attribute();
      for (const onnx::AttributeProto& k : kept)
        if (k.name() == entry.first) a = k;
      a.set_name(entry.first);
      with_context([&] { return node.label(); }, [&] { std::visit(AttributeWriter{a}, entry.second); });
    }
    for (const onnx::AttributeProto& k : kept)  // those the graph could not represent
      if (!node.has_attr(k.name()) && k.has_type()) *n.add_attribute() = k;
  }

  void write_value(ValueId id, onnx::ValueInfoProto& info) {
    const Value& v = graph_.value(id);
    if (!v.opaque.empty()) info = parse_value_skeleton(v.opaque).info;
    info.set_name(v.name);
    write_type(graph_, v, info);
  }

  // Types of inner values are written where the file had them.
  void write_declared(ValueId id, onnx::GraphProto& out) {
    const Value& v = graph_.value(id);
    if (v.opaque.empty() || v.producer == kNone || v.dtype == DType::kUndefined || graph_.is_output(id)) return;
    if (parse_value_skeleton(v.opaque).declared) write_value(id, *out.add_value_info());
  }

  const Graph& graph_;
  onnx::ModelProto model_;
};

int64_t choose_opset(const Graph& graph, const ExportOptions& options) {
  const OpsetNeed need = least_opset(graph);
  const auto own = graph.opsets.find("");
  int64_t opset = own == graph.opsets.end() ? kDefaultOpset : own->second;
  if (options.opset != 0) {
    if (options.opset < kOldestOpset || options.opset > kNewestOpset)
      fail(ExitCode::kUnsupported, "opset {} is not supported ({} to {} are)", options.opset, kOldestOpset, kNewestOpset);
    if (need.opset > options.opset)
      fail(ExitCode::kUnsupported, "{} needs opset {}, {} was asked for", graph.node(need.node).label(), need.opset, options.opset);
    return options.opset;
  }
  if (need.opset <= opset) return opset;
  if (own != graph.opsets.end())
    warn("opset raised from {} to {}: {} needs it", opset, need.opset, graph.node(need.node).label());
  return need.opset;
}

}  // namespace

std::string serialize_model(const Graph& graph, const ExportOptions& options) {
  const int64_t opset = choose_opset(graph, options);
  Graph lowered = graph;  // constants are shared, not copied
  downgrade_graph(lowered, opset);
  const onnx::ModelProto model = Writer(lowered).write(opset);
  const size_t size = model.ByteSizeLong();
  if (size > static_cast<size_t>(std::numeric_limits<int>::max()))
    fail(ExitCode::kUnsupported, "the model takes {} bytes, one file holds at most 2 GiB", size);
  std::string bytes;
  bytes.reserve(size);
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    DS_CHECK(model.SerializeToCodedStream(&coded));
  }  // flushed here
  return bytes;
}

void save_model(const Graph& graph, const std::string& path, const ExportOptions& options) {
  const std::string bytes = with_context([&] { return path == "-" ? std::string("standard output") : path; },
                                         [&] { return serialize_model(graph, options); });
  write_file_atomic(path, bytes);
}

}  // namespace ds
