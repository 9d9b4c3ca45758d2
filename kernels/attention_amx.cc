// Attention whose two products run on AMX tiles in bf16, for blocks of more than a few rows; scores, softmax and sums are
// f32 (attention_tiles.h). What is rounded to bf16: queries times the scale, keys, values and probabilities.
//
// A call begins by laying out keys and values for all tasks, each head once. Legend: attention.h; lanes are the rows of a
// task, 16 to a panel (tile.h); padded sizes are D' (32), E' (16), S' (32), filled up with zeros.
//
//   s   [keys, lanes] = k [keys, D'] q [D', lanes]       k as it is, in bf16
//   acc [E', lanes]  += vt [E', keys] p [keys, lanes]    vt: the values, transposed
//
// so that left operands are read where they lie, and q and p are interleaved in pairs of depth, as vectors of lanes come
// out of the softmax. Tiles of keys begin anywhere (windows); the depth of the second product is cut at 32, and what
// remains is copied beside zeros: values of keys that nobody sees may be no numbers.
#if defined(__x86_64__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // false, inside the header (GCC bug 105593)
#include <immintrin.h>

#include "kernels/attention_simd_avx512.h"
#include "kernels/attention_tiles.h"
#include "kernels/tile.h"

namespace ds::kernels::amx {
namespace {

constexpr int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// 16 pairs from two vectors of lanes: the depth of `low` before that of `high`.
inline __m512i pairs(__m512 low, __m512 high) {
  const __m512i both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
                                         17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, both);
}

class AmxProducts {
  static constexpr int64_t kLanes = 32, kDepth = 32;
  static constexpr int64_t kBf16 = 2;

 public:
  static int64_t shared_scratch(const Attention& a) { return (a.B * a.G * (k_elements(a) + v_elements(a)) + kSlack) * kBf16 / 4; }
  static int64_t task_scratch(const Attention& a) {
    return (kLanes * (up(a.D, kDepth) + kAttentionKeys) + up(a.E, kPanelColumns) * kDepth + kSlack) * kBf16 / 4;
  }

  static void prepare(const Attention& a, const AttentionOperands<float>& o, float* shared) {
    const int64_t blocks = up(a.S, kAttentionKeys) / kAttentionKeys;
    parallel_for(a.B * a.G * blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / blocks, b = head / a.G, g = head % a.G, first = i % blocks * kAttentionKeys;
        const int64_t last = first + kAttentionKeys < a.S ? first + kAttentionKeys : a.S;
        lay_out_keys(a, o.k + b * a.k.sample + g * a.k.head, first, last, keys_of(a, shared, head));
        lay_out_values(a, o.v + b * a.v.sample + g * a.v.head, first, last, values_of(a, shared, head));
      }
    });
  }

  AmxProducts(const Attention& a, const AttentionOperands<float>&, float* shared, float* own)
      : a_(a), shared_(shared), q_(aligned(own)), p_(q_ + kLanes * up(a.D, kDepth)), rest_(p_ + kLanes * kAttentionKeys) {}

  // q: [D, lanes].
  void start(int64_t b, int64_t g, const float* q, int vecs) {
    const int64_t head = b * a_.G + g;
    k_ = keys_of(a_, shared_, head);
    v_ = values_of(a_, shared_, head);
    interleave(q, a_.D, up(a_.D, kDepth), vecs, q_);
  }

  template <int kVecs>
  void scores(int64_t column, int64_t width, float* s) const {
    const int64_t depth = up(a_.D, kDepth);
    TileBlock t = block(kVecs, width, depth, k_ + column * depth, depth, q_, s);
    amx_tile_bf16().block(t);
  }

  template <int kVecs>
  void values(int64_t column, int64_t width, const float* p, float* acc) {
    const int64_t whole = width / kDepth * kDepth, rest = width - whole, step = v_step(a_);
    interleave(p, width, up(width, kDepth), kVecs, p_);
    TileBlock t = block(kVecs, a_.E, whole, v_ + column, step, p_, acc);
    t.b_stride = up(width, kDepth) / 2 * kPanelRowBytes;
    t.accumulate = true;
    if (whole > 0) amx_tile_bf16().block(t);
    if (rest == 0) return;
    const auto there = static_cast<__mmask32>((uint64_t{1} << rest) - 1);
    for (int64_t e = 0; e < up(a_.E, kPanelColumns); ++e)
      _mm512_storeu_si512(rest_ + e * kDepth, _mm512_maskz_loadu_epi16(there, v_ + e * step + column + whole));
    t.groups = kDepth / 2;
    t.a = reinterpret_cast<const std::byte*>(rest_);
    t.a_stride = kDepth * kBf16;
    t.b += whole / 2 * kPanelRowBytes;
    amx_tile_bf16().block(t);
  }

 private:
  // Elements to bring memory to a boundary of 64 bytes, and to be read beyond the last keys.
  static constexpr int64_t kSlack = 32;

  static int64_t k_elements(const Attention& a) { return (a.S + kAttentionKeys) * up(a.D, kDepth); }
  static int64_t v_step(const Attention& a) { return up(a.S, kDepth) + kDepth; }  // not a power of two, whose rows share cache sets
  static int64_t v_elements(const Attention& a) { return up(a.E, kPanelColumns) * v_step(a); }
  static uint16_t* aligned(float* p) { return reinterpret_cast<uint16_t*>((reinterpret_cast<uintptr_t>(p) + 63) & ~uintptr_t{63}); }
  static uint16_t* keys_of(const Attention& a, float* shared, int64_t head) { return aligned(shared) + head * (k_elements(a) + v_elements(a)); }
  static uint16_t* values_of(const Attention& a, float* shared, int64_t head) { return keys_of(a, shared, head) + k_elements(a); }

  static __mmask16 lanes(int64_t n) { return static_cast<__mmask16>(n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1); }

  static void lay_out_keys(const Attention& a, const float* k, int64_t first, int64_t last, uint16_t* to) {
    const int64_t depth = up(a.D, kDepth);
    for (int64_t j = first; j < last; ++j)
      for (int64_t d = 0; d < depth; d += 32) {
        const float* from = k + j * a.k.row + d;
        const __m512 low = _mm512_maskz_loadu_ps(lanes(a.D - d), from), high = _mm512_maskz_loadu_ps(lanes(a.D - d - 16), from + 16);
        _mm512_storeu_si512(to + j * depth + d, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
      }
  }

  static void lay_out_values(const Attention& a, const float* v, int64_t first, int64_t last, uint16_t* to) {
    const int64_t step = v_step(a);
    for (int64_t j = first; j < last; j += 16)
      for (int64_t e = 0; e < a.E; e += 16) {
        __m512 x[16];
        for (int64_t r = 0; r < 16; ++r)
          x[r] = j + r < last ? _mm512_maskz_loadu_ps(lanes(a.E - e), v + (j + r) * a.v.row + e) : _mm512_setzero_ps();
        Avx512::transpose(x);
        for (int64_t r = 0; r < 16; ++r)
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + (e + r) * step + j), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x[r])));
      }
  }

  // [depth, lanes] in f32 to panels of pairs of depth, zeros from `depth` on to `whole`.
  static void interleave(const float* from, int64_t depth, int64_t whole, int vecs, uint16_t* to) {
    for (int v = 0; v < vecs; ++v, to += whole * 16)
      for (int64_t d = 0; d < whole; d += 2) {
        const float* at = from + d * kLanes + v * 16;
        const __m512 low = d < depth ? _mm512_loadu_ps(at) : _mm512_setzero_ps();
        const __m512 high = d + 1 < depth ? _mm512_loadu_ps(at + kLanes) : _mm512_setzero_ps();
        _mm512_storeu_si512(to + d * 16, pairs(low, high));
      }
  }

  static TileBlock block(int panels, int64_t rows, int64_t depth, const uint16_t* a, int64_t a_step, const uint16_t* b, float* c) {
    TileBlock t;
    t.rows = rows;
    t.panels = panels;
    t.groups = depth / 2;
    t.a = reinterpret_cast<const std::byte*>(a);
    t.a_stride = a_step * kBf16;
    t.b = reinterpret_cast<const std::byte*>(b);
    t.b_stride = depth / 2 * kPanelRowBytes;
    t.c = c;
    t.c_stride = kLanes;
    return t;
  }

  const Attention& a_;
  float* const shared_;
  uint16_t *q_, *p_, *rest_;
  const uint16_t *k_ = nullptr, *v_ = nullptr;
};

}  // namespace

int64_t attention_scratch(const Attention& a, int parts) { return tiles_scratch<Avx512, AmxProducts>(a, parts); }
void attention(const Attention& a, const AttentionOperands<float>& o, int parts, float* scratch) {
  run_tiles<Avx512, AmxProducts>(a, o, parts, scratch);
}
bool attention_gains(const Attention& a) { return a.H / a.G * a.L > AttentionTiles<Avx512, AmxProducts>::most_narrow(); }

}  // namespace ds::kernels::amx
#endif
