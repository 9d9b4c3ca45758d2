// MatMul, Gemm, and BatchMatMul (internal), which adds transposition to MatMul for the gradients.
//
// Legend: A [..., m, k], B [..., k, n], Y [..., m, n]; leading axes broadcast as in numpy. A 1-D A is a
// row, a 1-D B a column, and the axis added for it does not appear in Y.
#include "kernels/matmul.h"

#include <algorithm>
#include <cmath>

#include "libds/ops/onednn_kernel.h"
#include "libds/ops/register.h"
#include "libds/ops/tile_product.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

using kernels::GemmShape;

// --- inference ---------------------------------------------------------------------------------

void check_types(InferContext& c) {
  const bool integer = is_int(c.dtype(0)) && dtype_size(c.dtype(0)) >= 4;
  if (!integer) c.require_dtype(0, ops::kFloats);
  for (size_t i = 1; i < c.input_count(); ++i)
    if (c.has_input(i) && c.dtype(i) != c.dtype(0))
      c.error("operands differ in type: {} and {}", dtype_name(c.dtype(0)), dtype_name(c.dtype(i)));
}

void check_inner(InferContext& c, Dim a, Dim b) {
  if (a.known() && b.known() && !(a == b))
    c.error("inner dimensions differ: {} times {}", c.graph().dims_string(c.dims(0)), c.graph().dims_string(c.dims(1)));
}

bool flag(const Node& node, const char* key) { return node.attr_int(key, 0) != 0; }

void infer_matmul(InferContext& c) {
  check_types(c);
  if (!c.has_dims(0) || !c.has_dims(1)) return c.set_output(0, c.dtype(0));
  Dims a = c.dims(0), b = c.dims(1);
  if (a.empty() || b.empty()) c.error("operands must have at least one axis");
  const bool row = a.size() == 1, column = b.size() == 1;
  if (row) a.insert(a.begin(), Dim(1));
  if (column) b.push_back(Dim(1));
  if (flag(c.node(), "trans_a")) std::swap(a[a.size() - 1], a[a.size() - 2]);
  if (flag(c.node(), "trans_b")) std::swap(b[b.size() - 1], b[b.size() - 2]);
  check_inner(c, a.back(), b[b.size() - 2]);
  Dims y = ops::broadcast_dims(c, Dims(a.begin(), a.end() - 2), Dims(b.begin(), b.end() - 2));
  if (!row) y.push_back(a[a.size() - 2]);
  if (!column) y.push_back(b.back());
  c.set_output(0, c.dtype(0), y);
}

// Integers are multiplied by integers.
int64_t whole_factor(const Node& n, const char* attr) {
  const float factor = n.attr_float(attr, 1.0f);
  constexpr float kExact = 1 << 24;
  if (!(std::abs(factor) <= kExact) || factor != std::trunc(factor)) fail(ExitCode::kUnsupported, "{} {} of integers is not supported", attr, factor);
  return static_cast<int64_t>(factor);
}

void infer_gemm(InferContext& c) {
  check_types(c);
  if (is_int(c.dtype(0)))
    for (const char* attr : {"alpha", "beta"}) whole_factor(c.node(), attr);
  if (!c.has_dims(0) || !c.has_dims(1)) return c.set_output(0, c.dtype(0));
  c.require_rank(0, 2);
  c.require_rank(1, 2);
  Dims a = c.dims(0), b = c.dims(1);
  if (flag(c.node(), "transA")) std::swap(a[0], a[1]);
  if (flag(c.node(), "transB")) std::swap(b[0], b[1]);
  check_inner(c, a[1], b[0]);
  const Dims y = {a[0], b[1]};
  if (c.has_dims(2)) {
    const Dims& bias = c.dims(2);
    const size_t lead = 2 - std::min<size_t>(2, bias.size());
    bool fits = bias.size() <= 2;
    for (size_t i = 0; fits && i < bias.size(); ++i)
      fits = !bias[i].known() || bias[i] == Dim(1) || !y[i + lead].known() || bias[i] == y[i + lead];
    if (!fits) c.error("C {} does not broadcast to {}", c.graph().dims_string(bias), c.graph().dims_string(y));
  }
  c.set_output(0, c.dtype(0), y);
}

// --- one product as a batch of plain ones ------------------------------------------------------

struct Batched {
  GemmShape gemm;
  int64_t batch = 1;
  std::vector<int64_t> a_offset, b_offset;  // elements, per batch element

  int64_t macs() const { return checked_mul(checked_mul(batch, gemm.m), checked_mul(gemm.n, gemm.k)); }
};

Batched batched_of(const KernelQuery& q) {
  Shape a = q.in(0).shape, b = q.in(1).shape;
  if (a.size() == 1) a.insert(a.begin(), 1);
  if (b.size() == 1) b.push_back(1);
  Batched r;
  GemmShape& g = r.gemm;
  g.trans_a = flag(q.node, "trans_a");
  g.trans_b = flag(q.node, "trans_b");
  g.m = a[a.size() - (g.trans_a ? 1 : 2)];
  g.k = a[a.size() - (g.trans_a ? 2 : 1)];
  g.n = b[b.size() - (g.trans_b ? 2 : 1)];
  const Shape lead_a(a.begin(), a.end() - 2), lead_b(b.begin(), b.end() - 2);
  // One matrix on the right for all on the left: a single tall product.
  if (!g.trans_a && checked_numel(lead_b) == 1) {
    g.m = checked_mul(g.m, checked_numel(lead_a));
    r.a_offset = r.b_offset = {0};
    return r;
  }
  const size_t rank = std::max(lead_a.size(), lead_b.size());
  Shape out(rank, 1), step_a(rank, 0), step_b(rank, 0);
  int64_t next_a = g.m * g.k, next_b = g.k * g.n;
  for (size_t i = rank; i-- > 0;) {
    const auto walk = [&](const Shape& lead, Shape& step, int64_t& next) {
      if (i + lead.size() < rank) return;
      const int64_t size = lead[i + lead.size() - rank];
      if (size != 1) {
        out[i] = size;
        step[i] = next;
      }
      next *= size;
    };
    walk(lead_a, step_a, next_a);
    walk(lead_b, step_b, next_b);
  }
  r.batch = checked_numel(out);
  for (int64_t e = 0; e < r.batch; ++e) {
    int64_t rest = e, at_a = 0, at_b = 0;
    for (size_t i = rank; i-- > 0;) {
      at_a += rest % out[i] * step_a[i];
      at_b += rest % out[i] * step_b[i];
      rest /= out[i];
    }
    r.a_offset.push_back(at_a);
    r.b_offset.push_back(at_b);
  }
  return r;
}

GemmShape gemm_shape(const KernelQuery& q) {
  GemmShape g;
  g.trans_a = flag(q.node, "transA");
  g.trans_b = flag(q.node, "transB");
  g.m = q.out(0).dim(0);
  g.n = q.out(0).dim(1);
  g.k = q.in(0).dim(g.trans_a ? 0 : 1);
  return g;
}

// --- gradients ---------------------------------------------------------------------------------

ValueId reshape(GradContext& g, ValueId x, const Shape& shape) {
  return g.shape(x) == shape ? x : g.emit("Reshape", {x, g.ints(shape)});
}

ValueId product(GradContext& g, ValueId a, bool trans_a, ValueId b, bool trans_b) {
  return g.emit("BatchMatMul", {a, b}, {{"trans_a", int64_t{trans_a}}, {"trans_b", int64_t{trans_b}}});
}

void grad_matmul(GradContext& g) {
  const bool ta = flag(g.node(), "trans_a"), tb = flag(g.node(), "trans_b");
  const Shape as = g.shape(g.input(0)), bs = g.shape(g.input(1));
  Shape a2 = as, b2 = bs;
  if (a2.size() == 1) a2.insert(a2.begin(), 1);
  if (b2.size() == 1) b2.push_back(1);
  Shape y2 = g.shape(g.d_output(0));
  if (as.size() == 1) y2.insert(y2.end() - (bs.size() == 1 ? 0 : 1), 1);
  if (bs.size() == 1) y2.push_back(1);
  ValueId a = reshape(g, g.input(0), a2), b = reshape(g, g.input(1), b2), d_y = reshape(g, g.d_output(0), y2);
  // A single right-hand matrix: everything is one tall 2-D product, and no sum over the batch is needed.
  if (!ta && b2.size() == 2 && a2.size() > 2) {
    const int64_t k = a2.back(), n = y2.back(), rows = checked_numel(a2) / std::max<int64_t>(1, k);
    a = reshape(g, a, {rows, k});
    d_y = reshape(g, d_y, {rows, n});
    a2 = {rows, k};
  }
  if (g.needs(0)) {
    const ValueId d = ta ? product(g, b, tb, d_y, true) : product(g, d_y, false, b, !tb);
    g.set_d_input(0, reshape(g, g.sum_to(d, a2), as));
  }
  if (g.needs(1)) {
    const ValueId d = tb ? product(g, d_y, true, a, ta) : product(g, a, !ta, d_y, false);
    g.set_d_input(1, reshape(g, g.sum_to(d, b2), bs));
  }
}

ValueId gemm(GradContext& g, ValueId a, bool trans_a, ValueId b, bool trans_b, float alpha) {
  return g.emit("Gemm", {a, b}, {{"transA", int64_t{trans_a}}, {"transB", int64_t{trans_b}}, {"alpha", alpha}});
}

void grad_gemm(GradContext& g) {
  const bool ta = flag(g.node(), "transA"), tb = flag(g.node(), "transB");
  const float alpha = g.node().attr_float("alpha", 1.0f), beta = g.node().attr_float("beta", 1.0f);
  const ValueId a = g.input(0), b = g.input(1), d_y = g.d_output(0);
  if (g.needs(0)) g.set_d_input(0, ta ? gemm(g, b, tb, d_y, true, alpha) : gemm(g, d_y, false, b, !tb, alpha));
  if (g.needs(1)) g.set_d_input(1, tb ? gemm(g, d_y, true, a, ta, alpha) : gemm(g, a, !ta, d_y, false, alpha));
  if (g.needs(2)) {
    ValueId d = g.sum_to(d_y, g.shape(g.input(2)));
    if (beta != 1.0f) d = g.emit("Mul", {d, g.scalar(beta, g.dtype(d))});
    g.set_d_input(2, d);
  }
}

// --- kernels -----------------------------------------------------------------------------------

KernelDef portable_matmul() {
  KernelDef k;
  k.name = "portable/matmul";
  k.create = [](const KernelQuery& q) {
    return make_kernel([r = batched_of(q)](const KernelContext& c) {
      const auto multiply = [&](auto tag) {
        using T = decltype(tag);
        kernels::gemm<T>(r.gemm, r.batch, T(1), static_cast<const T*>(c.input(0).raw()), r.a_offset.data(),
                         static_cast<const T*>(c.input(1).raw()), r.b_offset.data(), false, static_cast<T*>(c.output(0).mutable_raw()));
      };
      // Integers wrap around, which is the same with and without a sign.
      if (is_float(c.input(0).dtype())) dispatch_float(c.input(0).dtype(), multiply);
      else if (dtype_size(c.input(0).dtype()) == 4) multiply(uint32_t{});
      else multiply(uint64_t{});
    });
  };
  return k;
}

// Steps of C [m, n] under broadcasting; C may be a scalar, [n], [1, n], [m, 1] or [m, n].
struct Addend {
  int64_t row_step = 0, column_step = 0;
};
Addend addend_of(const TensorDesc& c) {
  Addend r;
  if (c.rank() >= 1 && c.dim(-1) != 1) r.column_step = 1;
  if (c.rank() == 2 && c.dim(0) != 1) r.row_step = c.dim(1);
  return r;
}

using kernels::onednn::MatMulRequest;

KernelDef onednn_matmul() {
  return ops::onednn_kernel("onednn/matmul", [](const KernelQuery& q, std::string& why) {
    const Batched b = batched_of(q);
    MatMulRequest r;
    r.shape = b.gemm;
    r.batch = b.batch;
    r.weights = ops::constant_content(q, 1);
    for (size_t i = 0; i < b.a_offset.size() && why.empty(); ++i) {
      const auto n = static_cast<int64_t>(i);
      if (b.a_offset[i] != n * b.gemm.m * b.gemm.k || b.b_offset[i] != n * b.gemm.k * b.gemm.n) why = "batch axes broadcast";
    }
    return why.empty() ? kernels::onednn::matmul(r, why) : nullptr;
  });
}

// Gemm whose C is absent or a row: the primitive's own bias.
KernelDef onednn_gemm() {
  return ops::onednn_kernel("onednn/gemm", [](const KernelQuery& q, std::string& why) {
    MatMulRequest r;
    r.shape = gemm_shape(q);
    r.alpha = q.node.attr_float("alpha", 1.0f);
    r.weights = ops::constant_content(q, 1);
    const float beta = q.node.attr_float("beta", 1.0f);
    const Addend addend = addend_of(q.in(2));
    r.bias = q.in(2).defined() && beta != 0.0f;
    if (r.bias && (beta != 1.0f || r.alpha != 1.0f)) why = "alpha or beta with C";
    if (r.bias && (addend.row_step != 0 || (addend.column_step == 0 && r.shape.n != 1))) why = "C is not a row";
    return why.empty() ? kernels::onednn::matmul(r, why) : nullptr;
  });
}

KernelDef portable_gemm() {
  KernelDef k;
  k.name = "portable/gemm";
  k.create = [](const KernelQuery& q) {
    const GemmShape s = gemm_shape(q);
    const float alpha = q.node.attr_float("alpha", 1.0f), beta = q.node.attr_float("beta", 1.0f);
    const bool add = q.in(2).defined() && beta != 0.0f;
    const Addend addend = addend_of(q.in(2));
    const bool integers = is_int(q.in(0).dtype);
    const int64_t times = integers ? whole_factor(q.node, "alpha") : 1, bias_times = integers ? whole_factor(q.node, "beta") : 1;
    return make_kernel([=](const KernelContext& c) {
      const auto multiply = [&](auto by, auto bias_by) {
        using T = decltype(by);
        T* y = static_cast<T*>(c.output(0).mutable_raw());
        if (add)
          kernels::broadcast_matrix<T>(s.m, s.n, bias_by, static_cast<const T*>(c.input(2).raw()), addend.row_step, addend.column_step, y);
        kernels::gemm<T>(s, 1, by, static_cast<const T*>(c.input(0).raw()), nullptr, static_cast<const T*>(c.input(1).raw()), nullptr, add, y);
      };
      if (!integers) dispatch_float(c.input(0).dtype(), [&](auto tag) { multiply(static_cast<decltype(tag)>(alpha), static_cast<decltype(tag)>(beta)); });
      else if (dtype_size(c.input(0).dtype()) == 4) multiply(static_cast<uint32_t>(times), static_cast<uint32_t>(bias_times));
      else multiply(static_cast<uint64_t>(times), static_cast<uint64_t>(bias_times));
    });
  };
  return k;
}

}  // namespace

void register_matmul_ops(OpRegistry& registry) {
  OpDef matmul;
  matmul.name = "MatMul";
  matmul.min_inputs = matmul.max_inputs = 2;
  matmul.infer = infer_matmul;
  matmul.grad = grad_matmul;
  matmul.cost = [](const KernelQuery& q) { return Cost{2 * batched_of(q).macs(), ops::operand_bytes(q)}; };
  matmul.widens_halves = true;
  matmul.kernels = {ops::tile_matmul(), onednn_matmul(), portable_matmul()};
  OpDef batched = matmul;  // attributes trans_a, trans_b
  batched.domain = Graph::kInternalDomain;
  batched.name = "BatchMatMul";
  registry.add(std::move(matmul));
  registry.add(std::move(batched));

  OpDef gemm;
  gemm.name = "Gemm";
  gemm.min_inputs = 2;
  gemm.max_inputs = 3;
  gemm.infer = infer_gemm;
  gemm.grad = grad_gemm;
  gemm.cost = [](const KernelQuery& q) {
    const GemmShape s = gemm_shape(q);
    return Cost{2 * checked_mul(checked_mul(s.m, s.n), s.k), ops::operand_bytes(q)};
  };
  gemm.widens_halves = true;
  gemm.kernels = {onednn_gemm(), portable_gemm()};
  registry.add(std::move(gemm));
}

}  // namespace ds
