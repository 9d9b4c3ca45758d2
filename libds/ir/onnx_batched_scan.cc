#include "libds/ir/onnx_batched_scan.h"

#include <string>
#include <unordered_set>

#include "libds/base/error.h"
#include "libds/ir/free_name.h"
#include "libds/ir/onnx_attributes.h"
#include "libds/ir/onnx_functions.h"

namespace ds {
namespace {

constexpr int64_t kWithoutBatch = 9;

class BatchedScans {
 public:
  explicit BatchedScans(int64_t opset) : opset_(opset) {}

  void convert(onnx::GraphProto& graph) {
    if (!any(graph)) return;
    take_names(graph);
    convert_graph(graph);
  }

 private:
  bool is_batched(const onnx::NodeProto& n) const {
    return n.op_type() == "Scan" && plain_domain(n.domain()).empty() && node_opset(n, opset_) < kWithoutBatch && n.input_size() > 0;
  }

  bool any(const onnx::GraphProto& graph) const {
    for (const onnx::NodeProto& n : graph.node()) {
      if (is_batched(n)) return true;
      for (const onnx::AttributeProto& a : n.attribute())
        if (a.has_g() && any(a.g())) return true;
    }
    return false;
  }

  // A new body's inputs must hide nothing that the bodies inside it read.
  void take_names(const onnx::GraphProto& graph) {
    for (const auto& t : graph.initializer()) taken_.insert(t.name());
    for (const auto& i : graph.input()) taken_.insert(i.name());
    for (const onnx::NodeProto& n : graph.node()) {
      taken_.insert(n.output().begin(), n.output().end());
      for (const onnx::AttributeProto& a : n.attribute())
        if (a.has_g()) take_names(a.g());
    }
  }

  std::string new_name(const std::string& base) {
    std::string name = free_name(base, [&](const std::string& candidate) { return taken_.count(candidate) > 0; });
    taken_.insert(name);
    return name;
  }

  void convert_graph(onnx::GraphProto& graph) {
    for (onnx::NodeProto& n : *graph.mutable_node()) {
      for (onnx::AttributeProto& a : *n.mutable_attribute())
        if (a.has_g()) convert_graph(*a.mutable_g());
      if (is_batched(n)) convert_node(n);
    }
  }

  void convert_node(onnx::NodeProto& n) {
    if (!n.input(0).empty())
      fail(ExitCode::kUnsupported, "{}: sequence lengths ('{}'), which Scan had in opset 8 only, are not supported", label_of(n), n.input(0));
    onnx::NodeProto along_time;
    along_time.Swap(&n);
    n.set_op_type("Scan");
    n.set_name(along_time.name());
    n.set_doc_string(along_time.doc_string());
    if (!n.name().empty()) along_time.set_name(n.name() + "/sequence");
    along_time.clear_doc_string();
    for (onnx::AttributeProto& a : *along_time.mutable_attribute())
      if (a.name() == "directions") a.set_name("scan_input_directions");

    onnx::AttributeProto& count = *n.add_attribute();
    count.set_name("num_scan_inputs");
    count.set_type(onnx::AttributeProto::INT);
    count.set_i(along_time.input_size() - 1);
    onnx::AttributeProto& body = *n.add_attribute();
    body.set_name("body");
    body.set_type(onnx::AttributeProto::GRAPH);
    body.mutable_g()->set_name("sequence");
    along_time.mutable_input()->DeleteSubrange(0, 1);
    for (std::string& name : *along_time.mutable_input()) {
      n.add_input(name);
      name = new_name(name + "/sequence");
      body.mutable_g()->add_input()->set_name(name);
    }
    for (std::string& name : *along_time.mutable_output()) {
      n.add_output(name);
      name = new_name((name.empty() ? "unread" : name) + "/sequence");
      body.mutable_g()->add_output()->set_name(name);
    }
    *body.mutable_g()->add_node() = std::move(along_time);
  }

  const int64_t opset_;
  std::unordered_set<std::string> taken_;
};

}  // namespace

void convert_batched_scans(onnx::GraphProto& graph, int64_t opset) { BatchedScans(opset).convert(graph); }

}  // namespace ds
