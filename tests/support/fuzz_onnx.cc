#include "tests/support/fuzz_onnx.h"

#include <algorithm>
#include <stdexcept>

#include "libds/base/error.h"
#include "libds/compile/compile.h"
#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/passes/pipeline.h"
#include "libds/run/executor.h"
#include "libds/run/input_shapes.h"

namespace ds::test {
namespace {

// Runs `body`; whether it came to an end. An error must be one a user can cause.
template <typename Body>
bool sound(const char* what, Body body) {
  try {
    body();
    return true;
  } catch (const Error& error) {
    const ExitCode code = error.code();
    const std::string text = error.what();
    if (code != ExitCode::kBadData && code != ExitCode::kUnsupported)
      throw std::logic_error(fmt::format("{} ends with exit code {}: {}", what, static_cast<int>(code), text));
    if (text.empty() || text.find('\n') != std::string::npos) throw std::logic_error(fmt::format("{}: not one line: {}", what, text));
    return false;
  }
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
  std::shared_ptr<Graph> graph;
  if (!sound("loading", [&] { graph = parse_model(bytes); })) return false;
  sound("saving", [&] {
    const std::string once = serialize_model(*graph);
    const std::string twice = serialize_model(*parse_model(once));
    if (once != twice) throw std::logic_error("a saved model changes when it is loaded and saved again");
  });
  if (!is_small(*graph)) return true;
  PipelineOptions options;
  options.verify = true;
  options.evaluate = evaluate_node;
  auto copy = std::make_shared<Graph>(*graph);
  sound("the inference pipeline", [&] { run_pipeline(*copy, "inference", options); });
  copy = std::make_shared<Graph>(*graph);
  sound("specialisation", [&] {
    Rewriter rewriter(*copy);
    specialize(rewriter, resolve_input_shapes(*copy, {}).shapes, evaluate_node);
    verify_graph(*copy);
    if (unplannable_reason(*copy).empty() && is_small(*copy)) compile(copy, {});
  });
  return true;
}

}  // namespace ds::test
