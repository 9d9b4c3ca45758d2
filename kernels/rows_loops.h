// The loops behind kernels/rows.h for one width of vectors, which V says: its type, loads with tails, comparisons and
// the exponential with its relatives.
//
// For *_avx2.cc and *_avx512.cc files only. Internal linkage and no library template: see simd_avx2.h.
#pragma once

#include "kernels/rows.h"

namespace ds::kernels {
namespace {

constexpr float kRowSqrtHalf = 0.70710678f, kRowSqrtTwoOverPi = 0.79788456f, kRowGeluCubic = 0.044715f;

// Calls step(i, load, store) for whole vectors and once for the tail, with functions that handle either.
template <typename V, typename Step>
inline void for_each_vector(int64_t n, Step&& step) {
  int64_t i = 0;
  for (; i + V::kWidth <= n; i += V::kWidth)
    step(i, [](const float* p) { return V::load(p); }, [](float* p, typename V::F v) { V::store(p, v); });
  if (const int64_t rest = n - i; rest > 0)
    step(i, [rest](const float* p) { return V::load(p, rest); }, [rest](float* p, typename V::F v) { V::store(p, v, rest); });
}

template <typename V, typename Fn>
inline void map_row(int64_t n, const float* x, float* out, Fn f) {
  for_each_vector<V>(n, [&](int64_t i, auto get, auto put) { put(out + i, f(get(x + i))); });
}

template <typename V, typename Fn>
inline void zip_row(int64_t n, const float* a, int64_t step_a, const float* b, int64_t step_b, float* out, Fn f) {
  if (step_a != 0 && step_b != 0) {
    for_each_vector<V>(n, [&](int64_t i, auto get, auto put) { put(out + i, f(get(a + i), get(b + i))); });
  } else if (step_a != 0) {
    const auto y = V::all(*b);
    for_each_vector<V>(n, [&](int64_t i, auto get, auto put) { put(out + i, f(get(a + i), y)); });
  } else if (step_b != 0) {
    const auto x = V::all(*a);
    for_each_vector<V>(n, [&](int64_t i, auto get, auto put) { put(out + i, f(x, get(b + i))); });
  } else {
    const auto r = f(V::all(*a), V::all(*b));
    for_each_vector<V>(n, [&](int64_t i, auto, auto put) { put(out + i, r); });
  }
}

template <typename V>
inline void unary_loops(Unary op, int64_t n, const float* x, float* out, float alpha, float beta) {
  using F = typename V::F;
  const F a = V::all(alpha), b = V::all(beta), zero = V::all(0.0f), one = V::all(1.0f), half = V::all(0.5f);
  const auto clamp01 = [=](F v) { return V::max(zero, V::min(one, v)); };  // NaN passes
  switch (op) {
    case Unary::kRelu: return map_row<V>(n, x, out, [=](F v) { return V::max(zero, v); });
    case Unary::kSigmoid: return map_row<V>(n, x, out, [](F v) { return V::sigmoid(v); });
    case Unary::kTanh: return map_row<V>(n, x, out, [](F v) { return V::tanh(v); });
    case Unary::kExp: return map_row<V>(n, x, out, [](F v) { return V::exp(v); });
    case Unary::kLog: return map_row<V>(n, x, out, [](F v) { return V::log(v); });
    case Unary::kSqrt: return map_row<V>(n, x, out, [](F v) { return V::sqrt(v); });
    case Unary::kReciprocal: return map_row<V>(n, x, out, [=](F v) { return one / v; });
    case Unary::kNeg: return map_row<V>(n, x, out, [](F v) { return V::negative(v); });
    case Unary::kAbs: return map_row<V>(n, x, out, [](F v) { return V::absolute(v); });
    case Unary::kErf: return map_row<V>(n, x, out, [](F v) { return V::erf(v); });
    case Unary::kFloor: return map_row<V>(n, x, out, [](F v) { return V::floor(v); });
    case Unary::kCeil: return map_row<V>(n, x, out, [](F v) { return V::ceil(v); });
    case Unary::kRound: return map_row<V>(n, x, out, [](F v) { return V::nearest(v); });
    case Unary::kSign:
      return map_row<V>(n, x, out, [=](F v) { return V::select(V::less(zero, v), one, V::select(V::less(v, zero), V::all(-1.0f), v)); });
    case Unary::kLeakyRelu: return map_row<V>(n, x, out, [=](F v) { return V::select(V::less(v, zero), a * v, v); });
    case Unary::kThresholdedRelu:
      return map_row<V>(n, x, out, [=](F v) { return V::select(V::less_or_equal(v, a), zero, v); });
    case Unary::kElu: return map_row<V>(n, x, out, [=](F v) { return V::select(V::less(v, zero), a * V::expm1(v), v); });
    case Unary::kCelu: return map_row<V>(n, x, out, [=](F v) { return V::select(V::less(v, zero), a * V::expm1(v / a), v); });
    case Unary::kSelu: return map_row<V>(n, x, out, [=](F v) { return b * V::select(V::less(zero, v), v, a * V::expm1(v)); });
    case Unary::kSoftplus:
      // log(1 + e) as log(u) e / (u - 1), u = 1 + e rounded: what u lost, the quotient makes good.
      return map_row<V>(n, x, out, [=](F v) {
        const F e = V::exp(V::negative(V::absolute(v))), u = one + e;
        return V::max(zero, v) + V::select(V::equal(u, one), e, V::log(u) * (e / (u - one)));
      });
    case Unary::kSoftsign: return map_row<V>(n, x, out, [=](F v) { return v / (one + V::absolute(v)); });
    case Unary::kHardSigmoid: return map_row<V>(n, x, out, [=](F v) { return clamp01(a * v + b); });
    case Unary::kHardSwish: return map_row<V>(n, x, out, [=](F v) { return v * clamp01(v / V::all(6.0f) + half); });
    case Unary::kGelu: return map_row<V>(n, x, out, [=](F v) { return half * v * (one + V::erf(v * V::all(kRowSqrtHalf))); });
    case Unary::kGeluTanh:
      return map_row<V>(n, x, out, [=](F v) {
        return half * v * (one + V::tanh(V::all(kRowSqrtTwoOverPi) * V::fma(V::all(kRowGeluCubic) * v * v, v, v)));
      });
    case Unary::kMish:
      // tanh(log(1 + e)) = (e^2 + 2 e) / (e^2 + 2 e + 2), e = exp(x); 1 to float precision beyond 20.
      return map_row<V>(n, x, out, [=](F v) {
        const F e = V::exp(V::min(V::all(20.0f), v)), s = V::fma(e, e, e + e);
        return v * (s / (s + V::all(2.0f)));
      });
    case Unary::kSwish: return map_row<V>(n, x, out, [=](F v) { return v * V::sigmoid(a * v); });
    default: return;
  }
}

inline bool has_unary_loops(Unary op) {
  switch (op) {
    case Unary::kRelu: case Unary::kSigmoid: case Unary::kTanh: case Unary::kExp: case Unary::kLog: case Unary::kSqrt: case Unary::kReciprocal:
    case Unary::kNeg: case Unary::kAbs: case Unary::kErf: case Unary::kFloor: case Unary::kCeil: case Unary::kRound: case Unary::kSign:
    case Unary::kLeakyRelu: case Unary::kElu: case Unary::kCelu: case Unary::kSelu: case Unary::kThresholdedRelu: case Unary::kSoftplus:
    case Unary::kSoftsign: case Unary::kHardSigmoid:
    case Unary::kHardSwish: case Unary::kGelu: case Unary::kGeluTanh: case Unary::kMish: case Unary::kSwish:
      return true;
    default: return false;
  }
}

inline bool has_binary_loops(Binary op) { return op != Binary::kMod && op != Binary::kFmod; }

// Calls over(f) with the function of two vectors.
template <typename V, typename Over>
inline void with_binary(Binary op, Over&& over) {
  using F = typename V::F;
  switch (op) {
    case Binary::kAdd: return over([](F x, F y) { return x + y; });
    case Binary::kSub: return over([](F x, F y) { return x - y; });
    case Binary::kMul: return over([](F x, F y) { return x * y; });
    case Binary::kDiv: return over([](F x, F y) { return x / y; });
    // The instruction gives its second operand when either is NaN: right for y, so only x needs a look.
    case Binary::kMin: return over([](F x, F y) { return V::select(V::is_nan(x), x, V::min(x, y)); });
    case Binary::kMax: return over([](F x, F y) { return V::select(V::is_nan(x), x, V::max(x, y)); });
    case Binary::kPRelu: return over([](F x, F y) { return V::select(V::less(x, V::all(0.0f)), x * y, x); });
    default: return;
  }
}

template <typename V>
inline void binary_loops(Binary op, int64_t n, const float* a, int64_t step_a, const float* b, int64_t step_b, float* out) {
  with_binary<V>(op, [&](auto f) { zip_row<V>(n, a, step_a, b, step_b, out, f); });
}

// All elements, split over threads.
template <typename V>
inline void unary_all(Unary op, int64_t n, const float* x, float* out, float alpha, float beta) {
  constexpr int64_t kGrain = 1 << 13;  // elements worth a thread
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) { unary_loops<V>(op, end - begin, x + begin, out + begin, alpha, beta); });
}

template <typename V>
inline void clip_loops(int64_t n, const float* x, float low, float high, float* out) {
  const auto l = V::all(low), h = V::all(high);
  map_row<V>(n, x, out, [=](typename V::F v) { return V::min(h, V::max(l, v)); });  // NaN passes
}

// The tail goes through a piece of memory: bytes have no masked forms in AVX2.
template <typename V, typename Fn>
inline void compare_by(int64_t n, const float* a, int64_t step_a, const float* b, int64_t step_b, bool* out, Fn f) {
  int64_t i = 0;
  for (; i + V::kWidth <= n; i += V::kWidth)
    V::store_flags(out + i, f(step_a != 0 ? V::load(a + i) : V::all(*a), step_b != 0 ? V::load(b + i) : V::all(*b)));
  if (const int64_t rest = n - i; rest > 0) {
    bool last[V::kWidth];
    V::store_flags(last, f(step_a != 0 ? V::load(a + i, rest) : V::all(*a), step_b != 0 ? V::load(b + i, rest) : V::all(*b)));
    for (int64_t j = 0; j < rest; ++j) out[i + j] = last[j];
  }
}

template <typename V>
inline void compare_loops(Compare op, int64_t n, const float* a, int64_t step_a, const float* b, int64_t step_b, bool* out) {
  using F = typename V::F;
  switch (op) {
    case Compare::kEqual: return compare_by<V>(n, a, step_a, b, step_b, out, [](F x, F y) { return V::equal(x, y); });
    case Compare::kGreater: return compare_by<V>(n, a, step_a, b, step_b, out, [](F x, F y) { return V::less(y, x); });
    case Compare::kGreaterOrEqual: return compare_by<V>(n, a, step_a, b, step_b, out, [](F x, F y) { return V::less_or_equal(y, x); });
    case Compare::kLess: return compare_by<V>(n, a, step_a, b, step_b, out, [](F x, F y) { return V::less(x, y); });
    case Compare::kLessOrEqual: return compare_by<V>(n, a, step_a, b, step_b, out, [](F x, F y) { return V::less_or_equal(x, y); });
  }
}

template <typename V>
inline void select_loops(int64_t n, const bool* condition, int64_t step_c, const float* a, int64_t step_a, const float* b, int64_t step_b,
                         float* out) {
  if (step_c == 0) {  // one side as it is
    const float* chosen = *condition ? a : b;
    const int64_t step = *condition ? step_a : step_b;
    return for_each_vector<V>(n, [&](int64_t i, auto get, auto put) { put(out + i, step != 0 ? get(chosen + i) : V::all(*chosen)); });
  }
  const auto chosen = [&](int64_t i, auto get, const bool* flags) {
    return V::select(V::load_flags(flags), step_a != 0 ? get(a + i) : V::all(*a), step_b != 0 ? get(b + i) : V::all(*b));
  };
  int64_t i = 0;
  for (; i + V::kWidth <= n; i += V::kWidth) V::store(out + i, chosen(i, [](const float* p) { return V::load(p); }, condition + i));
  if (const int64_t rest = n - i; rest > 0) {
    bool last[V::kWidth] = {};
    for (int64_t j = 0; j < rest; ++j) last[j] = condition[i + j];
    V::store(out + i, chosen(i, [rest](const float* p) { return V::load(p, rest); }, last), rest);
  }
}

}  // namespace
}  // namespace ds::kernels
