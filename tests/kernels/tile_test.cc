// Tile kernels (kernels/tile.h) of every instruction set against sums in double or, for 8 bits, in 64-bit
// integers. AMX runs on the CPU where it has AMX, else in software (tests/support/amx_emulator.h); the output
// says which.
#include "kernels/tile.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "libds/base/cpu_vendor.h"
#include "libds/base/half.h"
#include "libds/base/random.h"
#include "tests/support/amx_emulator.h"

namespace ds::kernels {
namespace {

struct Candidate {
  std::string name;
  TileType type;
  const TileIsa& (*get)();
  Isa needs;
  bool amx = false;
};

void PrintTo(const Candidate& candidate, std::ostream* out) { *out << candidate.name; }

std::vector<Candidate> candidates() {
  std::vector<Candidate> all;
  all.push_back({"portable_f32", TileType::kF32,
                 []() -> const TileIsa& { return portable_tile(TileType::kF32); }, Isa::kPortable});
  all.push_back({"portable_bf16", TileType::kBf16,
                 []() -> const TileIsa& { return portable_tile(TileType::kBf16); }, Isa::kPortable});
  all.push_back({"portable_f16", TileType::kF16,
                 []() -> const TileIsa& { return portable_tile(TileType::kF16); }, Isa::kPortable});
  all.push_back({"portable_u8s8", TileType::kU8S8,
                 []() -> const TileIsa& { return portable_tile(TileType::kU8S8); }, Isa::kPortable});
#if defined(__x86_64__)
  all.push_back({"avx2_f32", TileType::kF32, avx2_tile_f32, Isa::kAvx2});
  if (cpu_has_avx_vnni()) all.push_back({"avx_vnni_u8s8", TileType::kU8S8, avx_vnni_tile_u8s8, Isa::kAvx2});
  all.push_back({"avx512_f32", TileType::kF32, avx512_tile_f32, Isa::kAvx512});
  all.push_back({"avx512_bf16", TileType::kBf16, avx512_tile_bf16, Isa::kVnni});
  all.push_back({"avx512_f16", TileType::kF16, avx512_tile_f16, Isa::kVnni});
  all.push_back({"avx512_u8s8", TileType::kU8S8, avx512_tile_u8s8, Isa::kVnni});
  all.push_back({"amx_bf16", TileType::kBf16, amx_tile_bf16, Isa::kAmx, true});
  all.push_back({"amx_u8s8", TileType::kU8S8, amx_tile_u8s8, Isa::kAmx, true});
#endif
  return all;
}

int64_t element_bytes(TileType type) { return type == TileType::kF32 ? 4 : type == TileType::kU8S8 ? 1 : 2; }

uint16_t truncated_to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

double widened(TileType type, uint16_t half) {
  if (type == TileType::kF16) {
    f16 x;
    x.bits = half;
    return static_cast<double>(static_cast<float>(x));
  }
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return static_cast<double>(x);
}

void fill_group(Random& random, TileType type, bool is_a, std::byte* group) {
  if (type == TileType::kF32) {
    const auto x = static_cast<float>(random.normal());
    std::memcpy(group, &x, sizeof x);
  } else if (type == TileType::kBf16) {
    const uint16_t x[2] = {truncated_to_bf16(static_cast<float>(random.normal())),
                           truncated_to_bf16(static_cast<float>(random.normal()))};
    std::memcpy(group, x, sizeof x);
  } else if (type == TileType::kF16) {
    const uint16_t x[2] = {f16(static_cast<float>(random.normal())).bits, f16(static_cast<float>(random.normal())).bits};
    std::memcpy(group, x, sizeof x);
  } else {
    // Runs of the extremes, where 16-bit sums of pairs would saturate, among values of the whole range.
    const bool extreme = random.below(4) == 0;
    for (int i = 0; i < 4; ++i)
      group[i] = extreme ? std::byte{static_cast<uint8_t>(is_a              ? 255
                                                          : random.below(2) ? 127
                                                                            : 128)}
                         : std::byte{static_cast<uint8_t>(random.below(256))};
  }
}

// Exact product of a group and the sum of its magnitudes.
struct Exact {
  double sum = 0, magnitude = 0;
  int64_t integer = 0;
};

void add_group(TileType type, const std::byte* a, const std::byte* b, Exact& exact) {
  const auto add = [&exact](double x, double y) {
    exact.sum += x * y;
    exact.magnitude += std::abs(x * y);
  };
  if (type == TileType::kF32) {
    float x, y;
    std::memcpy(&x, a, sizeof x);
    std::memcpy(&y, b, sizeof y);
    add(static_cast<double>(x), static_cast<double>(y));
  } else if (type != TileType::kU8S8) {
    uint16_t x[2], y[2];
    std::memcpy(x, a, sizeof x);
    std::memcpy(y, b, sizeof y);
    for (int i = 0; i < 2; ++i) add(widened(type, x[i]), widened(type, y[i]));
  } else {
    for (int i = 0; i < 4; ++i) exact.integer += std::to_integer<int>(a[i]) * static_cast<int8_t>(b[i]);
  }
}

struct Sizes {
  int64_t rows, panels, groups;
};

// Memory of one block: rows apart by more than they need, a and c misaligned, everything that is not operand
// filled with 0xFF, which is NaN, and checked afterwards. The memory of a and b ends with their last operand,
// for the address sanitizer.
class BlockCase {
 public:
  BlockCase(TileType type, const TileIsa& isa, Sizes sizes, bool accumulate, uint64_t seed)
      : type_(type), sums_in_f16_(isa.scale_columns != nullptr), sizes_(sizes), random_(seed) {
    padded_rows_ = (sizes.rows + isa.row_step - 1) / isa.row_step * isa.row_step;
    columns_ = sizes.panels * kPanelColumns;
    const int64_t element = element_bytes(type);
    a_offset_ = below(64 / element) * element;
    a_stride_ = sizes.groups * kGroupBytes + below(80 / element) * element;
    b_stride_ = sizes.groups * kPanelRowBytes + below(3) * kPanelRowBytes;
    c_offset_ = kGuard + below(16);
    c_stride_ = columns_ + below(20);
    a_.assign(static_cast<size_t>(a_offset_ + (padded_rows_ - 1) * a_stride_ + sizes.groups * kGroupBytes),
              std::byte{0xFF});
    b_storage_.assign(
        static_cast<size_t>(64 + (sizes.panels - 1) * b_stride_ + sizes.groups * kPanelRowBytes),
        std::byte{0xFF});
    b_ = b_storage_.data() + (64 - reinterpret_cast<uintptr_t>(b_storage_.data()) % 64);
    c_.assign(static_cast<size_t>(c_offset_ + padded_rows_ * c_stride_ + kGuard), kUntouched);
    for (int64_t r = 0; r < sizes.rows; ++r)
      for (int64_t g = 0; g < sizes.groups; ++g) fill_group(random_, type, true, a_group(r, g));
    for (int64_t column = 0; column < columns_; ++column)
      for (int64_t g = 0; g < sizes.groups; ++g) fill_group(random_, type, false, b_group(column, g));
    if (accumulate) {
      for (int64_t r = 0; r < sizes.rows; ++r)
        for (int64_t column = 0; column < columns_; ++column) {
          uint32_t value = random_.u32() >> 8;
          if (type != TileType::kU8S8) {
            const auto x = static_cast<float>(random_.normal());
            std::memcpy(&value, &x, sizeof value);
          }
          c_[c_index(r, column)] = value;
        }
    }
    block_ = {.rows = sizes.rows,
              .panels = sizes.panels,
              .groups = sizes.groups,
              .a = a_.data() + a_offset_,
              .a_stride = a_stride_,
              .b = b_,
              .b_stride = b_stride_,
              .accumulate = accumulate,
              .c = c_.data() + c_offset_,
              .c_stride = c_stride_};
    before_ = c_;
  }

  const TileBlock& block() const { return block_; }

  // Empty when all is as it should be.
  std::string mistake() const {
    std::vector<bool> writable(c_.size(), false);
    for (int64_t r = 0; r < padded_rows_; ++r)
      for (int64_t column = 0; column < columns_; ++column) writable[c_index(r, column)] = true;
    for (size_t i = 0; i < c_.size(); ++i)
      if (!writable[i] && c_[i] != kUntouched)
        return fmt::format("wrote at element {} of c", static_cast<int64_t>(i) - c_offset_) + describe();
    for (int64_t r = 0; r < sizes_.rows; ++r)
      for (int64_t column = 0; column < columns_; ++column)
        if (std::string wrong = mistake_at(r, column); !wrong.empty()) return wrong + describe();
    return "";
  }

 private:
  static constexpr int64_t kGuard = 64;
  static constexpr uint32_t kUntouched = 0xFFFFFFFF;

  int64_t below(int64_t bound) { return static_cast<int64_t>(random_.below(static_cast<uint64_t>(bound))); }
  std::byte* a_group(int64_t r, int64_t g) { return a_.data() + a_offset_ + r * a_stride_ + g * kGroupBytes; }
  const std::byte* a_group(int64_t r, int64_t g) const { return const_cast<BlockCase*>(this)->a_group(r, g); }
  std::byte* b_group(int64_t column, int64_t g) const {
    return b_ + column / kPanelColumns * b_stride_ +
           (g * kPanelColumns + column % kPanelColumns) * kGroupBytes;
  }
  size_t c_index(int64_t r, int64_t column) const {
    return static_cast<size_t>(c_offset_ + r * c_stride_ + column);
  }

  std::string mistake_at(int64_t r, int64_t column) const {
    Exact exact;
    for (int64_t g = 0; g < sizes_.groups; ++g) add_group(type_, a_group(r, g), b_group(column, g), exact);
    const uint32_t got_bits = c_[c_index(r, column)], before_bits = before_[c_index(r, column)];
    if (type_ == TileType::kU8S8) {
      const int64_t expected = exact.integer + (block_.accumulate ? static_cast<int32_t>(before_bits) : 0);
      const int64_t got = static_cast<int32_t>(got_bits);
      return got == expected ? "" : fmt::format("c[{}, {}] is {}, expected {}", r, column, got, expected);
    }
    float got, before = 0;
    std::memcpy(&got, &got_bits, sizeof got);
    if (block_.accumulate) std::memcpy(&before, &before_bits, sizeof before);
    const double expected = exact.sum + static_cast<double>(before);
    // A sum of n products in any order, each rounded at most once and each addition once.
    const int64_t n = sizes_.groups * (type_ == TileType::kF32 ? 1 : 2);
    double bound = static_cast<double>(n + 2) * 0x1p-24 * (exact.magnitude + std::abs(static_cast<double>(before)));
    // Stretches of 64 groups in f16, the two numbers of a group apart until the end.
    if (sums_in_f16_) bound += 65 * (0x1p-11 * exact.magnitude + 0x1p-25 * (static_cast<double>(sizes_.groups) / 64 + 1));
    const bool close = std::abs(static_cast<double>(got) - expected) <= bound;  // false for NaN
    return close ? "" : fmt::format("c[{}, {}] is {}, expected {} +- {}", r, column, got, expected, bound);
  }

  std::string describe() const {
    return fmt::format(" (rows {}, panels {}, groups {}, a + {} by {}, b by {}, c + {} by {}, accumulate {})",
                       sizes_.rows, sizes_.panels, sizes_.groups, a_offset_, a_stride_, b_stride_,
                       c_offset_ - kGuard, c_stride_, block_.accumulate);
  }

  TileType type_;
  bool sums_in_f16_;
  Sizes sizes_;
  Random random_;
  int64_t padded_rows_ = 0, columns_ = 0, a_offset_ = 0, a_stride_ = 0, b_stride_ = 0, c_offset_ = 0,
          c_stride_ = 0;
  std::vector<std::byte> a_, b_storage_;
  std::byte* b_ = nullptr;
  std::vector<uint32_t> c_, before_;
  TileBlock block_;
};

class TileKernel : public testing::TestWithParam<Candidate> {
 protected:
  static void SetUpTestSuite() {
    std::printf("AMX: %s\n", test::amx_is_real() ? "real, of this CPU"
                                                 : "emulated in software, this CPU or system has none");
  }

  void SetUp() override {
    const Candidate& candidate = GetParam();
    // AMX units are compiled for AVX-512 too.
    const bool emulate = candidate.amx && !test::amx_is_real();
    const Isa needs = emulate ? Isa::kAvx512 : candidate.needs;
    if (cpu_isa() < needs) GTEST_SKIP() << "this CPU (or DS_ISA) has no " << isa_name(needs);
    if (candidate.name == "avx512_bf16" && !cpu_has_bf16()) GTEST_SKIP() << "this CPU has no AVX512_BF16";
    if (candidate.name == "avx512_f16" && !cpu_has_fp16()) GTEST_SKIP() << "this CPU has no AVX512_FP16";
    if (candidate.amx) emulator_ = std::make_unique<test::AmxEmulator>();
    isa_ = &candidate.get();
    executed_before_ = test::AmxEmulator::executed();
  }

  void TearDown() override {
    if (isa_ == nullptr) return;
    EXPECT_EQ(test::AmxEmulator::executed() > executed_before_, emulator_ != nullptr && emulator_->active())
        << "tile instructions executed in software";
  }

  void check(Sizes sizes, bool accumulate, uint64_t seed) const {
    const BlockCase c(GetParam().type, *isa_, sizes, accumulate, seed);
    isa_->block(c.block());
    EXPECT_EQ(c.mistake(), "") << "seed " << seed;
#if defined(__x86_64__)
    if (GetParam().amx) {
      // Tile state left behind would be saved and restored with every switch of threads.
      uint8_t config[64];
      __asm__ volatile("sttilecfg %0" : "=m"(config));
      EXPECT_EQ(config[0], 0) << "tiles are still configured after the block";
    }
#endif
  }

  const TileIsa* isa_ = nullptr;

 private:
  std::unique_ptr<test::AmxEmulator> emulator_;
  long long executed_before_ = 0;
};

TEST_P(TileKernel, RandomBlocks) {
  constexpr uint64_t kBlocks = 60;
  const int64_t group_step = isa_->group_step;
  for (uint64_t seed = 1; seed <= kBlocks && !HasFailure(); ++seed) {
    Random random(seed, 7);
    const auto between = [&random](int64_t low, int64_t high) {
      return low + static_cast<int64_t>(random.below(static_cast<uint64_t>(high - low + 1)));
    };
    const int64_t steps = between(1, std::max<int64_t>(3, 40 / group_step));
    check({between(1, 70), between(1, 5), steps * group_step}, seed % 2 == 0, seed);
  }
}

TEST_P(TileKernel, EveryRemainderOfRowsAndPanels) {
  const int64_t groups = isa_->group_step == 1 ? 3 : isa_->group_step;
  for (int64_t rows = 1; rows <= 50 && !HasFailure(); ++rows)
    for (int64_t panels = 1; panels <= 5; ++panels)
      check({rows, panels, groups}, (rows + panels) % 2 == 0, 1000);
}

// Blocks whose rows do not fit into L1 beside the weights, where kernels may load and fetch ahead in another
// way.
TEST_P(TileKernel, BlocksBeyondL1) {
  check({70, 3, 128}, false, 1);
  check({33, 4, 256}, true, 2);
  check({96, 2, 256}, false, 3);
  check({16, 2, 512}, true, 4);
  check({7, 11, 96}, false, 5);
  check({16, 8, 64}, true, 6);
}

TEST_P(TileKernel, WithoutDepthIsZeroOrUnchanged) {
  check({5, 3, 0}, false, 1);
  check({40, 2, 0}, true, 2);
}

TEST_P(TileKernel, ThreadsDoNotDisturbEachOther) {
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 3; ++t)
    threads.emplace_back([this, t] {
      for (uint64_t i = 0; i < 6; ++i)
        check({static_cast<int64_t>(20 + 7 * t + i), 3, 32}, i % 2 == 0, 100 * t + i);
    });
  for (std::thread& thread : threads) thread.join();
}

// --- sums in f16 -----------------------------------------------------------------------------------

std::vector<f16> halves(size_t n, double deviation, uint64_t seed) {
  Random random(seed, 3);
  std::vector<f16> list(n);
  for (f16& x : list) x = f16(static_cast<float>(deviation * random.normal()));
  return list;
}

class F16Sums : public testing::Test {
 protected:
  void SetUp() override {
    if (!cpu_has_fp16()) GTEST_SKIP() << "this CPU (or DS_ISA) has no AVX512_FP16";
  }

  // One row of `a` times a panel b [groups][16][2], scaled first where `scaled`; undone in the sums.
  static std::vector<float> sums(const std::vector<f16>& a, std::vector<f16> b, bool scaled) {
    const auto groups = static_cast<int64_t>(a.size() / 2);
    std::vector<float> c(kPanelColumns, NAN);
    float undo[kPanelColumns];
    std::fill(std::begin(undo), std::end(undo), 1.0f);
    const TileIsa& isa = avx512_tile_f16();
    if (scaled) isa.scale_columns(reinterpret_cast<std::byte*>(b.data()), groups, undo);
    TileBlock block;
    block.rows = block.panels = 1;
    block.groups = groups;
    block.a = reinterpret_cast<const std::byte*>(a.data());
    block.b = reinterpret_cast<const std::byte*>(b.data());
    block.c = c.data();
    block.c_stride = kPanelColumns;
    isa.block(block);
    for (size_t i = 0; i < c.size(); ++i) c[i] *= undo[i];
    return c;
  }
  static double exact(const std::vector<f16>& a, const std::vector<f16>& b, size_t column) {
    double sum = 0;
    for (size_t k = 0; k < a.size(); ++k)
      sum += static_cast<double>(static_cast<float>(a[k])) * static_cast<double>(static_cast<float>(b[k / 2 * 32 + column * 2 + k % 2]));
    return sum;
  }
};

// What the stretches are for: the error does not grow with the depth. 4096 products summed in f16 alone would be off by 2^-6.
TEST_F(F16Sums, DeepSumsKeepNineBits) {
  for (const auto& [deviation, bound] : {std::pair{1000.0, 0x1.8p-10}, {1.0, 0x1.8p-10}, {0.02, 0x1.8p-10}, {1e-3, 0x1p-8}}) {
    double error = 0, size = 0;
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      const std::vector<f16> a = halves(4096, deviation, seed), b = halves(4096 * 16, 0.05, seed + 100);
      const std::vector<float> c = sums(a, b, true);
      for (size_t i = 0; i < c.size(); ++i) {
        const double e = exact(a, b, i);
        error += (static_cast<double>(c[i]) - e) * (static_cast<double>(c[i]) - e);
        size += e * e;
      }
    }
    EXPECT_LT(std::sqrt(error / size), bound) << "activations of " << deviation;
    EXPECT_GT(error, 0);
  }
}

// The largest activations there are, of one sign, against weights of one sign.
TEST_F(F16Sums, NothingFiniteOverflows) {
  for (const float weight : {65504.0f, 200.0f, 1.0f, 1e-3f}) {
    for (const size_t depth : {2u, 62u, 64u, 66u, 130u, 4096u}) {
      const std::vector<f16> a(depth, f16(65504.0f)), b(depth * 16, f16(weight));
      const std::vector<float> c = sums(a, b, true);
      const double e = exact(a, b, 0);
      for (const float x : c) EXPECT_NEAR(x, e, 0.005 * e) << "weights of " << weight << ", depth " << depth;
    }
  }
  // One large weight among small ones, at every place of a stretch.
  for (size_t at = 0; at < 200; ++at) {
    std::vector<f16> a(200, f16(65504.0f)), b(200 * 16, f16(0.01f));
    for (size_t column = 0; column < 16; ++column) b[at / 2 * 32 + column * 2 + at % 2] = f16(1000.0f);
    const double e = exact(a, b, 3);
    EXPECT_NEAR(sums(a, b, true)[3], e, 0.005 * e) << at;
  }
}

TEST_F(F16Sums, ColumnsOfZerosAndNaN) {
  std::vector<f16> a = halves(66, 1, 5), b = halves(66 * 16, 1, 6);
  for (size_t k = 0; k < 66; ++k) b[k / 2 * 32 + 4 * 2 + k % 2] = f16(0.0f);
  b[7 * 2] = f16(NAN);
  const std::vector<float> c = sums(a, b, true);
  EXPECT_EQ(c[4], 0);
  EXPECT_TRUE(std::isnan(c[7]));
  EXPECT_TRUE(std::isfinite(c[0]) && std::isfinite(c[15]));
}

// Bit for bit as libds/base/half.h does it, at odd lengths.
TEST_F(F16Sums, NarrowingSaturates) {
  std::vector<float> x = {0, -0.0f, 1, 65504, 65519, 65520, -65520, 1e30f, -1e30f, INFINITY, -INFINITY, 6e-8f, 2e-8f, -3e-5f, 1e-40f, NAN};
  Random random(4, 4);
  for (int i = 0; i < 1001; ++i) x.push_back(static_cast<float>(random.normal()) * std::exp2(static_cast<float>(random.below(60)) - 40.0f));
  for (size_t n : {1u, 15u, 16u, 17u, 1017u}) {
    std::vector<uint16_t> y(n + 1, 0x1234);
    EXPECT_EQ(avx512_tile_f16().narrow(static_cast<int64_t>(n), x.data(), y.data()), n > 4);
    EXPECT_EQ(y[n], 0x1234);
    for (size_t i = 0; i < n; ++i) {
      if (std::isnan(x[i])) {
        EXPECT_EQ(y[i] & 0x7e00, 0x7e00);
      }
      if (!std::isnan(x[i])) {
        EXPECT_EQ(y[i], saturated_f16(x[i]).bits) << x[i];
      }
    }
  }
  EXPECT_EQ(static_cast<float>(saturated_f16(1e9f)), 65504.0f);
  EXPECT_EQ(static_cast<float>(saturated_f16(-INFINITY)), -65504.0f);
  EXPECT_TRUE(std::isnan(static_cast<float>(saturated_f16(NAN))));
}

INSTANTIATE_TEST_SUITE_P(Isa, TileKernel, testing::ValuesIn(candidates()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace ds::kernels
