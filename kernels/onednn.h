// The only door to oneDNN: f32 primitives on raw pointers.
//
// A Program is a primitive with the reorders it needs, bound to shapes. Nothing is allocated when it
// runs: scratch and reordered operands lie in the caller's workspace, constant weights are packed
// once when the program is made. Threads: those of the calling thread's OpenMP setting, fixed when the
// program is made; a program runs in one thread at a time. The ISA level in force (base/cpu.h) bounds
// oneDNN as well. Makers return null, with the reason in `why`, when oneDNN has nothing better than its
// reference code for the request.
//
// Legend: a `block` is 1 for a plain operand, kChannelsLast for one with channels innermost, else the channels per
// block of nChw8c or nChw16c.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/conv.h"
#include "kernels/epilogue.h"
#include "kernels/matmul.h"
#include "kernels/pool.h"

namespace ds::kernels::onednn {

constexpr int kChannelsLast = 0;

// Constant weights. Empty: not constant.
struct Content {
  using Bytes = std::shared_ptr<const void>;
  // The plain weights, asked for only by programs that pack them. May give null in a program that is made for its
  // sizes only and never run.
  std::function<Bytes()> plain;
  // For weights that several programs pack: what was packed before in this form, else what make() gives (and `made`
  // is true). Empty: every program packs for itself.
  using Share = std::function<Bytes(const std::string& form, const std::function<Bytes()>& make, bool& made)>;
  Share share;

  explicit operator bool() const { return plain != nullptr; }
};

class Program {
 public:
  struct Impl;
  explicit Program(std::unique_ptr<Impl> impl);
  ~Program();

  // 64-byte aligned workspace of this many bytes is expected by run().
  size_t workspace_bytes() const;
  size_t packed_bytes() const;
  // oneDNN's name of the implementation, "jit:avx2".
  const std::string& implementation() const;
  // Whether run() reads this input: not when it is absent or packed.
  bool reads(int slot) const;
  // Operands by the slots that the maker documents; those that are absent or constant are ignored.
  void run(const void* const* inputs, void* output, std::byte* workspace);

 private:
  std::unique_ptr<Impl> impl_;
};

// While one exists, makers called by its thread only look whether oneDNN has an implementation: what they return cannot
// run, and no code is generated for it.
class Probe {
 public:
  Probe();
  ~Probe();
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;
};

struct ConvRequest {
  ConvShape shape;
  int src_block = 1, dst_block = 1;
  bool bias = false;
  Content weights;
  Epilogue epilogue;  // with `add` the output holds the addend when run() is called
};

// Inputs x, w, b -> y.
std::unique_ptr<Program> conv_forward(const ConvRequest& request, std::string& why);
// Inputs d_y, w -> d_x (blocks: src is x's, dst y's). With `bias`, input 2 is added per input channel.
std::unique_ptr<Program> conv_grad_input(const ConvRequest& request, std::string& why);
// Inputs x, d_y -> d_w.
std::unique_ptr<Program> conv_grad_weight(const ConvRequest& request, std::string& why);
// The blocks oneDNN would choose for a forward convolution of this shape.
struct Blocks {
  int src = 1, dst = 1;
};
Blocks preferred_blocks(const ConvRequest& request);

struct MatMulRequest {
  GemmShape shape;
  int64_t batch = 1;  // products of matrices that follow one another
  float alpha = 1;
  bool bias = false;  // [n]
  Content weights;  // of b
  Epilogue epilogue;
};

// Inputs a, b, bias -> c.
std::unique_ptr<Program> matmul(const MatMulRequest& request, std::string& why);

enum class Pooling { kMax, kAverage, kAverageWithPadding };
// Input x -> y, both of one block size.
std::unique_ptr<Program> pool(const PoolShape& shape, Pooling kind, int block, std::string& why);

// Input x [dims] -> the same values in another blocking. Padding channels are written as zeros.
std::unique_ptr<Program> reorder(const std::vector<int64_t>& dims, int from_block, int to_block);

}  // namespace ds::kernels::onednn
