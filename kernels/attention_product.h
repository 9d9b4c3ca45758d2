// The two products of attention whose columns are rows of attention, two vectors of them: one operand is read a number at
// a time, broadcast, from where it lies. Internal linkage, no library code.
//
// Simd: see attention_tiles.h; kTile pairs of registers hold sums, row(x, b0, b1, c0, c1) and row(x, b0, c0) add *x times
// b to c.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/attention.h"

namespace ds::kernels {
namespace {

constexpr int64_t kAttentionKeys = 64;  // keys of a tile
constexpr float kLog2E = 1.44269504088896341f;
constexpr float kNever = -__builtin_inff();

// c [n, kVecs vectors] = a b, or with kValues c += a^T b; b has rows of two vectors.
// kValues: a [depth, n], else [n, depth]; rows at a_step.
template <typename Simd, bool kValues>
class RegisterTile {
  using V = typename Simd::V;
  static constexpr int64_t W = Simd::kWidth, kLanes = 2 * W;

 public:
  template <int kVecs>
  static void product(int64_t n, int64_t depth, const float* a, int64_t a_step, const float* b, float* c) {
    if (n <= 0) return;
    // Rows are shared out evenly: 64 are 12 + 4 * 13, not 4 * 14 + 8.
    const int64_t parts = (n + Simd::kTile - 1) / Simd::kTile;
    for (int64_t i = 0, at = 0; i < parts; ++i) {
      const int64_t rows = (n + i) / parts;
      choose<kVecs>(rows, std::make_integer_sequence<int, Simd::kTile>())(depth, a + at * (kValues ? 1 : a_step), a_step, b, c + at * kLanes);
      at += rows;
    }
  }

 private:
  using Fn = void (*)(int64_t, const float*, int64_t, const float*, float*);

  template <int kVecs, int... kRows>
  static Fn choose(int64_t rows, std::integer_sequence<int, kRows...>) {
    static constexpr Fn kTable[] = {tile<kVecs, kRows + 1>...};
    return kTable[rows - 1];
  }

  template <int kVecs, int kRows>
  static void tile(int64_t depth, const float* a, int64_t a_step, const float* b, float* c) {
    V sum[kRows][kVecs];
    const float* row[kRows];
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      row[r] = a + r * a_step;
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) sum[r][v] = kValues ? Simd::load(c + r * kLanes + v * W) : Simd::all(0);
    }
    for (int64_t p = 0; p < depth; ++p, b += kLanes) {
      const V b0 = Simd::load(b);
      if constexpr (kVecs == 2) {
        const V b1 = Simd::load(b + W);
#pragma GCC unroll 14
        for (int r = 0; r < kRows; ++r) Simd::row(kValues ? a + r : row[r] + p, b0, b1, sum[r][0], sum[r][1]);
      } else {
#pragma GCC unroll 14
        for (int r = 0; r < kRows; ++r) Simd::row(kValues ? a + r : row[r] + p, b0, sum[r][0]);
      }
      if (kValues) a += a_step;
    }
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) Simd::store(c + r * kLanes + v * W, sum[r][v]);
    }
  }
};

// The products as AttentionTiles asks for them: of keys `column` to `column` + `width` of a head, at most kAttentionKeys.
template <typename Simd>
class RegisterProducts {
  using V = typename Simd::V;
  static constexpr int64_t W = Simd::kWidth;

 public:
  // Scratch of all tasks, filled by prepare(), and of one.
  static int64_t shared_scratch(const Attention&) { return 0; }
  static int64_t task_scratch(const Attention& a) { return kAttentionKeys * (padded(a.D) + padded(a.E)); }
  static void prepare(const Attention&, const AttentionOperands<float>&, float*) {}

  RegisterProducts(const Attention& a, const AttentionOperands<float>& o, float*, float* own)
      : a_(a), o_(o), gathered_k_(own), gathered_v_(own + kAttentionKeys * padded(a.D)) {}

  // Before the products of a task: q [D, rows].
  void start(int64_t b, int64_t g, const float* q, int64_t) {
    k_ = o_.k + b * a_.k.sample + g * a_.k.head;
    v_ = o_.v + b * a_.v.sample + g * a_.v.head;
    q_ = q;
  }

  // s [key, row] = k q
  template <int kVecs>
  void scores(int64_t column, int64_t width, float* s) const {
    const float *k = k_ + column * a_.k.row, *at = a_.k.row % 512 == 0 ? gathered(k, a_.k.row, a_.D, width, gathered_k_) : k;
    RegisterTile<Simd, false>::template product<kVecs>(width, a_.D, at, at == k ? a_.k.row : padded(a_.D), q_, s);
  }

  // acc [E, row] += v^T p
  template <int kVecs>
  void values(int64_t column, int64_t width, const float* p, float* acc) const {
    const float *v = v_ + column * a_.v.row, *at = gathered(v, a_.v.row, a_.E, width, gathered_v_);
    RegisterTile<Simd, true>::template product<kVecs>(a_.E, width, at, at == v ? a_.v.row : padded(a_.E), p, acc);
  }

 private:
  static constexpr int64_t padded(int64_t n) { return (n + W - 1) / W * W; }

  // Rows of many heads' tokens lie at steps that share few cache sets: they are brought together.
  static const float* gathered(const float* from, int64_t step, int64_t size, int64_t width, float* to) {
    if (step == size) return from;
    for (int64_t j = 0; j < width; ++j)
      for (int64_t i = 0; i < size; i += W)
        Simd::store(to + j * padded(size) + i, size - i >= W ? Simd::load(from + j * step + i) : Simd::load(from + j * step + i, size - i));
    return to;
  }

  const Attention& a_;
  const AttentionOperands<float>& o_;
  float *gathered_k_, *gathered_v_;
  const float *k_ = nullptr, *v_ = nullptr, *q_ = nullptr;
};

}  // namespace
}  // namespace ds::kernels
