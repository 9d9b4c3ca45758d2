#include "libds/tasks/bench/sweep.h"

#include <algorithm>
#include <charconv>

#include "libds/base/error.h"
#include "libds/base/parallel.h"
#include "libds/run/input_shapes.h"

namespace ds::bench {
namespace {

constexpr int64_t kMaxVarySizes = 100'000;

int64_t whole_number(std::string_view text, const std::string& whole) {
  int64_t value = -1;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size() || value < 0)
    fail(ExitCode::kUsage, "--vary: '{}' is no range; expected dim:FROM-TO or dim:FROM-TO/STEP", whole);
  return value;
}

bool is_named(std::span<const std::string> given, const std::string& name) {
  return std::any_of(given.begin(), given.end(), [&](const std::string& s) { return s.rfind(name + ":", 0) == 0; });
}

// Where a dimension of --vary is: pairs of input and axis.
std::vector<std::pair<size_t, size_t>> axes_of(const Graph& graph, const std::string& dim) {
  std::vector<std::pair<size_t, size_t>> found;
  std::vector<std::string> known;
  for (size_t i = 0; i < graph.inputs().size(); ++i) {
    const Value& v = graph.value(graph.inputs()[i]);
    if (!v.dims) continue;
    for (size_t axis = 0; axis < v.dims->size(); ++axis) {
      const Dim d = (*v.dims)[axis];
      const std::string by_place = fmt::format("{}[{}]", v.name, axis);
      if (d.known()) {
        if (by_place == dim) fail(ExitCode::kUsage, "--vary: {} is fixed at {}", dim, d.raw);
        continue;
      }
      const std::string& name = graph.symbol_name(d.symbol_id());
      if (name == dim || by_place == dim) found.emplace_back(i, axis);
      const std::string& shown = name.empty() ? by_place : name;
      if (std::find(known.begin(), known.end(), shown) == known.end()) known.push_back(shown);
    }
  }
  if (found.empty())
    fail(ExitCode::kUsage, "--vary: the model has no open dimension '{}'{}", dim,
         known.empty() ? std::string() : fmt::format("; it has {}", fmt::join(known, ", ")));
  return found;
}

// Sizes of an open first axis that has no name to give a size to.
void set_anonymous_batch(const Graph& graph, std::span<const std::string> given, int64_t batch, std::vector<Shape>& shapes) {
  for (size_t i = 0; i < shapes.size(); ++i) {
    const Value& v = graph.value(graph.inputs()[i]);
    if (is_named(given, v.name) || !v.dims || v.dims->empty() || (*v.dims)[0].known()) continue;
    if (graph.symbol_name((*v.dims)[0].symbol_id()).empty()) shapes[i][0] = batch;
  }
}

}  // namespace

std::vector<RowSettings> expand_sweep(const BenchOptions& options) {
  const std::vector<int64_t> batches = options.batches.empty() ? std::vector<int64_t>{0} : options.batches;
  std::vector<RowSettings> rows;
  for (const std::string& model : options.models)
    for (const std::string& precision : options.precisions)
      for (int64_t threads : options.threads)
        for (int64_t batch : batches)
          rows.push_back({model, precision, threads > 0 ? static_cast<int>(threads) : available_threads(), batch});
  return rows;
}

Vary parse_vary(const std::string& text) {
  const size_t colon = text.rfind(':'), dash = text.find('-', colon == std::string::npos ? 0 : colon);
  if (colon == std::string::npos || colon == 0 || dash == std::string::npos)
    fail(ExitCode::kUsage, "--vary: '{}' is no range; expected dim:FROM-TO or dim:FROM-TO/STEP", text);
  const size_t slash = std::min(text.find('/', dash), text.size());
  const std::string_view view = text;
  const int64_t from = whole_number(view.substr(colon + 1, dash - colon - 1), text);
  const int64_t to = whole_number(view.substr(dash + 1, slash - dash - 1), text);
  const int64_t step = slash < text.size() ? whole_number(view.substr(slash + 1), text) : 1;
  if (to < from || step < 1) fail(ExitCode::kUsage, "--vary: '{}' holds no size", text);
  if ((to - from) / step >= kMaxVarySizes) fail(ExitCode::kUsage, "--vary: '{}' holds more than {} sizes", text, kMaxVarySizes);
  Vary vary;
  vary.dim = text.substr(0, colon);
  for (int64_t size = from; size <= to; size += step) vary.sizes.push_back(size);
  return vary;
}

std::vector<Vary> parse_varies(std::span<const std::string> texts) {
  std::vector<Vary> all;
  for (const std::string& text : texts) {
    all.push_back(parse_vary(text));
    if (all.back().sizes.size() != all[0].sizes.size())
      fail(ExitCode::kUsage, "--vary: dimensions advance together, but '{}' has {} sizes and '{}' has {}", texts[0], all[0].sizes.size(), text,
           all.back().sizes.size());
  }
  return all;
}

std::vector<Shape> choose_shapes(const Graph& graph, const std::string& path, std::span<const std::string> given, int64_t batch,
                                 std::span<const Vary> vary, size_t step, const std::function<void(const std::string&)>& note) {
  std::vector<std::string> texts(given.begin(), given.end());
  for (const Vary& v : vary) {
    axes_of(graph, v.dim);
    if (is_named(given, v.dim)) fail(ExitCode::kUsage, "'{}' is given to --shape and to --vary", v.dim);
    // A dimension with a name gets its size by it, wherever it is.
    if (v.dim.back() != ']') texts.push_back(fmt::format("{}:{}", v.dim, v.sizes[step]));
  }
  InputShapes chosen = resolve_input_shapes(graph, texts);
  if (batch > 0 && chosen.assumed) {
    for (ValueId id : graph.inputs()) {
      const Value& v = graph.value(id);
      if (!v.dims || v.dims->empty() || (*v.dims)[0].known()) continue;
      const std::string& name = graph.symbol_name((*v.dims)[0].symbol_id());
      if (!name.empty() && !is_named(texts, name)) texts.push_back(fmt::format("{}:{}", name, batch));
    }
    chosen = resolve_input_shapes(graph, texts);
    set_anonymous_batch(graph, texts, batch, chosen.shapes);
  }
  for (const Vary& v : vary)
    for (const auto& [input, axis] : axes_of(graph, v.dim))
      if (axis < chosen.shapes[input].size()) chosen.shapes[input][axis] = v.sizes[step];
  if (!note) return chosen.shapes;
  const bool has_batch = std::any_of(chosen.shapes.begin(), chosen.shapes.end(), [&](const Shape& s) { return !s.empty() && s[0] == batch; });
  if (batch > 0 && !has_batch) note(fmt::format("{}: no input has an open first axis; the batch of {} does not apply", path, batch));
  if (chosen.assumed) {
    std::vector<std::string> at;
    for (size_t i = 0; i < chosen.shapes.size(); ++i)
      at.push_back(fmt::format("{}:{}", graph.value(graph.inputs()[i]).name, shape_string(chosen.shapes[i])));
    note(fmt::format("{}: dimensions that were not given are taken as 1: {}", path, fmt::join(at, " ")));
  }
  return chosen.shapes;
}

}  // namespace ds::bench
