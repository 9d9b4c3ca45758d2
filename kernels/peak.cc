#include "kernels/peak.h"

namespace ds::kernels {

// Written so that the compiler vectorises it for the baseline ISA: independent lanes.
int64_t peak_f32_portable(int64_t rounds, float* sink) {
  constexpr int kLanes = 48;
  float acc[kLanes];
  for (int i = 0; i < kLanes; ++i) acc[i] = static_cast<float>(i);
  const float a = *sink * 0.0f + 0.999f, b = *sink * 0.0f + 0.001f;  // not known at compile time
  for (int64_t r = 0; r < rounds; ++r)
    for (int i = 0; i < kLanes; ++i) acc[i] = acc[i] * a + b;
  float sum = 0;
  for (float x : acc) sum += x;
  *sink = sum;
  return rounds * kLanes * 2;
}

int64_t peak_s8_portable(int64_t rounds, float* sink) {
  constexpr int kLanes = 64;
  int32_t acc[kLanes] = {};
  int16_t a[kLanes], b[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    a[i] = static_cast<int16_t>(i + static_cast<int>(*sink));
    b[i] = static_cast<int16_t>(2 * i - 64);
  }
  for (int64_t r = 0; r < rounds; ++r) {
    for (int i = 0; i < kLanes; ++i) acc[i] = static_cast<int32_t>(static_cast<uint32_t>(acc[i]) + static_cast<uint32_t>(a[i] * b[i]));
    a[r % kLanes] = static_cast<int16_t>(r & 127);  // a product that never changed would be hoisted
  }
  int64_t sum = 0;
  for (int32_t x : acc) sum += x;
  *sink = static_cast<float>(sum & 1);
  return rounds * kLanes * 2;
}

int64_t read_bytes(const std::byte* src, int64_t bytes) {
  constexpr int kLanes = 8;
  uint64_t sums[kLanes] = {};
  const auto* words = reinterpret_cast<const uint64_t*>(src);
  constexpr int64_t kAhead = 512;  // words: the hardware's own prefetch ends at each page
  for (int64_t i = 0; i < bytes / 8; i += kLanes) {
    __builtin_prefetch(words + i + kAhead);  // never faults, so reaching beyond the end is harmless
    for (int k = 0; k < kLanes; ++k) sums[k] += words[i + k];
  }
  uint64_t sum = 0;
  for (uint64_t x : sums) sum += x;
  return static_cast<int64_t>(sum);
}

#if !defined(__x86_64__)
int64_t peak_f32_avx2(int64_t rounds, float* sink) { return peak_f32_portable(rounds, sink); }
int64_t peak_f32_avx512(int64_t rounds, float* sink) { return peak_f32_portable(rounds, sink); }
int64_t peak_s8_avx2(int64_t rounds, float* sink) { return peak_s8_portable(rounds, sink); }
int64_t peak_s8_vnni_avx512(int64_t rounds, float* sink) { return peak_s8_portable(rounds, sink); }
int64_t peak_bf16_avx512(int64_t rounds, float* sink) { return peak_f32_portable(rounds, sink); }
int64_t peak_f16_avx512(int64_t rounds, float* sink) { return peak_f32_portable(rounds, sink); }
int64_t peak_bf16_amx(int64_t rounds, float* sink) { return peak_f32_portable(rounds, sink); }
#endif

}  // namespace ds::kernels
