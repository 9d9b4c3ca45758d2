// Products with few rows and weights that stay in cache, as the steps of recurrent networks have them: without the price
// that a call of a large product has.
//
// c [m, n] = a [m, k] b [k, n]. b in panels of kSmallPanel columns, [panels][k][kSmallPanel], zeros beyond n. Each sum is
// added up in one order. No threads.
#pragma once

#include <cstdint>

namespace ds::kernels {

constexpr int64_t kSmallPanel = 64;
constexpr int64_t small_product_elements(int64_t n, int64_t k) { return (n + kSmallPanel - 1) / kSmallPanel * kSmallPanel * k; }

// From weights [n, k].
void pack_small_product(int64_t n, int64_t k, const float* weights, float* packed);

using SmallProductFn = void(int64_t m, int64_t n, int64_t k, const float* a, const float* packed, float* c);
SmallProductFn small_product_avx2;
SmallProductFn small_product_avx512;  // call only where the CPU has AVX-512

}  // namespace ds::kernels
