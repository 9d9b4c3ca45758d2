// ds-train init: fresh models of known architectures, as plain ONNX (opset 17).
//
// The weights are a pure function of (seed, parameter name): the same command gives the same bytes,
// and a layer keeps its weights when another one changes size. Parameter names are those people know
// from PyTorch ("layer1.0.conv1.weight"); Gemm weights are [out, in], MatMul weights [in, out].
// The first dimension of inputs and outputs is the symbol "batch".
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libds/ir/graph.h"

namespace ds {

// Unset sizes take the architecture's usual value.
struct ArchOptions {
  std::string arch;
  uint64_t seed = 0;
  std::optional<int64_t> classes;
  // Pictures: input f32 [batch, in_channels, image_size, image_size].
  std::optional<int64_t> in_channels, image_size;
  bool small_stem = false;             // resnet: 3x3 stem without pooling, for pictures of about 32x32
  // Vectors (mlp without image_size): input [batch, features].
  std::optional<int64_t> features;
  std::vector<int64_t> hidden_sizes;   // mlp: widths of the hidden layers
  // Token sequences: input_ids and attention_mask i64 [batch, sequence].
  std::optional<int64_t> hidden, layers, heads, ffn, vocab, max_length;
  std::string attention = "full";
  // Pixel scaling as nodes of the graph: y = (x * scale - mean) / std, one mean and std for all
  // channels or one for each.
  std::optional<double> scale;
  std::vector<double> mean, std;
  DType input_dtype = DType::kF32;     // kU8 adds a Cast, so that raw bytes can be sent
};

struct ArchInfo {
  std::string_view name, summary;
};
// All architectures, in the order they are listed to people.
std::vector<ArchInfo> list_archs();

// Throws a usage error for an unknown architecture, sizes that make no sense together, and options
// that the architecture has no use for.
std::shared_ptr<Graph> build_arch(const ArchOptions& options);

}  // namespace ds
