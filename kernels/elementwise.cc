#include "kernels/elementwise.h"

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth a thread

template <typename T, typename Op>
void apply(const Broadcast& s, const T* a, const T* b, T* out, Op op) {
  if (s.total == 0) return;
  const int inner = s.rank - 1;
  const int64_t width = s.rank == 0 ? 1 : s.size[inner];
  const int64_t step_a = s.rank == 0 ? 0 : s.stride_a[inner], step_b = s.rank == 0 ? 0 : s.stride_b[inner];
  const auto row = [&](int64_t i, int64_t begin, int64_t end) {
    int64_t offset_a = 0, offset_b = 0, rest = i;
    for (int d = inner - 1; d >= 0; --d) {
      offset_a += rest % s.size[d] * s.stride_a[d];
      offset_b += rest % s.size[d] * s.stride_b[d];
      rest /= s.size[d];
    }
    const T* pa = a + offset_a;
    const T* pb = b + offset_b;
    T* po = out + i * width;
    if (step_a == 1 && step_b == 1) {
      for (int64_t j = begin; j < end; ++j) po[j] = op(pa[j], pb[j]);
    } else if (step_a == 1 && step_b == 0) {
      const T y = *pb;
      for (int64_t j = begin; j < end; ++j) po[j] = op(pa[j], y);
    } else if (step_a == 0 && step_b == 1) {
      const T x = *pa;
      for (int64_t j = begin; j < end; ++j) po[j] = op(x, pb[j]);
    } else {
      for (int64_t j = begin; j < end; ++j) po[j] = op(pa[j * step_a], pb[j * step_b]);
    }
  };
  const int64_t rows = s.total / width;
  if (rows == 1) {
    parallel_for(width, kGrain, [&](int64_t begin, int64_t end) { row(0, begin, end); });
  } else {
    parallel_for(rows, kGrain / width + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) row(i, 0, width);
    });
  }
}

}  // namespace

Broadcast make_broadcast(int rank, const int64_t* out_dims, const int64_t* dims_a, const int64_t* dims_b) {
  Broadcast s;
  int64_t next_a = 1, next_b = 1;
  // From the innermost axis out; an axis merges into the one inside it when both operands walk on evenly.
  int64_t size[Broadcast::kMaxRank], stride_a[Broadcast::kMaxRank], stride_b[Broadcast::kMaxRank];
  int used = 0;
  for (int d = rank - 1; d >= 0; --d) {
    s.total *= out_dims[d];
    const int64_t sa = dims_a[d] == 1 ? 0 : next_a, sb = dims_b[d] == 1 ? 0 : next_b;
    next_a *= dims_a[d];
    next_b *= dims_b[d];
    if (out_dims[d] == 1) continue;
    if (used > 0 && sa == stride_a[used - 1] * size[used - 1] && sb == stride_b[used - 1] * size[used - 1]) {
      size[used - 1] *= out_dims[d];
      continue;
    }
    size[used] = out_dims[d];
    stride_a[used] = sa;
    stride_b[used] = sb;
    ++used;
  }
  s.rank = used;
  for (int d = 0; d < used; ++d) {
    s.size[d] = size[used - 1 - d];
    s.stride_a[d] = stride_a[used - 1 - d];
    s.stride_b[d] = stride_b[used - 1 - d];
  }
  return s;
}

template <typename T>
void binary(Binary op, const Broadcast& s, const T* a, const T* b, T* out) {
  switch (op) {
    case Binary::kAdd: return apply(s, a, b, out, [](T x, T y) { return static_cast<T>(x + y); });
    case Binary::kSub: return apply(s, a, b, out, [](T x, T y) { return static_cast<T>(x - y); });
    case Binary::kMul: return apply(s, a, b, out, [](T x, T y) { return static_cast<T>(x * y); });
    case Binary::kDiv: return apply(s, a, b, out, [](T x, T y) { return static_cast<T>(x / y); });
  }
}

template <typename T>
void relu(int64_t n, const T* x, T* out) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = x[i] < T(0) ? T(0) : x[i];  // NaN passes through
  });
}

template <typename T>
void relu_grad(int64_t n, const T* y, const T* d_y, T* d_x) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) d_x[i] = y[i] > T(0) ? d_y[i] : T(0);
  });
}

template void binary(Binary, const Broadcast&, const float*, const float*, float*);
template void binary(Binary, const Broadcast&, const double*, const double*, double*);
template void binary(Binary, const Broadcast&, const int32_t*, const int32_t*, int32_t*);
template void binary(Binary, const Broadcast&, const int64_t*, const int64_t*, int64_t*);
template void relu(int64_t, const float*, float*);
template void relu(int64_t, const double*, double*);
template void relu_grad(int64_t, const float*, const float*, float*);
template void relu_grad(int64_t, const double*, const double*, double*);

}  // namespace ds::kernels
