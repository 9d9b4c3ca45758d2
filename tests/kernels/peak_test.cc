// The loops that peaks are measured with: that they run, count their operations and leave a number behind.
#include "kernels/peak.h"

#include <gtest/gtest.h>

#include <cmath>

#include "libds/base/cpu.h"
#include "tests/support/amx_emulator.h"

namespace ds::kernels {
namespace {

void check(int64_t (*loop)(int64_t, float*), const char* what) {
  float sink = 1;
  const int64_t few = loop(3, &sink), more = loop(7, &sink);
  EXPECT_GT(few, 0) << what;
  EXPECT_EQ(few * 7, more * 3) << what;
  EXPECT_TRUE(std::isfinite(sink)) << what;
}

TEST(Peak, LoopsCountTheirOperations) {
  check(peak_f32_portable, "portable f32");
  check(peak_s8_portable, "portable s8");
  if (cpu_isa() >= Isa::kAvx2) check(peak_f32_avx2, "avx2 f32"), check(peak_s8_avx2, "avx2 s8");
  if (cpu_isa() >= Isa::kAvx512) check(peak_f32_avx512, "avx512 f32");
  if (cpu_isa() >= Isa::kVnni) check(peak_s8_vnni_avx512, "vnni s8");
  if (cpu_has_bf16()) check(peak_bf16_avx512, "avx512 bf16");
}

TEST(Peak, AmxLoop) {
  const test::AmxEmulator emulator;
  if (!emulator.active() && !test::amx_is_real()) GTEST_SKIP() << "no AMX, and no x86 to execute it in software on";
  float sink = 1;
  EXPECT_EQ(peak_bf16_amx(2, &sink), 2 * 4 * 16 * 16 * 32 * 2);
  // Four sums of two products each, of 32 pairs of the bf16 nearest to 0.001.
  const double x = 0.00099945068359375;
  EXPECT_NEAR(sink, 4 * 2 * 32 * x * x, 1e-9);
}

}  // namespace
}  // namespace ds::kernels
