// CausalConvWithState: a depthwise convolution that looks back only, and
// remembers where it was.
#include <limits>

#include "libds/ops/lowering.h"
#include "libds/ops/operands.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using ops::Lowering;

// (x [B, C, L], weight [C, 1, k], bias?, past_state [B, C, k - 1]?) -> y,
// present_state

// "silu" and "swish" are the same function.
bool has_silu(const Node &n) {
  const std::string name = n.attr_string("activation", "none");
  if (name != "none" && name != "silu" && name != "swish")
    bad_data("activation '{}' is unknown", name);
  return name != "none";
}

void infer_causal_conv(InferContext &c) {
  has_silu(c.node());
  for (size_t i = 0; i < c.input_count(); ++i) {
    ops::require_float(c, i);
    ops::require_type(c, i, c.dtype(0));
  }
  Dims out = {c.fresh_dim(), c.fresh_dim(), c.fresh_dim()};
  if (c.has_dims(0)) {
    c.require_rank(0, 3);
    out = c.dims(0);
  }
  Dim kernel = c.fresh_dim();
  if (c.has_dims(1)) {
    ops::require_dims(c, 1, {out[1], 1, c.fresh_dim()});
    kernel = c.dims(1)[2];
    if (kernel.known() && kernel.raw < 1)
      c.error("the kernel is empty");
  }
  const Dims state = {out[0], out[1],
                      kernel.known() ? Dim(kernel.raw - 1) : c.fresh_dim()};
  ops::require_dims(c, 2, {out[1]});
  ops::require_dims(c, 3, state);
  c.set_output(0, c.dtype(0), out);
  if (c.node().outputs.size() > 1)
    c.set_output(1, c.dtype(0), state);
}

// What came before is put in front; the state is the end of both.
bool lower_causal_conv(Rewriter &rw, NodeId id) {
  Lowering l(rw, id);
  const auto &x = l.dims(l.in(0));
  const auto &w = l.dims(l.in(1));
  if (!x || !w || !(*x)[1].known() || !(*w)[2].known())
    return false;
  const int64_t channels = (*x)[1].raw, before = (*w)[2].raw - 1;
  const ValueId whole =
      l.has(3) ? l.emit("Concat", {l.in(3), l.in(0)}, {{"axis", int64_t{2}}})
               : l.emit("Pad", {l.in(0), l.ints({0, 0, before, 0, 0, 0})});
  std::vector<ValueId> operands = {whole, l.in(1)};
  if (l.has(2))
    operands.push_back(l.in(2));
  ValueId y = l.emit("Conv", operands,
                     {{"group", channels},
                      {"kernel_shape", std::vector<int64_t>{before + 1}}});
  if (has_silu(l.node()))
    y = l.emit("Swish", {y});
  l.set(0, y);
  if (l.wants(1)) {
    // A slice from -0 on would be everything.
    const int64_t end = std::numeric_limits<int64_t>::max();
    l.set(1, l.emit("Slice", {whole, l.ints({before == 0 ? end : -before}),
                              l.ints({end}), l.ints({2})}));
  }
  return true;
}

} // namespace

void register_causal_conv_ops(OpRegistry &registry) {
  OpDef def;
  def.name = "CausalConvWithState";
  def.min_inputs = 2;
  def.max_inputs = 4;
  def.max_outputs = 2;
  def.infer = infer_causal_conv;
  def.lower = lower_causal_conv;
  registry.add(std::move(def));
}

} // namespace ds
