// What support vector machines need beside products of matrices, on raw pointers.
//
// Legend: N rows, F features, S support vectors, C classes, P = C (C - 1) / 2 pairs of classes in the order
// (0, 1), (0, 2), ..., (1, 2), ... Sums are in f64. Threads: parallel_for over rows.
#pragma once

#include <cstdint>

namespace ds::kernels {

// out[n, s] = |x[n] - vectors[s]|^2, from the differences: the expanded form cancels.
void squared_distances(int64_t rows, int64_t vectors, int64_t features, const float* x, const float* v, float* out);

// Probabilities of the classes, [N, C], from the decision values of the pairs, [N, P]. Of a pair (i, j) with value s,
// i has probability 1 / (1 + exp(a s + b)) (Platt); the pairs are coupled by the second method of Wu, Lin and Weng,
// "Probability Estimates for Multi-class Classification by Pairwise Coupling" (2004), as in LIBSVM.
void pairwise_coupling(int64_t rows, int64_t classes, const float* scores, const float* a, const float* b, float* out);

}  // namespace ds::kernels
