#include "kernels/fft.h"

#include <algorithm>
#include <cmath>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr int64_t kLargestFactor = 31;  // a butterfly takes the square of its factor

Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
Complex operator*(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
Complex conjugate(Complex a) { return {a.re, -a.im}; }
Complex turned(Complex a) { return {a.im, -a.re}; }  // times -i

// exp(-2 pi i k / n)
Complex root(int64_t k, int64_t n) {
  const double angle = -2 * kPi * static_cast<double>(k) / static_cast<double>(n);
  return {std::cos(angle), std::sin(angle)};
}

// Fours first: their butterfly has no products.
std::vector<int64_t> factorize(int64_t n) {
  std::vector<int64_t> factors;
  for (int64_t p = 4; n > 1;) {
    while (n % p == 0) {
      factors.push_back(p);
      n /= p;
    }
    p = p == 4 ? 2 : p == 2 ? 3 : p + 2;
    if (p * p > n && n > 1) p = n;
  }
  return factors;
}

}  // namespace

Fft::Fft(int64_t n) : n_(n) {
  if (n < 2) return;
  factors_ = factorize(n);
  if (*std::max_element(factors_.begin(), factors_.end()) <= kLargestFactor) {
    for (int64_t k = 0; k < n; ++k) roots_.push_back(root(k, n));
    return;
  }
  int64_t size = 1;
  while (size < 2 * n - 1) size *= 2;
  convolution_ = std::make_unique<Fft>(size);
  // k^2 modulo 2 n keeps the angle small, and so exact.
  for (int64_t k = 0, square = 0; k < n; square = (square + 2 * k + 1) % (2 * n), ++k)
    chirp_.push_back(root(square, 2 * n));
  std::vector<Complex> filter(static_cast<size_t>(size)), scratch(convolution_->scratch());
  for (int64_t k = 0; k < n; ++k) {
    const Complex c = conjugate(chirp_[static_cast<size_t>(k)]);
    filter[static_cast<size_t>(k)] = c;
    if (k > 0) filter[static_cast<size_t>(size - k)] = c;
  }
  filter_.resize(filter.size());
  convolution_->run(false, filter.data(), filter_.data(), scratch.data());
}

size_t Fft::scratch() const {
  return static_cast<size_t>(n_) +
         (convolution_ ? 2 * static_cast<size_t>(convolution_->length()) + convolution_->scratch() : 0);
}

// The n values in[0], in[stride], ... by factors_[factor] transforms of their parts.
void Fft::recurse(size_t factor, int64_t n, int64_t stride, const Complex* in, Complex* out) const {
  if (n == 1) {
    out[0] = in[0];
    return;
  }
  const int64_t p = factors_[factor], m = n / p;
  for (int64_t q = 0; q < p; ++q) recurse(factor + 1, m, stride * p, in + q * stride, out + q * m);
  const Complex* w = roots_.data();
  if (p == 2) {
    for (int64_t k = 0; k < m; ++k) {
      const Complex a = out[k], b = out[k + m] * w[k * stride];
      out[k] = a + b;
      out[k + m] = a - b;
    }
    return;
  }
  if (p == 4) {
    for (int64_t k = 0; k < m; ++k) {
      const Complex a = out[k], b = out[k + m] * w[k * stride], c = out[k + 2 * m] * w[2 * k * stride],
                    d = out[k + 3 * m] * w[3 * k * stride];
      const Complex even = a + c, odd = a - c, sum = b + d, difference = turned(b - d);
      out[k] = even + sum;
      out[k + m] = odd + difference;
      out[k + 2 * m] = even - sum;
      out[k + 3 * m] = odd - difference;
    }
    return;
  }
  Complex part[kLargestFactor];
  for (int64_t k = 0; k < m; ++k) {
    for (int64_t q = 0; q < p; ++q) part[q] = out[k + q * m] * w[q * k * stride];
    for (int64_t r = 0; r < p; ++r) {
      Complex sum = part[0];
      for (int64_t q = 1; q < p; ++q) sum = sum + part[q] * w[q * r % p * m * stride];
      out[k + r * m] = sum;
    }
  }
}

void Fft::bluestein(const Complex* in, Complex* out, Complex* scratch) const {
  const int64_t size = convolution_->length();
  Complex *a = scratch, *b = a + size, *rest = b + size;
  std::fill(a, a + size, Complex{});
  for (int64_t k = 0; k < n_; ++k) a[k] = in[k] * chirp_[static_cast<size_t>(k)];
  convolution_->run(false, a, b, rest);
  for (int64_t k = 0; k < size; ++k) a[k] = b[k] * filter_[static_cast<size_t>(k)];
  convolution_->run(true, a, b, rest);
  const double scale = 1.0 / static_cast<double>(size);
  for (int64_t k = 0; k < n_; ++k) {
    const Complex v = b[k] * chirp_[static_cast<size_t>(k)];
    out[k] = {v.re * scale, v.im * scale};
  }
}

void Fft::run(bool inverse, const Complex* in, Complex* out, Complex* scratch) const {
  if (n_ == 0) return;
  // The inverse is the conjugate of the transform of the conjugate.
  if (inverse) {
    for (int64_t k = 0; k < n_; ++k) scratch[k] = conjugate(in[k]);
    in = scratch;
  }
  if (convolution_)
    bluestein(in, out, scratch + n_);
  else
    recurse(0, n_, 1, in, out);
  if (inverse)
    for (int64_t k = 0; k < n_; ++k) out[k] = conjugate(out[k]);
}

template <typename T>
void dft(const DftShape& s, const Fft& fft, const T* x, T* y) {
  parallel_for(s.outer * s.inner, 1 + (1 << 12) / (1 + s.length), [&](int64_t begin, int64_t end) {
    const auto n = static_cast<size_t>(s.length);
    std::vector<Complex> in(n), out(n), scratch(fft.scratch());
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i / s.inner, inner = i % s.inner;
      const auto get = [&](int64_t k) {
        const T* p = x + ((at * s.in_length + k) * s.inner + inner) * s.in_components;
        return Complex{static_cast<double>(p[0]), s.in_components == 2 ? static_cast<double>(p[1]) : 0.0};
      };
      const int64_t given = std::min(s.in_length, s.half_input ? s.length / 2 + 1 : s.length);
      std::fill(in.begin(), in.end(), Complex{});
      for (int64_t k = 0; k < given; ++k) {
        Complex v = get(k);
        if (s.half_input) {
          // Its own mirror image, so real.
          if (k == 0 || 2 * k == s.length)
            v.im = 0;
          else
            in[static_cast<size_t>(s.length - k)] = conjugate(v);
        }
        in[static_cast<size_t>(k)] = v;
      }
      fft.run(s.inverse, in.data(), out.data(), scratch.data());
      const double scale = s.inverse ? 1.0 / static_cast<double>(s.length) : 1.0;
      for (int64_t k = 0; k < s.out_length; ++k) {
        T* p = y + ((at * s.out_length + k) * s.inner + inner) * s.out_components;
        p[0] = static_cast<T>(out[static_cast<size_t>(k)].re * scale);
        if (s.out_components == 2) p[1] = static_cast<T>(out[static_cast<size_t>(k)].im * scale);
      }
    }
  });
}

template <typename T>
void stft(const StftShape& s, const Fft& fft, const T* x, const T* window, T* y) {
  parallel_for(s.batch * s.frames, 1 + (1 << 12) / (1 + s.frame), [&](int64_t begin, int64_t end) {
    const auto n = static_cast<size_t>(s.frame);
    std::vector<Complex> in(n), out(n), scratch(fft.scratch());
    for (int64_t i = begin; i < end; ++i) {
      const T* from = x + (i / s.frames * s.length + i % s.frames * s.step) * s.components;
      for (int64_t k = 0; k < s.frame; ++k) {
        const double w = window == nullptr ? 1.0 : static_cast<double>(window[k]);
        const T* p = from + k * s.components;
        in[static_cast<size_t>(k)] = {static_cast<double>(p[0]) * w,
                                      s.components == 2 ? static_cast<double>(p[1]) * w : 0.0};
      }
      fft.run(false, in.data(), out.data(), scratch.data());
      for (int64_t k = 0; k < s.bins; ++k) {
        y[(i * s.bins + k) * 2] = static_cast<T>(out[static_cast<size_t>(k)].re);
        y[(i * s.bins + k) * 2 + 1] = static_cast<T>(out[static_cast<size_t>(k)].im);
      }
    }
  });
}

template void dft(const DftShape&, const Fft&, const float*, float*);
template void dft(const DftShape&, const Fft&, const double*, double*);
template void stft(const StftShape&, const Fft&, const float*, const float*, float*);
template void stft(const StftShape&, const Fft&, const double*, const double*, double*);

}  // namespace ds::kernels
