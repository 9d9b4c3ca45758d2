// Which rows a command asks for, and the shapes of their inputs.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "libds/ir/graph.h"
#include "libds/run/session.h"
#include "libds/tasks/bench/bench.h"

namespace ds::bench {

// Every model at every precision, thread count and batch; the batch changes fastest, the model slowest.
std::vector<RowSettings> expand_sweep(const BenchOptions& options);

// A dimension and the sizes it goes through: "width:97-296", "past:1-200/4" (every fourth) or, for a dimension
// without a name, "x[3]:97-296". Throws kUsage.
struct Vary {
  std::string dim;
  std::vector<int64_t> sizes;
};
Vary parse_vary(const std::string& text);
// All of them; they advance together, so they must have equally many sizes.
std::vector<Vary> parse_varies(std::span<const std::string> texts);

// Input shapes: --shape, then `batch` for an open first axis (0: not given), then 1, which is said aloud. The
// dimensions of `vary` are at their sizes number `step`. Throws kUsage for names the model does not have.
std::vector<Shape> choose_shapes(const Graph& graph, const std::string& path, std::span<const std::string> given, int64_t batch,
                                 std::span<const Vary> vary, size_t step, const std::function<void(const std::string&)>& note);

}  // namespace ds::bench
