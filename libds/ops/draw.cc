// Random tensors: RandomUniform, RandomNormal, their Like forms, Multinomial, Bernoulli.
//
// The numbers are a pure function of the seed attribute (0 when there is none: the same command gives
// the same bits), the node and how often it has run.
#include "kernels/dropout.h"
#include "kernels/random.h"
#include "libds/base/random.h"
#include "libds/ir/type_text.h"
#include "libds/ops/lowering.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

constexpr std::initializer_list<DType> kFloats = {DType::kF32, DType::kF64, DType::kF16, DType::kBF16};

// The node's own sequence of keys, one a run.
class Keys {
 public:
  explicit Keys(const Node& n)
      : seed_(float_bits(n.attr_float("seed", 0))), stream_(stream_of(n.name) + static_cast<uint64_t>(n.output(0))) {}
  uint64_t stream() const { return stream_; }
  uint64_t next() { return kernels::dropout_key(seed_, stream_, run_++); }

 private:
  uint64_t seed_, stream_, run_ = 0;
};

// The attribute dtype, or `otherwise`.
DType dtype_attr(InferContext& c, DType otherwise) {
  return c.node().has_attr("dtype") ? dtype_of_number(c.node().attr_int("dtype", 0)) : otherwise;
}

DType float_attr(InferContext& c, DType otherwise) {
  const DType dtype = dtype_attr(c, otherwise);
  if (!is_float(dtype)) c.error("random numbers of type {} are not supported", dtype_name(dtype));
  return dtype;
}

void register_distribution(OpRegistry& registry, const char* name, bool normal, bool like) {
  OpDef def;
  def.name = name;
  def.min_inputs = def.max_inputs = like ? 1 : 0;
  def.stateful = def.stops_gradient = true;
  def.infer = [like](InferContext& c) {
    if (like) return c.set_output(0, float_attr(c, c.dtype(0)), c.input(0).dims);
    const std::vector<int64_t> shape = c.node().attr_ints("shape");
    if (!c.node().has_attr("shape")) c.error("has no shape");
    checked_numel(shape);
    c.set_output(0, float_attr(c, DType::kF32), to_dims(shape));
  };
  KernelDef k;
  k.name = "portable/random";
  k.decline = [](const KernelQuery& q) {
    return ops::require(q.out(0).dtype == DType::kF32 || q.out(0).dtype == DType::kF64, "makes f32 and f64");
  };
  k.create = [normal](const KernelQuery& q) {
    const Node& n = q.node;
    const double a = static_cast<double>(normal ? n.attr_float("mean", 0) : n.attr_float("low", 0));
    const double b = static_cast<double>(normal ? n.attr_float("scale", 1) : n.attr_float("high", 1));
    return make_kernel([normal, a, b, keys = Keys(n)](const KernelContext& c) mutable {
      const Tensor& out = c.output(0);
      dispatch_float(out.dtype(), [&](auto tag) {
        using T = decltype(tag);
        (normal ? kernels::random_normal<T> : kernels::random_uniform<T>)(out.numel(), a, b, keys.next(), keys.stream(), out.mutable_data<T>());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

void register_multinomial(OpRegistry& registry) {
  OpDef def;
  def.name = "Multinomial";  // log weights [rows, classes] -> [rows, sample_size]
  def.min_inputs = def.max_inputs = 1;
  def.stateful = def.stops_gradient = true;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, kFloats);
    c.require_rank(0, 2);
    const DType dtype = dtype_attr(c, DType::kI32);
    if (dtype != DType::kI32 && dtype != DType::kI64) c.error("dtype is {}, expected i32 or i64", dtype_name(dtype));
    const int64_t samples = c.node().attr_int("sample_size", 1);
    if (samples < 0) c.error("sample_size is {}", samples);
    const Dim rows = c.has_dims(0) ? c.dims(0)[0] : c.fresh_dim();
    c.set_output(0, dtype, Dims{rows, samples});
  };
  KernelDef k;
  k.name = "portable/multinomial";
  k.create = [](const KernelQuery& q) {
    const int64_t rows = q.in(0).dim(0), classes = q.in(0).dim(1), samples = q.out(0).dim(1);
    if (classes == 0 && rows * samples > 0) bad_data("{}: there is no class to draw", q.node.label());
    return make_kernel([=, keys = Keys(q.node)](const KernelContext& c) mutable {
      const uint64_t key = keys.next();
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        const auto draw = [&](auto* out) { kernels::multinomial(rows, classes, samples, c.input(0).data<T>(), key, keys.stream(), out); };
        if (c.output(0).dtype() == DType::kI32) draw(c.output(0).mutable_data<int32_t>());
        else draw(c.output(0).mutable_data<int64_t>());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

// 1 with the probability that the input is.
void lower_bernoulli(ops::Lowering& l) {
  const ValueId p = l.cast(l.in(0), l.dtype(l.in(0)) == DType::kF64 ? DType::kF64 : DType::kF32);
  Attributes attrs;
  if (l.node().has_attr("seed")) attrs["seed"] = l.node().attr_float("seed", 0);
  const ValueId drawn = l.emit("Less", {l.emit("RandomUniformLike", {p}, attrs), p});
  l.set(0, l.cast(drawn, static_cast<DType>(l.node().attr_int("dtype", static_cast<int64_t>(l.dtype(l.in(0)))))));
}

void register_bernoulli(OpRegistry& registry) {
  OpDef def;
  def.name = "Bernoulli";
  def.min_inputs = def.max_inputs = 1;
  def.stateful = def.stops_gradient = true;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, kFloats);
    const DType dtype = dtype_attr(c, c.dtype(0));
    if (!is_float(dtype) && !is_int(dtype) && dtype != DType::kBool) c.error("dtype {} is not supported", dtype_name(dtype));
    c.set_output(0, dtype, c.input(0).dims);
  };
  def.lower = ops::lower_as(lower_bernoulli);
  registry.add(std::move(def));
}

}  // namespace

void register_draw_ops(OpRegistry& registry) {
  register_distribution(registry, "RandomUniform", false, false);
  register_distribution(registry, "RandomUniformLike", false, true);
  register_distribution(registry, "RandomNormal", true, false);
  register_distribution(registry, "RandomNormalLike", true, true);
  register_multinomial(registry);
  register_bernoulli(registry);
}

}  // namespace ds
