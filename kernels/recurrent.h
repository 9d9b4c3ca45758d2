// RNN, GRU and LSTM over a whole sequence, as ONNX defines them.
//
// The input's part of all gates of all steps is one large product; what is left per step is the product
// with the recurrent weights and the elementwise cell. Legend:
//
//   T steps, N sequences, I inputs, H hidden, D directions, G gates (RNN 1, GRU 3: z r h, LSTM 4: i o f c)
//   x [T, N, I]    w [D, G*H, I]    r [D, G*H, H]    b [D, 2*G*H]: for w, then for r    p [D, 3*H]: i o f
//   h0, c0, y_h, y_c [D, N, H]      y [T, D, N, H]
//
// With `batch_first` x is [N, T, I], h0 and its like [N, D, H], y [N, T, D, H]. A sequence of length L < T
// ends after L steps: y is zero behind it, y_h and y_c are its state after its own last step (a backward
// pass starts at its own end), zeros if it has none. Threads: the products', and parallel_for over sequences; or the two
// directions side by side, where all weights are packed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/matmul.h"
#include "kernels/onednn.h"
#include "kernels/packed_product.h"
#include "kernels/recurrent_cells.h"
#include "kernels/small_product.h"
#include "kernels/unary.h"

namespace ds::kernels {

enum class Cell { kRnn, kGru, kLstm };

struct GateActivation {
  enum Kind { kUnary, kAffine, kScaledTanh } kind = kUnary;
  Unary op = Unary::kTanh;
  double alpha = 0, beta = 0;  // affine: alpha x + beta; scaled tanh: alpha tanh(beta x)
};

struct RecurrentShape {
  Cell cell = Cell::kRnn;
  int64_t T = 0, N = 0, I = 0, H = 0, D = 1;
  bool reverse = false;  // of D = 1; with two directions the second one is
  bool batch_first = false;
  bool linear_before_reset = false;  // GRU
  bool input_forget = false;         // LSTM: f = 1 - i
  double clip = 0;  // bound on what goes into the gates' activations, not on c (as in onnxruntime); 0: none
  std::vector<GateActivation> activations;  // f (g (h)) of each direction
  int64_t gates() const { return cell == Cell::kRnn ? 1 : cell == Cell::kGru ? 3 : 4; }
};

template <typename T>
struct RecurrentData {
  const T *x = nullptr, *w = nullptr, *r = nullptr;
  const T *b = nullptr, *h0 = nullptr, *c0 = nullptr, *p = nullptr;  // null: zeros
  const int32_t* lengths = nullptr;                // null: T each; callers check 0 <= length <= T
  T *y = nullptr, *y_h = nullptr, *y_c = nullptr;  // null: not wanted
};

// Packings that kernels share: the one of this form, or what make() gives.
using SharePacking = std::function<std::shared_ptr<const PackedWeights>(const std::string& form, const std::function<PackedWeights()>& make)>;

// What f32 runs on: AVX2 or more.
struct RecurrentNative {
  Isa isa = Isa::kAvx2;
  int threads = 1;
  SharePacking share_w, share_r;
};

// Bound to a shape. T: float, double. `native` (float only; null: portable): products on tiles, or by oneDNN where
// weights are not constant, and vectors in the cells; `w`, `r`: weights that never change, null otherwise.
template <typename T>
class Recurrent {
 public:
  Recurrent(RecurrentShape shape, const RecurrentNative* native, const T* w, const T* r);
  size_t workspace_bytes() const { return side_by_side_ ? 2 * workspace_ : workspace_; }
  size_t packed_bytes() const;
  void run(const RecurrentData<T>& data, std::byte* workspace) const;

 private:
  // A product with transposed weights: small, on tiles, by oneDNN, or portable.
  struct Product {
    GemmShape shape;
    SmallProductFn* small = nullptr;
    std::vector<float> small_weights;
    std::shared_ptr<const PackedWeights> packed;
    std::shared_ptr<onednn::Program> program;
    const TileIsa* isa = nullptr;
    int threads = 1;
    size_t workspace_bytes() const;
    void run(const T* a, const T* b, T* c, std::byte* workspace) const;
  };
  struct Direction {
    Product input, recurrent, candidate;  // candidate: GRU's second product when r is applied before it
  };
  struct Pass;

  // `part`: offset of the weights in the tensor that `share` shares.
  Product product(const RecurrentNative* native, int64_t m, int64_t n, int64_t k, const T* weights, int64_t part, const SharePacking& share) const;
  void run_direction(int64_t d, const RecurrentData<T>& data, std::byte* workspace) const;
  void cell_rnn(const Pass& pass, int64_t n) const;
  void cell_gru(const Pass& pass, int64_t n) const;
  void gru_gates(const Pass& pass, int64_t n) const;
  void cell_lstm(const Pass& pass, int64_t n) const;
  void activate(const GateActivation& a, int64_t n, const T* x, T* out) const;

  RecurrentShape s_;
  bool native_;
  const CellFunctions* cells_ = nullptr;  // where they serve this cell
  bool side_by_side_ = false;             // the two directions
  std::vector<Direction> directions_;
  size_t gates_at_ = 0, step_at_ = 0, reset_at_ = 0, h_at_ = 0, c_at_ = 0, bias_at_ = 0, product_at_ = 0,
         workspace_ = 0;  // of a direction
};

extern template class Recurrent<float>;
extern template class Recurrent<double>;

}  // namespace ds::kernels
