// ONNX files to Graph.
//
// The result is sorted, typed, verified and canonical (onnx_versions.h); Constant nodes have become
// constants and calls of model-local functions their bodies. Whatever is wrong with the file is one ds::Error naming file, node and reason: 66 for a
// file that is missing, 69 for what is valid but not supported here (all unknown operators at once),
// 65 for the rest. Never trusts a size in the file further than the bytes that are there.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "libds/ir/graph.h"

namespace ds {

struct ImportOptions {
  // Keep operators the registry does not know as nodes without OpDef instead of failing. Such a
  // graph is for looking at only: what lies behind an unknown operator is neither typed nor canonical.
  bool allow_unknown_ops = false;
  // Tensors of this many bytes and more stay where they are in the file.
  size_t in_place_bytes = 1024;
};

// "-" is standard input. The file stays mapped as long as tensors point into it: it may be replaced
// (renamed over) but not be overwritten in place.
std::shared_ptr<Graph> load_model(const std::string& path, const ImportOptions& options = {});

// The same for bytes of the caller, of which nothing is kept. `folder`: where external data lies; empty
// when there can be none.
std::shared_ptr<Graph> parse_model(std::string_view bytes, const std::string& folder = {}, const ImportOptions& options = {});

}  // namespace ds
