#include <algorithm>

#include "libds/passes/channel_rules.h"

namespace ds {

std::optional<Shape> ChannelTracer::shape(ValueId id) const {
  const Value& v = shapes_.value(id);
  if (v.is_constant()) return v.constant->shape();
  if (!v.dims || !all_known(*v.dims)) return std::nullopt;
  return concrete(*v.dims);
}

int64_t ChannelTracer::size(ValueId id, size_t axis) const {
  const auto s = shape(id);
  DS_CHECK(s && axis < s->size());
  return (*s)[axis];
}

bool ChannelTracer::always_one(ValueId id, size_t axis) const {
  const Value& v = graph_.value(id);
  return v.dims && axis < v.dims->size() && (*v.dims)[axis] == Dim(1);
}

int32_t ChannelTracer::make(const std::string& reason) {
  parents_.push_back(static_cast<int32_t>(parents_.size()));
  reasons_.push_back(reason);
  return parents_.back();
}

ChannelTracer::Numbers ChannelTracer::fixed_numbers(size_t count, const std::string& reason) {
  Numbers n(count);
  for (int32_t& x : n) x = make(reason);
  return n;
}

const ChannelTracer::Numbers* ChannelTracer::numbers(ValueId id, size_t axis) {
  if (id == kNone) return nullptr;
  const auto key = std::make_pair(id, axis);
  if (const auto it = numbers_.find(key); it != numbers_.end()) return &it->second;
  const Value& v = graph_.value(id);
  if (!v.is_constant() || axis >= v.constant->shape().size()) return nullptr;
  const int64_t n = v.constant->shape()[axis];
  if (n < 2) return nullptr;
  return &numbers_.emplace(key, fixed_numbers(static_cast<size_t>(n), frozen_[static_cast<size_t>(id)])).first->second;
}

void ChannelTracer::set(ValueId id, size_t axis, Numbers numbers) {
  if (id == kNone || numbers.size() < 2) return;
  numbers_.insert_or_assign({id, axis}, std::move(numbers));
}

void ChannelTracer::pass(ValueId from, size_t from_axis, ValueId to, size_t to_axis) {
  if (const Numbers* n = numbers(from, from_axis)) set(to, to_axis, *n);
}

int32_t ChannelTracer::root(int32_t x) {
  while (parents_[static_cast<size_t>(x)] != x) {
    int32_t& parent = parents_[static_cast<size_t>(x)];
    parent = parents_[static_cast<size_t>(parent)];
    x = parent;
  }
  return x;
}

void ChannelTracer::join(int32_t a, int32_t b) {
  a = root(a);
  b = root(b);
  if (a == b) return;
  if (a > b) std::swap(a, b);  // the first number made stays the root: results do not depend on the order of joins
  parents_[static_cast<size_t>(b)] = a;
  if (reasons_[static_cast<size_t>(a)].empty()) reasons_[static_cast<size_t>(a)] = reasons_[static_cast<size_t>(b)];
}

void ChannelTracer::pin(int32_t number, const std::string& reason) {
  std::string& r = reasons_[static_cast<size_t>(root(number))];
  if (r.empty()) r = reason;
}

void ChannelTracer::pin(ValueId id, size_t axis, const std::string& reason) {
  if (const Numbers* n = numbers(id, axis))
    for (int32_t x : *n) pin(x, reason);
}

void ChannelTracer::pin_from(ValueId id, size_t first_axis, const std::string& reason) {
  if (id == kNone) return;
  for (auto it = numbers_.lower_bound({id, first_axis}); it != numbers_.end() && it->first.first == id; ++it)
    for (int32_t x : it->second) pin(x, reason);
}

void ChannelTracer::freeze(ValueId id, const std::string& reason) {
  if (id == kNone) return;
  pin_from(id, 0, reason);
  std::string& r = frozen_[static_cast<size_t>(id)];
  if (r.empty()) r = reason;
}

void ChannelTracer::tie(ValueId a, size_t axis_a, ValueId b, size_t axis_b) {
  const Numbers *na = numbers(a, axis_a), *nb = numbers(b, axis_b);
  if (na != nullptr && nb != nullptr && na->size() == nb->size()) {
    for (size_t i = 0; i < na->size(); ++i) join((*na)[i], (*nb)[i]);
    return;
  }
  const auto reason = [&](ValueId fixed) { return fmt::format("coupled with '{}', whose size is fixed", graph_.value(fixed).name); };
  if (na != nullptr) pin(a, axis_a, reason(b));
  if (nb != nullptr) pin(b, axis_b, reason(a));
}

}  // namespace ds
