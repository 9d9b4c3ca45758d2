// Cells of recurrent networks, one source for all vector widths: internal linkage, no library code.
//
// Simd: V (a vector of kWidth floats), Lanes (those of a last vector that exist: first(n)), load and store (whole, or
// lanes; others read as zero), add, sub, mul, fma, sigmoid, tanh.
#pragma once

#include "kernels/recurrent_cells.h"

namespace ds::kernels {
namespace {

template <typename Simd>
class Cells {
  using V = typename Simd::V;
  using Lanes = typename Simd::Lanes;

 public:
  static void lstm(const CellStep& s) {
    over(s.H, [&](int64_t j, auto load, auto store) {
      const V i = Simd::sigmoid(gate(s, 0, j, load)), o = Simd::sigmoid(gate(s, 1, j, load));
      const V f = Simd::sigmoid(gate(s, 2, j, load)), g = Simd::tanh(gate(s, 3, j, load));
      const V c = Simd::fma(f, load(s.c + j), Simd::mul(i, g));
      store(s.c + j, c);
      store(s.h + j, Simd::mul(o, Simd::tanh(c)));
    });
  }

  static void gru_linear(const CellStep& s) {
    over(s.H, [&](int64_t j, auto load, auto store) {
      const V z = Simd::sigmoid(gate(s, 0, j, load)), r = Simd::sigmoid(gate(s, 1, j, load));
      const V state = Simd::add(load(s.state + 2 * s.H + j), load(s.state_bias + j));
      const V x = Simd::add(load(s.in + 2 * s.H + j), load(s.bias + 2 * s.H + j));
      const V n = Simd::tanh(Simd::fma(r, state, x));
      store(s.h + j, Simd::fma(z, Simd::sub(load(s.h + j), n), n));
    });
  }

  static void gru_gates(const CellStep& s) {
    over(s.H, [&](int64_t j, auto load, auto store) {
      const V z = Simd::sigmoid(gate(s, 0, j, load)), r = Simd::sigmoid(gate(s, 1, j, load));
      store(s.state + j, z);
      store(s.state + s.H + j, r);
      store(s.reset + j, Simd::mul(r, load(s.h + j)));
    });
  }
  static void gru_finish(const CellStep& s) {
    over(s.H, [&](int64_t j, auto load, auto store) {
      const V x = Simd::add(load(s.in + 2 * s.H + j), load(s.bias + 2 * s.H + j));
      const V n = Simd::tanh(Simd::add(x, load(s.candidate + j)));
      store(s.h + j, Simd::fma(load(s.state + j), Simd::sub(load(s.h + j), n), n));
    });
  }

  static constexpr CellFunctions kFunctions = {lstm, gru_linear, gru_gates, gru_finish};

 private:
  template <typename Load>
  static V gate(const CellStep& s, int64_t g, int64_t j, Load load) {
    const int64_t at = g * s.H + j;
    return Simd::add(load(s.state + at), Simd::add(load(s.in + at), load(s.bias + at)));
  }

  // step(j, load, store) for whole vectors and for the tail.
  template <typename Step>
  static void over(int64_t n, Step step) {
    int64_t j = 0;
    for (; j + Simd::kWidth <= n; j += Simd::kWidth)
      step(j, [](const float* p) { return Simd::load(p); }, [](float* p, V v) { Simd::store(p, v); });
    if (j == n) return;
    const Lanes lanes = Simd::first(n - j);
    step(j, [lanes](const float* p) { return Simd::load(p, lanes); }, [lanes](float* p, V v) { Simd::store(p, v, lanes); });
  }
};

}  // namespace
}  // namespace ds::kernels
