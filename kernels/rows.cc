#include "kernels/rows.h"

namespace ds::kernels {

Broadcast row_space(int64_t n, std::initializer_list<int64_t> steps) {
  Broadcast s;
  s.rank = 1;
  s.size[0] = s.total = n;
  for (int64_t step : steps) s.stride[s.operands++][0] = step;
  return s;
}

namespace {

template <typename T>
void portable_binary(Binary op, int64_t n, const T* a, int64_t step_a, const T* b, int64_t step_b, T* out) {
  binary<T>(op, row_space(n, {step_a, step_b}), a, b, out);
}

template <typename T>
void portable_clip(int64_t n, const T* x, double low, double high, T* out) {
  clip<T>(n, x, static_cast<T>(low), static_cast<T>(high), out);
}

template <typename T>
void portable_compare(Compare op, int64_t n, const T* a, int64_t step_a, const T* b, int64_t step_b, bool* out) {
  compare<T>(op, row_space(n, {step_a, step_b}), a, b, out);
}

template <typename T>
void portable_select(int64_t n, const bool* condition, int64_t step_c, const T* a, int64_t step_a, const T* b, int64_t step_b, T* out) {
  kernels::select(row_space(n, {step_c, step_a, step_b}), sizeof(T), condition, a, b, out);
}

struct Avx2 {
  static constexpr auto unary = avx2::unary_row;
  static constexpr auto binary = avx2::binary_row;
};
struct Avx512 {
  static constexpr auto unary = avx512::unary_row;
  static constexpr auto binary = avx512::binary_row;
};

// Rows of an instruction set, the portable ones where it has none of its own (both sets have the same).
template <typename Set>
void unary_of(Unary op, int64_t n, const float* x, float* out, double alpha, double beta) {
  if (avx2::has_unary(op)) Set::unary(op, n, x, out, static_cast<float>(alpha), static_cast<float>(beta));
  else unary<float>(op, n, x, out, alpha, beta);
}

template <typename Set>
void binary_of(Binary op, int64_t n, const float* a, int64_t step_a, const float* b, int64_t step_b, float* out) {
  if (avx2::has_binary(op)) Set::binary(op, n, a, step_a, b, step_b, out);
  else portable_binary<float>(op, n, a, step_a, b, step_b, out);
}

}  // namespace

template <typename T>
const RowFunctions<T>& portable_rows() {
  static const RowFunctions<T> rows = {unary<T>, portable_binary<T>, portable_clip<T>, portable_compare<T>, portable_select<T>};
  return rows;
}
template const RowFunctions<float>& portable_rows();
template const RowFunctions<double>& portable_rows();

const RowFunctions<float>& vector_rows(Isa isa) {
  static const RowFunctions<float> eight = {unary_of<Avx2>, binary_of<Avx2>, avx2::clip_row, avx2::compare_row, avx2::select_row};
  static const RowFunctions<float> sixteen = {unary_of<Avx512>, binary_of<Avx512>, avx512::clip_row, avx512::compare_row, avx512::select_row};
  return isa >= Isa::kAvx512 ? sixteen : eight;
}

}  // namespace ds::kernels
