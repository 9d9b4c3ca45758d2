// Unique and ReverseSequence.
#include "kernels/selection.h"

#include <cstring>
#include <map>
#include <span>
#include <string_view>

#include "kernels/compute_type.h"
#include "kernels/indexing.h"
#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

// --- Unique ----------------------------------------------------------------------------------------

// The input as [outer, n, inner] around the axis; without one it is flat.
struct Slices {
  int64_t outer = 1, n = 1, inner = 1;
  std::optional<size_t> axis;

  Slices(const Node& node, const Shape& shape) {
    if (node.has_attr("axis"))
      axis = static_cast<size_t>(ops::normalize_axis(node.attr_int("axis", 0), static_cast<int64_t>(shape.size())));
    for (size_t i = 0; i < shape.size(); ++i) (!axis || i == *axis ? n : i < *axis ? outer : inner) *= shape[i];
  }
};

// The place of each string in the order of all: what is equal has the same one.
std::vector<int64_t> ranks(std::span<const std::string> strings) {
  std::map<std::string_view, int64_t> order;
  for (const std::string& s : strings) order.emplace(s, 0);
  int64_t next = 0;
  for (auto& [s, rank] : order) rank = next++;
  std::vector<int64_t> result;
  for (const std::string& s : strings) result.push_back(order.at(s));
  return result;
}

void register_unique(OpRegistry& registry) {
  OpDef def;
  def.name = "Unique";  // x -> y, first indices?, inverse indices?, counts?
  def.min_inputs = def.max_inputs = 1;
  def.max_outputs = 4;
  def.data_dependent = def.stops_gradient = true;
  def.infer = [](InferContext& c) {
    const Dim count = c.fresh_dim();
    if (!c.node().has_attr("axis")) {
      c.set_output(0, c.dtype(0), Dims{count});
    } else if (c.has_dims(0)) {
      Dims out = c.dims(0);
      const auto axis = static_cast<size_t>(ops::normalize_axis(c.node().attr_int("axis", 0), static_cast<int64_t>(out.size())));
      if (axis >= out.size()) c.error("a scalar has no axis {}", axis);
      out[axis] = count;
      c.set_output(0, c.dtype(0), std::move(out));
    } else {
      c.set_output(0, c.dtype(0));
    }
    c.set_output(1, DType::kI64, Dims{count});
    c.set_output(2, DType::kI64, Dims{c.fresh_dim()});
    c.set_output(3, DType::kI64, Dims{count});
  };
  KernelDef k;
  k.name = "portable/unique";
  k.takes_objects = true;
  k.decline = [](const KernelQuery& q) { return ops::require(q.in(0).dtype != DType::kF16 && q.in(0).dtype != DType::kBF16, "16-bit float"); };
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = Slices(q.node, q.in(0).shape), sorted = q.node.attr_int("sorted", 1) != 0](const KernelContext& c) {
      const Tensor& x = c.input(0);
      const auto n = static_cast<size_t>(s.n);
      std::vector<int64_t> first(n), inverse(n), counts(n);
      int64_t count = 0;
      if (x.dtype() == DType::kString) {
        const std::vector<int64_t> rank = ranks(x.strings());
        count = kernels::unique_slices<int64_t>(s.outer, s.n, s.inner, rank.data(), sorted, first.data(), inverse.data(), counts.data());
      } else dispatch_dtype(x.dtype(), [&](auto tag) {
        using T = decltype(tag);
        if constexpr (!kernels::is_half_v<T>)
          count = kernels::unique_slices<T>(s.outer, s.n, s.inner, x.data<T>(), sorted, first.data(), inverse.data(), counts.data());
      });
      Shape shape = {count};
      if (s.axis) {
        shape = x.shape();
        shape[*s.axis] = count;
      }
      c.allocate(0, x.dtype(), std::move(shape));
      if (x.dtype() == DType::kString) {
        for (int64_t i = 0; i < s.outer * count * s.inner; ++i) {
          const int64_t slice = first[static_cast<size_t>(i / s.inner % count)];
          c.output(0).strings()[static_cast<size_t>(i)] = x.strings()[static_cast<size_t>((i / s.inner / count * s.n + slice) * s.inner + i % s.inner)];
        }
      } else if (x.numel() > 0)
        kernels::gather(s.outer, s.n, s.inner, dtype_size(x.dtype()), count, first.data(), x.raw(), c.output(0).mutable_raw());
      const auto list = [&](size_t output, const std::vector<int64_t>& values, int64_t size) {
        if (!c.has_output(output)) return;
        c.allocate(output, DType::kI64, {size});
        std::copy_n(values.begin(), size, c.output(output).mutable_data<int64_t>());
      };
      list(1, first, count);
      list(2, inverse, s.n);
      list(3, counts, count);
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

// --- ReverseSequence ---------------------------------------------------------------------------------

std::pair<size_t, size_t> time_and_batch(const Node& n) {
  const int64_t time = n.attr_int("time_axis", 0), batch = n.attr_int("batch_axis", 1);
  if (!((time == 0 && batch == 1) || (time == 1 && batch == 0)))
    bad_data("time_axis is {} and batch_axis {}, expected 0 and 1 or 1 and 0", time, batch);
  return {static_cast<size_t>(time), static_cast<size_t>(batch)};
}

void register_reverse_sequence(OpRegistry& registry) {
  OpDef def;
  def.name = "ReverseSequence";
  def.moves_elements = true;  // (x [time, batch, ...] or [batch, time, ...], lengths: i64 [batch])
  def.min_inputs = def.max_inputs = 2;
  def.infer = [](InferContext& c) {
    c.require_dtype(1, {DType::kI64});
    c.require_rank(1, 1);
    const auto [time, batch] = time_and_batch(c.node());
    if (c.has_dims(0)) {
      if (c.dims(0).size() < 2) c.error("needs axes for time and batch");
      const Dim b = c.dims(0)[batch];
      if (c.has_dims(1) && b.known() && c.dims(1)[0].known() && b != c.dims(1)[0])
        c.error("{} lengths for a batch of {}", c.dims(1)[0].raw, b.raw);
    }
    ops::infer_same_as_input(c);
  };
  // Twice is once not at all.
  def.grad = [](GradContext& g) {
    const Attributes attrs = g.node().attrs;
    if (g.needs(0)) g.set_d_input(0, g.emit("ReverseSequence", {g.d_output(0), g.input(1)}, attrs));
  };
  KernelDef k;
  k.name = "portable/reverse_sequence";
  k.create = [](const KernelQuery& q) {
    const Shape& shape = q.in(0).shape;
    const auto [time_axis, batch_axis] = time_and_batch(q.node);
    const int64_t time = shape[time_axis], batch = shape[batch_axis], second = shape[1];
    size_t slice = dtype_size(q.in(0).dtype);
    for (size_t i = 2; i < shape.size(); ++i) slice *= static_cast<size_t>(shape[i]);
    const int64_t time_stride = time_axis == 0 ? second : 1, batch_stride = batch_axis == 0 ? second : 1;
    return make_kernel([=](const KernelContext& c) {
      const int64_t* lengths = c.input(1).data<int64_t>();
      for (int64_t b = 0; b < batch; ++b)
        if (lengths[b] < 0 || lengths[b] > time) bad_data("length {} is {}, there are {} steps", b, lengths[b], time);
      if (c.input(0).numel() > 0)
        kernels::reverse_sequence(batch, time, batch_stride, time_stride, slice, lengths, c.input(0).raw(), c.output(0).mutable_raw());
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_selection_ops(OpRegistry& registry) {
  register_unique(registry);
  register_reverse_sequence(registry);
}

}  // namespace ds
