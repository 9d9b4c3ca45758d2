// Losses and their gradients.
//
// Legend: N samples, C classes, D elements behind the class axis (pixels of a segmentation; 1 for a
// classifier); logits [N, C, D], labels [N, D]. T: float or double; sums are kept in double.
#pragma once

#include <cstdint>

namespace ds::kernels {

enum class Reduction { kNone, kSum, kMean };

struct CrossEntropyShape {
  int64_t n, c, d;
};

// First label outside [0, C) that is not `ignored`; -1 when there is none.
int64_t find_bad_label(const CrossEntropyShape& s, const int64_t* labels, bool has_ignored, int64_t ignored);

// loss[n, d] = weight[label] * -log softmax(logits[n, :, d])[label], 0 where the label is ignored; then
// reduced: one number for sum and mean (mean divides by the weights' sum), N x D numbers for none.
// weight (per class) may be null; log_prob, if not null, receives log softmax [N, C, D].
template <typename T>
void cross_entropy(const CrossEntropyShape& s, Reduction reduction, const T* logits, const int64_t* labels, const T* weight,
                   bool has_ignored, int64_t ignored, T* loss, T* log_prob);

// d_logits from d_loss (one number, or N x D for none).
template <typename T>
void cross_entropy_grad(const CrossEntropyShape& s, Reduction reduction, const T* logits, const int64_t* labels,
                        const T* weight, bool has_ignored, int64_t ignored, const T* d_loss, T* d_logits);

// Mean of (x - y)², and its gradient in x.
template <typename T>
T mse(int64_t n, const T* x, const T* y);
template <typename T>
void mse_grad(int64_t n, const T* x, const T* y, T d_loss, T* d_x);

// Mean binary cross-entropy of sigmoid(x) against y in [0, 1], computed as max(x,0) - xy + log(1 + e^-|x|).
template <typename T>
T bce_with_logits(int64_t n, const T* x, const T* y);
template <typename T>
void bce_with_logits_grad(int64_t n, const T* x, const T* y, T d_loss, T* d_x);

}  // namespace ds::kernels
