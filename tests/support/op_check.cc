#include "tests/support/op_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "libds/autodiff/autodiff.h"
#include "libds/base/parallel.h"
#include "libds/base/random.h"
#include "libds/ir/lower.h"
#include "libds/ir/rewriter.h"
#include "libds/run/executor.h"

namespace ds::test {
namespace {

std::vector<OpCase>& table() {
  static std::vector<OpCase> cases;
  return cases;
}

// The operator alone in a graph. Float inputs become graph inputs, the others constants.
struct OpGraph {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  std::vector<ValueId> inputs;    // by operand; kNone where omitted
  std::vector<Tensor> given;      // graph inputs, in order
  std::vector<size_t> operand_of; // graph input -> operand
  NodeId node = kNone;
};

OpGraph make_graph(const OpCase& c, DType dtype) {
  OpGraph g;
  Rewriter rw(*g.graph);
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const Tensor& t = c.inputs[i];
    if (!t.defined()) {
      g.inputs.push_back(kNone);
    } else if (t.dtype() == DType::kF64) {
      const Tensor x = dtype == DType::kF64 ? t : t.cast(dtype);
      g.inputs.push_back(rw.add_input(fmt::format("in{}", i), x.dtype(), to_dims(x.shape())));
      g.given.push_back(x);
      g.operand_of.push_back(i);
    } else {
      g.inputs.push_back(rw.add_constant(fmt::format("in{}", i), t));
    }
  }
  if (c.domain.empty()) {
    g.node = rw.add_node(c.op, g.inputs, c.attrs, "op", c.outputs);
  } else {
    Node n;
    n.domain = c.domain;
    n.op = c.op;
    n.name = "op";
    n.def = find_op(c);
    n.attrs = c.attrs;
    n.inputs = g.inputs;
    for (size_t i = 0; i < c.outputs; ++i) n.outputs.push_back(rw.add_value(rw.unique_name("out")));
    g.node = rw.add_raw_node(std::move(n));
    rw.infer(g.node);
  }
  const std::vector<ValueId> outputs = g.graph->node(g.node).outputs;
  for (ValueId out : outputs) rw.add_output(out);
  return g;
}

// A copy of `t` whose first element is not aligned to more than its own size.
Tensor misaligned(const Tensor& t) {
  const size_t shift = dtype_size(t.dtype());
  auto buffer = Buffer::allocate(t.bytes() + shift, Tier::kHost);
  if (t.bytes() > 0) std::memcpy(buffer->data() + shift, t.raw(), t.bytes());
  return Tensor(t.dtype(), t.shape(), buffer, shift);
}

// Runs `kernel` of the node on operands.
std::vector<Tensor> run_kernel(const OpGraph& g, const OpDef& def, const KernelDef& kernel, const KernelQuery& query, bool shifted) {
  const Node& n = g.graph->node(g.node);
  std::vector<Tensor> operands(n.inputs.size());
  for (size_t i = 0; i < n.inputs.size(); ++i)
    if (n.inputs[i] != kNone && g.graph->value(n.inputs[i]).is_constant()) operands[i] = *g.graph->value(n.inputs[i]).constant;
  for (size_t i = 0; i < g.given.size(); ++i) operands[g.operand_of[i]] = shifted ? misaligned(g.given[i]) : g.given[i];
  std::vector<const Tensor*> inputs;
  for (const Tensor& t : operands) inputs.push_back(t.defined() ? &t : nullptr);
  std::vector<Tensor> results(n.outputs.size());
  std::vector<Tensor*> outputs;
  for (size_t i = 0; i < results.size(); ++i) {
    if (!def.data_dependent) {
      results[i] = Tensor::empty(query.outputs[i].dtype, query.outputs[i].shape);
      if (shifted) results[i] = misaligned(results[i]);
    }
    outputs.push_back(&results[i]);
  }
  const std::unique_ptr<Kernel> bound = kernel.create(query);
  const auto workspace = Buffer::allocate(bound->workspace_bytes(), Tier::kHost);
  bound->run(KernelContext(inputs, outputs, workspace->data()));
  return results;
}

KernelQuery query_of(const OpGraph& g) {
  CompileOptions options;
  options.threads = num_threads();
  return make_query(*g.graph, g.node, std::vector<char>(g.graph->value_capacity(), 0), options);
}

}  // namespace

Tensor random_tensor(Shape shape, uint64_t seed, double low, double high) {
  Tensor t = Tensor::empty(DType::kF64, std::move(shape));
  Random random(seed, stream_of("op_check"));
  for (int64_t i = 0; i < t.numel(); ++i) t.mutable_data<double>()[i] = low + (high - low) * random.uniform();
  return t;
}

Tensor random_away_from_zero(Shape shape, uint64_t seed, double margin) {
  Tensor t = random_tensor(std::move(shape), seed);
  for (int64_t i = 0; i < t.numel(); ++i) {
    double& x = t.mutable_data<double>()[i];
    if (std::abs(x) < margin) x = x < 0 ? x - margin : x + margin;
  }
  return t;
}

Tensor random_distinct(Shape shape, uint64_t seed) {
  Tensor t = Tensor::empty(DType::kF64, std::move(shape));
  const int64_t n = t.numel();
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  Random random(seed, stream_of("op_check/distinct"));
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  for (int64_t i = 0; i < n; ++i) t.mutable_data<double>()[i] = (static_cast<double>(order[static_cast<size_t>(i)]) - static_cast<double>(n) / 2) * 0.1;
  return t;
}

bool add_cases(std::vector<OpCase> cases) {
  for (OpCase& c : cases) table().push_back(std::move(c));
  return true;
}

const std::vector<OpCase>& all_cases() { return table(); }

const OpDef* find_op(const OpCase& c) {
  const OpRegistry& registry = OpRegistry::instance();
  const OpDef* def = registry.find(c.domain, c.op);
  return def != nullptr || !c.domain.empty() ? def : registry.find(Graph::kInternalDomain, c.op);
}

std::string case_name(const OpCase& c, size_t index) {
  std::string name = c.domain.empty() ? c.op : c.domain + '_' + c.op;
  std::replace(name.begin(), name.end(), '.', '_');
  return c.name.empty() ? fmt::format("{}_{}", name, index) : fmt::format("{}_{}", name, c.name);
}

std::vector<Tensor> run_op(const OpCase& c, DType dtype, const std::string& kernel) {
  const OpGraph g = make_graph(c, dtype);
  if (kernel.empty()) {
    CompileOptions options;
    options.threads = num_threads();
    return make_eager_executor(g.graph, options)->run(g.given);
  }
  const OpDef& def = *g.graph->node(g.node).def;
  for (const KernelDef& k : def.kernels)
    if (k.name == kernel) return run_kernel(g, def, k, query_of(g), false);
  fail(ExitCode::kInternal, "{} has no kernel '{}'", c.op, kernel);
}

double relative_error(const Tensor& a, const Tensor& b) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (a.shape() != b.shape()) return kInfinity;
  const std::vector<double> x = a.to_doubles(), y = b.to_doubles();
  double scale = 1.0, worst = 0.0;
  for (double v : y)
    if (std::isfinite(v)) scale = std::max(scale, std::abs(v));
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::isnan(x[i]) != std::isnan(y[i])) return kInfinity;
    if (std::isnan(x[i]) || x[i] == y[i]) continue;  // equal infinities
    worst = std::max(worst, std::abs(x[i] - y[i]) / scale);
  }
  return worst;
}

void check_kernels(const OpCase& c) {
  const std::vector<Tensor> oracle = run_op(c, DType::kF64);
  const OpGraph g = make_graph(c, DType::kF32);
  const OpDef& def = *g.graph->node(g.node).def;
  if (def.is_view) return;
  if (def.kernels.empty()) {  // lowered: as the executor runs it
    const std::vector<Tensor> results = run_op(c, DType::kF32);
    for (size_t i = 0; i < results.size(); ++i)
      EXPECT_LE(relative_error(results[i], oracle[i]), c.kernel_tolerance) << "output " << i;
    return;
  }
  const KernelQuery query = query_of(g);
  bool any = false;
  for (const KernelDef& k : def.kernels) {
    if (!why_declined(k, query).empty()) continue;
    any = true;
    for (bool shifted : {false, true}) {
      const std::vector<Tensor> results = run_kernel(g, def, k, query, shifted);
      ASSERT_EQ(results.size(), oracle.size());
      for (size_t i = 0; i < results.size(); ++i)
        EXPECT_LE(relative_error(results[i], oracle[i]), c.kernel_tolerance)
            << k.name << " output " << i << (shifted ? " (misaligned)" : "");
    }
  }
  EXPECT_TRUE(any) << "no kernel of " << c.op << " takes f32";
}

namespace {

// Sum over the first outputs of <output, weights>.
double weighted_sum(std::span<const Tensor> outputs, std::span<const Tensor> weights) {
  double sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const std::vector<double> x = outputs[i].to_doubles(), w = weights[i].to_doubles();
    for (size_t j = 0; j < x.size(); ++j) sum += x[j] * w[j];
  }
  return sum;
}

}  // namespace

void check_gradient(const OpCase& c) {
  constexpr double kStep = 1e-5, kTolerance = 1e-6;
  OpGraph g = make_graph(c, DType::kF64);
  Rewriter rw(*g.graph);
  // As training does it: lowered, with shape arithmetic computed.
  lower_nodes(rw);
  std::vector<Shape> shapes;
  for (const Tensor& t : g.given) shapes.push_back(t.shape());
  specialize(rw, shapes, evaluate_node);
  rw.insert_at_end();
  // The scalar differentiated is the sum over float outputs of <output, fixed random weights>.
  std::vector<ValueId> outputs, d_outputs;
  std::vector<Tensor> weights;
  for (ValueId out : g.graph->outputs()) {
    const Value& v = g.graph->value(out);
    if (!is_float(v.dtype) || (c.differentiated != 0 && outputs.size() == c.differentiated)) continue;
    outputs.push_back(out);
    weights.push_back(random_tensor(concrete(*v.dims), 1000 + outputs.size()));
  }
  ASSERT_FALSE(outputs.empty());
  for (const Tensor& w : weights) d_outputs.push_back(rw.add_constant("weights", w));
  std::vector<size_t> which;  // graph inputs to differentiate
  for (size_t i = 0; i < g.operand_of.size(); ++i) {
    const int operand = static_cast<int>(g.operand_of[i]);
    if (c.wrt.empty() || std::find(c.wrt.begin(), c.wrt.end(), operand) != c.wrt.end()) which.push_back(i);
  }
  ASSERT_FALSE(which.empty());
  std::vector<ValueId> wrt;
  for (size_t i : which) wrt.push_back(g.graph->inputs()[i]);
  const std::vector<ValueId> gradients = add_vjp(rw, outputs, d_outputs, wrt);
  rw.set_outputs(outputs);
  for (ValueId d : gradients) {
    ASSERT_NE(d, kNone);
    rw.add_output(d);
  }
  rw.remove_dead_nodes();
  verify_graph(*g.graph);
  CompileOptions options;
  options.threads = num_threads();
  const auto executor = make_eager_executor(g.graph, options);
  const std::vector<Tensor> analytic = executor->run(g.given);
  for (size_t k = 0; k < which.size(); ++k) {
    const size_t input = which[k];
    Tensor numeric = Tensor::zeros(DType::kF64, g.given[input].shape());
    for (int64_t j = 0; j < numeric.numel(); ++j) {
      double side[2];
      for (int s : {0, 1}) {
        std::vector<Tensor> moved = g.given;
        moved[input] = g.given[input].clone();
        moved[input].mutable_data<double>()[j] += s == 0 ? -kStep : kStep;
        side[s] = weighted_sum(executor->run(moved), weights);
      }
      numeric.mutable_data<double>()[j] = (side[1] - side[0]) / (2 * kStep);
    }
    EXPECT_LE(relative_error(analytic[outputs.size() + k], numeric), kTolerance) << "input " << g.operand_of[input];
  }
}

}  // namespace ds::test
