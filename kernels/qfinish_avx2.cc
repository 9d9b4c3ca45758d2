// Sums of 8-bit products to floats, through an epilogue, and on to floats or bytes (QRescale::real): eight at a time.
#include "kernels/finish_avx2.h"
#include "kernels/qgemm.h"

namespace ds::kernels {
namespace {

// Eight results or, at the end of a row, the first `n` of them (masked stores are slow: not where all are wanted).
class Finisher {
 public:
  explicit Finisher(const QRescale& q)
      : q_(q),
        epilogue_(q.real ? q.epilogue : Epilogue{}),
        affine_(epilogue_.scale != 1.0f || epilogue_.shift != 0.0f),
        lo_(all(static_cast<float>(q.lo - q.zero))),
        hi_(all(static_cast<float>(q.hi - q.zero))) {}

  template <bool kWhole, bool kBytes, Activation kActivation>
  void eight(const int32_t* sums, const float* addend, int64_t i, int64_t n, char* out) const {
    const auto floats = [&](const float* p) { return kWhole ? load(p + i) : load(p + i, n); };
    const auto integers = [&](const int32_t* p) { return _mm256_castps_si256(floats(reinterpret_cast<const float*>(p))); };
    __m256i s = integers(sums);
    if (q_.bias != nullptr) s = _mm256_add_epi32(s, integers(q_.bias));
    F8 v = _mm256_cvtepi32_ps(s) * floats(q_.multiplier);
    if (q_.float_bias != nullptr) v = v + floats(q_.float_bias);
    if (addend != nullptr) v = v + floats(addend);
    v = activate<kActivation>(v, epilogue_);
    if (affine_) v = fma(v, all(epilogue_.scale), all(epilogue_.shift));
    if constexpr (kBytes) {
      __m256i y = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(v * all(q_.inverse_scale), lo_), hi_));
      y = _mm256_add_epi32(y, _mm256_set1_epi32(q_.zero));
      const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
      uint8_t bytes[8];
      _mm_storel_epi64(reinterpret_cast<__m128i*>(bytes), q_.output == QOutput::kU8 ? _mm_packus_epi16(words, words) : _mm_packs_epi16(words, words));
      __builtin_memcpy(out + i, bytes, static_cast<size_t>(kWhole ? 8 : n));
    } else if constexpr (kWhole) {
      store(reinterpret_cast<float*>(out) + i, v);
    } else {
      store(reinterpret_cast<float*>(out) + i, v, n);
    }
  }

 private:
  const QRescale& q_;
  Epilogue epilogue_;
  bool affine_;
  F8 lo_, hi_;
};

struct Rows {
  int64_t rows, n;
  const int32_t* sums;
  int64_t stride;
  char* out;
  int64_t out_stride;
};

template <bool kBytes, Activation kActivation>
void finish_rows(const QRescale& q, const Rows& x) {
  const Finisher f(q);
  const auto* addend = static_cast<const float*>(q.addend);
  for (int64_t r = 0; r < x.rows; ++r) {
    const float* other = addend != nullptr ? addend + r * q.addend_stride : nullptr;
    const int32_t* sums = x.sums + r * x.stride;
    char* out = x.out + r * x.out_stride;
    int64_t i = 0;
    for (; i + kWidth <= x.n; i += kWidth) f.eight<true, kBytes, kActivation>(sums, other, i, kWidth, out);
    if (i < x.n) f.eight<false, kBytes, kActivation>(sums, other, i, x.n - i, out);
  }
}

template <bool kBytes>
void finish_by(Activation activation, const QRescale& q, const Rows& x) {
  using A = Activation;
  switch (activation) {
    case A::kNone: return finish_rows<kBytes, A::kNone>(q, x);
    case A::kRelu: return finish_rows<kBytes, A::kRelu>(q, x);
    case A::kClip: return finish_rows<kBytes, A::kClip>(q, x);
    case A::kSigmoid: return finish_rows<kBytes, A::kSigmoid>(q, x);
    case A::kHardSwish: return finish_rows<kBytes, A::kHardSwish>(q, x);
    case A::kSilu: return finish_rows<kBytes, A::kSilu>(q, x);
    case A::kGelu: return finish_rows<kBytes, A::kGelu>(q, x);
    case A::kGeluTanh: return finish_rows<kBytes, A::kGeluTanh>(q, x);
    case A::kTanh: return finish_rows<kBytes, A::kTanh>(q, x);
  }
}

}  // namespace

void qrescale_real_avx2(int64_t rows, int64_t n, const int32_t* sums, int64_t stride, const QRescale& q, void* out, int64_t out_stride) {
  const Activation activation = q.real ? q.epilogue.activation : q.relu ? Activation::kRelu : Activation::kNone;
  const Rows x = {rows, n, sums, stride, static_cast<char*>(out), out_stride};
  q.output == QOutput::kF32 ? finish_by<false>(activation, q, x) : finish_by<true>(activation, q, x);
}

}  // namespace ds::kernels
