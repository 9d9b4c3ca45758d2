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
  // Weights of 1 KiB and more go to `<path>.data`, each at a multiple of 4096 bytes. Done in any case where
  // the model would not fit one file.
  bool external_data = false;
  size_t most_bytes = 0x7fffffff;  // of one file; protobuf reads no more
};

// All in one. Throws kInternal for operators of the library's own domain, kUnsupported above most_bytes.
std::string serialize_model(const Graph& graph, const ExportOptions& options = {});

// Hash of the bytes that serialize_model() gives, without holding them, at any size.
uint64_t model_hash(const Graph& graph);

// Atomically: `path`, and the file with the weights before it, hold either the old or the new bytes. "-" is
// standard output; that, devices and pipes take no external data (kUnsupported). Weights are written
// straight from the tensors.
void save_model(const Graph& graph, const std::string& path, const ExportOptions& options = {});

}  // namespace ds
