// RNN, GRU, LSTM: the kernels agree, and the values are those of a step written down plainly.
#include <cmath>

#include "libds/compile/compile.h"
#include "libds/ir/rewriter.h"
#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

constexpr int64_t kT = 5, kN = 3, kI = 4, kH = 9;

// x, w, r, b, lengths, h0 (, c0, p) for `gates`; lengths of three sequences when wanted.
std::vector<Tensor> operands(int64_t gates, int64_t directions, bool lengths = false, bool batch_first = false) {
  const Shape state = batch_first ? Shape{kN, directions, kH} : Shape{directions, kN, kH};
  std::vector<Tensor> list = {random_tensor(batch_first ? Shape{kN, kT, kI} : Shape{kT, kN, kI}, 1),
                              random_tensor({directions, gates * kH, kI}, 2), random_tensor({directions, gates * kH, kH}, 3),
                              random_tensor({directions, 2 * gates * kH}, 4), Tensor(), random_tensor(state, 5)};
  if (lengths) list[4] = Tensor::of<int32_t>({kN}, {5, 2, 0});
  if (gates == 4) {
    list.push_back(random_tensor(state, 6));
    list.push_back(random_tensor({directions, 3 * kH}, 7));
  }
  return list;
}

std::vector<Tensor> without(std::vector<Tensor> list, size_t from) {
  list.resize(from);
  return list;
}

Attribute text(const char* s) { return std::string(s); }
Attribute names(std::vector<std::string> list) { return list; }

const bool added = add_cases({
    {"RNN", without(operands(1, 1), 3), {}, 2, {-1}, 1e-5, "plain"},
    {"RNN", operands(1, 2, true), {{"direction", text("bidirectional")}}, 2, {-1}, 1e-5, "both_ways"},
    {"RNN", operands(1, 1, true, true), {{"direction", text("reverse")}, {"layout", int64_t{1}}}, 2, {-1}, 1e-5, "batch_first"},
    {"GRU", without(operands(3, 1), 3), {}, 2, {-1}, 1e-5, "plain"},
    {"GRU", operands(3, 1), {{"linear_before_reset", int64_t{1}}, {"clip", 0.5f}}, 2, {-1}, 1e-5, "linear_before_reset"},
    {"GRU", operands(3, 2, true), {{"direction", text("bidirectional")}}, 2, {-1}, 1e-5, "both_ways"},
    {"LSTM", without(operands(4, 1), 3), {}, 3, {-1}, 1e-5, "plain"},
    {"LSTM", operands(4, 2, true), {{"direction", text("bidirectional")}, {"clip", 0.7f}}, 3, {-1}, 1e-5, "both_ways"},
    {"LSTM", operands(4, 1, true, true), {{"direction", text("reverse")}, {"layout", int64_t{1}}, {"input_forget", int64_t{1}}}, 3, {-1}, 1e-5, "batch_first"},
    {"LSTM", operands(4, 1),
     {{"activations", names({"HardSigmoid", "ScaledTanh", "Affine"})},
      {"activation_alpha", std::vector<float>{0.3f, 1.5f, 0.7f}},
      {"activation_beta", std::vector<float>{0.4f, 0.5f, 0.1f}}},
     3, {-1}, 1e-5, "activations"},
});

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// Row `row` of a [rows, n] matrix times v.
double dot(const Tensor& m, int64_t row, const double* v, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += m.data<double>()[row * n + i] * v[i];
  return sum;
}

TEST(Recurrent, GruFollowsItsEquations) {
  for (int64_t linear : {0, 1}) {
    const std::vector<Tensor> in = operands(3, 1);
    const std::vector<Tensor> out = run_op({"GRU", in, {{"linear_before_reset", linear}}, 2});
    const double* b = in[3].data<double>();
    for (int64_t n = 0; n < kN; ++n) {
      std::vector<double> h(in[5].data<double>() + n * kH, in[5].data<double>() + (n + 1) * kH);
      for (int64_t t = 0; t < kT; ++t) {
        const double* x = in[0].data<double>() + (t * kN + n) * kI;
        std::vector<double> z(kH), r(kH), reset(kH), next(kH);
        for (int64_t i = 0; i < kH; ++i) {
          z[i] = sigmoid(dot(in[1], i, x, kI) + dot(in[2], i, h.data(), kH) + b[i] + b[3 * kH + i]);
          r[i] = sigmoid(dot(in[1], kH + i, x, kI) + dot(in[2], kH + i, h.data(), kH) + b[kH + i] + b[4 * kH + i]);
          reset[i] = r[i] * h[i];
        }
        for (int64_t i = 0; i < kH; ++i) {
          const int64_t row = 2 * kH + i;
          const double state = linear ? r[i] * (dot(in[2], row, h.data(), kH) + b[3 * kH + row])
                                      : dot(in[2], row, reset.data(), kH) + b[3 * kH + row];
          next[i] = (1 - z[i]) * std::tanh(dot(in[1], row, x, kI) + state + b[row]) + z[i] * h[i];
        }
        h = next;
        for (int64_t i = 0; i < kH; ++i) EXPECT_NEAR(out[0].data<double>()[(t * kN + n) * kH + i], h[i], 1e-12);
      }
      for (int64_t i = 0; i < kH; ++i) EXPECT_NEAR(out[1].data<double>()[n * kH + i], h[i], 1e-12);
    }
  }
}

TEST(Recurrent, ReverseIsForwardOnTheReversedSequence) {
  std::vector<Tensor> in = operands(4, 1, true);
  const std::vector<Tensor> backward = run_op({"LSTM", in, {{"direction", text("reverse")}}, 3});
  const std::vector<int64_t> lengths = in[4].to_ints();
  Tensor turned = in[0].clone();
  const auto row = [](int64_t t, int64_t n) { return t * kN + n; };
  for (int64_t n = 0; n < kN; ++n)
    for (int64_t t = 0; t < lengths[static_cast<size_t>(n)]; ++t)
      for (int64_t i = 0; i < kI; ++i)
        turned.mutable_data<double>()[row(t, n) * kI + i] = in[0].data<double>()[row(lengths[static_cast<size_t>(n)] - 1 - t, n) * kI + i];
  in[0] = turned;
  const std::vector<Tensor> forward = run_op({"LSTM", in, {}, 3});
  EXPECT_TRUE(forward[1].equal_bits(backward[1]));
  EXPECT_TRUE(forward[2].equal_bits(backward[2]));
  for (int64_t n = 0; n < kN; ++n)
    for (int64_t t = 0; t < kT; ++t)
      for (int64_t i = 0; i < kH; ++i) {
        const int64_t length = lengths[static_cast<size_t>(n)];
        const double y = backward[0].data<double>()[row(t, n) * kH + i];
        if (t >= length) EXPECT_EQ(y, 0.0);
        else EXPECT_EQ(y, forward[0].data<double>()[row(length - 1 - t, n) * kH + i]);
      }
}

// Weights that never change are packed for the steps; computed ones are not.
TEST(Recurrent, ConstantWeightsGiveTheSame) {
  const auto cases = std::vector<std::pair<std::string, Attributes>>{
      {"RNN", {}}, {"GRU", {}}, {"GRU", {{"linear_before_reset", int64_t{1}}}}, {"LSTM", {}}};
  for (const auto& [op, common] : cases)
    for (const int64_t directions : {1, 2}) {
      Attributes attrs = common;
      if (directions == 2) attrs["direction"] = text("bidirectional");
      const std::vector<Tensor> in = operands(op == "RNN" ? 1 : op == "GRU" ? 3 : 4, directions, true);
      const std::vector<Tensor> exact = run_op({op, in, attrs, 2}, DType::kF64);
      const auto g = std::make_shared<Graph>();
      Rewriter rw(*g);
      std::vector<ValueId> operands;
      std::vector<Tensor> inputs;
      for (size_t i = 0; i < in.size(); ++i) {
        const Tensor t = i == 4 ? in[i] : in[i].cast(DType::kF32);
        if (i == 1 || i == 2) {
          operands.push_back(rw.add_constant("weights", t));
        } else {
          operands.push_back(rw.add_input("x" + std::to_string(i), t.dtype(), to_dims(t.shape())));
          inputs.push_back(t);
        }
      }
      const NodeId node = rw.add_node(op, operands, attrs, "cell", 2);
      const std::vector<ValueId> results = g->node(node).outputs;
      for (ValueId id : results) rw.add_output(id);
      for (const int threads : {1, 2}) {
        CompileOptions options;
        options.threads = threads;
        const std::vector<Tensor> found = make_plan_executor(compile(g, options))->run(inputs);
        for (size_t i = 0; i < 2; ++i) EXPECT_LE(relative_error(found[i], exact[i]), 1e-5) << op << " " << directions << " output " << i;
      }
    }
}

TEST(Recurrent, WrongModelsAreBadData) {
  const auto run = [](std::vector<Tensor> in, Attributes attrs) { return run_op({"GRU", std::move(in), std::move(attrs), 2}); };
  const std::vector<Tensor> good = operands(3, 1);
  EXPECT_THROW(run(good, {{"direction", text("sideways")}}), Error);
  EXPECT_THROW(run(good, {{"direction", text("bidirectional")}}), Error);
  EXPECT_THROW(run(good, {{"activations", names({"Sigmoid"})}}), Error);
  EXPECT_THROW(run(good, {{"activations", names({"Sigmoid", "Cosine"})}}), Error);
  EXPECT_THROW(run(good, {{"hidden_size", kH + 1}}), Error);
  EXPECT_THROW(run(good, {{"layout", int64_t{2}}}), Error);
  std::vector<Tensor> in = good;
  in[4] = Tensor::of<int32_t>({kN}, {5, 6, 0});
  EXPECT_THROW(run(in, {}), Error);
  in[4] = Tensor::of<int32_t>({kN}, {5, -1, 0});
  EXPECT_THROW(run(in, {}), Error);
}

}  // namespace
}  // namespace ds::test
