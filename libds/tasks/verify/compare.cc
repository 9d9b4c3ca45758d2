#include "libds/tasks/verify/compare.h"

#include <algorithm>
#include <cmath>

namespace ds {
namespace {

// Elements converted at a time: comparing two tensors needs no copies of their size.
constexpr int64_t kBlock = 4096;

// The elements of a tensor of numbers as doubles.
class Reader {
 public:
  explicit Reader(const Tensor& t) : tensor_(t) {
    if (!dispatch_dtype(t.dtype(), [](auto) {})) all_ = t.to_doubles();  // types for storage only
  }

  void read(int64_t begin, int64_t count, double* out) const {
    if (!all_.empty()) {
      std::copy_n(all_.begin() + begin, count, out);
      return;
    }
    dispatch_dtype(tensor_.dtype(), [&](auto tag) {
      using T = decltype(tag);
      const T* from = tensor_.data<T>() + begin;
      for (int64_t i = 0; i < count; ++i) {
        if constexpr (std::is_same_v<T, f16> || std::is_same_v<T, bf16>) out[i] = static_cast<double>(static_cast<float>(from[i]));
        else out[i] = static_cast<double>(from[i]);
      }
    });
  }

 private:
  const Tensor& tensor_;
  std::vector<double> all_;
};

std::string problem_of(const Tensor& got, const Tensor& expected) {
  if (!got.defined() || !expected.defined()) return got.defined() == expected.defined() ? "" : "is there in one of the two only";
  if (got.dtype() != expected.dtype() && !(is_float(got.dtype()) && is_float(expected.dtype())))
    return fmt::format("has type {}, the reference {}", dtype_name(got.dtype()), dtype_name(expected.dtype()));
  if (got.shape() != expected.shape())
    return is_container(got.dtype()) ? fmt::format("holds {} items, the reference {}", got.numel(), expected.numel())
                                     : fmt::format("has shape {}, the reference {}", shape_string(got.shape()), shape_string(expected.shape()));
  return {};
}

// Running totals over the elements.
struct Totals {
  double dot = 0, aa = 0, bb = 0, worst_excess = -1;

  void add(OutputDifference& d, int64_t index, double got, double expected, Tolerance tolerance) {
    double excess = -1;  // how far beyond what is allowed
    if (std::isfinite(got) && std::isfinite(expected)) {
      const double error = std::fabs(got - expected);
      d.max_abs = std::max(d.max_abs, error);
      if (expected != 0) d.max_rel = std::max(d.max_rel, error / std::fabs(expected));
      dot += got * expected;
      aa += got * got;
      bb += expected * expected;
      const double allowed = tolerance.atol + tolerance.rtol * std::fabs(expected);
      if (error > allowed) excess = error - allowed;
    } else if (!(std::isnan(got) && std::isnan(expected)) && got != expected) {
      excess = HUGE_VAL;
    }
    if (excess < 0) return;
    ++d.mismatches;
    if (excess <= worst_excess) return;
    worst_excess = excess;
    d.worst = index;
    d.got = got;
    d.expected = expected;
  }
};

}  // namespace

namespace {

void add_numbers(OutputDifference& d, Totals& totals, const Tensor& got, const Tensor& expected, Tolerance tolerance) {
  const Reader mine(got), theirs(expected);
  std::vector<double> a(static_cast<size_t>(std::min(kBlock, got.numel()))), b(a.size());
  for (int64_t begin = 0; begin < got.numel(); begin += kBlock) {
    const int64_t count = std::min(kBlock, got.numel() - begin);
    mine.read(begin, count, a.data());
    theirs.read(begin, count, b.data());
    for (int64_t i = 0; i < count; ++i)
      totals.add(d, d.elements + begin + i, a[static_cast<size_t>(i)], b[static_cast<size_t>(i)], tolerance);
  }
}

void add_strings(OutputDifference& d, const Tensor& got, const Tensor& expected) {
  for (int64_t i = 0; i < got.numel(); ++i) {
    const std::string &a = got.strings()[static_cast<size_t>(i)], &b = expected.strings()[static_cast<size_t>(i)];
    if (a == b) continue;
    if (d.mismatches++ > 0) continue;
    d.worst = d.elements + i;
    d.got_text = a;
    d.expected_text = b;
  }
}

void add_difference(OutputDifference& d, Totals& totals, const Tensor& got, const Tensor& expected, Tolerance tolerance, const std::string& where) {
  const std::string problem = problem_of(got, expected);
  if (!problem.empty()) {
    if (d.problem.empty()) d.problem = where + problem;
    return;
  }
  if (!got.defined()) return;
  if (is_container(got.dtype())) {
    for (size_t i = 0; i < got.items().size(); ++i)
      add_difference(d, totals, got.items()[i], expected.items()[i], tolerance, fmt::format("{}item {} ", where, i));
    return;
  }
  if (got.dtype() == DType::kString) add_strings(d, got, expected);
  else add_numbers(d, totals, got, expected, tolerance);
  d.elements += got.numel();
}

}  // namespace

OutputDifference compare_output(const std::string& name, const Tensor& got, const Tensor& expected, Tolerance tolerance) {
  OutputDifference d;
  d.name = name;
  d.shape = got.shape();
  Totals totals;
  add_difference(d, totals, got, expected, tolerance, "");
  if (totals.aa > 0 || totals.bb > 0)
    d.cosine = totals.aa > 0 && totals.bb > 0 ? totals.dot / std::sqrt(totals.aa) / std::sqrt(totals.bb) : 0;
  return d;
}

double root_mean_square(const Tensor& tensor) {
  if (is_object(tensor.dtype())) return 0;
  const Reader reader(tensor);
  std::vector<double> block(static_cast<size_t>(std::min(kBlock, tensor.numel())));
  double sum = 0;
  int64_t finite = 0;
  for (int64_t begin = 0; begin < tensor.numel(); begin += kBlock) {
    const int64_t count = std::min(kBlock, tensor.numel() - begin);
    reader.read(begin, count, block.data());
    for (int64_t i = 0; i < count; ++i) {
      const double x = block[static_cast<size_t>(i)];
      if (!std::isfinite(x)) continue;
      sum += x * x;
      ++finite;
    }
  }
  return finite > 0 ? std::sqrt(sum / static_cast<double>(finite)) : 0;
}

std::vector<OutputDifference> compare_outputs(const NamedTensors& got, const NamedTensors& reference, Tolerance tolerance) {
  if (reference.empty()) bad_data("the reference holds no arrays");
  std::vector<OutputDifference> all;
  for (const auto& [name, expected] : reference) {
    const Tensor* tensor = find_tensor(got, name);
    if (tensor == nullptr) bad_data("the model has no output '{}' as the reference does; it has {}", name, names_of(got));
    all.push_back(compare_output(name, *tensor, expected, tolerance));
  }
  return all;
}

bool all_ok(const std::vector<OutputDifference>& outputs) {
  return std::all_of(outputs.begin(), outputs.end(), [](const OutputDifference& d) { return d.ok(); });
}

const Tensor* find_tensor(const NamedTensors& arrays, const std::string& name) {
  for (const auto& [key, tensor] : arrays)
    if (key == name) return &tensor;
  return nullptr;
}

std::string names_of(const NamedTensors& arrays) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : arrays) names.push_back("'" + name + "'");
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace ds
