// Internal operator of the run-time pipeline: FusedMatMul, never exported.
//
// FusedMatMul (a, b, bias?, addend?) -> activation(a . b + bias + addend): a [..., m, k], b [k, n] ([n, k] with `trans_b`),
// bias [n], addend as the result [..., m, n]; attributes of the epilogue in ops/epilogue.h. b in bf16, or in f16 with
// `half_sums`, means products in it, whatever the other operands are stored in; the result has the type `to`, else a's.
#include "kernels/epilogue.h"
#include "kernels/matmul.h"
#include "libds/ops/common.h"
#include "libds/ops/epilogue.h"
#include "libds/ops/common.h"
#include "libds/ops/onednn_kernel.h"
#include "libds/ops/register.h"
#include "libds/ops/tile_product.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

bool turned(const Node& node) { return node.attr_int("trans_b", 0) != 0; }

void infer(InferContext& c) {
  c.require_dtype(0, ops::kFloats);
  for (size_t i = 1; i < c.input_count(); ++i)
    if (c.has_input(i) && !ops::mixes(c.dtype(i), c.dtype(0))) c.error("operands differ in type: {} and {}", dtype_name(c.dtype(0)), dtype_name(c.dtype(i)));
  c.require_rank(1, 2);
  const auto to = static_cast<DType>(c.node().attr_int("to", static_cast<int64_t>(c.dtype(0))));
  if (!c.has_dims(0) || !c.has_dims(1)) return c.set_output(0, to);
  Dims y = c.dims(0);
  const Dims& b = c.dims(1);
  const Dim depth = b[turned(c.node()) ? 1 : 0], columns = b[turned(c.node()) ? 0 : 1];
  if (y.empty()) c.error("the left operand is a scalar");
  if (y.back().known() && depth.known() && y.back() != depth)
    c.error("inner dimensions differ: {} times {}", c.graph().dims_string(c.dims(0)), c.graph().dims_string(b));
  y.back() = columns;
  if (c.has_dims(3) && all_known(y) && all_known(c.dims(3)) && c.dims(3) != y)
    c.error("addend {} differs from the output {}", c.graph().dims_string(c.dims(3)), c.graph().dims_string(y));
  c.set_output(0, to, std::move(y));
}

kernels::GemmShape shape_of(const KernelQuery& q) {
  kernels::GemmShape s;
  s.trans_b = turned(q.node);
  s.k = q.in(1).dim(s.trans_b ? 1 : 0);
  s.n = q.in(1).dim(s.trans_b ? 0 : 1);
  s.m = s.k == 0 ? 0 : q.in(0).numel() / s.k;
  return s;
}

KernelDef onednn(const char* name, int addend) {
  return ops::onednn_kernel(name, [addend](const KernelQuery& q, std::string& why) -> std::unique_ptr<kernels::onednn::Program> {
    if (q.in(3).defined() != (addend >= 0)) return why = addend >= 0 ? "no addend" : "an addend", nullptr;
    kernels::onednn::MatMulRequest r;
    r.shape = shape_of(q);
    r.weights = ops::constant_content(q, 1);
    r.bias = q.in(2).defined();
    r.epilogue = ops::epilogue_of(q.node);
    return kernels::onednn::matmul(r, why);
  }, addend);
}

KernelDef portable() {
  KernelDef k;
  k.name = "portable/fused_matmul";
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = shape_of(q), e = ops::epilogue_of(q.node)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        T* y = c.output(0).mutable_data<T>();
        if (c.has_input(2)) kernels::broadcast_matrix<T>(s.m, s.n, T(1), c.input(2).data<T>(), 0, 1, y);
        kernels::gemm<T>(s, 1, T(1), c.input(0).data<T>(), nullptr, c.input(1).data<T>(), nullptr, c.has_input(2), y);
        kernels::apply_epilogue<T>(e, c.output(0).numel(), c.has_input(3) ? c.input(3).data<T>() : nullptr, y);
      });
    });
  };
  return k;
}

}  // namespace

void register_fused_matmul_ops(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "FusedMatMul";
  def.min_inputs = 2;
  def.max_inputs = 4;
  def.infer = infer;
  def.cost = [](const KernelQuery& q) {
    const kernels::GemmShape s = shape_of(q);
    return Cost{2 * checked_mul(checked_mul(s.m, s.n), s.k), ops::operand_bytes(q)};
  };
  def.widens_halves = true;
  def.kernels = {ops::tile_matmul(), onednn("onednn/matmul_add", 3), onednn("onednn/matmul_act", -1), portable()};
  registry.add(std::move(def));
}

}  // namespace ds
