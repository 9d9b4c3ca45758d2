#include "tests/support/fuzz_onnx.h"

#include <algorithm>
#include <stdexcept>

#include "libds/base/error.h"
#include "libds/compile/compile.h"
#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/passes/pipeline.h"
#include "libds/run/executor.h"

namespace ds::test {
namespace {

// Runs `body`; how it ended. An error must be one line, of a kind that a model can cause.
template <typename Body>
ExitCode outcome(const char* what, Body body) {
  try {
    body();
    return ExitCode::kOk;
  } catch (const Error& error) {
    const ExitCode code = error.code();
    const std::string text = error.what();
    if (code != ExitCode::kBadData && code != ExitCode::kUnsupported)
      throw std::logic_error(fmt::format("{} ends with exit code {}: {}", what, static_cast<int>(code), text));
    if (text.empty() || text.find('\n') != std::string::npos) throw std::logic_error(fmt::format("{}: not one line: {}", what, text));
    return code;
  }
}

std::shared_ptr<Graph> load(std::string_view bytes, size_t in_place_bytes) {
  ImportOptions options;
  options.in_place_bytes = in_place_bytes;
  return parse_model(bytes, {}, options);
}

// Every open dimension is 1.
std::vector<Shape> smallest_shapes(const Graph& graph) {
  std::vector<Shape> shapes;
  for (ValueId id : graph.inputs()) {
    Shape shape;
    if (const auto& dims = graph.value(id).dims)
      for (Dim d : *dims) shape.push_back(d.known() ? d.raw : 1);
    shapes.push_back(std::move(shape));
  }
  return shapes;
}

// Whether every inner value of a specialised graph is small: a run of the folding passes stays cheap.
bool is_small(const Graph& graph) {
  constexpr int64_t kMost = 1 << 16;
  for (NodeId id : graph.order())
    for (ValueId out : graph.node(id).outputs) {
      if (out == kNone) continue;
      const Value& v = graph.value(out);
      if (!v.dims) continue;
      int64_t n = 1;
      for (Dim d : *v.dims)
        if (d.known()) n = d.raw == 0 ? 0 : n > kMost / d.raw ? kMost + 1 : n * d.raw;
      if (n > kMost) return false;
    }
  return true;
}

}  // namespace

bool fuzz_onnx(std::string_view bytes) {
  // Weights read by protobuf, and weights found in the file: the same model.
  std::shared_ptr<Graph> graph, plain;
  const ExitCode code = outcome("loading", [&] { graph = load(bytes, 1); });
  if (outcome("loading by protobuf", [&] { plain = load(bytes, bytes.size() + 1); }) != code)
    throw std::logic_error("protobuf and the scan of the file disagree");
  if (code != ExitCode::kOk) return false;
  outcome("saving", [&] {
    const std::string once = serialize_model(*graph);
    if (serialize_model(*plain) != once) throw std::logic_error("protobuf and the scan of the file read different models");
    if (serialize_model(*load(once, 1)) != once) throw std::logic_error("a saved model changes when it is loaded and saved again");
  });
  if (!is_small(*graph)) return true;
  PipelineOptions options;
  options.verify = true;
  options.evaluate = evaluate_node;
  auto copy = std::make_shared<Graph>(*graph);
  outcome("the inference pipeline", [&] { run_pipeline(*copy, "inference", options); });
  copy = std::make_shared<Graph>(*graph);
  outcome("specialisation", [&] {
    Rewriter rewriter(*copy);
    specialize(rewriter, smallest_shapes(*copy), evaluate_node);
    verify_graph(*copy);
    if (unplannable_reason(*copy).empty() && is_small(*copy)) compile(copy, {});
  });
  return true;
}

}  // namespace ds::test
