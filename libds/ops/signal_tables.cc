// Tables that signal processing needs: HannWindow, HammingWindow, BlackmanWindow, MelWeightMatrix. Made
// in double precision, then rounded to the type that is asked for.
#include <cmath>

#include "libds/ir/type_text.h"
#include "libds/ops/common.h"
#include "libds/ops/int_args.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr int64_t kLongest = int64_t{1} << 30;

DType table_dtype(const Node& n) {
  const DType dtype = dtype_of_number(n.attr_int("output_datatype", 1));
  if (!is_int(dtype) && !is_float(dtype)) bad_data("output_datatype is {}", dtype_name(dtype));
  return dtype;
}

// The only element of an integer input when it is known now.
std::optional<int64_t> known_int(InferContext& c, size_t i) {
  const auto values = c.concrete_ints(i);
  if (!values) return std::nullopt;
  if (values->size() != 1) c.error("input {} has {} elements, expected one", i, values->size());
  return (*values)[0];
}

void require_int(InferContext& c, size_t i) { c.require_dtype(i, {DType::kI32, DType::kI64}); }

int64_t checked_size(int64_t n, const char* what) {
  if (n < 0 || n > kLongest) bad_data("{} is {}", what, n);
  return n;
}

// --- windows: a0 - a1 cos(2 pi n / N) + a2 cos(4 pi n / N) ------------------------------------------

struct Cosines {
  double a0, a1, a2;
};

void fill_window(const Cosines& a, bool periodic, int64_t n, double* out) {
  const double N = static_cast<double>(periodic ? n : n - 1);
  for (int64_t i = 0; i < n; ++i) {
    const double x = 2 * kPi * static_cast<double>(i) / N;
    out[i] = n == 1 ? 1.0 : a.a0 - a.a1 * std::cos(x) + a.a2 * std::cos(2 * x);  // one element: the peak
  }
}

void register_window(OpRegistry& registry, const char* name, Cosines cosines) {
  OpDef def;
  def.name = name;  // (size) -> [size]
  def.min_inputs = def.max_inputs = 1;
  def.shape_inputs = 0b1;
  def.stops_gradient = true;
  def.infer = [](InferContext& c) {
    require_int(c, 0);
    const std::optional<int64_t> size = known_int(c, 0);
    c.set_output(0, table_dtype(c.node()), Dims{size ? Dim(checked_size(*size, "the size")) : c.fresh_dim()});
  };
  KernelDef k;
  k.name = "portable/window";
  k.create = [cosines](const KernelQuery& q) {
    return make_kernel([cosines, periodic = q.node.attr_int("periodic", 1) != 0](const KernelContext& c) {
      const Tensor values = Tensor::empty(DType::kF64, c.output(0).shape());
      fill_window(cosines, periodic, values.numel(), values.mutable_data<double>());
      values.cast_into(c.output(0));
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

// --- MelWeightMatrix ------------------------------------------------------------------------------

// out [spectrum bins, bands]: each band a triangle between three neighbouring points that are evenly
// spaced on the mel scale, mel(f) = 2595 log10(1 + f / 700).
void fill_mel(int64_t bands, int64_t dft_length, int64_t sample_rate, double low, double high,
              const Tensor& out) {
  const int64_t bins = dft_length / 2 + 1;
  double* y = out.mutable_data<double>();
  std::fill(y, y + out.numel(), 0.0);
  const auto mel = [](double hertz) { return 2595 * std::log10(1 + hertz / 700); };
  const double first = mel(low), step = (mel(high) - first) / static_cast<double>(bands + 2);
  std::vector<int64_t> point;
  for (int64_t i = 0; i < bands + 2; ++i) {
    const double hertz = 700 * (std::pow(10.0, (first + static_cast<double>(i) * step) / 2595) - 1);
    const double at =
        std::floor(static_cast<double>(dft_length + 1) * hertz / static_cast<double>(sample_rate));
    // The upper end of the last triangle may be one behind the spectrum, its peak may not.
    if (!(at >= 0) || at > static_cast<double>(i == bands + 1 ? bins : bins - 1))
      bad_data("{} Hz lies outside a spectrum of {} bins at {} Hz", hertz, bins, sample_rate);
    point.push_back(static_cast<int64_t>(at));
  }
  for (int64_t b = 0; b < bands; ++b) {
    const auto i = static_cast<size_t>(b);
    const int64_t left = point[i], center = point[i + 1], right = point[i + 2];
    for (int64_t j = left; j <= center; ++j)
      y[j * bands + b] =
          left == center ? 1.0 : static_cast<double>(j - left) / static_cast<double>(center - left);
    for (int64_t j = center; j < right; ++j)
      y[j * bands + b] = static_cast<double>(right - j) / static_cast<double>(right - center);
  }
}

void register_mel(OpRegistry& registry) {
  OpDef def;
  def.name = "MelWeightMatrix";  // (bands, dft_length, sample_rate, lower_edge_hertz, upper_edge_hertz)
  def.min_inputs = def.max_inputs = 5;
  def.shape_inputs = 0b11;
  def.stops_gradient = true;
  def.infer = [](InferContext& c) {
    for (size_t i : {0, 1, 2}) require_int(c, i);
    for (size_t i : {3, 4})
      if (!is_float(c.dtype(i)))
        c.error("input {} is {}, floating point is needed", i, dtype_name(c.dtype(i)));
    const std::optional<int64_t> bands = known_int(c, 0), length = known_int(c, 1);
    c.set_output(0, table_dtype(c.node()),
                 Dims{length ? Dim(checked_size(*length, "dft_length") / 2 + 1) : c.fresh_dim(),
                      bands ? Dim(checked_size(*bands, "num_mel_bins")) : c.fresh_dim()});
  };
  KernelDef k;
  k.name = "portable/mel";
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      for (size_t i = 0; i < 5; ++i)
        if (c.input(i).numel() != 1)
          bad_data("input {} has {} elements, expected one", i, c.input(i).numel());
      const auto number = [&](size_t i) { return c.input(i).to_ints()[0]; };
      if (number(2) < 1) bad_data("the sample rate is {}", number(2));
      const Tensor values = Tensor::empty(DType::kF64, c.output(0).shape());
      fill_mel(number(0), number(1), number(2), c.input(3).to_doubles()[0], c.input(4).to_doubles()[0],
               values);
      values.cast_into(c.output(0));
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_signal_table_ops(OpRegistry& registry) {
  register_window(registry, "HannWindow", {0.5, 0.5, 0});
  register_window(registry, "HammingWindow", {25.0 / 46.0, 1 - 25.0 / 46.0, 0});
  register_window(registry, "BlackmanWindow", {0.42, 0.5, 0.08});
  register_mel(registry);
}

}  // namespace ds
