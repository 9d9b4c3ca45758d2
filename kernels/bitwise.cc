#include "kernels/bitwise.h"

#include <type_traits>

namespace ds::kernels {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth a thread

template <typename T>
bool inside(T count) {
  return count >= T(0) && static_cast<uint64_t>(count) < sizeof(T) * 8;
}

template <typename T>
T shift_left(T x, T count) {
  return inside(count) ? static_cast<T>(static_cast<uint64_t>(x) << count) : T(0);
}

template <typename T>
T shift_right(T x, T count) {
  return inside(count) ? static_cast<T>(x >> count) : x < T(0) ? static_cast<T>(-1) : T(0);
}

}  // namespace

template <typename T>
void bitwise(Bitwise op, const Broadcast& s, const T* a, const T* b, T* out) {
  switch (op) {
    case Bitwise::kAnd: return broadcast_binary(s, kGrain, a, b, out, [](T x, T y) { return static_cast<T>(x & y); });
    case Bitwise::kOr: return broadcast_binary(s, kGrain, a, b, out, [](T x, T y) { return static_cast<T>(x | y); });
    case Bitwise::kXor: return broadcast_binary(s, kGrain, a, b, out, [](T x, T y) { return static_cast<T>(x ^ y); });
    case Bitwise::kShiftLeft: return broadcast_binary(s, kGrain, a, b, out, shift_left<T>);
    case Bitwise::kShiftRight: return broadcast_binary(s, kGrain, a, b, out, shift_right<T>);
  }
}

template <typename T>
void bitwise_not(int64_t n, const T* x, T* out) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = static_cast<T>(~x[i]);
  });
}

#define DS_INSTANTIATE(T)                                                       \
  template void bitwise(Bitwise, const Broadcast&, const T*, const T*, T*);     \
  template void bitwise_not(int64_t, const T*, T*);
DS_INSTANTIATE(int8_t) DS_INSTANTIATE(int16_t) DS_INSTANTIATE(int32_t) DS_INSTANTIATE(int64_t)
DS_INSTANTIATE(uint8_t) DS_INSTANTIATE(uint16_t) DS_INSTANTIATE(uint32_t) DS_INSTANTIATE(uint64_t)
#undef DS_INSTANTIATE

}  // namespace ds::kernels
