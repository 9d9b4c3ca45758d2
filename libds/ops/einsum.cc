// Einsum. Its gradient is made of Einsums: with respect to one operand it is the sum of the products of
// the others with the output's gradient.
#include "kernels/einsum.h"

#include <algorithm>
#include <map>

#include "libds/ops/common.h"
#include "libds/ops/einsum_equation.h"
#include "libds/ops/register.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

using ops::Equation;
using ops::Label;
using ops::Labels;

constexpr size_t kMostLabels = 16;  // of a strided copy

Equation equation_of(const KernelQuery& q) {
  std::vector<size_t> ranks;
  for (const TensorDesc& d : q.inputs) ranks.push_back(d.shape.size());
  return ops::parse_equation(q.node.attr_string("equation", ""), ranks);
}

std::vector<Shape> shapes_of(const KernelQuery& q) {
  std::vector<Shape> shapes;
  for (const TensorDesc& d : q.inputs) shapes.push_back(d.shape);
  return shapes;
}

void infer_einsum(InferContext& c) {
  if (!c.node().has_attr("equation")) c.error("attribute equation is missing");
  bool ranks_known = true;
  std::vector<size_t> ranks;
  for (size_t i = 0; i < c.input_count(); ++i) {
    if (c.dtype(i) != c.dtype(0))
      c.error("operands differ in type: {} and {}", dtype_name(c.dtype(0)), dtype_name(c.dtype(i)));
    ranks_known = ranks_known && c.has_dims(i);
    if (ranks_known) ranks.push_back(c.dims(i).size());
  }
  if (!is_int(c.dtype(0)) && !is_float(c.dtype(0))) c.error("does not take {}", dtype_name(c.dtype(0)));
  if (!ranks_known) return c.set_output(0, c.dtype(0));
  const Equation e = ops::parse_equation(c.node().attr_string("equation", ""), ranks);
  std::map<Label, Dim> sizes;
  for (size_t o = 0; o < e.operands.size(); ++o)
    for (size_t a = 0; a < e.operands[o].size(); ++a) {
      const Dim here = c.dims(o)[a];
      const auto [it, first] = sizes.try_emplace(e.operands[o][a], here);
      if (!first) it->second = ops::broadcast_dims(c, {it->second}, {here})[0];
    }
  Dims out;
  for (Label label : e.output) out.push_back(sizes.at(label));
  c.set_output(0, c.dtype(0), std::move(out));
}

// Text of a term, its labels renamed to letters.
class Letters {
 public:
  std::string text(const Labels& labels) {
    std::string out;
    for (Label label : labels) {
      const auto it = letters_.try_emplace(label, next_).first;
      if (it->second == next_) ++next_;
      out += letter(it->second);
    }
    return out;
  }
  std::string fresh() { return std::string(1, letter(next_++)); }

 private:
  static char letter(size_t i) {
    static constexpr std::string_view kAll = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    if (i >= kAll.size()) fail(ExitCode::kUnsupported, "more than {} labels in a gradient", kAll.size());
    return kAll[i];
  }
  std::map<Label, size_t> letters_;
  size_t next_ = 0;
};

Tensor ones(int64_t n, DType dtype) {
  return Tensor::vector<double>(std::vector<double>(static_cast<size_t>(n), 1.0)).cast(dtype);
}
Tensor identity(int64_t n, DType dtype) {
  Tensor t = Tensor::zeros(DType::kF64, {n, n});
  for (int64_t i = 0; i < n; ++i) t.mutable_data<double>()[i * n + i] = 1.0;
  return t.cast(dtype);
}

// Whether the output, or an operand other than `self`, has the label at its full size.
bool has_label(const Equation& e, const std::vector<Shape>& shapes, size_t self, Label label) {
  if (std::find(e.output.begin(), e.output.end(), label) != e.output.end()) return true;
  for (size_t o = 0; o < e.operands.size(); ++o)
    for (size_t a = 0; o != self && a < e.operands[o].size(); ++a)
      if (e.operands[o][a] == label && shapes[o][a] != 1) return true;
  return false;
}

void grad_einsum(GradContext& g) {
  std::vector<size_t> ranks;
  std::vector<Shape> shapes;
  const std::vector<ValueId> operands = g.node().inputs;
  for (ValueId in : operands) {
    shapes.push_back(g.shape(in));
    ranks.push_back(shapes.back().size());
  }
  const Equation e = ops::parse_equation(g.node().attr_string("equation", ""), ranks);
  const DType dtype = g.dtype(operands[0]);
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!g.needs(i)) continue;
    Letters letters;
    std::vector<ValueId> inputs = {g.d_output(0)};
    std::string terms = letters.text(e.output);
    const auto add = [&](ValueId value, const std::string& term) {
      inputs.push_back(value);
      terms += "," + term;
    };
    for (size_t o = 0; o < operands.size(); ++o)
      if (o != i) add(operands[o], letters.text(e.operands[o]));
    std::string target;
    Labels seen;
    for (size_t a = 0; a < ranks[i]; ++a) {
      const Label label = e.operands[i][a];
      const int64_t size = shapes[i][a];
      if (size == 1) continue;  // broadcast: summed, and put back by the Reshape
      const std::string name = letters.text({label});
      if (std::find(seen.begin(), seen.end(), label) != seen.end()) {
        // A diagonal: everything off it gets zero.
        const std::string off = letters.fresh();
        add(g.rewriter().add_constant("identity", identity(size, dtype)), name + off);
        target += off;
        continue;
      }
      seen.push_back(label);
      target += name;
      // Summed along it alone: nothing else has the label at its full size.
      if (!has_label(e, shapes, i, label)) add(g.rewriter().add_constant("ones", ones(size, dtype)), name);
    }
    const ValueId d = g.emit("Einsum", inputs, {{"equation", terms + "->" + target}});
    g.set_d_input(i, g.shape(d) == shapes[i] ? d : g.emit("Reshape", {d, g.ints(shapes[i])}));
  }
}

KernelDef contraction_kernel() {
  KernelDef k;
  k.name = "contraction/einsum";
  k.decline = [](const KernelQuery& q) -> std::string {
    if (q.out(0).dtype != DType::kF32 && q.out(0).dtype != DType::kF64) return "needs f32 or f64";
    const std::vector<int64_t> size = ops::label_sizes(equation_of(q), shapes_of(q)).size;
    if (std::count(size.begin(), size.end(), 0) > 0) return "an empty axis";
    return ops::require(size.size() <= kMostLabels, "too many labels");
  };
  k.create = [](const KernelQuery& q) { return ops::make_contraction(equation_of(q), q); };
  return k;
}

template <typename T>
void run_portable(const kernels::EinsumSpace& space, const KernelContext& c) {
  std::vector<const T*> operands;
  for (size_t i = 0; i < c.input_count(); ++i) operands.push_back(static_cast<const T*>(c.input(i).raw()));
  kernels::einsum<T>(space, operands.data(), static_cast<T*>(c.output(0).mutable_raw()));
}

KernelDef portable_kernel() {
  KernelDef k;
  k.name = "portable/einsum";
  k.decline = [](const KernelQuery& q) { return ops::require(!is_half(q.out(0).dtype), "16-bit floats"); };
  k.create = [](const KernelQuery& q) {
    return make_kernel([space = ops::whole_space(equation_of(q), shapes_of(q))](const KernelContext& c) {
      const DType dtype = c.output(0).dtype();
      if (dispatch_float(dtype, [&](auto tag) { run_portable<decltype(tag)>(space, c); })) return;
      switch (dtype_size(dtype)) {
        case 1:
          return run_portable<uint8_t>(space, c);
        case 2:
          return run_portable<uint16_t>(space, c);
        case 4:
          return run_portable<uint32_t>(space, c);
        default:
          return run_portable<uint64_t>(space, c);
      }
    });
  };
  return k;
}

}  // namespace

void register_einsum_ops(OpRegistry& registry) {
  OpDef def;
  def.name = "Einsum";
  def.min_inputs = 1;
  def.max_inputs = -1;
  def.infer = infer_einsum;
  def.grad = grad_einsum;
  def.cost = [](const KernelQuery& q) {
    Cost cost{q.inputs.size() > 1 ? 2 : 0, ops::operand_bytes(q)};
    for (int64_t size : ops::label_sizes(equation_of(q), shapes_of(q)).size)
      cost.flops = checked_mul(cost.flops, size);
    return cost;
  };
  def.kernels = {contraction_kernel(), portable_kernel()};
  registry.add(std::move(def));
}

}  // namespace ds
