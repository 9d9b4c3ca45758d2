// Discrete Fourier transforms of any length, in double precision.
//
// A length whose prime factors are small is taken apart factor by factor (Cooley and Tukey, "An Algorithm
// for the Machine Calculation of Complex Fourier Series", 1965); any other becomes a convolution of a
// power-of-two length (Bluestein, "A Linear Filtering Approach to the Computation of Discrete Fourier
// Transform", 1970).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace ds::kernels {

struct Complex {
  double re = 0, im = 0;
};

// Bound to a length; may be used by several threads at once.
class Fft {
 public:
  explicit Fft(int64_t n);
  int64_t length() const { return n_; }
  // Elements of scratch that run() needs.
  size_t scratch() const;
  // out[k] = sum over j of in[j] exp(-2 pi i j k / n), with `inverse` the conjugate; not scaled. `in`,
  // `out` and `scratch` do not overlap.
  void run(bool inverse, const Complex* in, Complex* out, Complex* scratch) const;

 private:
  void recurse(size_t factor, int64_t n, int64_t stride, const Complex* in, Complex* out) const;
  void bluestein(const Complex* in, Complex* out, Complex* scratch) const;

  int64_t n_;
  std::vector<int64_t> factors_;
  std::vector<Complex> roots_;           // exp(-2 pi i k / n)
  std::unique_ptr<Fft> convolution_;     // Bluestein: of length >= 2 n - 1
  std::vector<Complex> chirp_, filter_;  // exp(-pi i k^2 / n), and the transform of its conjugate
};

// How one axis of a real or complex signal is transformed. Legend: signals lie as [outer, length, inner,
// components], spectra as [outer, bins, inner, components]; components: 1 (real) or 2.
struct DftShape {
  int64_t outer = 1, in_length = 0, inner = 1, in_components = 1;
  int64_t length = 0;  // of the transform: the signal is cut or padded with zeros
  int64_t out_length = 0, out_components = 2;
  bool inverse = false;     // with 1 / length
  bool half_input = false;  // only the first half of a symmetric spectrum is given (inverse)
};
// T: float, double. Threads: parallel_for over signals.
template <typename T>
void dft(const DftShape& s, const Fft& fft, const T* x, T* y);

// Windowed transforms of frames: x [batch, length, components] -> y [batch, frames, bins, 2]; frame f begins
// at f * step and is multiplied by `window` (frame elements; null: ones) first.
struct StftShape {
  int64_t batch = 1, length = 0, components = 1, frame = 0, step = 1, frames = 0, bins = 0;
};
template <typename T>
void stft(const StftShape& s, const Fft& fft, const T* x, const T* window, T* y);

}  // namespace ds::kernels
