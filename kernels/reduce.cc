#include "kernels/reduce.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>

#include "kernels/compute_type.h"
#include "kernels/reduce_loops.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kGrain = 1 << 14;  // input elements worth a thread
constexpr int kLanes = 8;            // independent accumulators along a contiguous row
constexpr int kTile = 64;            // columns accumulated together
constexpr int64_t kMostChunks = 64;  // pieces of a reduction to a single number

// How one operator accumulates. `shift` is the maximum, for LogSumExp only.
template <Reduce op, typename T>
struct Rule {
  using C = ComputeType<T>;
  static constexpr bool kExtreme = op == Reduce::kMax || op == Reduce::kMin;
  static constexpr bool kLogarithmic = op == Reduce::kLogSum || op == Reduce::kLogSumExp;
  static constexpr bool kWraps = std::is_integral_v<C> && op != Reduce::kL2 && !kLogarithmic;
  using Acc = std::conditional_t<kExtreme, C, std::conditional_t<kWraps, uint64_t, double>>;

  static Acc init() {
    if constexpr (op == Reduce::kMax)
      return std::is_integral_v<C> ? std::numeric_limits<C>::lowest() : -std::numeric_limits<C>::infinity();
    else if constexpr (op == Reduce::kMin)
      return std::is_integral_v<C> ? std::numeric_limits<C>::max() : std::numeric_limits<C>::infinity();
    else return op == Reduce::kProd ? Acc(1) : Acc(0);
  }

  static Acc step(Acc a, C x, C shift) {
    static_cast<void>(shift);
    if constexpr (kExtreme) return merge(a, x);
    else if constexpr (op == Reduce::kProd) return a * static_cast<Acc>(x);
    else if constexpr (op == Reduce::kL1) return a + (x < C(0) ? -static_cast<Acc>(x) : static_cast<Acc>(x));
    else if constexpr (op == Reduce::kL2 || op == Reduce::kSumSquare) return a + static_cast<Acc>(x) * static_cast<Acc>(x);
    else if constexpr (op == Reduce::kLogSumExp) return a + std::exp(static_cast<Acc>(x) - static_cast<Acc>(shift));
    else return a + static_cast<Acc>(x);
  }

  static Acc merge(Acc a, Acc b) {
    if constexpr (op == Reduce::kMax) return b > a || b != b ? b : a;
    else if constexpr (op == Reduce::kMin) return b < a || b != b ? b : a;
    else if constexpr (op == Reduce::kProd) return a * b;
    else return a + b;
  }

  static T finish(Acc a, int64_t count, C shift) {
    static_cast<void>(shift);
    if constexpr (op == Reduce::kMean) {
      if constexpr (!kWraps) return static_cast<T>(static_cast<C>(a / static_cast<double>(count)));
      else if constexpr (std::is_signed_v<C>) return count == 0 ? T(0) : static_cast<T>(static_cast<int64_t>(a) / count);
      else return count == 0 ? T(0) : static_cast<T>(a / static_cast<uint64_t>(count));
    } else if constexpr (op == Reduce::kL2) {
      return static_cast<T>(static_cast<C>(std::sqrt(a)));
    } else if constexpr (op == Reduce::kLogSum) {
      return static_cast<T>(static_cast<C>(std::log(a)));
    } else if constexpr (op == Reduce::kLogSumExp) {
      // An infinite maximum is the result: the sum is then exp(inf - inf) or empty.
      const auto m = static_cast<double>(shift);
      return static_cast<T>(static_cast<C>(std::isinf(m) ? m : std::log(a) + m));
    } else {
      return static_cast<T>(static_cast<C>(a));
    }
  }
};

template <typename R, typename T>
void fold_row(const T* x, int64_t n, typename R::C shift, typename R::Acc* lanes) {
  using C = typename R::C;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; ++l) lanes[l] = R::step(lanes[l], static_cast<C>(x[i + l]), shift);
  for (int l = 0; i < n; ++i, ++l) lanes[l] = R::step(lanes[l], static_cast<C>(x[i]), shift);
}

template <typename R>
typename R::Acc merge_lanes(typename R::Acc* lanes) {
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lanes[l] = R::merge(lanes[l], lanes[l + half]);
  return lanes[0];
}

// All elements behind one output, the innermost reduced axis being contiguous.
template <typename R, typename T>
typename R::Acc fold_all(const ReduceSpace& s, const T* x, typename R::C shift) {
  typename R::Acc lanes[kLanes];
  std::fill(lanes, lanes + kLanes, R::init());
  const int inner = s.reduced - 1;
  for_each_offset(inner, s.reduced_size, s.reduced_stride,
                  [&](int64_t offset) { fold_row<R>(x + offset, s.reduced_size[inner], shift, lanes); });
  return merge_lanes<R>(lanes);
}

// The whole contiguous input to one number: chunks that do not depend on the number of threads.
template <typename R, typename T>
typename R::Acc fold_chunks(int64_t n, const T* x, typename R::C shift) {
  const int64_t chunk = std::max<int64_t>(kGrain, ((n + kMostChunks - 1) / kMostChunks + kLanes - 1) / kLanes * kLanes);
  const int64_t chunks = (n + chunk - 1) / chunk;
  typename R::Acc parts[kMostChunks];
  parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      typename R::Acc lanes[kLanes];
      std::fill(lanes, lanes + kLanes, R::init());
      fold_row<R>(x + c * chunk, std::min(chunk, n - c * chunk), shift, lanes);
      parts[c] = merge_lanes<R>(lanes);
    }
  });
  typename R::Acc total = R::init();
  for (int64_t c = 0; c < chunks; ++c) total = R::merge(total, parts[c]);
  return total;
}

template <Reduce op, typename T>
void reduce_rows(const ReduceSpace& s, const T* x, T* out) {
  using R = Rule<op, T>;
  using M = Rule<Reduce::kMax, T>;
  const auto value = [&](auto&& fold) {
    typename R::C shift{};
    if constexpr (op == Reduce::kLogSumExp) {
      shift = fold(M{}, shift);
      if constexpr (!std::is_integral_v<typename R::C>)
        if (std::isinf(shift)) return R::finish(R::init(), s.count, shift);
    }
    return R::finish(fold(R{}, shift), s.count, shift);
  };
  if (s.outputs == 1 && s.reduced == 1) {
    *out = value([&](auto rule, auto shift) { return fold_chunks<decltype(rule)>(s.count, x, shift); });
    return;
  }
  parallel_for(s.outputs, kGrain / s.count + 1, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      const T* start = x + kept_offset(s, s.kept, o);
      out[o] = value([&](auto rule, auto shift) { return fold_all<decltype(rule)>(s, start, shift); });
    }
  });
}

// The innermost axis is kept: columns are accumulated side by side, a tile at a time.
template <Reduce op, typename T>
void reduce_columns(const ReduceSpace& s, const T* x, T* out) {
  using R = Rule<op, T>;
  using M = Rule<Reduce::kMax, T>;
  using C = typename R::C;
  const int64_t width = s.kept_size[s.kept - 1], tiles = (width + kTile - 1) / kTile;
  const int64_t outer = s.outputs / width;
  parallel_for(outer * tiles, kGrain / (s.count * std::min<int64_t>(width, kTile)) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = t / tiles, column = t % tiles * kTile;
      const int64_t columns = std::min<int64_t>(kTile, width - column);
      const T* start = x + kept_offset(s, s.kept - 1, row) + column;
      C shift[kTile] = {};
      if constexpr (op == Reduce::kLogSumExp) {
        std::fill(shift, shift + kTile, M::init());
        for_each_offset(s.reduced, s.reduced_size, s.reduced_stride, [&](int64_t offset) {
          for (int64_t j = 0; j < columns; ++j) shift[j] = M::step(shift[j], static_cast<C>(start[offset + j]), C{});
        });
      }
      typename R::Acc acc[kTile];
      std::fill(acc, acc + kTile, R::init());
      for_each_offset(s.reduced, s.reduced_size, s.reduced_stride, [&](int64_t offset) {
        for (int64_t j = 0; j < columns; ++j) acc[j] = R::step(acc[j], static_cast<C>(start[offset + j]), shift[j]);
      });
      for (int64_t j = 0; j < columns; ++j) out[row * width + column + j] = R::finish(acc[j], s.count, shift[j]);
    }
  });
}

template <Reduce op, typename T>
void reduce_as(const ReduceSpace& s, const T* x, T* out) {
  if (s.outputs == 0) return;
  if (s.count == 0) {
    using C = typename Rule<op, T>::C;
    const C nothing = op == Reduce::kLogSumExp && !std::is_integral_v<C> ? static_cast<C>(-std::numeric_limits<double>::infinity()) : C{};
    std::fill(out, out + s.outputs, Rule<op, T>::finish(Rule<op, T>::init(), 0, nothing));
    return;
  }
  // Without a reduced axis every output has one element behind it: columns with one row.
  if (innermost_is_kept(s)) reduce_columns<op>(s, x, out);
  else if (s.reduced > 0) reduce_rows<op>(s, x, out);
  else {  // one element in all
    using R = Rule<op, T>;
    const auto v = static_cast<typename R::C>(*x);
    *out = R::finish(R::step(R::init(), v, v), 1, v);
  }
}

}  // namespace

ReduceSpace make_reduce_space(int rank, const int64_t* dims, uint32_t axes) {
  ReduceSpace s;
  int64_t stride = 1;
  int previous = -1;  // 1: the axis inside this one is reduced, 0: kept
  for (int d = rank - 1; d >= 0; --d) {
    const bool is_reduced = (axes >> d & 1u) != 0;
    (is_reduced ? s.count : s.outputs) *= dims[d];
    if (dims[d] == 1) continue;
    int& used = is_reduced ? s.reduced : s.kept;
    int64_t* size = is_reduced ? s.reduced_size : s.kept_size;
    int64_t* step = is_reduced ? s.reduced_stride : s.kept_stride;
    if (previous == static_cast<int>(is_reduced)) {
      size[used - 1] *= dims[d];
    } else {
      size[used] = dims[d];
      step[used++] = stride;
    }
    previous = is_reduced;
    stride *= dims[d];
  }
  std::reverse(s.kept_size, s.kept_size + s.kept);
  std::reverse(s.kept_stride, s.kept_stride + s.kept);
  std::reverse(s.reduced_size, s.reduced_size + s.reduced);
  std::reverse(s.reduced_stride, s.reduced_stride + s.reduced);
  return s;
}

template <typename T>
void reduce(Reduce op, const ReduceSpace& s, const T* x, T* out) {
  if constexpr (std::is_same_v<T, bool>) {
    if (op == Reduce::kMin) return reduce_as<Reduce::kMin>(s, x, out);
    return reduce_as<Reduce::kMax>(s, x, out);
  } else {
    switch (op) {
      case Reduce::kSum: return reduce_as<Reduce::kSum>(s, x, out);
      case Reduce::kMean: return reduce_as<Reduce::kMean>(s, x, out);
      case Reduce::kMax: return reduce_as<Reduce::kMax>(s, x, out);
      case Reduce::kMin: return reduce_as<Reduce::kMin>(s, x, out);
      case Reduce::kProd: return reduce_as<Reduce::kProd>(s, x, out);
      case Reduce::kL1: return reduce_as<Reduce::kL1>(s, x, out);
      case Reduce::kL2: return reduce_as<Reduce::kL2>(s, x, out);
      case Reduce::kSumSquare: return reduce_as<Reduce::kSumSquare>(s, x, out);
      case Reduce::kLogSum: return reduce_as<Reduce::kLogSum>(s, x, out);
      case Reduce::kLogSumExp: return reduce_as<Reduce::kLogSumExp>(s, x, out);
    }
  }
}

// Many neighbouring places at a time, without branches: such loops become vectors.
template <typename T>
void arg_extreme_columns(bool largest, bool last, int64_t outer, int64_t n, int64_t inner, const T* x, int64_t* out) {
  using C = ComputeType<T>;
  constexpr int64_t kColumns = 64;
  const int64_t blocks = (inner + kColumns - 1) / kColumns;
  parallel_for(outer * blocks, kGrain / std::max<int64_t>(n * kColumns, 1) + 1, [&](int64_t begin, int64_t end) {
    C value[kColumns];
    int32_t best[kColumns];
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b % blocks * kColumns, count = std::min(kColumns, inner - first);
      const T* p = x + b / blocks * n * inner + first;
      const auto scan = [&](auto better) {
        for (int64_t j = 1; j < n; ++j) {
          const T* row = p + j * inner;
          const auto at = static_cast<int32_t>(j);
          for (int64_t i = 0; i < count; ++i) {
            const C v = static_cast<C>(row[i]), held = value[i];
            bool take = better(v, held);
            if constexpr (!std::is_integral_v<C>) take |= (v != v) & (held == held);
            value[i] = take ? v : held;
            best[i] = take ? at : best[i];
          }
        }
      };
      for (int64_t i = 0; i < count; ++i) {
        value[i] = static_cast<C>(p[i]);
        best[i] = 0;
      }
      if (largest && last) scan([](C v, C held) { return v >= held; });
      else if (largest) scan([](C v, C held) { return v > held; });
      else if (last) scan([](C v, C held) { return v <= held; });
      else scan([](C v, C held) { return v < held; });
      for (int64_t i = 0; i < count; ++i) out[b / blocks * inner + first + i] = best[i];
    }
  });
}

template <typename T>
void arg_extreme(bool largest, bool last, int64_t outer, int64_t n, int64_t inner, const T* x, int64_t* out) {
  using C = ComputeType<T>;
  if (inner > 1 && n <= std::numeric_limits<int32_t>::max()) return arg_extreme_columns(largest, last, outer, n, inner, x, out);
  parallel_for(outer * inner, kGrain / std::max<int64_t>(n, 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* p = x + i / inner * n * inner + i % inner;
      int64_t best = 0;
      C value = static_cast<C>(p[0]);
      for (int64_t j = 1; j < n; ++j) {
        const C v = static_cast<C>(p[j * inner]);
        if ((largest ? v > value : v < value) || (last && v == value) || (v != v && value == value)) {
          value = v;
          best = j;
        }
      }
      out[i] = best;
    }
  });
}

namespace {

// Folds along the axis with `step`, from `start` on, in f64 or wrapping integers.
template <typename T, typename Step>
void cumulate(bool exclusive, bool reverse, int64_t outer, int64_t n, int64_t inner, const T* x, T* out, int start, Step step) {
  using Acc = std::conditional_t<std::is_integral_v<T>, uint64_t, double>;
  parallel_for(outer * inner, kGrain / std::max<int64_t>(n, 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / inner * n * inner + i % inner;
      Acc acc = static_cast<Acc>(start);
      for (int64_t j = 0; j < n; ++j) {
        const int64_t at = row + (reverse ? n - 1 - j : j) * inner;
        const T v = x[at];  // read before out, which may be x, is written
        if (exclusive) out[at] = static_cast<T>(acc);
        acc = step(acc, static_cast<Acc>(v));
        if (!exclusive) out[at] = static_cast<T>(acc);
      }
    }
  });
}

}  // namespace

template <typename T>
void cumulative_sum(bool exclusive, bool reverse, int64_t outer, int64_t n, int64_t inner, const T* x, T* out) {
  cumulate(exclusive, reverse, outer, n, inner, x, out, 0, [](auto a, auto b) { return a + b; });
}

template <typename T>
void cumulative_product(bool exclusive, bool reverse, int64_t outer, int64_t n, int64_t inner, const T* x, T* out) {
  cumulate(exclusive, reverse, outer, n, inner, x, out, 1, [](auto a, auto b) { return a * b; });
}

template <typename T>
void cumulative_product_grad(bool exclusive, bool reverse, int64_t outer, int64_t n, int64_t inner, const T* x, const T* d_y, T* d_x) {
  parallel_for(outer * inner, kGrain / std::max<int64_t>(n * n, 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / inner * n * inner + i % inner;
      const auto at = [&](int64_t j) { return row + (reverse ? n - 1 - j : j) * inner; };
      double before = 1;  // product of the factors before j
      for (int64_t j = 0; j < n; ++j) {
        // y_k holds x_j for k >= j (exclusive: k > j); its derivative is the product of the others.
        double product = before, sum = 0;
        for (int64_t k = j; k < n; ++k) {
          if (exclusive) {
            if (k > j) sum += static_cast<double>(d_y[at(k)]) * product;
            if (k > j) product *= static_cast<double>(x[at(k)]);
          } else {
            if (k > j) product *= static_cast<double>(x[at(k)]);
            sum += static_cast<double>(d_y[at(k)]) * product;
          }
        }
        d_x[at(j)] = static_cast<T>(sum);
        before *= static_cast<double>(x[at(j)]);
      }
    }
  });
}

template <typename T>
void top_k(bool largest, int64_t outer, int64_t n, int64_t inner, int64_t k, const T* x, T* values, int64_t* indices,
           int64_t* scratch) {
  using C = ComputeType<T>;
  for (int64_t i = 0; i < outer * inner; ++i) {
    const T* p = x + i / inner * n * inner + i % inner;
    std::iota(scratch, scratch + n, int64_t{0});
    const auto above = [](C a, C b) { return a > b || (a != a && b == b); };
    std::partial_sort(scratch, scratch + k, scratch + n, [&](int64_t a, int64_t b) {
      const C va = static_cast<C>(p[a * inner]), vb = static_cast<C>(p[b * inner]);
      const bool first = largest ? above(va, vb) : above(vb, va), second = largest ? above(vb, va) : above(va, vb);
      return first || (!second && a < b);
    });
    const int64_t start = i / inner * k * inner + i % inner;
    for (int64_t j = 0; j < k; ++j) {
      values[start + j * inner] = p[scratch[j] * inner];
      indices[start + j * inner] = scratch[j];
    }
  }
}

#define DS_INSTANTIATE(T)                                                                             \
  template void reduce(Reduce, const ReduceSpace&, const T*, T*);                                     \
  template void arg_extreme(bool, bool, int64_t, int64_t, int64_t, const T*, int64_t*);               \
  template void top_k(bool, int64_t, int64_t, int64_t, int64_t, const T*, T*, int64_t*, int64_t*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double) DS_INSTANTIATE(f16) DS_INSTANTIATE(bf16)
DS_INSTANTIATE(int8_t) DS_INSTANTIATE(uint8_t) DS_INSTANTIATE(int32_t) DS_INSTANTIATE(int64_t)
DS_INSTANTIATE(uint32_t) DS_INSTANTIATE(uint64_t) DS_INSTANTIATE(int16_t) DS_INSTANTIATE(uint16_t)
#undef DS_INSTANTIATE
template void reduce(Reduce, const ReduceSpace&, const bool*, bool*);

#define DS_INSTANTIATE(T)                                                                  \
  template void cumulative_sum(bool, bool, int64_t, int64_t, int64_t, const T*, T*);       \
  template void cumulative_product(bool, bool, int64_t, int64_t, int64_t, const T*, T*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double) DS_INSTANTIATE(int32_t) DS_INSTANTIATE(int64_t)
DS_INSTANTIATE(uint32_t) DS_INSTANTIATE(uint64_t)
#undef DS_INSTANTIATE

template void cumulative_product_grad(bool, bool, int64_t, int64_t, int64_t, const float*, const float*, float*);
template void cumulative_product_grad(bool, bool, int64_t, int64_t, int64_t, const double*, const double*, double*);

}  // namespace ds::kernels
