// Loops that do nothing but multiply-adds on registers: what the arithmetic units can deliver.
//
// Each runs `rounds` rounds on enough independent accumulators to hide the latency, stores a value
// that depends on all of them to `sink`, and returns the operations done (a multiply-add is two).
// Single-threaded. The _avx2 and _avx512 ones need that instruction set (vnni: AVX512-VNNI).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ds::kernels {

int64_t peak_f32_portable(int64_t rounds, float* sink);
int64_t peak_f32_avx2(int64_t rounds, float* sink);
int64_t peak_f32_avx512(int64_t rounds, float* sink);
// u8 x s8 into s32, as quantized convolutions and matrix products need it.
int64_t peak_s8_portable(int64_t rounds, float* sink);
int64_t peak_s8_avx2(int64_t rounds, float* sink);
int64_t peak_s8_vnni_avx512(int64_t rounds, float* sink);
// Pairs of bf16 into f32; need AVX512-BF16 and AMX.
int64_t peak_bf16_avx512(int64_t rounds, float* sink);
int64_t peak_bf16_amx(int64_t rounds, float* sink);
// f16 into f16; needs AVX512-FP16.
int64_t peak_f16_avx512(int64_t rounds, float* sink);

// Reads `bytes` bytes (a multiple of 64, at an address aligned to 8) as fast as loads go, and returns their sum as
// 64-bit words, so that the reading cannot be left out.
int64_t read_bytes(const std::byte* src, int64_t bytes);

}  // namespace ds::kernels
