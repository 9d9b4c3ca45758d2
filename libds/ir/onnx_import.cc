#include "libds/ir/onnx_import.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/stubs/logging.h>

#include <limits>
#include <set>

#include "libds/base/file.h"
#include "libds/ir/onnx_attributes.h"
#include "libds/ir/onnx_batched_scan.h"
#include "libds/ir/onnx_functions.h"
#include "libds/ir/onnx_graph_reader.h"
#include "libds/ir/onnx_opaque.h"
#include "libds/ir/onnx_versions.h"
#include "libds/ir/op_def.h"

namespace ds {
namespace {

// --- unknown operators -------------------------------------------------------------------------

// What to do about an operator that stays unknown; empty where nothing is known to help.
std::string_view advice(std::string_view domain, std::string_view op) {
  if (domain != kMlDomain) return {};
  if (op == "ZipMap") return "; maps are not supported: export without it, with skl2onnx by options={'zipmap': False}";
  if (op == "CastMap" || op == "DictVectorizer") return "; maps are not supported: feed a tensor in the place of its result";
  return {};
}

class UnknownOps {
 public:
  explicit UnknownOps(const onnx::ModelProto& model) {
    for (const auto& import : model.opset_import()) versions_[std::string(plain_domain(import.domain()))] = import.version();
    collect(model.graph(), 0);
  }

  // Empty when all are known.
  std::string list() const {
    if (found_.empty()) return {};
    std::string list;
    for (const auto& [key, names] : found_) {
      const auto& [domain, op] = key;
      constexpr size_t kShown = 3;
      std::vector<std::string> shown(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, names.size())));
      const auto version = versions_.find(domain);
      list += fmt::format("{}{}{} ({} {}: node '{}'{}{})", list.empty() ? "" : "; ", domain.empty() ? "" : domain + ".", op,
                          domain.empty() ? "ai.onnx" : domain, version == versions_.end() ? 0 : version->second,
                          fmt::join(shown, "', '"),
                          names.size() > kShown ? fmt::format(" and {} more", names.size() - kShown) : "", advice(domain, op));
    }
    return "operators that are not supported: " + list;
  }

 private:
  void collect(const onnx::GraphProto& graph, int depth) {
    constexpr int kDeepest = 32;  // the parser allows about as much
    if (depth > kDeepest) bad_data("subgraphs are nested more than {} deep", kDeepest);
    for (const onnx::NodeProto& n : graph.node()) {
      if (!is_known_operator(n)) found_[{std::string(plain_domain(n.domain())), n.op_type()}].push_back(n.name().empty() && n.output_size() > 0 ? n.output(0) : n.name());
      for (const onnx::AttributeProto& a : n.attribute()) {
        if (a.has_g()) collect(a.g(), depth + 1);
        for (const onnx::GraphProto& g : a.graphs()) collect(g, depth + 1);
      }
    }
  }

  std::map<std::string, int64_t> versions_;
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> found_;  // (domain, op) -> nodes
};

// --- the model ---------------------------------------------------------------------------------

// Versions of ai.onnx among these that are not supported; empty when all are.
std::string unsupported_opsets(const std::set<int64_t>& opsets) {
  std::vector<int64_t> wrong;
  for (int64_t opset : opsets)
    if (opset < kOldestReadOpset || opset > kNewestOpset) wrong.push_back(opset);
  if (wrong.empty()) return {};
  return fmt::format("opset {} is not supported ({} to {} are)", fmt::join(wrong, ", "), kOldestReadOpset, kNewestOpset);
}

// The same for domain ai.onnx.ml.
std::string unsupported_ml_opset(const Graph& g) {
  const auto ml = g.opsets.find(kMlDomain);
  if (ml == g.opsets.end() || (ml->second >= 1 && ml->second <= kNewestMlOpset)) return {};
  return fmt::format("opset {} of domain {} is not supported (1 to {} are)", ml->second, kMlDomain, kNewestMlOpset);
}

// Everything beside the graph. Returns the version of domain ai.onnx.
int64_t read_header(const onnx::ModelProto& model, Graph& g) {
  g.ir_version = model.ir_version();
  g.producer_name = model.producer_name();
  g.producer_version = model.producer_version();
  g.model_domain = model.domain();
  g.model_doc = model.doc_string();
  g.model_version = model.model_version();
  for (const auto& entry : model.metadata_props()) g.metadata[entry.key()] = entry.value();
  for (const auto& import : model.opset_import()) {
    const std::string domain(plain_domain(import.domain()));
    if (!g.opsets.emplace(domain, import.version()).second && g.opsets[domain] != import.version())
      bad_data("opset of domain '{}' is given twice: {} and {}", import.domain(), g.opsets[domain], import.version());
  }
  for (const auto& n : model.graph().node())
    if (n.domain() == kMlDomain && g.opsets.find(kMlDomain) == g.opsets.end()) bad_data("no opset is given for domain {}", kMlDomain);
  const auto main = g.opsets.find("");
  if (main == g.opsets.end()) {
    for (const auto& n : model.graph().node())
      if (plain_domain(n.domain()).empty()) bad_data("no opset is given for domain ai.onnx");
    return kNewestOpset;
  }
  return main->second;
}

std::shared_ptr<Graph> import_model(onnx::ModelProto& model, const std::string& folder, const Payloads* payloads, const ImportOptions& options) {
  auto graph = std::make_shared<Graph>();
  const int64_t opset = read_header(model, *graph);
  const InlinedFunctions inlined = inline_functions(model, opset);
  std::set<int64_t> opsets(inlined.opsets.begin(), inlined.opsets.end());
  opsets.insert(opset);
  std::vector<std::string> unsupported = {unsupported_opsets(opsets), unsupported_ml_opset(*graph)};  // all of it at once, not the first only
  if (!options.allow_unknown_ops) unsupported.push_back(UnknownOps(model).list());
  std::erase(unsupported, "");
  if (!unsupported.empty()) fail(ExitCode::kUnsupported, "{}", fmt::join(unsupported, "; "));
  if (inlined.any) model.clear_functions();
  graph->opaque = model_skeleton(model);
  convert_batched_scans(*model.mutable_graph(), opset);
  ExternalFiles files(folder, payloads);
  read_main_graph(*model.mutable_graph(), {opset, options.allow_unknown_ops, files}, *graph);
  graph->external_files = files.used();
  verify_graph(*graph);
  return graph;
}

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
    return import_model(model, folder, &payloads, options);
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
