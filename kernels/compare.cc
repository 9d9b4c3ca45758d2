#include "kernels/compare.h"

#include <cmath>

#include "kernels/compute_type.h"

namespace ds::kernels {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth a thread

template <typename T>
void select_as(const Broadcast& s, const bool* condition, const T* a, const T* b, T* out) {
  const int64_t step_c = row_step(s, 0), step_a = row_step(s, 1), step_b = row_step(s, 2);
  for_each_row(s, kGrain, [&](const int64_t* offsets, int64_t at, int64_t n) {
    const bool* pc = condition + offsets[0];
    const T* pa = a + offsets[1];
    const T* pb = b + offsets[2];
    T* po = out + at;
    if (step_c == 1 && step_a == 1 && step_b == 1) {
      for (int64_t j = 0; j < n; ++j) po[j] = pc[j] ? pa[j] : pb[j];
    } else {
      for (int64_t j = 0; j < n; ++j) po[j] = pc[j * step_c] ? pa[j * step_a] : pb[j * step_b];
    }
  });
}

template <typename T, typename Op>
void map_to_bool(int64_t n, const T* x, bool* out, Op op) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = op(x[i]);
  });
}

}  // namespace

template <typename T>
void compare(Compare op, const Broadcast& s, const T* a, const T* b, bool* out) {
  using C = ComputeType<T>;
  const auto apply = [&](auto f) {
    broadcast_binary(s, kGrain, a, b, out, [f](T x, T y) { return f(static_cast<C>(x), static_cast<C>(y)); });
  };
  switch (op) {
    case Compare::kEqual: return apply([](C x, C y) { return x == y; });
    case Compare::kGreater: return apply([](C x, C y) { return x > y; });
    case Compare::kGreaterOrEqual: return apply([](C x, C y) { return x >= y; });
    case Compare::kLess: return apply([](C x, C y) { return x < y; });
    case Compare::kLessOrEqual: return apply([](C x, C y) { return x <= y; });
  }
}

void logic(Logic op, const Broadcast& s, const bool* a, const bool* b, bool* out) {
  switch (op) {
    case Logic::kAnd: return broadcast_binary(s, kGrain, a, b, out, [](bool x, bool y) { return x && y; });
    case Logic::kOr: return broadcast_binary(s, kGrain, a, b, out, [](bool x, bool y) { return x || y; });
    case Logic::kXor: return broadcast_binary(s, kGrain, a, b, out, [](bool x, bool y) { return x != y; });
  }
}

void logical_not(int64_t n, const bool* x, bool* out) {
  map_to_bool(n, x, out, [](bool b) { return !b; });
}

void select(const Broadcast& s, size_t element, const bool* condition, const void* a, const void* b, void* out) {
  const auto as = [&](auto tag) {
    using T = decltype(tag);
    select_as(s, condition, static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(out));
  };
  switch (element) {
    case 1: return as(uint8_t{});
    case 2: return as(uint16_t{});
    case 4: return as(uint32_t{});
    default: return as(uint64_t{});
  }
}

template <typename T>
void is_nan(int64_t n, const T* x, bool* out) {
  map_to_bool(n, x, out, [](T v) { return std::isnan(static_cast<ComputeType<T>>(v)); });
}

template <typename T>
void is_inf(int64_t n, const T* x, bool positive, bool negative, bool* out) {
  map_to_bool(n, x, out, [=](T v) {
    const auto c = static_cast<ComputeType<T>>(v);
    return std::isinf(c) && (c > 0 ? positive : negative);
  });
}

#define DS_INSTANTIATE(T) template void compare(Compare, const Broadcast&, const T*, const T*, bool*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double) DS_INSTANTIATE(f16) DS_INSTANTIATE(bf16) DS_INSTANTIATE(bool)
DS_INSTANTIATE(int8_t) DS_INSTANTIATE(int16_t) DS_INSTANTIATE(int32_t) DS_INSTANTIATE(int64_t)
DS_INSTANTIATE(uint8_t) DS_INSTANTIATE(uint16_t) DS_INSTANTIATE(uint32_t) DS_INSTANTIATE(uint64_t)
#undef DS_INSTANTIATE

#define DS_INSTANTIATE(T)                          \
  template void is_nan(int64_t, const T*, bool*);  \
  template void is_inf(int64_t, const T*, bool, bool, bool*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double) DS_INSTANTIATE(f16) DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace ds::kernels
