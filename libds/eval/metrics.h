// Figures of merit, in double precision whatever the type of the tensors.
//
// Legend: N samples, C classes. Logits [N, C] (further axes of size 1 are allowed), labels i64 [N].
// Functions throw bad data when shapes do not agree or a label is out of range (naming the row).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "libds/mem/tensor.h"

namespace ds {

// --- classification ---

// Index of the greatest logit of each row; the lower index wins a tie, NaN never wins.
std::vector<int64_t> argmax_rows(const Tensor& logits);

struct Classified {
  int64_t samples = 0, top1 = 0, top5 = 0;
  double cross_entropy = 0;  // sum over the samples, natural logarithm
};
Classified classify(const Tensor& logits, const Tensor& labels);

// Part of the rows on which two sets of logits choose the same class.
double agreement(const Tensor& a, const Tensor& b);

// Area under the receiver operating characteristic: the chance that a positive scores above a
// negative, ties counting one half. 0.5 when one class is missing.
double roc_auc(std::span<const double> scores, std::span<const int64_t> positive);

struct F1 {
  std::vector<double> per_class;  // 0 for a class that is neither present nor predicted
  double macro = 0;               // mean over the classes present or predicted
  double micro = 0;               // equals accuracy when every sample has one class
};
F1 f1_score(std::span<const int64_t> predicted, std::span<const int64_t> labels, int64_t classes);

// --- distances between tensors of equal shape ---

double mean_squared_error(const Tensor& got, const Tensor& want);
// Of the angle between them as vectors; 1 when both are zero, 0 when one is.
double cosine_similarity(const Tensor& got, const Tensor& want);
// Signal to quantization noise in decibels: 10 log10(|want|^2 / |got - want|^2). Infinity when equal.
double sqnr_db(const Tensor& got, const Tensor& want);
struct MaxError {
  double absolute = 0, relative = 0;  // relative: over max(|want|, 1e-12)
};
MaxError max_error(const Tensor& got, const Tensor& want);

// exp of the mean cross-entropy.
double perplexity(double mean_cross_entropy);

}  // namespace ds
