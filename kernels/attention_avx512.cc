// Attention on AVX-512.
#pragma GCC diagnostic ignored "-Wuninitialized"  // false, inside the header (GCC bug 105593)
#include <immintrin.h>

#include "kernels/attention_simd_avx512.h"
#include "kernels/attention_tiles.h"

namespace ds::kernels::avx512 {

int64_t attention_scratch(const Attention& a, int parts) { return tiles_scratch<Avx512>(a, parts); }
void attention(const Attention& a, const AttentionOperands<float>& o, int parts, float* scratch) { run_tiles<Avx512>(a, o, parts, scratch); }

}  // namespace ds::kernels::avx512
