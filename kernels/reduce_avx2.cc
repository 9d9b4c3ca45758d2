// Sums, means and sums of squares of f32, eight at a time, accumulated in double.
#include "kernels/reduce_loops.h"
#include "kernels/simd_avx2.h"
#include "libds/base/parallel.h"

namespace ds::kernels::avx2 {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth a thread
constexpr int64_t kMostChunks = 64;  // pieces of a reduction to a single number

template <bool kSquare>
inline void add(DoubleSum& sum, F8 v) {
  if (kSquare) sum.add_product(v, v);
  else sum.add(v);
}

template <bool kSquare>
void fold(DoubleSum& sum, const float* x, int64_t n) {
  for_each_block(0, n, [&](int64_t i, int64_t, auto get, auto) { add<kSquare>(sum, get(x + i)); });
}

// The whole contiguous input to one number: chunks that do not depend on the number of threads.
template <bool kSquare>
double fold_chunks(int64_t n, const float* x) {
  int64_t chunk = ((n + kMostChunks - 1) / kMostChunks + kWidth - 1) / kWidth * kWidth;
  if (chunk < kGrain) chunk = kGrain;
  const int64_t chunks = (n + chunk - 1) / chunk;
  double parts[kMostChunks];
  parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      DoubleSum sum;
      fold<kSquare>(sum, x + c * chunk, n - c * chunk < chunk ? n - c * chunk : chunk);
      parts[c] = sum.total();
    }
  });
  double total = 0;
  for (int64_t c = 0; c < chunks; ++c) total += parts[c];
  return total;
}

template <bool kSquare>
void rows(const ReduceSpace& s, double factor, const float* x, float* out) {
  if (s.outputs == 1 && s.reduced == 1) {
    *out = static_cast<float>(fold_chunks<kSquare>(s.count, x) * factor);
    return;
  }
  const int inner = s.reduced - 1;
  parallel_for(s.outputs, kGrain / s.count + 1, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      const float* start = x + kept_offset(s, s.kept, o);
      DoubleSum sum;
      for_each_offset(inner, s.reduced_size, s.reduced_stride,
                      [&](int64_t offset) { fold<kSquare>(sum, start + offset, s.reduced_size[inner]); });
      out[o] = static_cast<float>(sum.total() * factor);
    }
  });
}

// The innermost axis is kept: four blocks of eight columns (two cache lines) are summed side by side.
template <bool kSquare>
void columns(const ReduceSpace& s, double factor, const float* x, float* out) {
  constexpr int64_t kBlocks = 4, kTile = kBlocks * kWidth;
  const int64_t width = s.kept_size[s.kept - 1], tiles = (width + kTile - 1) / kTile, outer = s.outputs / width;
  parallel_for(outer * tiles, kGrain / (s.count * (width < kTile ? width : kTile)) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t column = t % tiles * kTile, row = t / tiles;
      const int64_t count = width - column < kTile ? width - column : kTile;
      const float* start = x + kept_offset(s, s.kept - 1, row) + column;
      DoubleSum sum[kBlocks];
      if (count == kTile) {
        for_each_offset(s.reduced, s.reduced_size, s.reduced_stride, [&](int64_t offset) {
          for (int64_t b = 0; b < kBlocks; ++b) add<kSquare>(sum[b], load(start + offset + b * kWidth));
        });
      } else {
        for_each_offset(s.reduced, s.reduced_size, s.reduced_stride, [&](int64_t offset) {
          for (int64_t b = 0; b * kWidth < count; ++b) {
            const int64_t left = count - b * kWidth;
            add<kSquare>(sum[b], left < kWidth ? load(start + offset + b * kWidth, left) : load(start + offset + b * kWidth));
          }
        });
      }
      for (int64_t b = 0; b * kWidth < count; ++b) {
        double lane[8];
        _mm256_storeu_pd(lane, sum[b].low);
        _mm256_storeu_pd(lane + 4, sum[b].high);
        for (int64_t j = 0; j < kWidth && b * kWidth + j < count; ++j)
          out[row * width + column + b * kWidth + j] = static_cast<float>(lane[j] * factor);
      }
    }
  });
}

template <bool kSquare>
void run(const ReduceSpace& s, double factor, const float* x, float* out) {
  if (innermost_is_kept(s)) columns<kSquare>(s, factor, x, out);
  else rows<kSquare>(s, factor, x, out);
}

}  // namespace

bool has_reduce(Reduce op) { return op == Reduce::kSum || op == Reduce::kMean || op == Reduce::kSumSquare; }

void reduce(Reduce op, const ReduceSpace& s, const float* x, float* out) {
  if (s.outputs == 0) return;
  if (s.count == 0 || (s.reduced == 0 && s.kept == 0)) return kernels::reduce<float>(op, s, x, out);
  const double factor = op == Reduce::kMean ? 1.0 / static_cast<double>(s.count) : 1.0;
  if (op == Reduce::kSumSquare) run<true>(s, factor, x, out);
  else run<false>(s, factor, x, out);
}

}  // namespace ds::kernels::avx2
