// Normalization within a sample: LayerNormalization, RMSNormalization, GroupNormalization,
// InstanceNormalization, LRN. Gradients recompute the statistics from x (one pass over a row in cache).
#include "kernels/layernorm.h"

#include <algorithm>

#include "kernels/groupnorm.h"
#include "libds/ops/common.h"
#include "libds/ops/layouts.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

void require_same(InferContext& c, size_t i) {
  if (c.has_input(i) && !ops::mixes(c.dtype(i), c.dtype(0)))
    c.error("input {} has type {}, input 0 {}", i, dtype_name(c.dtype(i)), dtype_name(c.dtype(0)));
}

std::string needs_f32(const KernelQuery& q) { return ops::require(q.in(0).dtype == DType::kF32, "needs f32"); }

double epsilon_of(const Node& n) { return static_cast<double>(n.attr_float("epsilon", 1e-5f)); }

template <typename T>
T* data_or_null(const KernelContext& c, size_t output) {
  return c.has_output(output) ? c.output(output).mutable_data<T>() : nullptr;
}

// --- rows: LayerNormalization, RMSNormalization --------------------------------------------------

// The input as R rows of n elements: the axes from `axis` on are normalized together.
struct Rows {
  int64_t R = 1, n = 1;
  explicit Rows(const KernelQuery& q) {
    const int64_t axis = ops::normalize_axis(q.node.attr_int("axis", -1), q.in(0).rank());
    for (int64_t i = 0; i < q.in(0).rank(); ++i) (i < axis ? R : n) *= q.in(0).dim(i);
  }
};

// Type of LayerNormalization's statistics, as stash_type says.
DType stats_dtype(InferContext& c) {
  const int64_t stash = c.node().attr_int("stash_type", 1);
  if (stash != static_cast<int64_t>(DType::kF32) && stash != static_cast<int64_t>(DType::kBF16)) c.error("stash_type {} is not supported", stash);
  return static_cast<DType>(stash);
}

// scale (and bias) have the shape of the normalized axes; leading ones do not matter.
void check_affine(InferContext& c, size_t i, int64_t axis) {
  require_same(c, i);
  if (!c.has_input(i) || !c.has_dims(0) || !c.has_dims(i) || !all_known(c.dims(i))) return;
  const Dims normalized(c.dims(0).begin() + axis, c.dims(0).end());
  if (all_known(normalized) && checked_numel(concrete(normalized)) != checked_numel(concrete(c.dims(i))))
    c.error("input {} ('{}') is {}, the normalized axes are {}", i, c.input(i).name, c.graph().dims_string(c.dims(i)), c.graph().dims_string(normalized));
}

// LayerNormalization gives the type of x, RMSNormalization that of scale.
void infer_rows(InferContext& c, bool centered) {
  c.require_dtype(0, ops::kFloats);
  const DType stats = stats_dtype(c);
  c.set_output(0, c.dtype(centered ? 0 : 1), c.input(0).dims);
  std::optional<Dims> kept;
  if (c.has_dims(0)) {
    kept = c.dims(0);
    const int64_t axis = ops::normalize_axis(c.node().attr_int("axis", -1), static_cast<int64_t>(kept->size()));
    for (size_t i = 1; i <= (centered ? 2 : 1); ++i) check_affine(c, i, axis);
    for (size_t i = static_cast<size_t>(axis); i < kept->size(); ++i) (*kept)[i] = 1;
  }
  for (size_t i : {1, 2}) c.set_output(i, stats, kept);
}

void register_rows(OpRegistry& registry, const char* name, bool centered) {
  OpDef def;
  def.name = name;  // (x, scale, bias?) -> y, mean?, inv_std?
  def.min_inputs = 2;
  def.max_inputs = centered ? 3 : 2;
  def.max_outputs = centered ? 3 : 1;
  def.infer = [centered](InferContext& c) { infer_rows(c, centered); };
  def.grad = [grad_name = std::string(name) + "Grad"](GradContext& g) {
    if (g.d_output(0) == kNone) return;
    const bool with_bias = g.needs(2);
    const Attributes attrs = g.node().attrs;
    const NodeId node = g.emit_node(grad_name, {g.input(0), g.input(1), g.d_output(0)}, attrs, with_bias ? 3 : 2);
    const std::vector<ValueId> d = g.rewriter().graph().node(node).outputs;
    if (g.needs(0)) g.set_d_input(0, d[0]);
    if (g.needs(1)) g.set_d_input(1, d[1]);
    // A bias of the same size as scale may still have another rank.
    if (with_bias) g.set_d_input(2, g.shape(d[2]) == g.shape(g.input(2)) ? d[2] : g.emit("Reshape", {d[2], g.ints(g.shape(g.input(2)))}));
  };
  KernelDef fast;
  fast.name = "avx2/layernorm";
  fast.isa = Isa::kAvx2;
  fast.in_place = {{0, 0}};
  fast.decline = needs_f32;
  fast.create = [centered](const KernelQuery& q) {
    return make_kernel([centered, rows = Rows(q), epsilon = epsilon_of(q.node)](const KernelContext& c) {
      kernels::avx2::layernorm(centered, rows.R, rows.n, c.input(0).data<float>(), c.input(1).data<float>(),
                               c.has_input(2) ? c.input(2).data<float>() : nullptr, epsilon, c.output(0).mutable_data<float>(),
                               data_or_null<float>(c, 1), data_or_null<float>(c, 2));
    });
  };
  KernelDef k;
  k.name = "portable/layernorm";
  k.in_place = {{0, 0}};
  k.create = [centered](const KernelQuery& q) {
    return make_kernel([centered, rows = Rows(q), epsilon = epsilon_of(q.node)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        std::vector<T> stats[2];  // where the outputs are of another type
        T* to[2] = {nullptr, nullptr};
        for (size_t i : {0, 1}) {
          if (!c.has_output(i + 1)) continue;
          const bool same = c.output(i + 1).dtype() == dtype_of<T>();
          if (!same) stats[i].resize(static_cast<size_t>(rows.R));
          to[i] = same ? c.output(i + 1).mutable_data<T>() : stats[i].data();
        }
        kernels::layernorm<T>(centered, rows.R, rows.n, c.input(0).data<T>(), c.input(1).data<T>(),
                              c.has_input(2) ? c.input(2).data<T>() : nullptr, epsilon, c.output(0).mutable_data<T>(), to[0], to[1]);
        for (size_t i : {0, 1})
          std::transform(stats[i].begin(), stats[i].end(), stats[i].empty() ? nullptr : c.output(i + 1).mutable_data<float>(),
                         [](T x) { return static_cast<float>(x); });
      });
    });
  };
  def.kernels = {fast, k};
  def.widens_halves = true;
  registry.add(std::move(def));

  OpDef grad;
  grad.domain = Graph::kInternalDomain;
  grad.name = std::string(name) + "Grad";  // (x, scale, d_y) -> d_x, d_scale, d_bias?
  grad.min_inputs = grad.max_inputs = 3;
  grad.min_outputs = 2;
  grad.max_outputs = 3;
  grad.infer = [](InferContext& c) {
    c.require_dtype(0, ops::kFloats);
    ops::infer_same_as_input(c);
    for (size_t i : {1, 2}) c.set_output(i, c.dtype(1), c.input(1).dims);
  };
  const auto scratch = [](const Rows& rows) { return static_cast<size_t>(kernels::layernorm_grad_scratch(rows.R, rows.n)) * sizeof(double); };
  KernelDef fast_grad;
  fast_grad.name = "avx2/layernorm_grad";
  fast_grad.isa = Isa::kAvx2;
  fast_grad.in_place = {{2, 0}, {0, 0}};
  fast_grad.decline = needs_f32;
  fast_grad.create = [centered, scratch](const KernelQuery& q) {
    const Rows rows(q);
    return make_kernel(
        [centered, rows, epsilon = epsilon_of(q.node)](const KernelContext& c) {
          kernels::avx2::layernorm_grad(centered, rows.R, rows.n, c.input(0).data<float>(), c.input(1).data<float>(),
                                        c.input(2).data<float>(), epsilon, reinterpret_cast<double*>(c.workspace()),
                                        c.output(0).mutable_data<float>(), c.output(1).mutable_data<float>(), data_or_null<float>(c, 2));
        },
        scratch(rows));
  };
  KernelDef gk;
  gk.name = "portable/layernorm_grad";
  gk.in_place = {{2, 0}, {0, 0}};
  gk.create = [centered, scratch](const KernelQuery& q) {
    const Rows rows(q);
    return make_kernel(
        [centered, rows, epsilon = epsilon_of(q.node)](const KernelContext& c) {
          dispatch_float(c.input(0).dtype(), [&](auto tag) {
            using T = decltype(tag);
            kernels::layernorm_grad<T>(centered, rows.R, rows.n, c.input(0).data<T>(), c.input(1).data<T>(), c.input(2).data<T>(),
                                       epsilon, reinterpret_cast<double*>(c.workspace()), c.output(0).mutable_data<T>(),
                                       c.output(1).mutable_data<T>(), data_or_null<T>(c, 2));
          });
        },
        scratch(rows));
  };
  grad.kernels = {fast_grad, gk};
  grad.widens_halves = true;
  registry.add(std::move(grad));
}

// --- groups: GroupNormalization, InstanceNormalization ------------------------------------------

struct Groups {
  int64_t N, C, S = 1, G;
  explicit Groups(const KernelQuery& q) : N(q.in(0).dim(0)), C(q.in(0).dim(1)) {
    for (int64_t i = 2; i < q.in(0).rank(); ++i) S *= q.in(0).dim(i);
    G = q.node.attr_int("num_groups", C);  // InstanceNormalization: every channel by itself
  }
};

void infer_groups(InferContext& c, bool instance) {
  c.require_dtype(0, ops::kFloats);
  ops::infer_same_as_input(c);
  for (size_t i : {1, 2}) {
    require_same(c, i);
    c.require_rank(i, 1);
  }
  if (!c.has_dims(0)) return;
  if (c.dims(0).size() < 2) c.error("input 0 ('{}') has rank {}, at least 2 is needed", c.input(0).name, c.dims(0).size());
  const Dim channels = c.dims(0)[1];
  if (!channels.known()) return;
  for (size_t i : {1, 2})
    if (c.has_dims(i) && c.dims(i)[0].known() && c.dims(i)[0] != channels)
      c.error("input {} ('{}') has {} elements, the input has {} channels", i, c.input(i).name, c.dims(i)[0].raw, channels.raw);
  const int64_t groups = instance ? channels.raw : c.node().attr_int("num_groups", 0);
  if (groups < (channels.raw > 0 ? 1 : 0) || (groups > 0 && channels.raw % groups != 0)) c.error("{} channels do not divide into {} groups", channels.raw, groups);
}

// Channels first or last, as the input has them.
KernelDef groups_kernel(const char* name, Isa isa, kernels::GroupNormFn* function) {
  KernelDef k;
  k.name = name;
  k.isa = isa;
  k.in_place = {{0, 0}};
  k.decline = needs_f32;
  k.preferred_layouts = ops::stay_channels_last;
  k.create = [function](const KernelQuery& q) {
    const Groups g(q);
    const kernels::GroupNormShape shape{g.N, g.C, g.S, g.G, q.in(0).layout == Layout::kChannelsLast};
    return make_kernel(
        [shape, function, epsilon = epsilon_of(q.node)](const KernelContext& c) {
          function(shape, c.input(0).data<float>(), c.input(1).data<float>(), c.input(2).data<float>(), epsilon, c.workspace(),
                   c.output(0).mutable_data<float>());
        },
        kernels::groupnorm_scratch(shape));
  };
  return k;
}

void register_groups(OpRegistry& registry, const char* name, bool instance) {
  OpDef def;
  def.name = name;
  def.min_inputs = def.max_inputs = 3;
  def.infer = [instance](InferContext& c) { infer_groups(c, instance); };
  def.grad = [](GradContext& g) {
    const Attributes attrs = {{"epsilon", g.node().attr_float("epsilon", 1e-5f)},
                              {"num_groups", g.node().attr_int("num_groups", g.shape(g.input(0))[1])}};
    const NodeId node = g.emit_node("GroupNormGrad", {g.input(0), g.input(1), g.d_output(0)}, attrs, 3);
    const std::vector<ValueId> d = g.rewriter().graph().node(node).outputs;
    for (size_t i = 0; i < 3; ++i)
      if (g.needs(i)) g.set_d_input(i, d[i]);
  };
  KernelDef k;
  k.name = "portable/groupnorm";
  k.in_place = {{0, 0}};
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = Groups(q), epsilon = epsilon_of(q.node)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::groupnorm<T>(s.N, s.C, s.S, s.G, c.input(0).data<T>(), c.input(1).data<T>(), c.input(2).data<T>(), epsilon,
                              c.output(0).mutable_data<T>());
      });
    });
  };
  def.kernels = {groups_kernel("avx512/groupnorm", Isa::kAvx512, kernels::groupnorm_avx512),
                 groups_kernel("avx2/groupnorm", Isa::kAvx2, kernels::groupnorm_avx2), k};
  def.widens_halves = true;
  registry.add(std::move(def));
}

void register_groups_grad(OpRegistry& registry) {
  OpDef grad;
  grad.domain = Graph::kInternalDomain;
  grad.name = "GroupNormGrad";  // (x, scale, d_y; num_groups, epsilon) -> d_x, d_scale, d_bias
  grad.min_inputs = grad.max_inputs = 3;
  grad.min_outputs = grad.max_outputs = 3;
  grad.infer = [](InferContext& c) {
    c.require_dtype(0, ops::kFloats);
    ops::infer_same_as_input(c);
    for (size_t i : {1, 2}) c.set_output(i, c.dtype(1), c.input(1).dims);
  };
  KernelDef k;
  k.name = "portable/groupnorm_grad";
  k.in_place = {{2, 0}, {0, 0}};
  k.create = [](const KernelQuery& q) {
    const Groups s(q);
    return make_kernel(
        [s, epsilon = epsilon_of(q.node)](const KernelContext& c) {
          dispatch_float(c.input(0).dtype(), [&](auto tag) {
            using T = decltype(tag);
            kernels::groupnorm_grad<T>(s.N, s.C, s.S, s.G, c.input(0).data<T>(), c.input(1).data<T>(), c.input(2).data<T>(), epsilon,
                                       reinterpret_cast<double*>(c.workspace()), c.output(0).mutable_data<T>(),
                                       c.output(1).mutable_data<T>(), c.output(2).mutable_data<T>());
          });
        },
        static_cast<size_t>(2 * s.N * (s.C + s.G)) * sizeof(double));
  };
  grad.kernels = {k};
  grad.widens_halves = true;
  registry.add(std::move(grad));
}

// --- LRN -----------------------------------------------------------------------------------------

kernels::Lrn lrn_of(const Node& n) {
  return {n.attr_int("size", 1), static_cast<double>(n.attr_float("alpha", 1e-4f)), static_cast<double>(n.attr_float("beta", 0.75f)),
          static_cast<double>(n.attr_float("bias", 1.0f))};
}

void infer_lrn(InferContext& c) {
  c.require_dtype(0, ops::kFloats);
  if (c.has_dims(0) && c.dims(0).size() < 2) c.error("input 0 ('{}') has rank {}, at least 2 is needed", c.input(0).name, c.dims(0).size());
  if (c.node().attr_int("size", 0) < 1) c.error("size is {}, at least 1 is needed", c.node().attr_int("size", 0));
  ops::infer_same_as_input(c);
}

template <bool kGrad>
KernelDef lrn_kernel() {
  KernelDef k;
  k.name = kGrad ? "portable/lrn_grad" : "portable/lrn";
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = Groups(q), p = lrn_of(q.node)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        if constexpr (kGrad) kernels::lrn_grad<T>(p, s.N, s.C, s.S, c.input(0).data<T>(), c.input(1).data<T>(), c.output(0).mutable_data<T>());
        else kernels::lrn<T>(p, s.N, s.C, s.S, c.input(0).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  return k;
}

void register_lrn(OpRegistry& registry) {
  OpDef def;
  def.name = "LRN";
  def.min_inputs = def.max_inputs = 1;
  def.infer = infer_lrn;
  def.grad = [](GradContext& g) {
    const Attributes attrs = g.node().attrs;
    g.set_d_input(0, g.emit("LRNGrad", {g.input(0), g.d_output(0)}, attrs));
  };
  def.kernels = {lrn_kernel<false>()};
  def.widens_halves = true;
  registry.add(std::move(def));

  OpDef grad;
  grad.domain = Graph::kInternalDomain;
  grad.name = "LRNGrad";  // (x, d_y) -> d_x
  grad.min_inputs = grad.max_inputs = 2;
  grad.infer = infer_lrn;
  grad.kernels = {lrn_kernel<true>()};
  grad.widens_halves = true;
  registry.add(std::move(grad));
}

}  // namespace

void register_norm_ops(OpRegistry& registry) {
  register_rows(registry, "LayerNormalization", true);
  register_rows(registry, "RMSNormalization", false);
  register_groups(registry, "GroupNormalization", false);
  register_groups(registry, "InstanceNormalization", true);
  register_groups_grad(registry);
  register_lrn(registry);
}

}  // namespace ds
