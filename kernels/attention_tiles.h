// Attention in register tiles, one source for all vector widths: internal linkage, no library code.
//
// A task is kLanes rows (a row is one query of one head; heads of a group share their keys). Its keys come in
// tiles of kKeys, with a running maximum m and sum l for each row: the scores of a tile exist, those of a row
// never do.
//
//   wide    rows lie across the lanes, so nothing is transposed but q on the way in and y on the way out. Products:
//             s [key, row] = k [key, D] qt [D, row]      acc [E, row] += v [key, E]^T p [key, row]
//           and keys and values are read where they lie, one number at a time, broadcast to all rows.
//   narrow  few rows (decoding): keys and values are read in vectors, once, and memory is the bound:
//             s [row, key] = dots of D                   acc [row, E] += p [row, key] v [key, E]
//
// Where there are few tasks their keys are split into chunks, whose (m, l, acc) are merged. The number of chunks
// depends on the sizes alone: results do not depend on the number of threads.
//
// Simd: V (a vector of kWidth floats), load, store (whole, or the first n lanes; others read as 0), all, fma,
// max(a, b) (b where one is NaN), exp2, tanh, transpose(V[kWidth]), sums(V[kWidth]) -> V of their sums,
// mask(const bool*, n) -> 0 or -inf, biased(s, bias) -> s + bias, -inf where bias is,
// between(s, j, low, high) -> s, -inf outside low <= j < high, unless_never(a) -> a, 0 where a is -inf, differ(a, b), and
// what attention_product.h needs.
#pragma once

#include "kernels/attention.h"
#include "kernels/attention_product.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

template <typename Simd, typename Products = RegisterProducts<Simd>>
class AttentionTiles {
  using V = typename Simd::V;
  static constexpr int64_t W = Simd::kWidth, kLanes = 2 * W, kNarrow = W / 2, kKeys = kAttentionKeys;
  // A chunk is no shorter, and there are no more chunks than it takes for so many tasks.
  static constexpr int64_t kChunk = 256, kTasks = 64;

 public:
  AttentionTiles(const Attention& a, const AttentionOperands<float>& o, float* shared, float* scratch)
      : a_(a), o_(o), group_(a.H / a.G), d_(padded(a.D)), e_(padded(a.E)), q_(scratch), acc_(q_ + kLanes * d_), s_(acc_ + kLanes * e_),
        products_(a, o, shared, s_ + kLanes * kKeys) {}

  // Rows of a task at which it is still narrow.
  static constexpr int64_t most_narrow() { return kNarrow; }

  static int64_t blocks(const Attention& a) { return (a.H / a.G * a.L + kLanes - 1) / kLanes; }
  static int64_t tasks(const Attention& a) { return a.B * a.G * blocks(a); }
  static int64_t chunks(const Attention& a) {
    const int64_t n = tasks(a), most = a.S / kChunk, wanted = n > 0 ? kTasks / n : 1;
    const int64_t chunks = most < wanted ? most : wanted;
    return chunks > 1 ? chunks : 1;
  }
  static int64_t task_scratch(const Attention& a) { return kLanes * (padded(a.D) + padded(a.E) + kKeys) + Products::task_scratch(a); }
  static int64_t partial(const Attention& a) { return kLanes * (padded(a.E) + 2); }

  // All of a task.
  void run(int64_t task) {
    start(task);
    load_q();
    sum_keys(first_, last_);
    finish();
  }

  // One chunk of its keys, into `to`.
  void run_chunk(int64_t task, int64_t chunk, int64_t of, float* to) {
    start(task);
    load_q();
    int64_t low = a_.S / kKeys * chunk / of * kKeys, high = chunk + 1 == of ? a_.S : a_.S / kKeys * (chunk + 1) / of * kKeys;
    if (low < first_) low = first_;
    if (high > last_) high = last_;
    sum_keys(low, high);
    copy(kLanes, m_, to);
    copy(kLanes, l_, to + kLanes);
    copy(kLanes * e_, acc_, to + 2 * kLanes);
  }

  void merge(int64_t task, int64_t chunks, const float* from) {
    start(task);
    const int64_t step = partial(a_);
    alignas(64) float factor[kLanes];
    for (int64_t c = 0; c < chunks; ++c)
      for (int64_t i = 0; i < kLanes; i += W) Simd::store(m_ + i, Simd::max(Simd::load(from + c * step + i), Simd::load(m_ + i)));
    for (int64_t c = 0; c < chunks; ++c, from += step) {
      for (int64_t i = 0; i < kLanes; i += W) {
        const V f = exp(Simd::load(from + i) - Simd::unless_never(Simd::load(m_ + i)));
        Simd::store(factor + i, f);
        Simd::store(l_ + i, Simd::fma(f, Simd::load(from + kLanes + i), Simd::load(l_ + i)));
      }
      const float* part = from + 2 * kLanes;
      if (narrow_) {
        for (int64_t r = 0; r < rows_; ++r)
          for (int64_t i = r * e_; i < (r + 1) * e_; i += W)
            Simd::store(acc_ + i, Simd::fma(Simd::all(factor[r]), Simd::load(part + i), Simd::load(acc_ + i)));
      } else {
        for (int64_t e = 0; e < a_.E; ++e)
          for (int64_t i = 0; i < kLanes; i += W)
            Simd::store(acc_ + e * kLanes + i, Simd::fma(Simd::load(factor + i), Simd::load(part + e * kLanes + i), Simd::load(acc_ + e * kLanes + i)));
      }
    }
    finish();
  }

 private:
  static constexpr int64_t padded(int64_t n) { return (n + W - 1) / W * W; }
  static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
  static void copy(int64_t n, const float* from, float* to) {  // n whole vectors
    for (int64_t i = 0; i < n; i += W) Simd::store(to + i, Simd::load(from + i));
  }
  static V load(const float* p, int64_t n) { return n >= W ? Simd::load(p) : Simd::load(p, n); }
  static void store(float* p, V x, int64_t n) {
    if (n >= W) Simd::store(p, x);
    else Simd::store(p, x, n);
  }

  // Of differences of scores. To take powers of 2 of scores times log2(e) would cost one product less, but large scores
  // (masks that add -10000, or the lowest number there is) would round otherwise than they do elsewhere, or overflow.
  static V exp(V x) { return Simd::exp2(x * Simd::all(kLog2E)); }

  struct Row {
    int64_t head, query;
    int64_t low, high;  // keys seen, masks aside
  };

  // --- rows --------------------------------------------------------------------------------------

  void start(int64_t task) {
    const int64_t block = task % blocks(a_);
    g_ = task / blocks(a_) % a_.G;
    b_ = task / blocks(a_) / a_.G;
    const int64_t begin = block * kLanes, all = group_ * a_.L;
    rows_ = least(all - begin, kLanes);
    narrow_ = rows_ <= kNarrow;
    vecs_ = rows_ > W ? 2 : 1;
    first_ = a_.S;
    last_ = 0;
    inner_low_ = 0;
    inner_high_ = a_.S;
    for (int64_t r = 0; r < rows_; ++r) {
      Row& row = row_[r];
      row = {g_ * group_ + (begin + r) / a_.L, (begin + r) % a_.L, 0, o_.keys[b_]};
      const int64_t position = o_.offset[b_] + row.query;
      if (a_.left >= 0 && position - a_.left > row.low) row.low = position - a_.left;
      int64_t bound = a_.S;
      if (a_.right >= 0) bound = position + a_.right + 1;
      if (a_.causal) bound = least(bound, position + 1);
      if (o_.bias != nullptr || o_.seen != nullptr) bound = least(bound, a_.mask_columns);
      row.high = least(row.high, bound);
      if (row.low > inner_low_) inner_low_ = row.low;
      inner_high_ = least(inner_high_, row.high);
      if (row.low >= row.high) continue;
      first_ = least(first_, row.low);
      if (row.high > last_) last_ = row.high;
    }
    if (o_.scores != nullptr && a_.stage != ScoreStage::kProbability) {  // of all keys
      first_ = 0;
      last_ = a_.S;
    }
    for (int64_t i = 0; i < kLanes; ++i) {
      m_[i] = kNever;
      l_[i] = 0;
    }
    for (int64_t i = 0; i < kLanes * e_; i += W) Simd::store(acc_ + i, Simd::all(0));
  }

  const float* q_row(const Row& row) const { return o_.q + b_ * a_.q.sample + row.head * a_.q.head + row.query * a_.q.row; }
  float* y_row(const Row& row) const { return o_.y + b_ * a_.y.sample + row.head * a_.y.head + row.query * a_.y.row; }

  void load_q() {
    const V scale = Simd::all(static_cast<float>(a_.scale));
    if (narrow_) {
      for (int64_t r = 0; r < rows_; ++r)
        for (int64_t d = 0; d < a_.D; d += W) Simd::store(q_ + r * d_ + d, load(q_row(row_[r]) + d, a_.D - d) * scale);
      return;
    }
    transpose_rows(a_.D, [&](int64_t r, int64_t d, int64_t n) { return load(q_row(row_[r]) + d, n) * scale; },
                   [&](int64_t d, int64_t i, V x) { Simd::store(q_ + d * kLanes + i, x); });
    products_.start(b_, g_, q_, vecs_);
  }

  // get(row, column, columns left) gives a vector of columns, put(column, row, x) takes a vector of rows, 0 for those
  // that do not exist.
  template <typename Get, typename Put>
  void transpose_rows(int64_t columns, Get get, Put put) {
    for (int64_t i = 0; i < vecs_ * W; i += W)
      for (int64_t j = 0; j < columns; j += W) {
        V x[W];
        for (int64_t r = 0; r < W; ++r) x[r] = i + r < rows_ ? get(i + r, j, columns - j) : Simd::all(0);
        Simd::transpose(x);
        const int64_t n = least(W, columns - j);
        for (int64_t r = 0; r < n; ++r) put(j + r, i, x[r]);
      }
  }

  // --- a tile of keys ----------------------------------------------------------------------------

  void sum_keys(int64_t low, int64_t high) {
    const float* k = o_.k + b_ * a_.k.sample + g_ * a_.k.head;
    const float* v = o_.v + b_ * a_.v.sample + g_ * a_.v.head;
    for (int64_t c = low; c < high; c += kKeys) {
      column_ = c;
      width_ = least(high - c, kKeys);
      if (narrow_) narrow_scores(k + c * a_.k.row);
      else if (vecs_ == 2) products_.template scores<2>(c, width_, s_);
      else products_.template scores<1>(c, width_, s_);
      treat_scores();
      if (narrow_) {
        narrow_probabilities();
        narrow_values(v + c * a_.v.row);
      } else if (vecs_ == 2) {
        wide_probabilities<2>();
        products_.template values<2>(c, width_, s_, acc_);
      } else {
        wide_probabilities<1>();
        products_.template values<1>(c, width_, s_, acc_);
      }
    }
  }

  // Calls step(s) on all vectors of the tile.
  template <typename Step>
  void for_scores(Step step) {
    const int64_t lines = narrow_ ? rows_ : width_, length = narrow_ ? padded(width_) : vecs_ * W, stride = narrow_ ? kKeys : kLanes;
    for (int64_t i = 0; i < lines; ++i)
      for (int64_t j = 0; j < length; j += W) step(s_ + i * stride + j);
  }

  // From q k to what the powers are taken of.
  void treat_scores() {
    put(ScoreStage::kRaw);
    if (a_.softcap > 0) {
      const V cap = Simd::all(static_cast<float>(a_.softcap));
      for_scores([&](float* s) { Simd::store(s, cap * Simd::tanh(Simd::load(s) / cap)); });
    }
    put(ScoreStage::kCapped);
    if (o_.bias != nullptr || o_.seen != nullptr) {
      if (narrow_) narrow_mask();
      else wide_mask();
    }
    if (inner_low_ > column_ || inner_high_ < column_ + width_) {
      if (narrow_) narrow_range();
      else wide_range();
    }
    put(ScoreStage::kBiased);
    put(ScoreStage::kProbability);
  }

  // Numbers of the mask from key j of the tile on, of the n that are in the tile; 0 where the mask has no columns.
  V bias(const Row& row, int64_t j, int64_t n) const {
    n = least(n, a_.mask_columns - column_ - j);
    if (n <= 0) return Simd::all(0);
    const int64_t at = b_ * a_.mask.sample + row.head * a_.mask.head + row.query * a_.mask.row + column_ + j;
    return o_.bias != nullptr ? load(o_.bias + at, n) : Simd::mask(o_.seen + at, n);
  }

  void put(ScoreStage stage) {
    if (o_.scores == nullptr || a_.stage != stage) return;
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t j = 0; j < width_; ++j) scores_of(row_[r])[column_ + j] = s_[narrow_ ? r * kKeys + j : j * kLanes + r];
  }
  float* scores_of(const Row& row) const { return o_.scores + ((b_ * a_.H + row.head) * a_.L + row.query) * a_.S; }

  // `high` [lanes] are the highest scores of the tile or so far: the new m. What is summed so far has to be multiplied by
  // `factor`, scores are to be lowered by `shift`: 0 where nothing is seen yet, so that NaN stays NaN and -inf gives 0.
  bool raise(int64_t lanes, const float* high, float* shift, float* factor) {
    bool raised = false;
    for (int64_t i = 0; i < lanes; i += W) {
      const V before = Simd::load(m_ + i), now = Simd::load(high + i), lowered = Simd::unless_never(now);
      raised = Simd::differ(before, now) || raised;
      Simd::store(shift + i, lowered);
      Simd::store(factor + i, exp(before - lowered));
      Simd::store(m_ + i, now);
    }
    return raised;
  }

  // --- wide --------------------------------------------------------------------------------------

  void wide_mask() {
    if (a_.mask.head == 0 && a_.mask.row == 0) {  // the same for all rows
      alignas(64) float all[kKeys];
      for (int64_t j = 0; j < width_; j += W) Simd::store(all + j, bias(row_[0], j, width_ - j));
      for (int64_t j = 0; j < width_; ++j)
        for (int64_t i = 0; i < vecs_ * W; i += W) {
          float* s = s_ + j * kLanes + i;
          Simd::store(s, Simd::biased(Simd::load(s), Simd::all(all[j])));
        }
      return;
    }
    transpose_rows(width_, [&](int64_t r, int64_t j, int64_t n) { return bias(row_[r], j, n); },
                   [&](int64_t j, int64_t i, V x) {
                     float* s = s_ + j * kLanes + i;
                     Simd::store(s, Simd::biased(Simd::load(s), x));
                   });
  }

  void wide_range() {
    alignas(64) float low[kLanes], high[kLanes];
    for (int64_t r = 0; r < kLanes; ++r) {
      const int64_t from = r < rows_ ? row_[r].low - column_ : 0, to = r < rows_ ? row_[r].high - column_ : kKeys;
      low[r] = static_cast<float>(from < 0 ? 0 : least(from, kKeys));
      high[r] = static_cast<float>(to < 0 ? 0 : least(to, kKeys));
    }
    for (int64_t j = 0; j < width_; ++j)
      for (int64_t i = 0; i < vecs_ * W; i += W) {
        float* s = s_ + j * kLanes + i;
        Simd::store(s, Simd::between(Simd::load(s), Simd::all(static_cast<float>(j)), Simd::load(low + i), Simd::load(high + i)));
      }
  }

  template <int kVecs>
  void wide_probabilities() {
    constexpr int kChains = 4 / kVecs;  // as many maxima at a time hide the latency of one
    alignas(64) float high[kLanes], shift[kLanes], factor[kLanes];
    for (int v = 0; v < kVecs; ++v) {
      V most[2 * kChains];
      for (V& m : most) m = Simd::load(m_ + v * W);
      const float* s = s_ + v * W;
      int64_t j = 0;
      for (; j + 2 * kChains <= width_; j += 2 * kChains)
        for (int i = 0; i < 2 * kChains; ++i) most[i] = Simd::max(Simd::load(s + (j + i) * kLanes), most[i]);
      for (; j < width_; ++j) most[0] = Simd::max(Simd::load(s + j * kLanes), most[0]);
      for (int i = 1; i < 2 * kChains; ++i) most[0] = Simd::max(most[i], most[0]);
      Simd::store(high + v * W, most[0]);
    }
    const bool raised = raise(kVecs * W, high, shift, factor);
    for (int v = 0; v < kVecs; ++v) {
      V sum = Simd::all(0);
      const V x = Simd::load(shift + v * W);
      for (int64_t j = 0; j < width_; ++j) {
        float* s = s_ + j * kLanes + v * W;
        const V p = exp(Simd::load(s) - x);
        Simd::store(s, p);
        sum = sum + p;
      }
      const V f = Simd::load(factor + v * W);
      Simd::store(l_ + v * W, Simd::fma(Simd::load(l_ + v * W), f, sum));
      if (!raised) continue;
      for (int64_t e = 0; e < a_.E; ++e) Simd::store(acc_ + e * kLanes + v * W, Simd::load(acc_ + e * kLanes + v * W) * f);
    }
  }

  // --- narrow ------------------------------------------------------------------------------------

  void narrow_scores(const float* k) {
    for (int64_t r = 0; r < rows_;) {
      const int64_t left = rows_ - r;
      if (left == 1) dots<1>(r, k);
      else if (left == 2) dots<2>(r, k);
      else dots<4>(r, k);
      r += left < 3 ? left : least(left, 4);
    }
  }

  // kRows rows from r on times all keys, kWidth sums at a time. A row or key that does not exist is the last one again.
  template <int kRows>
  void dots(int64_t r, const float* k) {
    constexpr int kAtOnce = W / kRows;
    const float* q[kRows];
    for (int i = 0; i < kRows; ++i) q[i] = q_ + least(r + i, rows_ - 1) * d_;
    for (int64_t j = 0; j < width_; j += kAtOnce) {
      const float* key[kAtOnce];
      for (int i = 0; i < kAtOnce; ++i) key[i] = k + least(j + i, width_ - 1) * a_.k.row;
      V sum[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) sum[i] = Simd::all(0);
      int64_t d = 0;
      for (; d + W <= a_.D; d += W) {
#pragma GCC unroll 16
        for (int i = 0; i < kAtOnce; ++i) {
          const V x = Simd::load(key[i] + d);
          __builtin_prefetch(key[i] + d + 16 * a_.k.row);
#pragma GCC unroll 4
          for (int p = 0; p < kRows; ++p) sum[p * kAtOnce + i] = Simd::fma(x, Simd::load(q[p] + d), sum[p * kAtOnce + i]);
        }
      }
      if (d < a_.D) {
#pragma GCC unroll 16
        for (int i = 0; i < kAtOnce; ++i) {
          const V x = Simd::load(key[i] + d, a_.D - d);
#pragma GCC unroll 4
          for (int p = 0; p < kRows; ++p) sum[p * kAtOnce + i] = Simd::fma(x, Simd::load(q[p] + d), sum[p * kAtOnce + i]);
        }
      }
      alignas(64) float total[W];
      Simd::store(total, Simd::sums(sum));
      for (int p = 0; p < kRows && r + p < rows_; ++p)
        for (int i = 0; i < kAtOnce; ++i) s_[(r + p) * kKeys + j + i] = total[p * kAtOnce + i];
    }
  }

  void narrow_mask() {
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t j = 0; j < width_; j += W) {
        float* s = s_ + r * kKeys + j;
        Simd::store(s, Simd::biased(Simd::load(s), bias(row_[r], j, width_ - j)));
      }
  }

  void narrow_range() {
    for (int64_t r = 0; r < rows_; ++r) {
      const int64_t low = least(row_[r].low - column_, width_), high = row_[r].high - column_;
      for (int64_t j = 0; j < low; ++j) s_[r * kKeys + j] = kNever;
      for (int64_t j = high > 0 ? high : 0; j < width_; ++j) s_[r * kKeys + j] = kNever;
    }
  }

  void narrow_probabilities() {
    alignas(64) float high[W] = {}, shift[W], factor[W];
    for (int64_t r = 0; r < rows_; ++r) {
      float* s = s_ + r * kKeys;
      for (int64_t j = width_; j < padded(width_); ++j) s[j] = kNever;
      V most = Simd::all(m_[r]);
      for (int64_t j = 0; j < width_; j += W) most = Simd::max(Simd::load(s + j), most);
      alignas(64) float lanes[W];
      Simd::store(lanes, most);
      high[r] = lanes[0];
      for (int64_t i = 1; i < W; ++i) high[r] = lanes[i] > high[r] ? lanes[i] : high[r];
    }
    raise(W, high, shift, factor);
    for (int64_t r = 0; r < rows_; ++r) {
      float* s = s_ + r * kKeys;
      const V x = Simd::all(shift[r]);
      V sum = Simd::all(0);
      for (int64_t j = 0; j < width_; j += W) {
        const V p = exp(Simd::load(s + j) - x);
        Simd::store(s + j, p);
        sum = sum + p;
      }
      alignas(64) float lanes[W];
      Simd::store(lanes, sum);
      for (int64_t half = W / 2; half > 0; half /= 2)
        for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
      l_[r] = l_[r] * factor[r] + lanes[0];
      factor_[r] = factor[r];
    }
  }

  void narrow_values(const float* v) {
    for (int64_t r = 0; r < rows_;) {
      const int64_t left = rows_ - r;
      if (left == 1) add_values<1>(r, v);
      else if (left < 4) add_values<2>(r, v);
      else add_values<4>(r, v);
      r += left < 2 ? left : left < 4 ? 2 : 4;
    }
  }

  template <int kRows>
  void add_values(int64_t r, const float* v) {
    constexpr int kMost = Simd::kTile >= 8 ? 4 : 2;  // what the registers hold of 4 rows
    int64_t e = 0;
    for (; kRows < 4 && e + 2 * kMost * W <= a_.E; e += 2 * kMost * W) add_columns<kRows, kRows < 4 ? 2 * kMost : 1>(r, v + e, e, W);
    for (; e + kMost * W <= a_.E; e += kMost * W) add_columns<kRows, kMost>(r, v + e, e, W);
    for (; e < a_.E; e += W) add_columns<kRows, 1>(r, v + e, e, a_.E - e);
  }

  // acc [kRows from r on, kVecs vectors from e on] = acc factor + p v. `n` columns, if fewer than in one vector.
  template <int kRows, int kVecs>
  void add_columns(int64_t r, const float* v, int64_t e, int64_t n) {
    V sum[kRows][kVecs];
#pragma GCC unroll 4
    for (int p = 0; p < kRows; ++p) {
#pragma GCC unroll 8
      for (int i = 0; i < kVecs; ++i) sum[p][i] = Simd::load(acc_ + (r + p) * e_ + e + i * W) * Simd::all(factor_[r + p]);
    }
    const auto add = [&](auto get) {
      for (int64_t j = 0; j < width_; ++j, v += a_.v.row) {
        V x[kVecs];
#pragma GCC unroll 8
        for (int i = 0; i < kVecs; ++i) {
          x[i] = get(v + i * W);
          __builtin_prefetch(v + i * W + 16 * a_.v.row);
        }
#pragma GCC unroll 4
        for (int p = 0; p < kRows; ++p) {
          const V weight = Simd::all(s_[(r + p) * kKeys + j]);
#pragma GCC unroll 8
          for (int i = 0; i < kVecs; ++i) sum[p][i] = Simd::fma(x[i], weight, sum[p][i]);
        }
      }
    };
    if (kVecs > 1 || n >= W) add([](const float* p) { return Simd::load(p); });
    else add([n](const float* p) { return Simd::load(p, n); });
#pragma GCC unroll 4
    for (int p = 0; p < kRows; ++p) {
#pragma GCC unroll 8
      for (int i = 0; i < kVecs; ++i) Simd::store(acc_ + (r + p) * e_ + e + i * W, sum[p][i]);
    }
  }

  // --- results -----------------------------------------------------------------------------------

  void finish() {
    alignas(64) float factor[kLanes];
    for (int64_t r = 0; r < kLanes; ++r) factor[r] = l_[r] == 0 ? 0.0f : 1 / l_[r];
    if (narrow_) {
      for (int64_t r = 0; r < rows_; ++r)
        for (int64_t e = 0; e < a_.E; e += W) store(y_row(row_[r]) + e, Simd::load(acc_ + r * e_ + e) * Simd::all(factor[r]), a_.E - e);
    } else {
      for (int64_t i = 0; i < vecs_ * W; i += W)
        for (int64_t e = 0; e < a_.E; e += W) {
          V x[W];
          for (int64_t j = 0; j < W; ++j) x[j] = e + j < a_.E ? Simd::load(acc_ + (e + j) * kLanes + i) * Simd::load(factor + i) : Simd::all(0);
          Simd::transpose(x);
          for (int64_t r = 0; r < W && i + r < rows_; ++r) store(y_row(row_[i + r]) + e, x[r], a_.E - e);
        }
    }
    for (int64_t r = 0; r < rows_; ++r) {
      const Row& row = row_[r];
      if (o_.log_sum != nullptr)
        o_.log_sum[(b_ * a_.H + row.head) * a_.L + row.query] = l_[r] == 0 ? kNever : m_[r] + __builtin_logf(l_[r]);
      if (o_.scores != nullptr && a_.stage == ScoreStage::kProbability) finish_scores(row, r, factor[r]);
    }
  }

  void finish_scores(const Row& row, int64_t r, float factor) {
    float* p = scores_of(row);
    for (int64_t j = 0; j < a_.S; ++j)
      if (l_[r] == 0 || j < first_ || j >= last_) p[j] = 0;
    if (l_[r] == 0) return;
    const V shift = Simd::unless_never(Simd::all(m_[r]));
    for (int64_t j = first_; j < last_; j += W)
      store(p + j, exp(load(p + j, last_ - j) - shift) * Simd::all(factor), last_ - j);
  }

  const Attention& a_;
  const AttentionOperands<float>& o_;
  const int64_t group_, d_, e_;
  float *q_, *acc_, *s_;
  Products products_;
  bool narrow_ = false;
  int64_t b_ = 0, g_ = 0, rows_ = 0, vecs_ = 0, first_ = 0, last_ = 0;
  int64_t inner_low_ = 0, inner_high_ = 0;  // keys that all rows see, masks aside
  int64_t column_ = 0, width_ = 0;          // the tile
  alignas(64) float m_[kLanes], l_[kLanes], factor_[kLanes];
  Row row_[kLanes];
};

template <typename Simd, typename Products = RegisterProducts<Simd>>
int64_t tiles_scratch(const Attention& a, int parts) {
  using Tiles = AttentionTiles<Simd, Products>;
  const int64_t chunks = Tiles::chunks(a);
  return Products::shared_scratch(a) + parts * Tiles::task_scratch(a) + (chunks > 1 ? Tiles::tasks(a) * chunks * Tiles::partial(a) : 0);
}

template <typename Simd, typename Products = RegisterProducts<Simd>>
void run_tiles(const Attention& a, const AttentionOperands<float>& o, int parts, float* scratch) {
  using Tiles = AttentionTiles<Simd, Products>;
  const int64_t tasks = Tiles::tasks(a), chunks = Tiles::chunks(a);
  float *const shared = scratch, *const own = shared + Products::shared_scratch(a);
  float* partial = own + parts * Tiles::task_scratch(a);
  Products::prepare(a, o, shared);
  // Later blocks of a causal mask have more to do: parts take turns.
  const auto take_turns = [&](int64_t n, auto run) {
    parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        Tiles tiles(a, o, shared, own + part * Tiles::task_scratch(a));
        for (int64_t t = part; t < n; t += parts) run(tiles, t);
      }
    });
  };
  if (chunks == 1) return take_turns(tasks, [](Tiles& tiles, int64_t t) { tiles.run(t); });
  take_turns(tasks * chunks, [&](Tiles& tiles, int64_t t) { tiles.run_chunk(t / chunks, t % chunks, chunks, partial + t * Tiles::partial(a)); });
  take_turns(tasks, [&](Tiles& tiles, int64_t t) { tiles.merge(t, chunks, partial + t * chunks * Tiles::partial(a)); });
}

}  // namespace
}  // namespace ds::kernels
