#include "kernels/einsum.h"

#include <algorithm>
#include <type_traits>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

// Sums wider than the elements: small integers would be promoted to int, where overflow is undefined.
template <typename T>
using Sum =
    std::conditional_t<std::is_floating_point_v<T>, double, std::conditional_t<(sizeof(T) < 4), uint32_t, T>>;

// Position in the summed labels, with the element each operand is at.
class Walk {
 public:
  Walk(const EinsumSpace& s, size_t first, size_t last)
      : s_(s), first_(first), last_(last), index_(s.size.size(), 0) {}

  // Goes to the `n`-th index tuple of labels [first, last), row-major.
  void seek(int64_t n, std::vector<int64_t>& at) {
    for (size_t l = last_; l-- > first_;) {
      index_[l] = n % s_.size[l];
      n /= s_.size[l];
      for (size_t o = 0; o < at.size(); ++o) at[o] += index_[l] * s_.stride[o][l];
    }
  }
  void step(std::vector<int64_t>& at) {
    for (size_t l = last_; l-- > first_;) {
      const bool carry = ++index_[l] == s_.size[l];
      for (size_t o = 0; o < at.size(); ++o) at[o] += (carry ? 1 - s_.size[l] : 1) * s_.stride[o][l];
      if (!carry) return;
      index_[l] = 0;
    }
  }

 private:
  const EinsumSpace& s_;
  size_t first_, last_;
  std::vector<int64_t> index_;
};

int64_t product(const std::vector<int64_t>& size, size_t first, size_t last) {
  int64_t n = 1;
  for (size_t i = first; i < last; ++i) n *= size[i];
  return n;
}

}  // namespace

template <typename T>
void einsum(const EinsumSpace& s, const T* const* operands, T* y) {
  const size_t labels = s.size.size(), count = s.stride.size();
  const int64_t outputs = product(s.size, 0, s.out_rank), terms = product(s.size, s.out_rank, labels);
  // The last summed label is the inner loop: its strides, per operand.
  const bool summed = labels > s.out_rank;
  const int64_t inner = summed ? s.size.back() : 1;
  parallel_for(outputs, (1 << 12) / std::max<int64_t>(1, terms) + 1, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> at(count, 0), from(count);
    Walk out(s, 0, s.out_rank);
    out.seek(begin, at);
    for (int64_t i = begin; i < end; ++i, out.step(at)) {
      Sum<T> sum = 0;
      from = at;
      Walk rest(s, s.out_rank, summed ? labels - 1 : labels);
      for (int64_t done = 0; done < terms; done += inner, rest.step(from)) {
        for (int64_t k = 0; k < inner; ++k) {
          Sum<T> term = 1;
          for (size_t o = 0; o < count; ++o)
            term *= static_cast<Sum<T>>(operands[o][from[o] + (summed ? k * s.stride[o].back() : 0)]);
          sum += term;
        }
      }
      y[i] = static_cast<T>(sum);
    }
  });
}

template void einsum(const EinsumSpace&, const float* const*, float*);
template void einsum(const EinsumSpace&, const double* const*, double*);
template void einsum(const EinsumSpace&, const uint8_t* const*, uint8_t*);
template void einsum(const EinsumSpace&, const uint16_t* const*, uint16_t*);
template void einsum(const EinsumSpace&, const uint32_t* const*, uint32_t*);
template void einsum(const EinsumSpace&, const uint64_t* const*, uint64_t*);

}  // namespace ds::kernels
