// Scaled dot-product attention (Vaswani et al., 2017) on raw pointers, tile by tile with a running softmax
// (Milakov and Gimelshein, 2018; Dao et al., 2022): the scores of a row are never all in memory, unless
// they are asked for.
//
// Legend: B samples; H query heads in G groups, each of which reads one head of keys and values; L queries,
// S keys; D elements in a query and a key, E in a value. A position is an index among the keys; query i
// stands at position offset + i.
// Threads: parallel_for over blocks of rows; a row is summed in one order. T: f32, f64.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ds::kernels {

// Steps in elements from one sample, head and row to the next; elements of a row are contiguous.
struct HeadLayout {
  int64_t sample = 0, head = 0, row = 0;
};

// What `scores` receives: q k scale, the same capped, with bias (-inf where a key is not seen), probabilities.
enum class ScoreStage { kRaw, kCapped, kBiased, kProbability };

struct Attention {
  int64_t B = 0, H = 0, G = 0, L = 0, S = 0, D = 0, E = 0;
  HeadLayout q, k, v, y;
  double scale = 1;
  double softcap = 0;              // scores become softcap tanh(score / softcap); 0: they stay
  bool causal = false;             // no key behind the query's position is seen
  int64_t left = -1, right = -1;   // nor one further away than this; -1: any
  HeadLayout mask;                 // 0 where the mask broadcasts
  int64_t mask_columns = 0;        // keys from this one on are not seen
  ScoreStage stage = ScoreStage::kRaw;
};

template <typename T>
struct AttentionOperands {
  const T *q, *k, *v;
  const T* bias;          // mask of numbers, added to the scores; -inf: not seen. Null: none
  const bool* seen;       // mask of truth values. Null: none
  const int64_t* keys;    // [B], at most S: keys of this sample that there are
  const int64_t* offset;  // [B]
  T* y;                   // zeros where no key is seen
  T* scores;              // [B, H, L, S]; null: not wanted
  T* log_sum = nullptr;   // [B, H, L]: log of the sum of exp(score) over the keys seen, -inf where none is; null: not wanted
};

// Scratch elements for `parts` tasks at a time.
int64_t attention_scratch(const Attention& a, int parts);
template <typename T>
void attention(const Attention& a, const AttentionOperands<T>& o, int parts, T* scratch);

// In register tiles (kernels/attention_tiles.h). The same bits for any number of threads.
namespace avx2 {
int64_t attention_scratch(const Attention& a, int parts);
void attention(const Attention& a, const AttentionOperands<float>& o, int parts, float* scratch);
}  // namespace avx2
namespace avx512 {
int64_t attention_scratch(const Attention& a, int parts);
void attention(const Attention& a, const AttentionOperands<float>& o, int parts, float* scratch);
}  // namespace avx512

// The same with both products in bf16 on AMX (kernels/attention_amx.cc), except for tasks of few rows. The sums, the softmax,
// `scores` and `log_sum` are f32.
namespace amx {
int64_t attention_scratch(const Attention& a, int parts);
void attention(const Attention& a, const AttentionOperands<float>& o, int parts, float* scratch);
// Whether there are tasks of more rows than that.
bool attention_gains(const Attention& a);
}  // namespace amx

// Rotary position embedding (Su et al., 2021): the first R elements of each head are rotated in pairs,
// (j, j + R/2) or, interleaved, (2j, 2j+1), by the angle whose cosine and sine are at row `at` of the
// tables [., R/2]; the rest is copied. x and y [B, L, H] heads of D elements in layout `x` and `y`.
struct Rotary {
  int64_t B, H, L, D, R;
  bool interleaved;
  HeadLayout layout;  // of x and of y
};
// `rows` [B, L]: the row of the tables for each token.
template <typename T>
void rotary_embedding(const Rotary& r, const T* x, const T* cos, const T* sin, const int64_t* rows, T* y);

}  // namespace ds::kernels
