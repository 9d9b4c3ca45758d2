#include "kernels/col2im.h"

#include <algorithm>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

int64_t product(const std::vector<int64_t>& v) {
  int64_t n = 1;
  for (int64_t x : v) n *= x;
  return n;
}

// Calls visit(column element, image element) for what of a plane lies inside the image, in order.
template <typename Visit>
void walk(const BlockSpace& s, Visit&& visit) {
  const size_t rank = s.size.size();
  const int64_t elements = product(s.block), blocks = product(s.count);
  std::vector<int64_t> in_block(rank), at(rank);
  for (int64_t e = 0; e < elements; ++e) {
    for (int64_t rest = e, a = static_cast<int64_t>(rank) - 1; a >= 0; --a) {
      const auto i = static_cast<size_t>(a);
      in_block[i] = rest % s.block[i] * s.dilation[i] - s.pad_begin[i];
      rest /= s.block[i];
    }
    std::fill(at.begin(), at.end(), 0);
    for (int64_t l = 0; l < blocks; ++l) {
      int64_t place = 0;
      bool inside = true;
      for (size_t i = 0; i < rank; ++i) {
        const int64_t x = at[i] * s.stride[i] + in_block[i];
        inside = inside && x >= 0 && x < s.size[i];
        place = place * s.size[i] + x;
      }
      if (inside) visit(e * blocks + l, place);
      for (size_t i = rank; i-- > 0;) {
        if (++at[i] < s.count[i]) break;
        at[i] = 0;
      }
    }
  }
}

}  // namespace

template <typename T>
void col2im(const BlockSpace& s, const T* columns, T* image) {
  const int64_t pixels = product(s.size), column = product(s.block) * product(s.count);
  parallel_for(s.planes, (1 << 12) / (1 + column) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      T* to = image + p * pixels;
      const T* from = columns + p * column;
      std::fill(to, to + pixels, T(0));
      walk(s, [&](int64_t i, int64_t place) { to[place] = static_cast<T>(to[place] + from[i]); });
    }
  });
}

template <typename T>
void im2col(const BlockSpace& s, const T* image, T* columns) {
  const int64_t pixels = product(s.size), column = product(s.block) * product(s.count);
  parallel_for(s.planes, (1 << 12) / (1 + column) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const T* from = image + p * pixels;
      T* to = columns + p * column;
      std::fill(to, to + column, T(0));
      walk(s, [&](int64_t i, int64_t place) { to[i] = from[place]; });
    }
  });
}

template void col2im(const BlockSpace&, const float*, float*);
template void col2im(const BlockSpace&, const double*, double*);
template void col2im(const BlockSpace&, const uint8_t*, uint8_t*);
template void col2im(const BlockSpace&, const uint16_t*, uint16_t*);
template void col2im(const BlockSpace&, const uint32_t*, uint32_t*);
template void col2im(const BlockSpace&, const uint64_t*, uint64_t*);
template void im2col(const BlockSpace&, const float*, float*);
template void im2col(const BlockSpace&, const double*, double*);

}  // namespace ds::kernels
