// Linear attention as a recurrence over a state per head ("Gated Delta Networks", Yang et al., 2024, and
// its simpler relatives), as ONNX's LinearAttention defines it.
//
// Legend: B sequences, T steps, H heads of keys and values, `group` query heads to each of them, K elements
// of a key, V of a value. q [B, T, H*group, K], k [B, T, H, K], v [B, T, H, V], state [B, H, K, V],
// out [B, T, H*group, V]. Per step, S the state:
//
//   S = exp(decay) S;  v' = beta (v - S^T k), or v without beta;  S = S + k v'^T;  out = scale S^T q
//
// Threads: parallel_for over B * H.
#pragma once

#include <cstdint>

namespace ds::kernels {

struct LinearAttention {
  int64_t B = 0, T = 0, H = 0, group = 1, K = 0, V = 0;
  double scale = 1;
  int64_t decay_width = 0;  // per head: 0 none, 1 one for all keys, K each its own
  int64_t beta_width = 0;   // per step: 0 none, 1 one for all heads, H each its own
};

// `state` null: zeros. `decay` [B, T, H, decay_width], `beta` [B, T, beta_width]. T: float, double. Neither
// output overlaps an input.
template <typename T>
void linear_attention(const LinearAttention& s, const T* q, const T* k, const T* v, const T* state,
                      const T* decay, const T* beta, T* out, T* new_state);

}  // namespace ds::kernels
