// FusedElementwise (x0, x1, ...) -> an expression of elementwise functions over broadcast operands, in one loop.
// Internal, never exported; passes/fuse_elementwise.h makes it.
//
// Attribute `program`: its lines (ops/elementwise_program.h). Operands are of one float type, or bool where lines read
// conditions. Results are those of the operators one by one, bit for bit.
#include <numeric>

#include "libds/ops/elementwise.h"
#include "libds/ops/elementwise_program.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::BoundChain;
using kernels::Chain;

void infer_fused_elementwise(InferContext& c) {
  const Chain chain = ops::parse_program(c.node().attr_strings("program"), c.input_count());
  DType type = DType::kF32;
  for (size_t i = 0; i < c.input_count(); ++i) {
    c.require_dtype(i, {DType::kF32, DType::kF64, DType::kBool});
    if (c.dtype(i) != DType::kBool) type = c.dtype(i);
  }
  for (size_t i = 0; i < c.input_count(); ++i)
    if (c.dtype(i) != DType::kBool && c.dtype(i) != type) c.error("operands differ in type: {} and {}", dtype_name(c.dtype(i)), dtype_name(type));
  const auto dims = ops::broadcast_inputs(c);
  if (dims && dims->size() > kernels::Broadcast::kMaxRank) c.error("rank {} is above {}", dims->size(), kernels::Broadcast::kMaxRank);
  // Every value as its type says: a condition where one is read, numbers elsewhere.
  for (const kernels::ChainStep& s : chain.steps) {
    using Kind = kernels::ChainStep::Kind;
    for (size_t i = 0; i < s.from.size() && s.from[i] >= 0; ++i) {
      const bool wants = s.kind == Kind::kLogic || s.kind == Kind::kNot || (s.kind == Kind::kSelect && i == 0);
      const auto from = static_cast<size_t>(s.from[i]);
      const size_t results = static_cast<size_t>(chain.operands) + chain.numbers.size();
      const bool is = from < static_cast<size_t>(chain.operands) ? c.dtype(from) == DType::kBool : from >= results && chain.steps[from - results].gives_flags();
      if (wants != is) c.error("a program reads a {} as a {}", is ? "condition" : "number", wants ? "condition" : "number");
    }
  }
  c.set_output(0, type, dims);
}

// In a blocked layout all operands have one shape, scalars aside, and whole blocks: their elements are a vector.
kernels::Broadcast space_of(const KernelQuery& q) {
  std::vector<size_t> all(q.inputs.size());
  std::iota(all.begin(), all.end(), size_t{0});
  if (q.out(0).layout != Layout::kBlocked8 && q.out(0).layout != Layout::kBlocked16) return ops::broadcast_space(q, all);
  const int64_t n = q.out(0).numel();
  kernels::Broadcast s = kernels::row_space(n, {});
  for (const TensorDesc& d : q.inputs) s.stride[s.operands++][0] = d.numel() == 1 ? 0 : 1;
  return s;
}

template <typename T>
std::unique_ptr<Kernel> bound_kernel(const KernelQuery& q, const kernels::RowFunctions<T>& rows) {
  BoundChain<T> chain(ops::parse_program(q.node.attr_strings("program"), q.inputs.size()), space_of(q), rows);
  return make_kernel([chain = std::move(chain)](const KernelContext& c) {
    const void* operands[Chain::kMostOperands] = {};
    for (size_t i = 0; i < c.input_count(); ++i) operands[i] = c.input(i).raw();
    chain.run(operands, c.output(0).template mutable_data<T>());
  });
}

KernelDef chain_kernel(const char* name, Isa isa) {
  KernelDef k;
  k.name = name;
  k.isa = isa;
  for (int i = 0; i < Chain::kMostOperands; ++i) k.in_place.push_back({i, 0});
  k.layout_agnostic = k.order_agnostic = true;
  if (isa != Isa::kPortable) k.decline = [](const KernelQuery& q) { return ops::require(q.out(0).dtype == DType::kF32, "needs f32"); };
  k.create = [isa](const KernelQuery& q) -> std::unique_ptr<Kernel> {
    if (q.out(0).dtype == DType::kF64) return bound_kernel(q, kernels::portable_rows<double>());
    return bound_kernel(q, isa == Isa::kPortable ? kernels::portable_rows<float>() : kernels::vector_rows(isa));
  };
  return k;
}

}  // namespace

void register_fused_elementwise_ops(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "FusedElementwise";
  def.min_inputs = 1;
  def.max_inputs = Chain::kMostOperands;
  def.infer = infer_fused_elementwise;
  def.kernels = {chain_kernel("avx512/chain", Isa::kAvx512), chain_kernel("avx2/chain", Isa::kAvx2), chain_kernel("portable/chain", Isa::kPortable)};
  registry.add(std::move(def));
}

}  // namespace ds
