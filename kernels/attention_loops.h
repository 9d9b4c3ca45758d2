// The loops of attention for any type and machine: what the register tiles (attention_tiles.h) are compared with.
//
// A task is kRows rows (a row is one query of one head; heads of a group share their keys). Its keys come
// in tiles of kColumns: scores = rows times the tile, transposed into a panel; the running maximum m and
// sum l of each row are corrected; acc += probabilities times values.
#pragma once

#include "kernels/attention.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kRows = 32, kColumns = 64;
constexpr int64_t kTileColumns = 16;

// c [R, w] += a [R, depth] b [depth, w], w <= kTileColumns.
template <typename T, int R>
inline void multiply_tile(int64_t depth, const T* a, int64_t a_step, const T* b, int64_t b_step, int64_t w, T* c, int64_t c_step) {
  T acc[R][kTileColumns] = {};
  if (w == kTileColumns) {
    for (int64_t p = 0; p < depth; ++p)
      for (int r = 0; r < R; ++r) {
        const T x = a[r * a_step + p];
        for (int64_t j = 0; j < kTileColumns; ++j) acc[r][j] += x * b[p * b_step + j];
      }
  } else {
    for (int64_t p = 0; p < depth; ++p)
      for (int r = 0; r < R; ++r)
        for (int64_t j = 0; j < w; ++j) acc[r][j] += a[r * a_step + p] * b[p * b_step + j];
  }
  for (int r = 0; r < R; ++r)
    for (int64_t j = 0; j < w; ++j) c[r * c_step + j] += acc[r][j];
}

// c [rows, n] += a [rows, depth] b [depth, n].
template <typename T>
inline void multiply(int64_t rows, int64_t depth, const T* a, int64_t a_step, const T* b, int64_t b_step, int64_t n, T* c, int64_t c_step) {
  for (int64_t j = 0; j < n; j += kTileColumns) {
    const int64_t w = n - j < kTileColumns ? n - j : kTileColumns;
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) multiply_tile<T, 4>(depth, a + r * a_step, a_step, b + j, b_step, w, c + r * c_step + j, c_step);
    for (; r < rows; ++r) multiply_tile<T, 1>(depth, a + r * a_step, a_step, b + j, b_step, w, c + r * c_step + j, c_step);
  }
}

template <typename T>
inline T dot(int64_t n, const T* a, const T* b) {
  constexpr int64_t kLanes = 16;
  T lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += a[i + j] * b[i + j];
  T sum = 0;
  for (; i < n; ++i) sum += a[i] * b[i];
  for (int64_t j = 0; j < kLanes; ++j) sum += lanes[j];
  return sum;
}

// One task. Math: row_max(n, x), exp_shifted(n, x, shift) -> sum of x = exp(x - shift), softcap(n, x, cap).
template <typename T, typename Math>
class AttentionTask {
 public:
  AttentionTask(const Attention& a, const AttentionOperands<T>& o, T* scratch) : a_(a), o_(o), group_(a.H / a.G) {
    q_ = scratch;
    panel_ = q_ + kRows * a.D;
    s_ = panel_ + kColumns * a.D;
    acc_ = s_ + kRows * kColumns;
  }

  static int64_t scratch(const Attention& a) { return (kRows + kColumns) * a.D + kRows * kColumns + kRows * a.E; }
  static int64_t blocks(const Attention& a) { return (a.H / a.G * a.L + kRows - 1) / kRows; }

  void run(int64_t task) {
    const int64_t block = task % blocks(a_), g = task / blocks(a_) % a_.G, b = task / blocks(a_) / a_.G;
    start(b, g, block);
    const T* k = o_.k + b * a_.k.sample + g * a_.k.head;
    const T* v = o_.v + b * a_.v.sample + g * a_.v.head;
    for (int64_t c = first_; c < last_; c += kColumns) {
      const int64_t width = last_ - c < kColumns ? last_ - c : kColumns;
      score(k + c * a_.k.row, width);
      put(ScoreStage::kRaw, c, width);
      if (a_.softcap > 0)
        for (int64_t r = 0; r < rows_; ++r) Math::softcap(width, s_ + r * kColumns, static_cast<T>(a_.softcap));
      put(ScoreStage::kCapped, c, width);
      for (int64_t r = 0; r < rows_; ++r) mask(r, c, width);
      put(ScoreStage::kBiased, c, width);
      put(ScoreStage::kProbability, c, width);
      for (int64_t r = 0; r < rows_; ++r) advance(r, width);
      multiply(rows_, width, s_, kColumns, v + c * a_.v.row, a_.v.row, a_.E, acc_, a_.E);
    }
    finish();
  }

 private:
  static constexpr T kNever = static_cast<T>(-__builtin_inf());

  struct Row {
    int64_t head, query;
    int64_t low, high;  // keys seen, masks aside
    T most;
    double sum;
  };

  void start(int64_t b, int64_t g, int64_t block) {
    b_ = b;
    const int64_t begin = block * kRows, all = group_ * a_.L;
    rows_ = all - begin < kRows ? all - begin : kRows;
    first_ = a_.S;
    last_ = 0;
    for (int64_t r = 0; r < rows_; ++r) {
      Row& row = row_[r];
      row = {g * group_ + (begin + r) / a_.L, (begin + r) % a_.L, 0, o_.keys[b], kNever, 0};
      const int64_t position = o_.offset[b] + row.query;
      if (a_.left >= 0 && position - a_.left > row.low) row.low = position - a_.left;
      int64_t bound = a_.S;
      if (a_.right >= 0) bound = position + a_.right + 1;
      if (a_.causal && position + 1 < bound) bound = position + 1;
      if ((o_.bias != nullptr || o_.seen != nullptr) && a_.mask_columns < bound) bound = a_.mask_columns;
      if (bound < row.high) row.high = bound;
      if (row.low < row.high) {
        if (row.low < first_) first_ = row.low;
        if (row.high > last_) last_ = row.high;
      }
      const T* q = o_.q + b * a_.q.sample + row.head * a_.q.head + row.query * a_.q.row;
      for (int64_t d = 0; d < a_.D; ++d) q_[r * a_.D + d] = q[d] * static_cast<T>(a_.scale);
    }
    if (o_.scores != nullptr && a_.stage != ScoreStage::kProbability) {  // of all keys
      first_ = 0;
      last_ = a_.S;
    }
    for (int64_t i = 0; i < kRows * a_.E; ++i) acc_[i] = 0;
  }

  void score(const T* k, int64_t width) {
    if (rows_ < 4) {  // a panel would cost more than it saves
      for (int64_t r = 0; r < rows_; ++r)
        for (int64_t j = 0; j < width; ++j) s_[r * kColumns + j] = dot(a_.D, q_ + r * a_.D, k + j * a_.k.row);
      return;
    }
    for (int64_t j = 0; j < width; ++j)
      for (int64_t d = 0; d < a_.D; ++d) panel_[d * kColumns + j] = k[j * a_.k.row + d];
    for (int64_t d = 0; d < a_.D; ++d)
      for (int64_t j = width; j < kColumns; ++j) panel_[d * kColumns + j] = 0;
    for (int64_t i = 0; i < rows_ * kColumns; ++i) s_[i] = 0;
    multiply(rows_, a_.D, q_, a_.D, panel_, kColumns, (width + kTileColumns - 1) / kTileColumns * kTileColumns, s_, kColumns);
  }

  void mask(int64_t r, int64_t c, int64_t width) {
    T* s = s_ + r * kColumns;
    const Row& row = row_[r];
    const int64_t low = row.low - c, high = row.high - c, at = b_ * a_.mask.sample + row.head * a_.mask.head + row.query * a_.mask.row + c;
    for (int64_t j = 0; j < width && j < low; ++j) s[j] = kNever;
    for (int64_t j = high > 0 ? high : 0; j < width; ++j) s[j] = kNever;
    const int64_t from = low > 0 ? low : 0, to = high < width ? high : width;
    if (o_.bias != nullptr)
      for (int64_t j = from; j < to; ++j) s[j] = o_.bias[at + j] == kNever ? kNever : s[j] + o_.bias[at + j];
    if (o_.seen != nullptr)
      for (int64_t j = from; j < to; ++j)
        if (!o_.seen[at + j]) s[j] = kNever;
  }

  // From scores to probabilities before division; what is summed so far is brought to the new maximum.
  void advance(int64_t r, int64_t width) {
    T* s = s_ + r * kColumns;
    Row& row = row_[r];
    const T highest = Math::row_max(width, s);
    const T most = highest > row.most || highest != highest ? highest : row.most;
    if (most == kNever) {  // nothing seen yet
      for (int64_t j = 0; j < width; ++j) s[j] = 0;
      return;
    }
    const double sum = Math::exp_shifted(width, s, most);
    if (most != row.most && row.most != kNever) {
      T factor = row.most;
      Math::exp_shifted(1, &factor, most);
      row.sum *= static_cast<double>(factor);
      for (int64_t e = 0; e < a_.E; ++e) acc_[r * a_.E + e] *= factor;
    }
    row.most = most;
    row.sum += sum;
  }

  T* scores_of(const Row& row) const { return o_.scores + ((b_ * a_.H + row.head) * a_.L + row.query) * a_.S; }

  void put(ScoreStage stage, int64_t c, int64_t width) {
    if (o_.scores == nullptr || a_.stage != stage) return;
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t j = 0; j < width; ++j) scores_of(row_[r])[c + j] = s_[r * kColumns + j];
  }

  void finish() {
    for (int64_t r = 0; r < rows_; ++r) {
      const Row& row = row_[r];
      const T factor = row.sum == 0 ? T(0) : static_cast<T>(1 / row.sum);
      T* y = o_.y + b_ * a_.y.sample + row.head * a_.y.head + row.query * a_.y.row;
      for (int64_t e = 0; e < a_.E; ++e) y[e] = row.sum == 0 ? T(0) : acc_[r * a_.E + e] * factor;
      if (o_.log_sum != nullptr)
        o_.log_sum[(b_ * a_.H + row.head) * a_.L + row.query] = row.sum == 0 ? kNever : row.most + static_cast<T>(__builtin_log(row.sum));
      if (o_.scores == nullptr || a_.stage != ScoreStage::kProbability) continue;
      T* p = scores_of(row);
      for (int64_t j = 0; j < a_.S; ++j)
        if (row.sum == 0 || j < first_ || j >= last_) p[j] = 0;
      if (row.sum == 0 || first_ >= last_) continue;
      Math::exp_shifted(last_ - first_, p + first_, row.most);
      for (int64_t j = first_; j < last_; ++j) p[j] *= factor;
    }
  }

  const Attention& a_;
  const AttentionOperands<T>& o_;
  const int64_t group_;
  T *q_, *panel_, *s_, *acc_;
  int64_t b_ = 0, rows_ = 0, first_ = 0, last_ = 0;
  Row row_[kRows];
};

template <typename T, typename Math>
void run_attention(const Attention& a, const AttentionOperands<T>& o, int parts, T* scratch) {
  using Task = AttentionTask<T, Math>;
  const int64_t tasks = a.B * a.G * Task::blocks(a);
  // Later blocks of a causal mask have more to do: parts take turns.
  parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      Task task(a, o, scratch + part * Task::scratch(a));
      for (int64_t t = part; t < tasks; t += parts) task.run(t);
    }
  });
}

}  // namespace
}  // namespace ds::kernels
