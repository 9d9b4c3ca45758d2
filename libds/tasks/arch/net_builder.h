// Layers from which architectures are put together: each call emits plain ONNX nodes and makes the
// parameters they need, named PREFIX.weight, PREFIX.bias and so on.
//
// Legend: N batch, C channels, H W picture, F features, L sequence length.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libds/ir/rewriter.h"
#include "libds/tasks/init.h"

namespace ds::arch {

// How a parameter begins.
struct Init {
  enum class Kind { kZeros, kOnes, kNormal, kUniform } kind = Kind::kZeros;
  double spread = 0;  // kNormal: standard deviation; kUniform: bound on either side
};
inline Init zeros() { return {Init::Kind::kZeros, 0}; }
inline Init ones() { return {Init::Kind::kOnes, 0}; }
inline Init normal(double deviation) { return {Init::Kind::kNormal, deviation}; }
// He et al., "Delving deep into rectifiers", 2015: keeps the variance through relu.
Init he_normal(int64_t fan);
// Glorot & Bengio, 2010: sqrt(6 / (fan_in + fan_out)) on either side.
Init xavier_uniform(int64_t fan_in, int64_t fan_out);

struct ConvShape {
  int64_t in, out, kernel;
  int64_t stride = 1, pad = 0;
};

class NetBuilder {
 public:
  NetBuilder(Graph& graph, const ArchOptions& options);

  Rewriter& rewriter() { return rw_; }
  Graph& graph() { return rw_.graph(); }

  // [N, C, S, S] with the preprocessing of the options applied.
  ValueId picture_input(int64_t channels, int64_t size);
  // [N, F], likewise (one "channel").
  ValueId vector_input(int64_t features);

  ValueId parameter(const std::string& name, Shape shape, Init init);
  // Without bias: a batch norm follows.
  ValueId conv(ValueId x, const std::string& name, const ConvShape& shape, Init init);
  ValueId batch_norm(ValueId x, const std::string& name, int64_t channels);
  ValueId relu(ValueId x, const std::string& name) { return rw_.emit("Relu", {x}, {}, name); }
  ValueId max_pool(ValueId x, const std::string& name, int64_t kernel, int64_t stride, int64_t pad = 0);
  // [N, C, H, W] to [N, C].
  ValueId global_average(ValueId x, const std::string& name);
  // [N, in] to [N, out]: Gemm with weight [out, in].
  ValueId linear(ValueId x, const std::string& name, int64_t in, int64_t out, Init init);
  // [.., in] to [.., out] of any rank: MatMul with weight [in, out], then Add.
  ValueId dense(ValueId x, const std::string& name, int64_t in, int64_t out, Init init);
  ValueId layer_norm(ValueId x, const std::string& name, int64_t size, float epsilon);
  ValueId gelu(ValueId x, const std::string& name);
  ValueId scalar(const std::string& name, float value);
  ValueId ints(const std::string& name, std::vector<int64_t> values);
  // Emits and names node and output alike.
  ValueId emit(std::string_view op, std::vector<ValueId> inputs, const std::string& name, Attributes attrs = {}) {
    return rw_.emit(op, std::move(inputs), std::move(attrs), name);
  }
  // Ends the graph with the value as its only output, called "logits".
  void output(ValueId x);

 private:
  ValueId preprocess(ValueId x, int64_t channels, const Shape& channel_shape);

  const ArchOptions& options_;
  Rewriter rw_;
};

// The value of an option, which must be at least 1.
int64_t size_or(const std::optional<int64_t>& given, int64_t otherwise, std::string_view option);

void build_mlp(NetBuilder& net, const ArchOptions& options);
void build_lenet(NetBuilder& net, const ArchOptions& options);
void build_resnet(NetBuilder& net, const ArchOptions& options, int depth);
void build_bert(NetBuilder& net, const ArchOptions& options);

}  // namespace ds::arch
