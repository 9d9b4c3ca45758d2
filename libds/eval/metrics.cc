#include "libds/eval/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace ds {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Rows and columns of logits; [N, C] and [N, C, 1, 1] are the same.
std::pair<int64_t, int64_t> logits_size(const Tensor& logits) {
  if (logits.rank() < 2) bad_data("expected logits of shape [samples, classes], got {}", shape_string(logits.shape()));
  const int64_t n = logits.dim(0), classes = logits.dim(1);
  if (logits.numel() != n * classes || classes < 1)
    bad_data("expected logits of shape [samples, classes], got {}", shape_string(logits.shape()));
  return {n, classes};
}

size_t argmax(const double* row, int64_t classes) {
  size_t best = 0;
  double most = -kInfinity;
  for (int64_t c = 0; c < classes; ++c)
    if (row[c] > most) most = row[c], best = static_cast<size_t>(c);
  return best;
}

void require_same_shape(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape()) bad_data("shapes {} and {} differ", shape_string(a.shape()), shape_string(b.shape()));
}

struct Sums {
  double want2 = 0, got2 = 0, product = 0, noise2 = 0;
};
Sums sums_of(const Tensor& got, const Tensor& want) {
  require_same_shape(got, want);
  const std::vector<double> g = got.to_doubles(), w = want.to_doubles();
  Sums s;
  for (size_t i = 0; i < g.size(); ++i) {
    s.want2 += w[i] * w[i];
    s.got2 += g[i] * g[i];
    s.product += g[i] * w[i];
    s.noise2 += (g[i] - w[i]) * (g[i] - w[i]);
  }
  return s;
}

}  // namespace

std::vector<int64_t> argmax_rows(const Tensor& logits) {
  const auto [n, classes] = logits_size(logits);
  const std::vector<double> x = logits.to_doubles();
  std::vector<int64_t> best;
  for (int64_t i = 0; i < n; ++i) best.push_back(static_cast<int64_t>(argmax(x.data() + i * classes, classes)));
  return best;
}

Classified classify(const Tensor& logits, const Tensor& labels) {
  const auto [n, classes] = logits_size(logits);
  if (labels.numel() != n) bad_data("{} labels for {} samples", labels.numel(), n);
  const std::vector<double> x = logits.to_doubles();
  const std::vector<int64_t> y = labels.to_ints();
  Classified result;
  result.samples = n;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t label = y[static_cast<size_t>(i)];
    if (label < 0 || label >= classes) bad_data("row {}: label {} is out of range [0, {})", i, label, classes);
    const double* row = x.data() + i * classes;
    const double own = row[label];
    int64_t before = 0;  // classes ranked above the label; a NaN ranks above everything
    double most = -kInfinity;
    for (int64_t c = 0; c < classes; ++c) {
      if (c != label && (!(row[c] <= own) || (row[c] == own && c < label))) ++before;
      most = std::max(most, row[c]);
    }
    result.top1 += before < 1;
    result.top5 += before < 5;
    double sum = 0;
    for (int64_t c = 0; c < classes; ++c) sum += std::exp(row[c] - most);
    result.cross_entropy += most + std::log(sum) - own;
  }
  return result;
}

double agreement(const Tensor& a, const Tensor& b) {
  const std::vector<int64_t> x = argmax_rows(a), y = argmax_rows(b);
  if (x.size() != y.size()) bad_data("{} and {} samples cannot be compared", x.size(), y.size());
  if (x.empty()) return 1;
  int64_t same = 0;
  for (size_t i = 0; i < x.size(); ++i) same += x[i] == y[i];
  return static_cast<double>(same) / static_cast<double>(x.size());
}

double roc_auc(std::span<const double> scores, std::span<const int64_t> positive) {
  if (scores.size() != positive.size()) bad_data("{} scores for {} labels", scores.size(), positive.size());
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  // Mann-Whitney: the positives' ranks, ties sharing their mean rank.
  double rank_sum = 0;
  double positives = 0;
  for (size_t i = 0; i < order.size();) {
    size_t j = i;
    while (j < order.size() && scores[order[j]] == scores[order[i]]) ++j;
    const double rank = 0.5 * static_cast<double>(i + 1 + j);
    for (size_t k = i; k < std::max(j, i + 1); ++k)
      if (positive[order[k]] != 0) rank_sum += rank, positives += 1;
    i = std::max(j, i + 1);  // a NaN equals nothing, not even itself
  }
  const double negatives = static_cast<double>(order.size()) - positives;
  if (positives == 0 || negatives == 0) return 0.5;
  return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives);
}

F1 f1_score(std::span<const int64_t> predicted, std::span<const int64_t> labels, int64_t classes) {
  if (predicted.size() != labels.size()) bad_data("{} predictions for {} labels", predicted.size(), labels.size());
  std::vector<double> hit(static_cast<size_t>(classes)), seen(hit), said(hit);
  for (size_t i = 0; i < labels.size(); ++i) {
    for (int64_t c : {predicted[i], labels[i]})
      if (c < 0 || c >= classes) bad_data("row {}: class {} is out of range [0, {})", i, c, classes);
    hit[static_cast<size_t>(labels[i])] += predicted[i] == labels[i];
    seen[static_cast<size_t>(labels[i])] += 1;
    said[static_cast<size_t>(predicted[i])] += 1;
  }
  F1 f;
  double hits = 0, counted = 0;
  for (size_t c = 0; c < hit.size(); ++c) {
    const double both = seen[c] + said[c];
    f.per_class.push_back(both > 0 ? 2 * hit[c] / both : 0);
    hits += hit[c];
    if (both > 0) f.macro += f.per_class.back(), counted += 1;
  }
  if (counted > 0) f.macro /= counted;
  if (!labels.empty()) f.micro = hits / static_cast<double>(labels.size());
  return f;
}

double mean_squared_error(const Tensor& got, const Tensor& want) {
  const Sums s = sums_of(got, want);
  return got.numel() == 0 ? 0 : s.noise2 / static_cast<double>(got.numel());
}

double cosine_similarity(const Tensor& got, const Tensor& want) {
  const Sums s = sums_of(got, want);
  if (s.got2 == 0 && s.want2 == 0) return 1;
  if (s.got2 == 0 || s.want2 == 0) return 0;
  return s.product / std::sqrt(s.got2) / std::sqrt(s.want2);
}

double sqnr_db(const Tensor& got, const Tensor& want) {
  const Sums s = sums_of(got, want);
  if (s.noise2 == 0) return kInfinity;
  return 10 * std::log10(s.want2 / s.noise2);
}

MaxError max_error(const Tensor& got, const Tensor& want) {
  require_same_shape(got, want);
  const std::vector<double> g = got.to_doubles(), w = want.to_doubles();
  MaxError e;
  for (size_t i = 0; i < g.size(); ++i) {
    if (g[i] == w[i] || (std::isnan(g[i]) && std::isnan(w[i]))) continue;  // equal infinities are equal
    const double d = std::abs(g[i] - w[i]);
    const double error = std::isnan(d) ? kInfinity : d;
    e.absolute = std::max(e.absolute, error);
    e.relative = std::max(e.relative, error == kInfinity ? error : error / std::max(std::abs(w[i]), 1e-12));
  }
  return e;
}

double perplexity(double mean_cross_entropy) { return std::exp(mean_cross_entropy); }

}  // namespace ds
