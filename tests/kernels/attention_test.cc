// Attention kernels of all instruction sets against the portable one in f64: sizes around those of the tiles, layouts,
// every kind of mask, few and many rows, split keys, the log of the sum, and the same bits for any number of threads.
#include "kernels/attention.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "libds/base/cpu.h"
#include "libds/base/half.h"
#include "libds/base/parallel.h"
#include "tests/support/amx_emulator.h"

namespace ds::kernels {
namespace {

struct Level {
  const char* name;
  Isa isa;
  int64_t (*scratch)(const Attention&, int);
  void (*run)(const Attention&, const AttentionOperands<float>&, int, float*);
};
const Level kLevels[] = {{"portable", Isa::kPortable, attention_scratch, attention<float>},
                         {"avx2", Isa::kAvx2, avx2::attention_scratch, avx2::attention},
                         {"avx512", Isa::kAvx512, avx512::attention_scratch, avx512::attention}};
const Level kAmx = {"amx", Isa::kAmx, amx::attention_scratch, amx::attention};

constexpr float kMinusInf = -std::numeric_limits<float>::infinity();

enum class MaskKind { kNone, kBias, kTruths };

struct Case {
  std::string name;
  int64_t B, H, G, L, S, D, E;
  bool causal = false, split = false;
  int64_t left = -1, right = -1;
  MaskKind mask = MaskKind::kNone;
  bool mask_sample = true, mask_head = true, mask_row = true;  // false: broadcasts
  int64_t mask_columns = -1;                                   // -1: S
  double softcap = 0;
  std::vector<int64_t> keys = {};  // empty: S each
  bool scores = false;
  ScoreStage stage = ScoreStage::kProbability;
};

struct Results {
  std::vector<double> y, scores, log_sum;
};

template <typename T>
std::vector<T> numbers(int64_t n, uint64_t seed, double spread) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<float> d(static_cast<float>(-spread), static_cast<float>(spread));
  std::vector<T> x(static_cast<size_t>(n));
  for (T& v : x) v = static_cast<T>(d(random));
  return x;
}

HeadLayout layout(bool split, int64_t heads, int64_t length, int64_t size) {
  if (split) return {length * heads * size, size, heads * size};
  return {heads * length * size, length * size, size};
}

double to_bf16(double x) { return static_cast<double>(static_cast<float>(bf16(static_cast<float>(x)))); }

// `rounded`: to bf16 are keys, values, and queries times the scale.
template <typename T>
Results run(const Case& c, int parts, int64_t (*scratch_of)(const Attention&, int), void (*run)(const Attention&, const AttentionOperands<T>&, int, T*),
            bool rounded = false) {
  Attention a;
  a.B = c.B, a.H = c.H, a.G = c.G, a.L = c.L, a.S = c.S, a.D = c.D, a.E = c.E;
  a.q = layout(c.split, c.H, c.L, c.D), a.k = layout(c.split, c.G, c.S, c.D);
  a.v = layout(c.split, c.G, c.S, c.E), a.y = layout(c.split, c.H, c.L, c.E);
  a.scale = 0.37, a.softcap = c.softcap, a.causal = c.causal, a.left = c.left, a.right = c.right, a.stage = c.stage;
  auto q = numbers<T>(c.B * c.H * c.L * c.D, 1, 2), k = numbers<T>(c.B * c.G * c.S * c.D, 2, 2), v = numbers<T>(c.B * c.G * c.S * c.E, 3, 1);
  if (rounded) {
    for (T& x : q) x = static_cast<T>(to_bf16(static_cast<double>(static_cast<float>(x) * static_cast<float>(a.scale))));
    for (auto* operand : {&k, &v})
      for (T& x : *operand) x = static_cast<T>(to_bf16(static_cast<double>(x)));
    a.scale = 1;
  }
  std::vector<int64_t> keys = c.keys, offset;
  if (keys.empty()) keys.assign(static_cast<size_t>(c.B), c.S);
  for (int64_t n : keys) offset.push_back(n - c.L);
  const auto rows = static_cast<size_t>(c.B * c.H * c.L);
  const T never = -std::numeric_limits<T>::infinity();
  std::vector<T> bias, y(rows * static_cast<size_t>(c.E), T(77)), scores, log_sum(rows, T(77));
  std::unique_ptr<bool[]> seen;
  AttentionOperands<T> o{q.data(), k.data(), v.data(), nullptr, nullptr, keys.data(), offset.data(), y.data(), nullptr, log_sum.data()};
  if (c.mask != MaskKind::kNone) {
    a.mask_columns = c.mask_columns < 0 ? c.S : c.mask_columns;
    int64_t n = a.mask_columns;
    const auto step = [&n](bool there, int64_t size) {
      const int64_t s = there ? n : 0;
      if (there) n *= size;
      return s;
    };
    a.mask.row = step(c.mask_row, c.L);
    a.mask.head = step(c.mask_head, c.H);
    a.mask.sample = step(c.mask_sample, c.B);
    bias = numbers<T>(n, 4, 2);
    seen = std::make_unique<bool[]>(static_cast<size_t>(n));
    for (size_t i = 0; i < bias.size(); ++i) {
      seen[i] = bias[i] > T(-0.7);
      if (bias[i] < T(-1.2)) bias[i] = never;
    }
    // The first query's row sees nothing.
    for (int64_t j = 0; c.mask_row && j < a.mask_columns; ++j) {
      seen[static_cast<size_t>(j)] = false;
      bias[static_cast<size_t>(j)] = never;
    }
    if (c.mask == MaskKind::kBias) o.bias = bias.data();
    else o.seen = seen.get();
  }
  if (c.scores) {
    scores.assign(rows * static_cast<size_t>(c.S), T(77));
    o.scores = scores.data();
  }
  // What was in memory before must not matter.
  std::vector<T> scratch(static_cast<size_t>(scratch_of(a, parts)), std::numeric_limits<T>::quiet_NaN());
  run(a, o, parts, scratch.data());
  return {{y.begin(), y.end()}, {scores.begin(), scores.end()}, {log_sum.begin(), log_sum.end()}};
}

void expect_near(const std::vector<double>& got, const std::vector<double>& want, const std::string& what, double tolerance = 1e-5) {
  ASSERT_EQ(got.size(), want.size());
  double most = 1;
  for (double x : want)
    if (std::isfinite(x)) most = std::max(most, std::abs(x));
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isfinite(want[i])) ASSERT_NEAR(got[i], want[i], tolerance * most) << what << " at " << i;
    else ASSERT_EQ(got[i], want[i]) << what << " at " << i;
  }
}

void check(const Case& c, bool threads = false) {
  const Results want = run<double>(c, 1, attention_scratch, attention<double>);
  for (const Level& level : kLevels) {
    if (cpu_isa() < level.isa) continue;  // AllLevelsRun says so
    const std::string what = c.name + ", " + level.name;
    const Results got = run<float>(c, 1, level.scratch, level.run);
    expect_near(got.y, want.y, what + ", y");
    expect_near(got.scores, want.scores, what + ", scores");
    expect_near(got.log_sum, want.log_sum, what + ", log of the sum");
    for (int parts : {2, 3}) {
      if (!threads) break;
      set_num_threads(parts);
      const Results again = run<float>(c, parts, level.scratch, level.run);
      set_num_threads(1);
      ASSERT_EQ(again.y, got.y) << what << ", " << parts << " threads";
      ASSERT_EQ(again.log_sum, got.log_sum) << what << ", " << parts << " threads";
    }
  }
}

// Whether a row is in a task of so few rows that it is not rounded.
bool in_narrow_task(const Case& c, int64_t row) {
  const int64_t group = c.H / c.G, at = row / c.L % c.H % group * c.L + row % c.L, rows = group * c.L;
  return std::min<int64_t>(32, rows - at / 32 * 32) <= 8;
}

// On AMX: exact but for the operands, which the oracle gets rounded, and the probabilities: each is off by 2^-9 at most, and so
// is their mean of values up to 1.
void check_amx(const Case& c, bool threads = false) {
  const test::AmxEmulator emulator;
  Results want = run<double>(c, 1, attention_scratch, attention<double>, true);
  const Results exact = run<double>(c, 1, attention_scratch, attention<double>);
  const auto take = [&](std::vector<double>& to, const std::vector<double>& from) {
    const size_t rows = static_cast<size_t>(c.B * c.H * c.L), size = to.size() / rows;
    for (size_t r = 0; r < rows; ++r)
      if (in_narrow_task(c, static_cast<int64_t>(r))) std::copy_n(from.begin() + static_cast<int64_t>(r * size), size, to.begin() + static_cast<int64_t>(r * size));
  };
  take(want.y, exact.y);
  take(want.scores, exact.scores);
  take(want.log_sum, exact.log_sum);
  const long long executed = test::AmxEmulator::executed();
  const Results got = run<float>(c, 1, kAmx.scratch, kAmx.run);
  if (emulator.active() && c.H / c.G * c.L > 8) {
    ASSERT_GT(test::AmxEmulator::executed(), executed) << c.name;
  }
  expect_near(got.y, want.y, c.name + ", amx, y", 1.0 / 512 + 1e-5);
  expect_near(got.scores, want.scores, c.name + ", amx, scores");
  expect_near(got.log_sum, want.log_sum, c.name + ", amx, log of the sum");
  for (int parts : {2, 3}) {
    if (!threads) break;
    set_num_threads(parts);
    const Results again = run<float>(c, parts, kAmx.scratch, kAmx.run);
    set_num_threads(1);
    ASSERT_EQ(again.y, got.y) << c.name << ", amx, " << parts << " threads";
  }
}

bool amx_can_run() { return cpu_has_bf16() && (test::amx_is_real() || cpu_isa() < Isa::kAmx); }

TEST(AttentionOnAmx, RowsKeysAndHeadSizesAroundTheTiles) {
  if (!amx_can_run()) GTEST_SKIP() << "AMX comes with AVX-512 BF16, which this CPU has not";
  for (int64_t L : {1, 9, 15, 16, 17, 31, 33, 67})
    for (int64_t S : {1, 13, 64, 65, 150}) check_amx({fmt::format("L {} S {}", L, S), 1, 2, 2, L, S, 19, 21});
  for (int64_t D : {1, 16, 31, 33, 64, 100, 128}) check_amx({fmt::format("D {}", D), 1, 1, 1, 40, 70, D, 133 - D});
}

TEST(AttentionOnAmx, GroupsMasksWindowsAndLengths) {
  if (!amx_can_run()) GTEST_SKIP() << "AMX comes with AVX-512 BF16, which this CPU has not";
  for (bool split : {false, true})
    for (int64_t H : {2, 6, 20}) check_amx({fmt::format("H {} split {}", H, split), 2, H, 2, 5, 75, 33, 40, true, split}, true);
  for (const MaskKind kind : {MaskKind::kBias, MaskKind::kTruths})
    for (int bits = 0; bits < 8; ++bits) {
      Case c{fmt::format("mask {} bits {}", static_cast<int>(kind), bits), 2, 4, 2, 37, 83, 20, 24};
      c.mask = kind;
      c.mask_sample = bits & 1, c.mask_head = bits & 2, c.mask_row = bits & 4;
      c.mask_columns = bits == 5 ? 51 : -1;
      check_amx(c);
    }
  for (int64_t left : {-1, 0, 20})
    for (int64_t right : {-1, 3}) {
      Case c{fmt::format("left {} right {}", left, right), 3, 2, 1, 37, 150, 16, 16, right < 0};
      c.left = left, c.right = right;
      c.keys = {150, 70, 0};
      check_amx(c);
      c.name += " softcap";
      c.softcap = 1.5;
      check_amx(c);
    }
}

TEST(AttentionOnAmx, FewTasksSplitTheirKeysAndScoresAreGiven) {
  if (!amx_can_run()) GTEST_SKIP() << "AMX comes with AVX-512 BF16, which this CPU has not";
  Case c{"split keys", 1, 4, 2, 20, 1500, 24, 40};
  check_amx(c, true);
  c.causal = true, c.left = 400;
  check_amx(c, true);
  for (const ScoreStage stage : {ScoreStage::kRaw, ScoreStage::kCapped, ScoreStage::kBiased, ScoreStage::kProbability}) {
    Case s{fmt::format("stage {}", static_cast<int>(stage)), 1, 2, 2, 37, 100, 16, 16, true};
    s.softcap = 2, s.mask = MaskKind::kBias, s.scores = true, s.stage = stage;
    check_amx(s);
  }
}

// What lies behind the last key is not multiplied, not even by 0.
TEST(AttentionOnAmx, ValuesThatNobodySeesMayBeNoNumbers) {
  if (!amx_can_run()) GTEST_SKIP() << "AMX comes with AVX-512 BF16, which this CPU has not";
  const test::AmxEmulator emulator;
  constexpr int64_t L = 12, S = 90, D = 8;
  Attention a;
  a.B = a.H = a.G = 1, a.L = L, a.S = S, a.D = a.E = D;
  a.q = a.y = layout(false, 1, L, D), a.k = a.v = layout(false, 1, S, D);
  const auto q = numbers<float>(L * D, 1, 1);
  auto k = numbers<float>(S * D, 2, 1), v = numbers<float>(S * D, 3, 1);
  const auto result = [&](int64_t keys) {
    const int64_t offset = 0;
    std::vector<float> y(static_cast<size_t>(L * D), 77), scratch(static_cast<size_t>(amx::attention_scratch(a, 1)));
    amx::attention(a, {q.data(), k.data(), v.data(), nullptr, nullptr, &keys, &offset, y.data(), nullptr}, 1, scratch.data());
    return y;
  };
  for (int64_t keys : {1, 31, 33, 63, 70}) {
    const auto want = result(keys);
    const auto whole_k = k, whole_v = v;
    std::fill(k.begin() + keys * D, k.end(), std::numeric_limits<float>::quiet_NaN());
    std::fill(v.begin() + keys * D, v.end(), std::numeric_limits<float>::quiet_NaN());
    EXPECT_EQ(result(keys), want) << keys;
    k = whole_k, v = whole_v;
  }
}

TEST(AttentionKernel, AllLevelsRun) {
  for (const Level& level : kLevels)
    if (cpu_isa() < level.isa) GTEST_SKIP() << "this CPU (or DS_ISA) has no " << level.name;
}

TEST(AttentionKernel, RowsKeysAndHeadSizesAroundTheTiles) {
  for (int64_t L : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 67})
    for (int64_t S : {1, 13, 64, 65, 150}) check({fmt::format("L {} S {}", L, S), 1, 2, 2, L, S, 19, 21});
  for (int64_t D : {1, 5, 8, 16, 31, 64, 100, 128})
    for (int64_t L : {1, 2, 4, 40}) check({fmt::format("D {} L {}", D, L), 1, 1, 1, L, 70, D, 133 - D});
}

TEST(AttentionKernel, GroupsShareKeys) {
  for (bool split : {false, true})
    for (int64_t H : {2, 6, 8, 14, 20, 40})
      for (int64_t L : {1, 5}) check({fmt::format("H {} L {} split {}", H, L, split), 2, H, 2, L, 75, 33, 40, true, split}, H % 4 == 0);
}

TEST(AttentionKernel, RowsOfManyHeadsWhoseStepsShareCacheSets) {
  check({"steps of 1024 keys, 2048 values", 1, 16, 16, 40, 70, 64, 128, false, true});
}

TEST(AttentionKernel, Masks) {
  for (const MaskKind kind : {MaskKind::kBias, MaskKind::kTruths})
    for (int64_t L : {1, 3, 9, 37})
      for (int bits = 0; bits < 8; ++bits)
        for (int64_t columns : {-1, 51}) {
          Case c{fmt::format("L {} kind {} bits {} columns {}", L, static_cast<int>(kind), bits, columns), 2, 4, 2, L, 83, 20, 24};
          c.mask = kind;
          c.mask_sample = bits & 1, c.mask_head = bits & 2, c.mask_row = bits & 4;
          c.mask_columns = columns;
          check(c);
        }
}

TEST(AttentionKernel, WindowsLengthsAndSoftcap) {
  for (int64_t L : {1, 4, 37, 90})
    for (bool causal : {false, true})
      for (int64_t left : {-1, 0, 20})
        for (int64_t right : {-1, 3}) {
          Case c{fmt::format("L {} causal {} left {} right {}", L, causal, left, right), 3, 2, 1, L, 150, 16, 16, causal};
          c.left = left, c.right = right;
          c.keys = {150, 70, 0};  // the last sample has none; with 90 queries the first of the second sample see nothing
          check(c);
          c.name += " softcap";
          c.softcap = 1.5;
          check(c);
        }
}

TEST(AttentionKernel, FewTasksSplitTheirKeys) {
  for (int64_t L : {1, 3, 20}) {
    Case c{fmt::format("L {}", L), 1, 4, 2, L, 1500, 24, 40};
    check(c, true);
    c.causal = true, c.left = 400;  // whole chunks see nothing
    check(c, true);
    c.mask = MaskKind::kTruths;
    check(c, true);
  }
}

TEST(AttentionKernel, ScoresOfEveryStage) {
  for (const ScoreStage stage : {ScoreStage::kRaw, ScoreStage::kCapped, ScoreStage::kBiased, ScoreStage::kProbability})
    for (int64_t L : {2, 37})
      for (int64_t S : {100, 600}) {
        Case c{fmt::format("stage {} L {} S {}", static_cast<int>(stage), L, S), 1, 2, 2, L, S, 16, 16, true};
        c.softcap = 2, c.mask = MaskKind::kBias, c.scores = true, c.stage = stage;
        check(c);
      }
}

// Numbers beside which others vanish (a row that sees nothing because the lowest number is added to all its scores is the
// mean of the values), infinities and NaN come out as they do from the portable kernel.
TEST(AttentionKernel, ScoresThatAreHugeOrNoNumbers) {
  constexpr int64_t S = 90, D = 8;
  constexpr double kStep = 1.0 / 512;  // from one float to the next at 3e4: what scores beside it are rounded to
  for (int64_t L : {1, 3, 20})
    for (const float special : {3e4f, -3e4f, std::numeric_limits<float>::lowest(), std::numeric_limits<float>::infinity(), kMinusInf, std::numeric_limits<float>::quiet_NaN()}) {
      Attention a;
      a.B = a.H = a.G = 1, a.L = L, a.S = S, a.D = a.E = D;
      a.q = a.y = layout(false, 1, L, D), a.k = a.v = layout(false, 1, S, D);
      a.mask = {0, 0, S}, a.mask_columns = S;
      const auto q = numbers<float>(L * D, 1, 1), k = numbers<float>(S * D, 2, 1), v = numbers<float>(S * D, 3, 1);
      std::vector<float> bias(static_cast<size_t>(L * S), 0);
      bias[70] = special;                                                  // one key of the first row
      for (int64_t j = 0; j < S; ++j) bias[static_cast<size_t>((L - 1) * S + j)] = special;  // all of the last
      const int64_t keys = S, offset = 0;
      std::vector<float> want;
      for (const Level& level : kLevels) {
        if (cpu_isa() < level.isa) continue;
        std::vector<float> y(static_cast<size_t>(L * D), 77), scratch(static_cast<size_t>(level.scratch(a, 1)));
        level.run(a, {q.data(), k.data(), v.data(), bias.data(), nullptr, &keys, &offset, y.data(), nullptr}, 1, scratch.data());
        if (want.empty()) want = y;
        for (size_t i = 0; i < y.size(); ++i) {
          if (std::isnan(want[i])) EXPECT_TRUE(std::isnan(y[i])) << level.name << ", " << special << ", L " << L << ", at " << i;
          else EXPECT_NEAR(y[i], want[i], std::abs(special) == 3e4f ? kStep : 1e-5) << level.name << ", " << special << ", L " << L << ", at " << i;
        }
      }
    }
}

}  // namespace
}  // namespace ds::kernels
