#include "libds/ir/onnx_import.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <limits>
#include <set>
#include <unordered_map>

#include "libds/base/file.h"
#include "libds/ir/onnx_functions.h"
#include "libds/ir/onnx_opaque.h"
#include "libds/ir/onnx_tensor.h"
#include "libds/ir/onnx_versions.h"
#include "libds/ir/op_def.h"
#include "libds/ir/rewriter.h"

namespace ds {
namespace {

std::string_view plain_domain(const std::string& domain) {
  return domain == "ai.onnx" ? std::string_view() : std::string_view(domain);
}

std::string label_of(const onnx::NodeProto& n) {
  return n.name().empty() && n.output_size() > 0 ? fmt::format("node making '{}' ({})", n.output(0), n.op_type())
                                                 : fmt::format("node '{}' ({})", n.name(), n.op_type());
}

// --- attributes --------------------------------------------------------------------------------

// Files of IR below 2 do not say the type.
onnx::AttributeProto::AttributeType type_of(const onnx::AttributeProto& a) {
  if (a.type() != onnx::AttributeProto::UNDEFINED) return a.type();
  if (a.has_f()) return onnx::AttributeProto::FLOAT;
  if (a.has_i()) return onnx::AttributeProto::INT;
  if (a.has_s()) return onnx::AttributeProto::STRING;
  if (a.has_t()) return onnx::AttributeProto::TENSOR;
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

// Content of a Constant node, whichever attribute holds it.
Tensor constant_from_onnx(onnx::NodeProto& n, ExternalFiles& files) {
  if (n.attribute_size() != 1) bad_data("has {} attributes, expected the one that holds its value", n.attribute_size());
  onnx::AttributeProto& a = *n.mutable_attribute(0);
  if (a.name() != "value" && a.name() != "value_int" && a.name() != "value_ints" && a.name() != "value_float" && a.name() != "value_floats")
    fail(ExitCode::kUnsupported, "a constant given by '{}' is not supported", a.name());
  const Attribute value = attribute_from_onnx(a, files);
  if (const auto* t = std::get_if<Tensor>(&value)) return *t;
  if (const auto* x = std::get_if<int64_t>(&value)) return Tensor::scalar(*x);
  if (const auto* x = std::get_if<float>(&value)) return Tensor::scalar(*x);
  if (const auto* x = std::get_if<std::vector<int64_t>>(&value)) return Tensor::vector<int64_t>(*x);
  if (const auto* x = std::get_if<std::vector<float>>(&value)) return Tensor::vector<float>(*x);
  bad_data("attribute '{}' holds no number", a.name());
}

bool is_constant_node(const onnx::NodeProto& n) { return n.op_type() == "Constant" && plain_domain(n.domain()).empty(); }

// --- unknown operators -------------------------------------------------------------------------

class UnknownOps {
 public:
  explicit UnknownOps(const onnx::ModelProto& model) {
    for (const auto& import : model.opset_import()) versions_[std::string(plain_domain(import.domain()))] = import.version();
    collect(model.graph(), 0);
  }

  static bool known(const onnx::NodeProto& n) {
    const std::string_view domain = plain_domain(n.domain());
    if (domain == Graph::kInternalDomain) return false;  // ours, and never in a file
    return is_constant_node(n) || OpRegistry::instance().find(domain, domain.empty() ? current_op_name(n.op_type()) : n.op_type()) != nullptr;
  }

  void check() const {
    if (found_.empty()) return;
    std::string list;
    for (const auto& [key, names] : found_) {
      const auto& [domain, op] = key;
      constexpr size_t kShown = 3;
      std::vector<std::string> shown(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, names.size())));
      const auto version = versions_.find(domain);
      list += fmt::format("{}{}{} ({} {}: node '{}'{})", list.empty() ? "" : "; ", domain.empty() ? "" : domain + ".", op,
                          domain.empty() ? "ai.onnx" : domain, version == versions_.end() ? 0 : version->second,
                          fmt::join(shown, "', '"),
                          names.size() > kShown ? fmt::format(" and {} more", names.size() - kShown) : "");
    }
    fail(ExitCode::kUnsupported, "operators that are not supported: {}", list);
  }

 private:
  void collect(const onnx::GraphProto& graph, int depth) {
    constexpr int kDeepest = 32;  // the parser allows about as much
    if (depth > kDeepest) bad_data("subgraphs are nested more than {} deep", kDeepest);
    for (const onnx::NodeProto& n : graph.node()) {
      if (!known(n)) found_[{std::string(plain_domain(n.domain())), n.op_type()}].push_back(n.name().empty() && n.output_size() > 0 ? n.output(0) : n.name());
      for (const onnx::AttributeProto& a : n.attribute()) {
        if (a.has_g()) collect(a.g(), depth + 1);
        for (const onnx::GraphProto& g : a.graphs()) collect(g, depth + 1);
      }
    }
  }

  std::map<std::string, int64_t> versions_;
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> found_;  // (domain, op) -> nodes
};

// --- the graph ---------------------------------------------------------------------------------

class Importer {
 public:
  Importer(onnx::ModelProto& model, const std::string& folder, const Payloads* payloads, const ImportOptions& options)
      : model_(model), proto_(*model.mutable_graph()), options_(options), files_(folder, payloads), graph_(std::make_shared<Graph>()), rw_(*graph_) {}

  std::shared_ptr<Graph> import() {
    read_header();
    inline_calls();
    graph_->opaque = model_skeleton(model_);
    if (!options_.allow_unknown_ops) UnknownOps(model_).check();
    if (proto_.sparse_initializer_size() > 0) fail(ExitCode::kUnsupported, "sparse initializers are not supported");
    for (const auto& info : proto_.value_info()) declared_.emplace(info.name(), &info);
    read_inputs();
    read_initializers();
    read_constant_nodes();
    declare_node_outputs();
    read_nodes();
    read_outputs();
    rw_.sort();
    canonicalise_and_infer();
    check_outputs();
    verify_graph(*graph_);
    return graph_;
  }

 private:
  void read_header() {
    Graph& g = *graph_;
    g.ir_version = model_.ir_version();
    g.producer_name = model_.producer_name();
    g.producer_version = model_.producer_version();
    g.model_domain = model_.domain();
    g.model_doc = model_.doc_string();
    g.model_version = model_.model_version();
    g.name = proto_.name();
    g.doc = proto_.doc_string();
    for (const auto& entry : model_.metadata_props()) g.metadata[entry.key()] = entry.value();
    for (const auto& import : model_.opset_import()) {
      const std::string domain(plain_domain(import.domain()));
      if (!g.opsets.emplace(domain, import.version()).second && g.opsets[domain] != import.version())
        bad_data("opset of domain '{}' is given twice: {} and {}", import.domain(), g.opsets[domain], import.version());
    }
    const auto main = g.opsets.find("");
    if (main == g.opsets.end()) {
      for (const auto& n : proto_.node())
        if (plain_domain(n.domain()).empty()) bad_data("no opset is given for domain ai.onnx");
      return;
    }
    opset_ = main->second;
    check_opset(opset_);
  }

  static void check_opset(int64_t opset) {
    if (opset < kOldestOpset || opset > kNewestOpset)
      fail(ExitCode::kUnsupported, "opset {} is not supported ({} to {} are)", opset, kOldestOpset, kNewestOpset);
  }

  void inline_calls() {
    InlinedFunctions inlined = inline_functions(model_, opset_);
    position_opsets_ = std::move(inlined.opsets);
    for (int64_t opset : position_opsets_) check_opset(opset);
    if (inlined.any) model_.clear_functions();
  }

  ValueId new_value(const std::string& name) {
    const ValueId id = rw_.add_value(name);
    ids_.emplace(name, id);
    return id;
  }

  // Shape of a declared type; false when it has none.
  std::optional<Dims> dims_of(const onnx::TypeProto::Tensor& type) {
    if (!type.has_shape()) return std::nullopt;
    Dims dims;
    Shape known;
    for (const auto& d : type.shape().dim()) {
      if (!d.dim_param().empty()) dims.push_back(graph_->symbol(d.dim_param()));
      else if (d.has_dim_value() && d.dim_value() >= 0) dims.push_back(Dim(d.dim_value()));
      else dims.push_back(graph_->fresh_dim());
      if (dims.back().known()) known.push_back(dims.back().raw);
    }
    checked_mul(checked_numel(known), 16);  // of any element type
    return dims;
  }

  void read_inputs() {
    std::set<std::string> initialized, seen;
    for (const auto& t : proto_.initializer()) initialized.insert(t.name());
    std::vector<ValueId> inputs;
    for (const auto& info : proto_.input()) {
      if (info.name().empty()) bad_data("an input has no name");
      if (!seen.insert(info.name()).second) bad_data("two inputs are named '{}'", info.name());
      if (initialized.count(info.name())) {  // IR below 4 lists initializers as inputs: they are constants
        declared_.emplace(info.name(), &info);
        continue;
      }
      with_context([&] { return fmt::format("input '{}'", info.name()); }, [&] {
        if (!info.type().has_tensor_type()) {
          if (info.type().value_case() == onnx::TypeProto::VALUE_NOT_SET) bad_data("has no type");
          fail(ExitCode::kUnsupported, "only tensors are supported");
        }
        const auto& type = info.type().tensor_type();
        const ValueId id = new_value(info.name());
        rw_.set_type(id, dtype_from_onnx(type.elem_type()), dims_of(type));
        rw_.set_opaque(id, value_skeleton(&info, nullptr));
        inputs.push_back(id);
      });
    }
    rw_.set_inputs(std::move(inputs));
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
      Tensor content = with_context([] { return "initializer"; }, [&] { return tensor_from_onnx(t, files_); });
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
        Tensor content = constant_from_onnx(n, files_);
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
        node.name = fmt::format("{}_{}", node.op, position);
        for (int i = 1; taken.count(node.name); ++i) node.name = fmt::format("{}_{}_{}", node.op, position, i);
        taken.insert(node.name);
      }
      node.doc = n.doc_string();
      if (UnknownOps::known(n)) node.def = OpRegistry::instance().find(node.domain, node.op);
      with_context([&] { return node.label(); }, [&] {
        read_attributes(n, node);
        for (const std::string& name : n.input()) node.inputs.push_back(name.empty() ? kNone : value_named(name));
        for (const std::string& name : n.output()) node.outputs.push_back(name.empty() ? kNone : ids_.at(name));
      });
      while (!node.inputs.empty() && node.inputs.back() == kNone) node.inputs.pop_back();
      while (!node.outputs.empty() && node.outputs.back() == kNone) node.outputs.pop_back();
      const NodeId id = rw_.add_raw_node(std::move(node));
      if (position_opsets_[static_cast<size_t>(position)] != opset_) node_opsets_[id] = position_opsets_[static_cast<size_t>(position)];
    }
  }

  ValueId value_named(const std::string& name) const {
    const auto it = ids_.find(name);
    if (it == ids_.end()) bad_data("its input '{}' is not made by any node, input or initializer", name);
    return it->second;
  }

  void read_attributes(onnx::NodeProto& n, Node& node) {
    std::vector<std::string> kept;
    std::set<std::string> seen;
    const bool known = UnknownOps::known(n);
    for (onnx::AttributeProto& a : *n.mutable_attribute()) {
      if (a.name().empty()) bad_data("an attribute has no name");
      if (!seen.insert(a.name()).second) bad_data("attribute '{}' is given twice", a.name());
      const auto type = type_of(a);
      const bool representable = type >= onnx::AttributeProto::FLOAT && type <= onnx::AttributeProto::STRINGS &&
                                 type != onnx::AttributeProto::GRAPH &&
                                 !(type == onnx::AttributeProto::TENSOR && a.t().data_type() == onnx::TensorProto::STRING);
      if (!known && !representable) {  // only looked at, never run
        kept.push_back(a.name());
        files_.payloads()->put_back(a);
      } else node.attrs.emplace(a.name(), attribute_from_onnx(a, files_));
    }
    node.opaque = node_skeleton(n, kept);
  }

  void read_outputs() {
    std::set<std::string> seen;
    for (const auto& info : proto_.output()) {
      if (!seen.insert(info.name()).second) bad_data("two outputs are named '{}'", info.name());
      const auto it = ids_.find(info.name());
      if (it == ids_.end()) bad_data("output '{}' is not made by any node", info.name());
      if (info.type().value_case() != onnx::TypeProto::VALUE_NOT_SET && !info.type().has_tensor_type())
        fail(ExitCode::kUnsupported, "output '{}': only tensors are supported", info.name());
      rw_.add_output(it->second);
      declared_.insert_or_assign(info.name(), &info);
      if (!graph_->is_input(it->second)) rw_.set_opaque(it->second, value_skeleton(&info, nullptr));
    }
    if (graph_->outputs().empty()) bad_data("the graph has no outputs");
  }

  void check_arity(const Node& n) const {
    if (n.def == nullptr) return;
    const OpDef& def = *n.def;
    const auto inputs = static_cast<int>(n.inputs.size()), outputs = static_cast<int>(n.outputs.size());
    const auto range = [](int least, int most) {
      return most < 0 ? fmt::format("{} or more", least) : least == most ? std::to_string(least) : fmt::format("{} to {}", least, most);
    };
    if (inputs < def.min_inputs || (def.max_inputs >= 0 && inputs > def.max_inputs))
      bad_data("has {} inputs, expected {}", inputs, range(def.min_inputs, def.max_inputs));
    if (outputs < def.min_outputs || (def.max_outputs >= 0 && outputs > def.max_outputs))
      bad_data("has {} outputs, expected {}", outputs, range(def.min_outputs, def.max_outputs));
    const int required = def.max_inputs < 0 ? inputs : def.min_inputs;
    for (int i = 0; i < required; ++i)
      if (n.inputs[static_cast<size_t>(i)] == kNone) bad_data("input {} is left out, but required", i);
  }

  void canonicalise_and_infer() {
    for (NodeId id : graph_->order()) {
      if (options_.allow_unknown_ops && has_untyped_input(graph_->node(id))) continue;  // behind an unknown operator
      if (graph_->node(id).def != nullptr || graph_->node(id).domain.empty()) upgrade_node(rw_, id, opset_of(id));
      with_context([&] { return graph_->node(id).label(); }, [&] { check_arity(graph_->node(id)); });
      rw_.infer(id);
      for (ValueId out : std::vector<ValueId>(graph_->node(id).outputs))
        if (out != kNone) with_context([&] { return graph_->node(id).label(); }, [&] { complete_type(out); });
    }
  }

  int64_t opset_of(NodeId id) const {
    const auto it = node_opsets_.find(id);
    return it == node_opsets_.end() ? opset_ : it->second;
  }

  bool has_untyped_input(const Node& n) const {
    return std::any_of(n.inputs.begin(), n.inputs.end(),
                       [&](ValueId in) { return in != kNone && graph_->value(in).dtype == DType::kUndefined; });
  }

  // What inference could not tell is taken from the file; what both tell must agree in type.
  void complete_type(ValueId id) {
    const Value& v = graph_->value(id);
    if (v.dims) {
      Shape known;
      for (Dim d : *v.dims)
        if (d.known()) known.push_back(d.raw);
      checked_mul(checked_numel(known), 16);
    }
    const auto it = declared_.find(v.name);
    if (it == declared_.end() || !it->second->type().has_tensor_type()) return;
    const auto& type = it->second->type().tensor_type();
    DType dtype = v.dtype;
    if (type.elem_type() != onnx::TensorProto::UNDEFINED) {
      const DType declared = dtype_from_onnx(type.elem_type());
      if (dtype == DType::kUndefined) dtype = declared;
      else if (dtype != declared && graph_->is_output(id))
        bad_data("output '{}' is declared as {}, but is {}", v.name, dtype_name(declared), dtype_name(dtype));
    }
    std::optional<Dims> dims = v.dims;
    if (!type.has_shape()) return rw_.set_type(id, dtype, std::move(dims));
    const std::optional<Dims> declared = dims_of(type);
    if (!dims) {
      dims = declared;
    } else if (graph_->is_output(id) && dims->size() == declared->size()) {
      for (size_t i = 0; i < dims->size(); ++i) {
        Dim& d = (*dims)[i];
        if (!d.known() && graph_->symbol_name(d.symbol_id()).empty()) d = (*declared)[i];
      }
    }
    rw_.set_type(id, dtype, std::move(dims));
  }

  void check_outputs() const {
    for (ValueId id : graph_->outputs())
      if (graph_->value(id).dtype == DType::kUndefined && !options_.allow_unknown_ops)
        bad_data("the type of output '{}' cannot be told", graph_->value(id).name);
  }

  onnx::ModelProto& model_;
  onnx::GraphProto& proto_;
  const ImportOptions& options_;
  ExternalFiles files_;
  std::shared_ptr<Graph> graph_;
  Rewriter rw_;
  int64_t opset_ = kNewestOpset;
  std::vector<int64_t> position_opsets_;              // per node of the file, functions inlined
  std::unordered_map<NodeId, int64_t> node_opsets_;   // where it is not the model's
  std::unordered_map<std::string, ValueId> ids_;
  std::unordered_map<std::string, const onnx::ValueInfoProto*> declared_;
};

void parse_protobuf(std::string_view bytes, onnx::ModelProto& model) {
  google::protobuf::LogSilencer silence;  // what is wrong is said once, by us
  google::protobuf::io::ArrayInputStream stream(bytes.data(), static_cast<int>(bytes.size()));
  google::protobuf::io::CodedInputStream coded(&stream);
  coded.SetTotalBytesLimit(std::numeric_limits<int>::max());
  if (!model.ParsePartialFromCodedStream(&coded) || !coded.ConsumedEntireMessage())
    bad_data("not an ONNX model, or a truncated one");
  if (!model.has_graph() || model.ir_version() <= 0) bad_data("not an ONNX model: it has no {}", model.has_graph() ? "IR version" : "graph");
  if (model.ir_version() < 3) fail(ExitCode::kUnsupported, "IR version {} is not supported (3 and above are)", model.ir_version());
}

// Names in a file may hold anything; a message is one line of printable text.
std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) out += fmt::format("\\x{:02x}", byte);
    else out += c;
  }
  return out;
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

// `file` holds the bytes, or is null when the caller does.
std::shared_ptr<Graph> import_bytes(std::string_view bytes, std::shared_ptr<MappedFile> file, const std::string& folder,
                                    const ImportOptions& options) {
  try {
    constexpr auto kMost = static_cast<size_t>(std::numeric_limits<int>::max());
    if (bytes.empty()) bad_data("is empty");
    if (bytes.size() > kMost) fail(ExitCode::kUnsupported, "is larger than 2 GiB, the most one ONNX file holds; use external data");
    Payloads payloads;
    onnx::ModelProto model;
    parse_protobuf(payloads.take_out(bytes, options.in_place_bytes, std::move(file)), model);
    return Importer(model, folder, &payloads, options).import();
  } catch (const Error& error) {
    throw Error(error.code(), printable(error.what()));
  }
}

}  // namespace

std::shared_ptr<Graph> parse_model(std::string_view bytes, const std::string& folder, const ImportOptions& options) {
  return import_bytes(bytes, nullptr, folder, options);
}

std::shared_ptr<Graph> load_model(const std::string& path, const ImportOptions& options) {
  const std::shared_ptr<MappedFile> file = MappedFile::open(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  const bool is_stdin = path == "-";
  return with_context([&] { return is_stdin ? std::string("standard input") : path; }, [&] {
    return import_bytes(bytes, file, is_stdin ? std::string() : folder_of(path), options);
  });
}

}  // namespace ds
