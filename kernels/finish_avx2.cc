#include "kernels/finish_avx2.h"

namespace ds::kernels {
namespace {

struct Floats {
  using T = float;
  static F8 get(const T* p) { return load(p); }
  static F8 get(const T* p, int64_t n) { return load(p, n); }
  static void put(T* p, F8 v) { store(p, v); }
  static void put(T* p, F8 v, int64_t n) { store(p, v, n); }
};

struct Bf16s {
  static F8 wide(__m128i half) { return widen_bf16(half); }
  static __m128i narrow(F8 x) { return narrow_to_bf16(x); }
};

struct F16s {
  static F8 wide(__m128i half) { return _mm256_cvtph_ps(half); }
  static __m128i narrow(F8 x) {
    x = _mm256_min_ps(all(kLargestF16), _mm256_max_ps(all(-kLargestF16), x));  // NaN passes
    return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
};

template <typename Kind>
struct Halves {
  using T = uint16_t;
  static F8 get(const T* p) { return Kind::wide(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static F8 get(const T* p, int64_t n) {
    alignas(16) T part[8] = {};
    for (int64_t i = 0; i < n; ++i) part[i] = p[i];
    return get(part);
  }
  static void put(T* p, F8 v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), Kind::narrow(v)); }
  static void put(T* p, F8 v, int64_t n) {
    alignas(16) T part[8];
    put(part, v);
    for (int64_t i = 0; i < n; ++i) p[i] = part[i];
  }
};

template <typename Element, typename Addend, Activation kActivation>
void finish_rows(const Finish& f, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums, int64_t stride) {
  using T = typename Element::T;
  const float* bias = f.bias != nullptr ? f.bias + column : nullptr;
  const float* column_scale = f.column_scale != nullptr ? f.column_scale + column : nullptr;
  const bool affine = f.epilogue.scale != 1.0f || f.epilogue.shift != 0.0f;
  const F8 scale = all(f.epilogue.scale), shift = all(f.epilogue.shift);
  const auto finished = [&](F8 v) {
    v = activate<kActivation>(v, f.epilogue);
    return affine ? fma(v, scale, shift) : v;
  };
  for (int64_t r = 0; r < rows; ++r, sums += stride) {
    const int64_t at = (row + r) * f.channels + column;
    T* y = static_cast<T*>(f.y) + at;
    const auto* addend = f.addend != nullptr ? static_cast<const typename Addend::T*>(f.addend) + at : nullptr;
    int64_t i = 0;
    for (; i + kWidth <= columns; i += kWidth) {
      F8 v = load(sums + i);
      if (column_scale != nullptr) v = v * load(column_scale + i);
      if (bias != nullptr) v = v + load(bias + i);
      if (addend != nullptr) v = v + Addend::get(addend + i);
      Element::put(y + i, finished(v));
    }
    if (const int64_t rest = columns - i; rest > 0) {
      F8 v = load(sums + i, rest);
      if (column_scale != nullptr) v = v * load(column_scale + i, rest);
      if (bias != nullptr) v = v + load(bias + i, rest);
      if (addend != nullptr) v = v + Addend::get(addend + i, rest);
      Element::put(y + i, finished(v), rest);
    }
  }
}

template <typename Element, typename Addend>
void finish_as(const Finish& f, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums, int64_t stride) {
  using A = Activation;
  const auto with = [&](auto function) { function(f, row, rows, column, columns, sums, stride); };
  switch (f.epilogue.activation) {
    case A::kNone: return with(finish_rows<Element, Addend, A::kNone>);
    case A::kRelu: return with(finish_rows<Element, Addend, A::kRelu>);
    case A::kClip: return with(finish_rows<Element, Addend, A::kClip>);
    case A::kSigmoid: return with(finish_rows<Element, Addend, A::kSigmoid>);
    case A::kHardSwish: return with(finish_rows<Element, Addend, A::kHardSwish>);
    case A::kSilu: return with(finish_rows<Element, Addend, A::kSilu>);
    case A::kGelu: return with(finish_rows<Element, Addend, A::kGelu>);
    case A::kGeluTanh: return with(finish_rows<Element, Addend, A::kGeluTanh>);
    case A::kTanh: return with(finish_rows<Element, Addend, A::kTanh>);
  }
}

}  // namespace

void finish_avx2(const Finish& f, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums, int64_t stride) {
  const auto with = [&](auto function) { function(f, row, rows, column, columns, sums, stride); };
  using S = StoredType;  // the two types of 16 bits do not meet
  using B = Halves<Bf16s>;
  using F = Halves<F16s>;
  if (f.y_type == S::kF16) return f.addend_type == S::kF16 ? with(finish_as<F, F>) : with(finish_as<F, Floats>);
  if (f.y_type == S::kBf16) return f.addend_type == S::kBf16 ? with(finish_as<B, B>) : with(finish_as<B, Floats>);
  if (f.addend_type == S::kF16) return with(finish_as<Floats, F>);
  f.addend_type == S::kBf16 ? with(finish_as<Floats, B>) : with(finish_as<Floats, Floats>);
}

}  // namespace ds::kernels
