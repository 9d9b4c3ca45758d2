// Chains: expressions of elementwise functions over broadcast operands, computed block by block.
//
// A chain is a list of steps; each computes one value from operands, numbers and the results of steps before it, and the
// last is the output. All values of a block of elements stay in the first-level cache, so that memory is read once an
// operand and written once, whatever the number of steps. The functions are those of kernels/rows.h: every step rounds as
// the operator alone does.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/rows.h"

namespace ds::kernels {

struct ChainStep {
  enum class Kind : uint8_t { kUnary, kBinary, kPow, kClip, kCompare, kLogic, kNot, kSelect };
  Kind kind = Kind::kUnary;
  int function = 0;  // a Unary, Binary, Compare or Logic
  // What it reads: operand i as i, number j as operands + j, the result of step k as operands + numbers + k.
  std::array<int, 3> from = {-1, -1, -1};
  double alpha = 0, beta = 0;  // of kUnary; the bounds of kClip
  bool gives_flags() const { return kind == Kind::kCompare || kind == Kind::kLogic || kind == Kind::kNot; }
};

struct Chain {
  static constexpr int kMostOperands = Broadcast::kMaxOperands, kMostSteps = 32;
  int operands = 0;
  std::vector<double> numbers;
  std::vector<ChainStep> steps;  // the last gives numbers, not flags
};

// A chain bound to shapes and an instruction set.
// Legend: T: float, double; operands are T, or bool where steps read flags. Threads: parallel_for.
template <typename T>
class BoundChain {
 public:
  // `space` has the chain's operands.
  BoundChain(Chain chain, const Broadcast& space, const RowFunctions<T>& rows);
  // `out` may be an operand that has as many elements. operands[i] may be null where no step reads it.
  void run(const void* const* operands, T* out) const;

 private:
  // How the elements of a value come to a block.
  enum class Access : uint8_t {
    kWhole,     // operand with the output's elements, read in place
    kRepeated,  // one element
    kRow,       // the block is a piece of one row: read in place, or one element
    kSpread,    // the block is several rows: copied out, row by row
    kFixed,     // the same, but alike in all blocks: copied out once a thread
    kRegister,  // result of a step
  };
  struct Value {
    Access access = Access::kRegister;
    int slot = -1;  // register
    bool flags = false;
  };
  struct Walk;
  struct Ref {  // a value in a block
    const void* at = nullptr;
    int64_t step = 0;
  };

  void choose_access();
  void choose_blocks();
  void assign_registers();
  void run_blocks(const void* const* operands, T* out, int64_t begin, int64_t end) const;
  void run_step(const ChainStep& s, const Ref* values, int64_t n, void* out) const;
  void spread(size_t operand, const void* base, Walk walk, int64_t rows, std::byte* to) const;

  Chain chain_;
  Broadcast space_;
  const RowFunctions<T>* rows_;
  std::vector<T> numbers_;
  std::vector<Value> values_;  // operands, numbers, results
  int registers_ = 0;
  int64_t width_ = 1, height_ = 1;  // of the space: elements a row, rows
  int64_t block_ = 0;               // most elements a block
  int64_t rows_a_block_ = 1;        // above 1: a block is several whole rows, else a piece of one
  int64_t pieces_ = 1;              // blocks a row
};

}  // namespace ds::kernels
