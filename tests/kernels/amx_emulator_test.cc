// The emulator instruction by instruction: encodings, addressing modes, shapes, and the mistakes it reports.
// Where AMX is real the same programs run on the CPU, which checks the expectations themselves.
#include "tests/support/amx_emulator.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "libds/base/random.h"

#if defined(__x86_64__)
namespace ds::test {
namespace {

struct alignas(64) Config {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  Config& tile(int t, int tile_rows, int tile_row_bytes) {
    rows[t] = static_cast<uint8_t>(tile_rows);
    row_bytes[t] = static_cast<uint16_t>(tile_row_bytes);
    return *this;
  }
};

void load_config(const Config& config) { asm volatile("ldtilecfg %0" ::"m"(config)); }
void release() { asm volatile("tilerelease"); }

class AmxInstructions : public testing::Test {
 protected:
  void TearDown() override { release(); }
  // Of a report on stderr; a real CPU only raises a signal.
  static const char* report(const char* text) { return amx_is_real() ? "" : text; }

  AmxEmulator emulator_;
};

std::vector<uint8_t> random_bytes(size_t count, uint64_t seed) {
  Random random(seed);
  std::vector<uint8_t> bytes(count);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.below(256));
  return bytes;
}

TEST_F(AmxInstructions, IsActiveExactlyWhereThereIsNoAmx) { EXPECT_NE(emulator_.active(), amx_is_real()); }

TEST_F(AmxInstructions, ConfigurationIsStoredAsLoaded) {
  const Config config = Config().tile(0, 16, 64).tile(5, 3, 20);
  load_config(config);
  Config stored;
  stored.palette = 0xAA;
  asm volatile("sttilecfg %0" : "=m"(stored));
  EXPECT_EQ(std::memcmp(&stored, &config, sizeof config), 0);
  release();
  asm volatile("sttilecfg %0" : "=m"(stored));
  const std::vector<uint8_t> zeros(64);
  EXPECT_EQ(std::memcmp(&stored, zeros.data(), 64), 0);
}

alignas(64) const Config static_config = Config().tile(1, 2, 8);

TEST_F(AmxInstructions, ConfigurationRelativeToTheInstructionAndIndexed) {
  Config stored;
  asm volatile("ldtilecfg %0" ::"m"(static_config));  // RIP-relative in all the code models we build for
  asm volatile("sttilecfg %0" : "=m"(stored));
  EXPECT_EQ(std::memcmp(&stored, &static_config, 64), 0);
  release();
  const auto base = reinterpret_cast<int64_t>(&static_config) - 24;
  asm volatile("ldtilecfg 8(%0,%1,4)" ::"r"(base), "r"(int64_t{4}) : "memory");
  asm volatile("sttilecfg %0" : "=m"(stored));
  EXPECT_EQ(std::memcmp(&stored, &static_config, 64), 0);
}

// Loads a tile of 5 rows of 12 bytes through one way of addressing and stores it without gaps through
// another.
#define CHECK_LOAD(load, base_value, index_value, base_register, index_register)                           \
  {                                                                                                        \
    asm volatile("mov %0, %%" base_register "\n\tmov %1, %%" index_register "\n\t" load ::"r"(base_value), \
                 "r"(static_cast<int64_t>(index_value))                                                    \
                 : base_register, index_register, "memory");                                               \
    std::vector<uint8_t> got(5 * 12, 0);                                                                   \
    asm volatile("tilestored %%tmm7, (%0,%1,1)" ::"r"(got.data()), "r"(int64_t{12}) : "memory");           \
    for (size_t r = 0; r < 5; ++r)                                                                         \
      EXPECT_EQ(std::memcmp(&got[r * 12], start + static_cast<int64_t>(r) * stride, 12), 0)                \
          << load << " row " << r;                                                                         \
  }

TEST_F(AmxInstructions, LoadsThroughEveryWayOfAddressing) {
  load_config(Config().tile(7, 5, 12));
  const std::vector<uint8_t> memory = random_bytes(4096, 1);
  const uint8_t* const start = memory.data() + 2048;
  int64_t stride = 40;
  CHECK_LOAD("tileloadd (%%rdx,%%rcx,1), %%tmm7", start, 40, "rdx", "rcx");
  CHECK_LOAD("tileloaddt1 (%%rdx,%%rcx,1), %%tmm7", start, 40, "rdx", "rcx");
  CHECK_LOAD("tileloadd (%%r8,%%r15,4), %%tmm7", start, 10, "r8", "r15");
  CHECK_LOAD("tileloadd (%%r13,%%r12,8), %%tmm7", start, 5, "r13",
             "r12");  // r13: base 5, needs a displacement
  CHECK_LOAD("tileloadd (%%r12,%%rsi,2), %%tmm7", start, 20, "r12",
             "rsi");  // r12: base 4; as an index it is none
  CHECK_LOAD("tileloadd -128(%%rdi,%%rax,1), %%tmm7", start + 128, 40, "rdi", "rax");
  CHECK_LOAD("tileloadd 0x12345(%%r14,%%r9,1), %%tmm7", start - 0x12345, 40, "r14", "r9");
  CHECK_LOAD("tileloadd -0x12345(%%r10,%%r11,1), %%tmm7", start + 0x12345, 40, "r10", "r11");
  stride = -40;
  CHECK_LOAD("tileloadd (%%rdx,%%rcx,1), %%tmm7", start, -40, "rdx", "rcx");
  stride = 0;  // no index: every row is the first
  CHECK_LOAD("tileloadd (%%rdx), %%tmm7", start, 0, "rdx", "rcx");
  CHECK_LOAD("tileloadd 16(%%r8), %%tmm7", start - 16, 0, "r8", "rcx");
}

TEST_F(AmxInstructions, EveryTileHasItsOwnData) {
  Config config;
  for (int t = 0; t < 8; ++t) config.tile(t, 2, 64);
  load_config(config);
  const std::vector<uint8_t> in = random_bytes(8 * 128, 2);
  std::vector<uint8_t> out(8 * 128);
#define LOAD(t) asm volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(&in[t * 128]), "r"(int64_t{64}) : "memory")
#define STORE(t) \
  asm volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(&out[t * 128]), "r"(int64_t{64}) : "memory")
  LOAD(0);
  LOAD(1);
  LOAD(2);
  LOAD(3);
  LOAD(4);
  LOAD(5);
  LOAD(6);
  LOAD(7);
  asm volatile("tilezero %tmm6");
  STORE(0);
  STORE(1);
  STORE(2);
  STORE(3);
  STORE(4);
  STORE(5);
  STORE(6);
  STORE(7);
#undef LOAD
#undef STORE
  std::vector<uint8_t> expected = in;
  std::fill(expected.begin() + 6 * 128, expected.begin() + 7 * 128, uint8_t{0});
  EXPECT_EQ(out, expected);
}

TEST_F(AmxInstructions, ThreadsHaveTilesOfTheirOwn) {
  load_config(Config().tile(0, 1, 4));
  const uint32_t mine = 17;
  asm volatile("tileloadd (%0), %%tmm0" ::"r"(&mine) : "memory");
  std::thread([] {
    load_config(Config().tile(0, 1, 4));
    const uint32_t theirs = 23;
    asm volatile("tileloadd (%0), %%tmm0" ::"r"(&theirs) : "memory");
    release();
  }).join();
  uint32_t got = 0;
  asm volatile("tilestored %%tmm0, (%0)" ::"r"(&got) : "memory");
  EXPECT_EQ(got, 17u);
}

// c [5, 7] += a [5, 3 groups] . b [3 groups, 7]
constexpr int kRows = 5, kColumns = 7, kGroups = 3;

void load_operands(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b, const void* c) {
  load_config(
      Config().tile(2, kRows, kColumns * 4).tile(0, kRows, kGroups * 4).tile(7, kGroups, kColumns * 4));
  asm volatile("tileloadd (%0,%1,1), %%tmm0" ::"r"(a.data()), "r"(int64_t{kGroups * 4}) : "memory");
  asm volatile("tileloadd (%0,%1,1), %%tmm7" ::"r"(b.data()), "r"(int64_t{kColumns * 4}) : "memory");
  asm volatile("tileloadd (%0,%1,1), %%tmm2" ::"r"(c), "r"(int64_t{kColumns * 4}) : "memory");
}

void store_result(void* c) {
  asm volatile("tilestored %%tmm2, (%0,%1,1)" ::"r"(c), "r"(int64_t{kColumns * 4}) : "memory");
}

template <typename A, typename B>
void check_bytes(void (*product)()) {
  const std::vector<uint8_t> a = random_bytes(kRows * kGroups * 4, 3),
                             b = random_bytes(kGroups * kColumns * 4, 4);
  std::vector<int32_t> c(kRows * kColumns, std::numeric_limits<int32_t>::max() - 5), got(c.size());
  load_operands(a, b, c.data());
  product();
  store_result(got.data());
  for (int m = 0; m < kRows; ++m)
    for (int n = 0; n < kColumns; ++n) {
      int64_t sum = c[static_cast<size_t>(m * kColumns + n)];
      for (int k = 0; k < kGroups * 4; ++k)
        sum += static_cast<A>(a[static_cast<size_t>(m * kGroups * 4 + k)]) *
               static_cast<B>(b[static_cast<size_t>((k / 4 * kColumns + n) * 4 + k % 4)]);
      EXPECT_EQ(got[static_cast<size_t>(m * kColumns + n)], static_cast<int32_t>(sum))
          << m << ", " << n;  // wraps
    }
}

TEST_F(AmxInstructions, ProductsOfBytes) {
  check_bytes<int8_t, int8_t>([] { asm volatile("tdpbssd %tmm7, %tmm0, %tmm2"); });
  check_bytes<int8_t, uint8_t>([] { asm volatile("tdpbsud %tmm7, %tmm0, %tmm2"); });
  check_bytes<uint8_t, int8_t>([] { asm volatile("tdpbusd %tmm7, %tmm0, %tmm2"); });
  check_bytes<uint8_t, uint8_t>([] { asm volatile("tdpbuud %tmm7, %tmm0, %tmm2"); });
}

uint16_t bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

// One dot product of pairs (a0 b0 + a1 b1), added to c.
float dot_bf16(float a0, float b0, float a1, float b1, float c) {
  load_config(Config().tile(0, 1, 4).tile(1, 1, 4).tile(2, 1, 4));
  const uint16_t a[2] = {bf16(a0), bf16(a1)}, b[2] = {bf16(b0), bf16(b1)};
  asm volatile("tileloadd (%0), %%tmm0" ::"r"(&c) : "memory");
  asm volatile("tileloadd (%0), %%tmm1" ::"r"(a) : "memory");
  asm volatile("tileloadd (%0), %%tmm2" ::"r"(b) : "memory");
  asm volatile("tdpbf16ps %tmm2, %tmm1, %tmm0");
  asm volatile("tilestored %%tmm0, (%0)" ::"r"(&c) : "memory");
  return c;
}

TEST_F(AmxInstructions, ProductsOfBf16) {
  // Small integers: every order of summing is exact.
  Random random(5);
  std::vector<uint8_t> a(kRows * kGroups * 4), b(kGroups * kColumns * 4);
  const auto fill = [&random](std::vector<uint8_t>& bytes) {
    for (size_t i = 0; i < bytes.size(); i += 2) {
      const uint16_t x = bf16(static_cast<float>(random.below(17)) - 8);
      std::memcpy(&bytes[i], &x, 2);
    }
  };
  fill(a);
  fill(b);
  const auto value = [](const std::vector<uint8_t>& bytes, int at) {
    uint32_t bits = 0;
    std::memcpy(reinterpret_cast<uint8_t*>(&bits) + 2, &bytes[static_cast<size_t>(at) * 2], 2);
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  };
  std::vector<float> c(kRows * kColumns, 100), got(c.size());
  load_operands(a, b, c.data());
  asm volatile("tdpbf16ps %tmm7, %tmm0, %tmm2");
  store_result(got.data());
  for (int m = 0; m < kRows; ++m)
    for (int n = 0; n < kColumns; ++n) {
      float sum = 100;
      for (int k = 0; k < kGroups * 2; ++k)
        sum += value(a, m * kGroups * 2 + k) * value(b, (k / 2 * kColumns + n) * 2 + k % 2);
      EXPECT_EQ(got[static_cast<size_t>(m * kColumns + n)], sum) << m << ", " << n;
    }
}

TEST_F(AmxInstructions, RoundingOfBf16Products) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kTiny = std::numeric_limits<float>::min();
  // The pair is summed before it meets c: 2^24 + 1 - 2^24 in another order would lose the 1.
  EXPECT_EQ(dot_bf16(1, 1, 1, 1, 0x1p24f), 0x1p24f + 2);
  // To nearest, ties to even: 2^24 + 1 is a tie and goes down, 2^24 + 3 goes up.
  EXPECT_EQ(dot_bf16(1, 1, 0, 0, 0x1p24f), 0x1p24f);
  EXPECT_EQ(dot_bf16(3, 1, 0, 0, 0x1p24f), 0x1p24f + 4);
  // Denormals are zero, as operands, as c, and as results.
  EXPECT_EQ(dot_bf16(kTiny / 2, 0x1p100f, 0, 0, 0), 0.0f);
  EXPECT_EQ(dot_bf16(kTiny, 0.5f, 0, 0, 0), 0.0f);
  EXPECT_EQ(dot_bf16(0, 0, 0, 0, kTiny / 2), 0.0f);
  EXPECT_EQ(dot_bf16(kTiny, 1, 0, 0, 0), kTiny);
  EXPECT_EQ(dot_bf16(kInf, 2, 1, 1, 1), kInf);
  EXPECT_TRUE(std::isnan(dot_bf16(kInf, 0, 1, 1, 1)));
  EXPECT_TRUE(std::isnan(dot_bf16(kInf, 1, -kInf, 1, 1)));
}

using AmxMistakes = AmxInstructions;

TEST_F(AmxMistakes, AreReported) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const Config pair = Config().tile(0, 4, 16).tile(1, 4, 16).tile(2, 4, 16);
  EXPECT_DEATH(asm volatile("tilezero %tmm0"), report("TILEZERO: tile 0: no tile configuration is loaded"));
  EXPECT_DEATH(
      {
        load_config(pair);
        asm volatile("tilezero %tmm3");
      },
      report("TILEZERO: tile 3: is not configured"));
  EXPECT_DEATH(
      {
        load_config(pair);
        asm volatile(".byte 0xC4, 0xE2, 0x71, 0x5E, 0xC0");  // tdpbusd %tmm1, %tmm0, %tmm0
      },
      report("TDPBUSD: tile 0: an operand is named twice"));
  EXPECT_DEATH(
      {
        load_config(Config().tile(0, 4, 16).tile(1, 4, 12).tile(2, 4, 16));
        asm volatile("tdpbf16ps %tmm2, %tmm1, %tmm0");
      },
      report("TDPBF16PS: tile 1: the depths of the sources differ"));
  EXPECT_DEATH(load_config(Config().tile(3, 17, 64)), report("LDTILECFG: tile 3: more than 16 rows"));
  EXPECT_DEATH(load_config(Config().tile(3, 16, 65)),
               report("LDTILECFG: tile 3: rows of more than 64 bytes"));
  EXPECT_DEATH(load_config(Config().tile(8, 1, 4)), report("LDTILECFG: tile 8: there is no such tile"));
  EXPECT_DEATH(load_config(Config().tile(0, 1, 0)),
               report("LDTILECFG: tile 0: only one of rows and bytes per row is 0"));
  Config palette;
  palette.palette = 2;
  EXPECT_DEATH(load_config(palette), report("LDTILECFG: the palette is neither 0 nor 1"));
}

// The handler that was there before the emulator gets what the emulator does not know.
TEST(AmxOtherInstructions, KeepTheirHandler) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        signal(SIGILL, [](int) { _exit(42); });
        const AmxEmulator emulator;
        asm volatile("ud2");
      },
      testing::ExitedWithCode(42), "");
  EXPECT_EXIT(
      {
        signal(SIGILL, SIG_DFL);
        const AmxEmulator emulator;
        asm volatile("ud2");
      },
      testing::KilledBySignal(SIGILL), "");
}

}  // namespace
}  // namespace ds::test
#endif
