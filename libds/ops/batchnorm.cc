// BatchNormalization (inference, and the ONNX training form), and the internal training pair
//   BatchNormTrain(x, scale, bias, running_mean, running_var; epsilon, momentum)
//     -> y, new_mean, new_var, batch_mean, inv_std
//   BatchNormGrad(x, d_y, scale, batch_mean, inv_std) -> d_x, d_scale, d_bias
#include "kernels/batchnorm.h"
#include "libds/ops/common.h"
#include "libds/ops/layouts.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::BatchShape;

BatchShape batch_shape(const Shape& shape) {
  BatchShape b{shape[0], shape.size() > 1 ? shape[1] : 1, 1};
  for (size_t i = 2; i < shape.size(); ++i) b.S *= shape[i];
  return b;
}

// Inputs 1 .. `last` are per channel and of input 0's type.
void check_channels(InferContext& c, size_t last) {
  c.require_dtype(0, ops::kFloats);
  if (c.has_dims(0) && c.dims(0).size() < 2) c.error("input 0 ('{}') has rank {}, at least 2 is needed", c.input(0).name, c.dims(0).size());
  for (size_t i = 1; i <= last; ++i) {
    if (!ops::mixes(c.dtype(i), c.dtype(0))) c.error("input {} has type {}, input 0 {}", i, dtype_name(c.dtype(i)), dtype_name(c.dtype(0)));
    c.require_rank(i, 1);
    if (!c.has_dims(0) || !c.has_dims(i)) continue;
    const Dim channels = c.dims(0)[1], given = c.dims(i)[0];
    if (channels.known() && given.known() && channels != given)
      c.error("input {} ('{}') has {} elements, the input has {} channels", i, c.input(i).name, given.raw, channels.raw);
  }
}

void infer_batchnorm(InferContext& c) {
  check_channels(c, 4);
  ops::infer_same_as_input(c);
  if (c.node().output(1) == kNone && c.node().output(2) == kNone) return;
  if (c.node().attr_int("training_mode", 0) == 0) c.error("running statistics are outputs of training_mode 1 only");
  for (size_t i : {1, 2}) c.set_output(i, c.dtype(i + 2), c.input(i + 2).dims);
}

void infer_train(InferContext& c) {
  check_channels(c, 4);
  ops::infer_same_as_input(c);
  for (size_t i = 1; i <= 4; ++i) c.set_output(i, c.dtype(3), c.input(3).dims);
}

template <typename T>
kernels::BatchPasses<T> passes_for(Isa isa) {
  if constexpr (std::is_same_v<T, float>)
    if (isa == Isa::kAvx2) return kernels::avx2_batch_passes();
  return kernels::portable_batch_passes<T>();
}

// The portable kernel and, before it, the same on AVX2 passes.
std::vector<KernelDef> kernels_of(const char* name, std::vector<InPlace> in_place,
                                  std::function<std::unique_ptr<Kernel>(const KernelQuery&, Isa)> create) {
  std::vector<KernelDef> list;
  for (Isa isa : {Isa::kAvx2, Isa::kPortable}) {
    KernelDef k;
    k.name = fmt::format("{}/{}", isa_name(isa), name);
    k.isa = isa;
    k.in_place = in_place;
    if (isa == Isa::kAvx2) k.decline = [](const KernelQuery& q) { return ops::require(q.in(0).dtype == DType::kF32, "needs f32"); };
    k.create = [create, isa](const KernelQuery& q) { return create(q, isa); };
    list.push_back(std::move(k));
  }
  return list;
}

struct Factors {
  double epsilon, momentum;
  explicit Factors(const Node& n)
      : epsilon(static_cast<double>(n.attr_float("epsilon", 1e-5f))), momentum(static_cast<double>(n.attr_float("momentum", 0.9f))) {}
};

template <typename T>
T* optional_output(const KernelContext& c, size_t i, T* otherwise) {
  return c.has_output(i) ? c.output(i).mutable_data<T>() : otherwise;
}

// BatchNormTrain, and BatchNormalization with training_mode 1. Outputs that are not wanted go to scratch.
std::unique_ptr<Kernel> train_kernel(const KernelQuery& q, Isa isa) {
  const BatchShape b = batch_shape(q.in(0).shape);
  const size_t channels = static_cast<size_t>(b.C);
  return make_kernel(
      [b, isa, f = Factors(q.node)](const KernelContext& c) {
        dispatch_float(c.input(0).dtype(), [&](auto tag) {
          using T = decltype(tag);
          auto* sums = reinterpret_cast<double*>(c.workspace());
          T* factors = reinterpret_cast<T*>(sums + 2 * b.C);
          T* spare = factors + 2 * b.C;
          kernels::batchnorm_train<T>(passes_for<T>(isa), b, c.input(0).data<T>(), c.input(1).data<T>(), c.input(2).data<T>(), c.input(3).data<T>(),
                                      c.input(4).data<T>(), f.epsilon, f.momentum, sums, factors, c.output(0).mutable_data<T>(),
                                      optional_output<T>(c, 1, spare), optional_output<T>(c, 2, spare + b.C),
                                      optional_output<T>(c, 3, spare + 2 * b.C), optional_output<T>(c, 4, spare + 3 * b.C));
        });
      },
      channels * 8 * sizeof(double));
}

std::unique_ptr<Kernel> inference_kernel(const KernelQuery& q, Isa isa) {
  if (q.node.attr_int("training_mode", 0) != 0) return train_kernel(q, isa);
  BatchShape b = batch_shape(q.in(0).shape);
  if (q.in(0).layout == Layout::kChannelsLast) b = {b.N * b.S, b.C, 1};
  return make_kernel(
      [b, isa, f = Factors(q.node)](const KernelContext& c) {
        dispatch_float(c.input(0).dtype(), [&](auto tag) {
          using T = decltype(tag);
          kernels::batchnorm<T>(passes_for<T>(isa), b, c.input(0).data<T>(), c.input(1).data<T>(), c.input(2).data<T>(), c.input(3).data<T>(),
                                c.input(4).data<T>(), f.epsilon, reinterpret_cast<T*>(c.workspace()), c.output(0).mutable_data<T>());
        });
      },
      static_cast<size_t>(b.C) * 2 * sizeof(double));
}

// Inference form: mean and variance are constants of the function. Composed of ordinary operators, as it
// is rare: a model that is fine-tuned with its statistics frozen.
void grad_inference(GradContext& g) {
  if (g.node().attr_int("training_mode", 0) != 0) fail(ExitCode::kUnsupported, "training_mode 1 is differentiated after conversion to training form only");
  const ValueId x = g.input(0), d_y = g.d_output(0);
  const DType dtype = g.dtype(x);
  const Shape shape = g.shape(x);
  Shape channel(shape.size() - 1, 1);
  channel[0] = shape[1];
  const auto per_channel = [&](ValueId v) { return g.emit("Reshape", {v, g.ints(channel)}); };
  const ValueId epsilon = g.scalar(Factors(g.node()).epsilon, dtype);
  const ValueId inverse = g.emit("Reciprocal", {g.emit("Sqrt", {g.emit("Add", {g.input(4), epsilon})})});
  const ValueId slope = g.emit("Mul", {g.input(1), inverse});
  if (g.needs(0)) g.set_d_input(0, g.emit("Mul", {d_y, per_channel(slope)}));
  if (!g.needs(1) && !g.needs(2) && !g.needs(3) && !g.needs(4)) return;
  std::vector<int64_t> axes = {0};
  for (size_t i = 2; i < shape.size(); ++i) axes.push_back(static_cast<int64_t>(i));
  const auto channel_sum = [&](ValueId v) { return g.emit("ReduceSum", {v, g.ints(axes)}, {{"keepdims", int64_t{0}}}); };
  const ValueId d_bias = channel_sum(d_y);
  if (g.needs(2)) g.set_d_input(2, d_bias);
  if (g.needs(3)) g.set_d_input(3, g.emit("Neg", {g.emit("Mul", {slope, d_bias})}));
  if (!g.needs(1) && !g.needs(4)) return;
  const ValueId centered = g.emit("Sub", {x, per_channel(g.input(3))});
  const ValueId d_scale = g.emit("Mul", {channel_sum(g.emit("Mul", {d_y, centered})), inverse});
  if (g.needs(1)) g.set_d_input(1, d_scale);
  if (!g.needs(4)) return;
  // d(1 / sqrt(v)) / dv = -1/2 v^(-3/2)
  const ValueId squared = g.emit("Mul", {inverse, inverse});
  g.set_d_input(4, g.emit("Mul", {g.emit("Mul", {d_scale, g.emit("Mul", {squared, g.input(1)})}), g.scalar(-0.5, dtype)}));
}

// The running statistics are state, not part of the function.
void grad_train(GradContext& g) {
  if (g.d_output(0) == kNone) return;
  const NodeId node = g.emit_node("BatchNormGrad", {g.input(0), g.d_output(0), g.input(1), g.output(3), g.output(4)}, {}, 3);
  const std::vector<ValueId> d = g.rewriter().graph().node(node).outputs;
  for (size_t i = 0; i < 3; ++i)
    if (g.needs(i)) g.set_d_input(i, d[i]);
}

void register_inference(OpRegistry& registry) {
  OpDef def;
  def.name = "BatchNormalization";
  def.min_inputs = def.max_inputs = 5;
  def.max_outputs = 3;
  def.infer = infer_batchnorm;
  def.grad = grad_inference;
  def.kernels = kernels_of("batchnorm", {{0, 0}}, inference_kernel);
  for (KernelDef& k : def.kernels)
    k.preferred_layouts = [](const KernelQuery& q, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
      if (q.node.attr_int("training_mode", 0) == 0) ops::stay_channels_last(q, inputs, outputs);
    };
  def.widens_halves = true;
  registry.add(std::move(def));
}

void register_train(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "BatchNormTrain";
  def.min_inputs = def.max_inputs = 5;
  def.min_outputs = def.max_outputs = 5;
  def.infer = infer_train;
  def.grad = grad_train;
  def.kernels = kernels_of("batchnorm_train", {{0, 0}, {3, 1}, {4, 2}}, train_kernel);
  def.widens_halves = true;
  registry.add(std::move(def));
}

void register_grad(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "BatchNormGrad";
  def.min_inputs = def.max_inputs = 5;
  def.min_outputs = def.max_outputs = 3;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, ops::kFloats);
    ops::infer_same_as_input(c);
    for (size_t i : {1, 2}) c.set_output(i, c.dtype(2), c.input(2).dims);
  };
  def.kernels = kernels_of("batchnorm_grad", {{1, 0}, {0, 0}}, [](const KernelQuery& q, Isa isa) {
    const BatchShape b = batch_shape(q.in(0).shape);
    return make_kernel(
        [b, isa](const KernelContext& c) {
          dispatch_float(c.input(0).dtype(), [&](auto tag) {
            using T = decltype(tag);
            auto* sums = reinterpret_cast<double*>(c.workspace());
            kernels::batchnorm_grad<T>(passes_for<T>(isa), b, c.input(0).data<T>(), c.input(1).data<T>(), c.input(2).data<T>(), c.input(3).data<T>(),
                                       c.input(4).data<T>(), sums, reinterpret_cast<T*>(sums + 2 * b.C),
                                       c.output(0).mutable_data<T>(), c.output(1).mutable_data<T>(), c.output(2).mutable_data<T>());
          });
        },
        static_cast<size_t>(b.C) * 5 * sizeof(double));
  });
  def.widens_halves = true;
  registry.add(std::move(def));
}

}  // namespace

void register_batchnorm_ops(OpRegistry& registry) {
  register_inference(registry);
  register_train(registry);
  register_grad(registry);
}

}  // namespace ds
