#include "libds/ops/elementwise.h"

namespace ds::ops {

kernels::Broadcast broadcast_space(const KernelQuery& q, std::initializer_list<size_t> operands) {
  return broadcast_space(q, std::span(operands.begin(), operands.size()));
}

kernels::Broadcast broadcast_space(const KernelQuery& q, std::span<const size_t> operands) {
  const Shape out = q.out(0).memory_shape();
  std::vector<Shape> padded;
  for (size_t i : operands) {
    const Shape s = q.in(i).memory_shape();
    DS_CHECK(s.size() <= out.size());
    padded.emplace_back(out.size() - s.size(), 1);
    padded.back().insert(padded.back().end(), s.begin(), s.end());
  }
  std::vector<const int64_t*> dims;
  for (const Shape& s : padded) dims.push_back(s.data());
  return kernels::make_broadcast(static_cast<int>(out.size()), out.data(), static_cast<int>(dims.size()), dims.data());
}

std::string rank_fits_broadcast(const KernelQuery& q) {
  return require(q.out(0).rank() <= kernels::Broadcast::kMaxRank, "rank above 8");
}

void require_same_dtype(InferContext& c, size_t first) {
  for (size_t i = first + 1; i < c.input_count(); ++i)
    if (c.has_input(i) && c.dtype(i) != c.dtype(first))
      c.error("operands differ in type: {} and {}", dtype_name(c.dtype(first)), dtype_name(c.dtype(i)));
}

}  // namespace ds::ops
