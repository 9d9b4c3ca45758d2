// Graph to ONNX files.
//
// Written at the operator-set version the graph was loaded with; when that cannot express the graph,
// at the least one that can, with a warning. Names, metadata and fields of newer IR versions survive.
// The same graph gives the same bytes.
#pragma once

#include <cstdint>
#include <string>

#include "libds/ir/graph.h"

namespace ds {

struct ExportOptions {
  int64_t opset = 0;  // 0: the graph's own; otherwise exactly this one, or an error naming the node that cannot
};

// Throws kInternal for operators of the library's own domain, kUnsupported above 2 GiB.
std::string serialize_model(const Graph& graph, const ExportOptions& options = {});

// Atomically; "-" is standard output.
void save_model(const Graph& graph, const std::string& path, const ExportOptions& options = {});

}  // namespace ds
