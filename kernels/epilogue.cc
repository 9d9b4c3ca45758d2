#include "kernels/epilogue.h"

#include <algorithm>
#include <cmath>

#include "kernels/unary_math.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

template <typename T, typename F>
void apply(int64_t n, const T* addend, T* y, F f) {
  parallel_for(n, 1 << 14, [&](int64_t begin, int64_t end) {
    if (addend != nullptr) {
      for (int64_t i = begin; i < end; ++i) y[i] = f(y[i] + addend[i]);
    } else {
      for (int64_t i = begin; i < end; ++i) y[i] = f(y[i]);
    }
  });
}

template <typename T>
void activate(const Epilogue& e, int64_t n, const T* addend, T* y) {
  switch (e.activation) {
    case Activation::kNone:
      if (addend != nullptr) apply(n, addend, y, [](T x) { return x; });
      return;
    case Activation::kRelu: return apply(n, addend, y, [](T x) { return x < T(0) ? T(0) : x; });
    case Activation::kClip: {
      const T low = static_cast<T>(e.low), high = static_cast<T>(e.high);
      return apply(n, addend, y, [=](T x) { return std::min(std::max(x, low), high); });
    }
    case Activation::kSigmoid: return apply(n, addend, y, [](T x) { return sigmoid(x); });
    case Activation::kHardSwish:
      return apply(n, addend, y, [](T x) { return x * std::min(std::max(x / T(6) + T(0.5), T(0)), T(1)); });
    case Activation::kSilu: return apply(n, addend, y, [](T x) { return x * sigmoid(x); });
    case Activation::kGelu: return apply(n, addend, y, [](T x) { return unary_value<Unary::kGelu>(x, T(0), T(0)); });
    case Activation::kGeluTanh: return apply(n, addend, y, [](T x) { return unary_value<Unary::kGeluTanh>(x, T(0), T(0)); });
    case Activation::kTanh: return apply(n, addend, y, [](T x) { return std::tanh(x); });
  }
}

}  // namespace

template <typename T>
void apply_epilogue(const Epilogue& e, int64_t n, const T* addend, T* y) {
  if (!e.add) addend = nullptr;
  activate(e, n, addend, y);
  if (e.scale == 1 && e.shift == 0) return;
  const T scale = static_cast<T>(e.scale), shift = static_cast<T>(e.shift);
  apply<T>(n, nullptr, y, [=](T x) { return scale * x + shift; });
}

template void apply_epilogue(const Epilogue&, int64_t, const float*, float*);
template void apply_epilogue(const Epilogue&, int64_t, const double*, double*);

}  // namespace ds::kernels
