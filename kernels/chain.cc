#include "kernels/chain.h"

#include <algorithm>
#include <cstring>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

// Registers of a block: half of the smallest first-level cache in use, as the operands pass through it too.
constexpr int64_t kScratchBytes = 16 << 10;
constexpr int64_t kMostBlock = 2048;  // elements: beyond, calls cost nothing any more
constexpr int64_t kGrain = 1 << 13;   // elements worth a thread

// Whether operand k has the elements of the output, in its order.
bool is_whole(const Broadcast& s, int k) {
  int64_t stride = 1;
  for (int d = s.rank - 1; d >= 0; --d) {
    if (s.stride[k][d] != stride) return false;
    stride *= s.size[d];
  }
  return true;
}

// Whether operand k is alike in all rows; with `inner`, one element everywhere.
bool is_repeated(const Broadcast& s, int k, bool inner) {
  for (int d = 0; d < s.rank - (inner ? 0 : 1); ++d)
    if (s.stride[k][d] != 0) return false;
  return true;
}

}  // namespace

// Where the operands' rows begin, row after row.
template <typename T>
struct BoundChain<T>::Walk {
  const Broadcast& s;
  int64_t row = 0;
  int64_t index[Broadcast::kMaxRank] = {}, offset[Broadcast::kMaxOperands] = {};

  explicit Walk(const Broadcast& space) : s(space) {}

  void seek(int64_t to) {
    row = to;
    std::fill(offset, offset + s.operands, 0);
    for (int d = s.rank - 2; d >= 0; --d) {
      index[d] = to % s.size[d];
      to /= s.size[d];
      for (int k = 0; k < s.operands; ++k) offset[k] += index[d] * s.stride[k][d];
    }
  }

  void next() {
    ++row;
    for (int d = s.rank - 2; d >= 0; --d) {
      for (int k = 0; k < s.operands; ++k) offset[k] += s.stride[k][d];
      if (++index[d] < s.size[d]) return;
      for (int k = 0; k < s.operands; ++k) offset[k] -= s.size[d] * s.stride[k][d];
      index[d] = 0;
    }
  }
};

template <typename T>
BoundChain<T>::BoundChain(Chain chain, const Broadcast& space, const RowFunctions<T>& rows)
    : chain_(std::move(chain)), space_(space), rows_(&rows), numbers_(chain_.numbers.begin(), chain_.numbers.end()) {
  values_.resize(static_cast<size_t>(chain_.operands) + numbers_.size() + chain_.steps.size());
  if (space_.total == 0) return;
  if (space_.rank > 0) width_ = space_.size[space_.rank - 1];
  height_ = space_.total / width_;
  for (const ChainStep& s : chain_.steps) {
    using Kind = ChainStep::Kind;
    if (s.kind == Kind::kLogic || s.kind == Kind::kNot || s.kind == Kind::kSelect) values_[static_cast<size_t>(s.from[0])].flags = true;
    if (s.kind == Kind::kLogic) values_[static_cast<size_t>(s.from[1])].flags = true;
  }
  choose_access();
  choose_blocks();
}

template <typename T>
void BoundChain<T>::choose_access() {
  const auto operands = static_cast<size_t>(chain_.operands);
  std::vector<char> is_read(values_.size(), 0);
  for (const ChainStep& s : chain_.steps)
    for (int from : s.from)
      if (from >= 0) is_read[static_cast<size_t>(from)] = 1;
  for (size_t i = 0; i < operands; ++i) {
    const int k = static_cast<int>(i);
    if (is_repeated(space_, k, true) || !is_read[i]) values_[i].access = Access::kRepeated;
    else if (is_whole(space_, k)) values_[i].access = Access::kWhole;
    else values_[i].access = Access::kRow;
  }
  for (size_t i = 0; i < numbers_.size(); ++i) values_[operands + i].access = Access::kRepeated;
}

// Short rows come several at a time, so that steps have enough to do.
template <typename T>
void BoundChain<T>::choose_blocks() {
  const auto largest = [&] {
    assign_registers();
    const int64_t fits = kScratchBytes / (std::max(registers_, 1) * static_cast<int64_t>(sizeof(T)));
    return std::min(kMostBlock, fits / 16 * 16);
  };
  block_ = largest();
  if (height_ > 1 && 2 * width_ <= block_) {
    for (int k = 0; k < chain_.operands; ++k) {
      Value& v = values_[static_cast<size_t>(k)];
      if (v.access == Access::kRow) v.access = is_repeated(space_, k, false) ? Access::kFixed : Access::kSpread;
    }
    block_ = largest();  // what is spread takes registers
    rows_a_block_ = std::max<int64_t>(1, block_ / width_);
    if (rows_a_block_ > 1) return;
    choose_access();
    block_ = largest();
  }
  pieces_ = (width_ + block_ - 1) / block_;
  block_ = std::min(block_, ((width_ + pieces_ - 1) / pieces_ + 15) / 16 * 16);  // pieces of about one size
}

// A register is free again behind the last step that reads it; a step may write over an operand of the same type.
template <typename T>
void BoundChain<T>::assign_registers() {
  std::vector<int> last(values_.size(), -1);
  for (size_t k = 0; k < chain_.steps.size(); ++k)
    for (int from : chain_.steps[k].from)
      if (from >= 0) last[static_cast<size_t>(from)] = static_cast<int>(k);
  registers_ = 0;
  const size_t results = static_cast<size_t>(chain_.operands) + numbers_.size();
  for (size_t i = 0; i < results; ++i)
    if (values_[i].access == Access::kSpread || values_[i].access == Access::kFixed) values_[i].slot = registers_++;
  std::vector<int> free;
  for (size_t k = 0; k + 1 < chain_.steps.size(); ++k) {
    const ChainStep& s = chain_.steps[k];
    Value& result = values_[results + k];
    result.flags = s.gives_flags();
    std::vector<int> later;
    for (size_t i = 0; i < s.from.size(); ++i) {
      const int from = s.from[i];
      if (from < 0 || static_cast<size_t>(from) < results || last[static_cast<size_t>(from)] != static_cast<int>(k)) continue;
      if (std::find(s.from.begin(), s.from.begin() + static_cast<std::ptrdiff_t>(i), from) != s.from.begin() + static_cast<std::ptrdiff_t>(i)) continue;
      const Value& v = values_[static_cast<size_t>(from)];
      (v.flags == result.flags ? free : later).push_back(v.slot);
    }
    if (free.empty()) free.push_back(registers_++);
    result.slot = free.back();
    free.pop_back();
    free.insert(free.end(), later.begin(), later.end());
  }
}

template <typename T>
void BoundChain<T>::run(const void* const* operands, T* out) const {
  if (space_.total == 0) return;
  const int64_t blocks = rows_a_block_ > 1 ? (height_ + rows_a_block_ - 1) / rows_a_block_ : height_ * pieces_;
  parallel_for(blocks, std::max<int64_t>(1, kGrain / block_), [&](int64_t begin, int64_t end) { run_blocks(operands, out, begin, end); });
}

template <typename T>
void BoundChain<T>::run_blocks(const void* const* operands, T* out, int64_t begin, int64_t end) const {
  alignas(64) std::byte scratch[kScratchBytes];
  const auto slot = [&](const Value& v) { return scratch + v.slot * block_ * static_cast<int64_t>(sizeof(T)); };
  const auto inputs = static_cast<size_t>(chain_.operands);
  Ref refs[Chain::kMostOperands + 3 * Chain::kMostSteps + Chain::kMostSteps];
  for (size_t i = 0; i < numbers_.size(); ++i) refs[inputs + i] = {&numbers_[i], 0};
  for (size_t i = inputs + numbers_.size(); i + 1 < values_.size(); ++i) refs[i] = {slot(values_[i]), 1};
  Walk walk(space_);
  walk.seek(rows_a_block_ > 1 ? begin * rows_a_block_ : begin / pieces_);
  for (size_t i = 0; i < inputs; ++i)
    if (values_[i].access == Access::kFixed) spread(i, operands[i], walk, std::min(rows_a_block_, height_), slot(values_[i]));
  for (int64_t b = begin; b < end; ++b) {
    const int64_t piece = rows_a_block_ > 1 ? 0 : b % pieces_ * block_;
    const int64_t rows = std::min(rows_a_block_, height_ - walk.row);
    const int64_t n = rows_a_block_ > 1 ? rows * width_ : std::min(block_, width_ - piece);
    const int64_t at = walk.row * width_ + piece;
    for (size_t i = 0; i < inputs; ++i) {
      const auto* base = static_cast<const std::byte*>(operands[i]);
      const int64_t size = values_[i].flags ? static_cast<int64_t>(sizeof(bool)) : static_cast<int64_t>(sizeof(T));
      const int64_t step = row_step(space_, static_cast<int>(i));
      switch (values_[i].access) {
        case Access::kWhole: refs[i] = {base + at * size, 1}; break;
        case Access::kRepeated: refs[i] = {base, 0}; break;
        case Access::kRow: refs[i] = {base + (walk.offset[i] + piece * step) * size, step}; break;
        case Access::kSpread: spread(i, base, walk, rows, slot(values_[i])); [[fallthrough]];
        default: refs[i] = {slot(values_[i]), 1};
      }
    }
    for (size_t k = 0; k < chain_.steps.size(); ++k) {
      const bool is_last = k + 1 == chain_.steps.size();
      run_step(chain_.steps[k], refs, n, is_last ? static_cast<void*>(out + at) : slot(values_[inputs + numbers_.size() + k]));
    }
    if (rows_a_block_ > 1)
      for (int64_t r = 0; r < rows; ++r) walk.next();
    else if (piece + n == width_) walk.next();
  }
}

template <typename T>
void BoundChain<T>::spread(size_t operand, const void* base, Walk walk, int64_t rows, std::byte* to) const {
  const int64_t step = row_step(space_, static_cast<int>(operand));
  const auto copy_rows = [&](auto tag) {
    using E = decltype(tag);
    const E* from = static_cast<const E*>(base);
    E* out = reinterpret_cast<E*>(to);
    for (int64_t r = 0; r < rows; ++r, walk.next(), out += width_) {
      const E* row = from + walk.offset[operand];
      if (step != 0) std::copy(row, row + width_, out);
      else std::fill(out, out + width_, *row);
    }
  };
  if (values_[operand].flags) copy_rows(bool{});
  else copy_rows(T{});
}

template <typename T>
void BoundChain<T>::run_step(const ChainStep& s, const Ref* values, int64_t n, void* out) const {
  using Kind = ChainStep::Kind;
  const auto ref = [&](int i) { return values[s.from[static_cast<size_t>(i)]]; };
  const auto numbers = [&](int i) { return static_cast<const T*>(ref(i).at); };
  const auto flags = [&](int i) { return static_cast<const bool*>(ref(i).at); };
  T* y = static_cast<T*>(out);
  const int64_t count = ref(0).step != 0 ? n : 1;  // of functions of one operand: what is repeated is computed once
  switch (s.kind) {
    case Kind::kUnary: rows_->unary(static_cast<Unary>(s.function), count, numbers(0), y, s.alpha, s.beta); break;
    case Kind::kClip: rows_->clip(count, numbers(0), s.alpha, s.beta, y); break;
    case Kind::kBinary:
      return rows_->binary(static_cast<Binary>(s.function), n, numbers(0), ref(0).step, numbers(1), ref(1).step, y);
    case Kind::kPow:
      // As the operator does: a square is a product.
      if (ref(1).step == 0 && *numbers(1) == T(2)) return rows_->binary(Binary::kMul, n, numbers(0), ref(0).step, numbers(0), ref(0).step, y);
      return power<T, T>(row_space(n, {ref(0).step, ref(1).step}), numbers(0), numbers(1), y);
    case Kind::kCompare:
      return rows_->compare(static_cast<Compare>(s.function), n, numbers(0), ref(0).step, numbers(1), ref(1).step, static_cast<bool*>(out));
    case Kind::kLogic: return logic(static_cast<Logic>(s.function), row_space(n, {ref(0).step, ref(1).step}), flags(0), flags(1), static_cast<bool*>(out));
    case Kind::kNot: {
      bool* f = static_cast<bool*>(out);
      logical_not(count, flags(0), f);
      return std::fill(f + count, f + n, f[0]);
    }
    case Kind::kSelect: return rows_->select(n, flags(0), ref(0).step, numbers(1), ref(1).step, numbers(2), ref(2).step, y);
  }
  std::fill(y + count, y + n, y[0]);
}

template class BoundChain<float>;
template class BoundChain<double>;

}  // namespace ds::kernels
