// Losses and their gradients on raw pointers. Sums are in double and in a fixed order. T: f32, f64.
#pragma once

#include <cstdint>
#include <optional>

namespace ds::kernels {

// Cross-entropy of softmax(x) with integer labels. Legend: x, d_x [N, C, S]; labels [N, S]; C classes.
struct CrossEntropy {
  int64_t N, C, S;
  std::optional<int64_t> ignore_index;  // positions with this label have no loss and no gradient
};

// Index into `labels` of the first one that is neither in [0, C) nor ignored; -1 when all are fine. The
// functions below expect fine labels.
int64_t first_bad_label(const CrossEntropy& p, const int64_t* labels);

// loss [N, S] = -w[label] log softmax(x)[label], 0 where ignored. `class_weights` [C] may be null.
template <typename T>
void cross_entropy(const CrossEntropy& p, const T* x, const int64_t* labels, const T* class_weights, T* loss);
// Sum of w[label] over positions that are not ignored: what the mean divides by.
template <typename T>
double cross_entropy_weight(const CrossEntropy& p, const int64_t* labels, const T* class_weights);
// d_x = (softmax(x) - onehot) w[label] factor d_loss; d_loss is [N, S] or, with `scalar`, one number.
template <typename T>
void cross_entropy_grad(const CrossEntropy& p, const T* x, const int64_t* labels, const T* class_weights, double factor,
                        bool scalar, const T* d_loss, T* d_x);

template <typename T>
double sum(int64_t n, const T* x);

// Mean of (x - target)^2, and its gradient for x: 2 (x - target) / n d_loss.
template <typename T>
T mse(int64_t n, const T* x, const T* target);
template <typename T>
void mse_grad(int64_t n, const T* x, const T* target, T d_loss, T* d_x);

// Mean of binary cross-entropy of sigmoid(x) with targets in [0, 1], and its gradient for x.
template <typename T>
T bce_with_logits(int64_t n, const T* x, const T* target);
template <typename T>
void bce_with_logits_grad(int64_t n, const T* x, const T* target, T d_loss, T* d_x);

}  // namespace ds::kernels
