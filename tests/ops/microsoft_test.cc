// Operators of domain com.microsoft in forms that onnxruntime's CPU kernels do not run; the others are
// compared with onnxruntime by tests/python/ops_vs_ort.py.
#include "libds/ir/rewriter.h"
#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

std::vector<Tensor> run_microsoft(const char* op, const std::vector<Tensor>& inputs, Attributes attrs, size_t outputs = 1) {
  auto graph = std::make_shared<Graph>();
  Rewriter rw(*graph);
  Node n;
  n.domain = "com.microsoft";
  n.op = n.name = op;
  n.def = OpRegistry::instance().find(n.domain, op);
  n.attrs = std::move(attrs);
  std::vector<Tensor> given;
  for (const Tensor& t : inputs) {
    n.inputs.push_back(t.defined() ? rw.add_input("in", t.dtype(), to_dims(t.shape())) : kNone);
    if (t.defined()) given.push_back(t);
  }
  for (size_t i = 0; i < outputs; ++i) n.outputs.push_back(rw.add_value(rw.unique_name("out")));
  const std::vector<ValueId> results = n.outputs;
  rw.infer(rw.add_raw_node(std::move(n)));
  for (ValueId id : results) rw.add_output(id);
  return make_eager_executor(graph, CompileOptions{})->run(given);
}

constexpr int64_t B = 2, L = 3, H = 2, D = 4;
const Attributes kHeads = {{"num_heads", H}};

// [B, L, H, n, D] of n tensors [B, L, H D].
Tensor packed(const std::vector<Tensor>& parts) {
  const auto n = static_cast<int64_t>(parts.size());
  Tensor all = Tensor::empty(DType::kF64, {B, L, H, n, D});
  for (int64_t i = 0; i < B * L * H; ++i)
    for (int64_t p = 0; p < n; ++p)
      for (int64_t d = 0; d < D; ++d) all.mutable_data<double>()[(i * n + p) * D + d] = parts[static_cast<size_t>(p)].data<double>()[i * D + d];
  return all;
}

TEST(Microsoft, MultiHeadAttentionTakesPackedOperands) {
  const Tensor q = random_tensor({B, L, H * D}, 1), k = random_tensor({B, L, H * D}, 2), v = random_tensor({B, L, H * D}, 3);
  const Tensor bias = random_tensor({3 * H * D}, 4);
  for (const Tensor& b : {Tensor(), bias}) {
    const Tensor expected = run_microsoft("MultiHeadAttention", {q, k, v, b}, kHeads)[0];
    EXPECT_EQ(relative_error(run_microsoft("MultiHeadAttention", {packed({q, k, v}), Tensor(), Tensor(), b}, kHeads)[0], expected), 0);
    EXPECT_EQ(relative_error(run_microsoft("MultiHeadAttention", {q, packed({k, v}), Tensor(), b}, kHeads)[0], expected), 0);
  }
}

TEST(Microsoft, WhatIsNotSupportedIsSaid) {
  const Tensor x = random_tensor({B, L, 5}, 1), w = random_tensor({5, 3 * H * D}, 2);
  const auto code = [](auto&& run) {
    try {
      run();
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::kOk;
  };
  EXPECT_EQ(code([&] { run_microsoft("Attention", {x, w}, {{"num_heads", H}, {"do_rotary", int64_t{1}}}); }), ExitCode::kUnsupported);
  EXPECT_EQ(code([&] { run_microsoft("Attention", {x, w}, {{"num_heads", int64_t{5}}}); }), ExitCode::kBadData);
  EXPECT_EQ(code([&] { run_microsoft("Attention", {x, w, Tensor(), Tensor::vector<int32_t>(std::vector<int32_t>(8, 1))}, kHeads); }), ExitCode::kUnsupported);
}

}  // namespace
}  // namespace ds::test
