// Strided copies between tensors, for the operator families that move elements.
#pragma once

#include "kernels/layout_moves.h"
#include "libds/ops/common.h"

namespace ds::ops {

inline kernels::StridedCopy copy_of(const Shape& size, const Shape& src_stride, const Shape& dst_stride) {
  return kernels::make_strided_copy(static_cast<int>(size.size()), size.data(), src_stride.data(), dst_stride.data());
}

// Copies `space`, starting at the given element offsets of two tensors of the same type.
inline void copy(const kernels::StridedCopy& space, const Tensor& src, int64_t src_offset, const Tensor& dst,
                 int64_t dst_offset) {
  const auto element = static_cast<int64_t>(dtype_size(src.dtype()));
  kernels::strided_copy(space, static_cast<size_t>(element), static_cast<const std::byte*>(src.raw()) + src_offset * element,
                        static_cast<std::byte*>(dst.mutable_raw()) + dst_offset * element);
}

// StridedCopy merges and doubles axes (Tile): operators stay within half its rank.
inline std::string rank_fits(const KernelQuery& q) {
  return require(q.in(0).rank() <= 8 && q.out(0).rank() <= 8, "rank above 8");
}

}  // namespace ds::ops
