// The elementwise part of a step of LSTM and GRU with the usual activations (sigmoid, tanh), of one sequence, in one pass.
//
// Legend: H hidden; see kernels/recurrent.h for the order of gates. in: the input's part of the gates; state: the
// part of h (or of r * h), from the products; bias: both biases added, but for GRU's h gate of linear_before_reset, whose state
// bias stands alone. Serial.
#pragma once

#include <cstdint>

namespace ds::kernels {

struct CellStep {
  int64_t H = 0;
  const float* in = nullptr;     // [G*H]
  const float* bias = nullptr;   // [G*H]
  float* state = nullptr;        // [G*H] (GRU without linear_before_reset: [2*H], z and r of the step afterwards)
  float *h = nullptr, *c = nullptr;  // [H], in and out; c: LSTM
  float* reset = nullptr;            // GRU without linear_before_reset: [H], r * h
  const float* candidate = nullptr;  // its product with the weights of the h gate, [H]
  const float* state_bias = nullptr; // GRU with linear_before_reset: [H]
};

struct CellFunctions {
  void (*lstm)(const CellStep&);
  void (*gru_linear)(const CellStep&);                            // linear_before_reset
  void (*gru_gates)(const CellStep&), (*gru_finish)(const CellStep&);  // before and after the candidate's product
};
extern const CellFunctions kCellsAvx2, kCellsAvx512;  // the latter only where the CPU has AVX-512

}  // namespace ds::kernels
