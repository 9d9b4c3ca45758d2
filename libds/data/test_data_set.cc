#include "libds/data/test_data_set.h"

#include <filesystem>

#include "libds/base/error.h"
#include "libds/base/file.h"
#include "libds/ir/onnx_value.h"

namespace ds {
namespace {

Tensor read_value(const std::string& path, const Value& declared) {
  return with_context([&] { return path; }, [&] { return parse_onnx_value(read_file(path), declared.dtype); });
}

}  // namespace

TestDataSet read_test_data_set(const std::string& folder, const Graph& graph) {
  if (!std::filesystem::is_directory(folder)) fail(ExitCode::kNoInput, "{}: no such folder", folder);
  const auto path = [&](const char* kind, size_t k) { return fmt::format("{}/{}_{}.pb", folder, kind, k); };
  TestDataSet set;
  for (size_t k = 0; k < graph.inputs().size(); ++k) {
    const Value& input = graph.value(graph.inputs()[k]);
    if (!file_exists(path("input", k))) bad_data("{} is missing: it would hold input '{}'", path("input", k), input.name);
    set.inputs.push_back(read_value(path("input", k), input));
  }
  if (file_exists(path("input", graph.inputs().size())))
    bad_data("{} is one more than the model has inputs", path("input", graph.inputs().size()));
  for (size_t k = 0; k < graph.outputs().size() && file_exists(path("output", k)); ++k)
    set.outputs.push_back(read_value(path("output", k), graph.value(graph.outputs()[k])));
  return set;
}

std::vector<std::string> find_test_data_sets(const std::string& model_folder) {
  std::vector<std::string> found;
  for (;;) {
    std::string folder = fmt::format("{}/test_data_set_{}", model_folder, found.size());
    if (!std::filesystem::is_directory(folder)) return found;
    found.push_back(std::move(folder));
  }
}

}  // namespace ds
