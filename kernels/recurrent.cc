#include "kernels/recurrent.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>

#include "libds/base/checked.h"
#include "libds/base/parallel.h"

namespace ds::kernels {

// One direction on the move: where everything lies, and the step it is at.
template <typename T>
struct Recurrent<T>::Pass {
  const RecurrentShape& s;
  int64_t d;
  bool backwards;
  const GateActivation* f;  // the direction's activations
  const RecurrentData<T>& data;
  T* gates;        // [rows of x, G*H]: the input's part
  T* step;         // [N, G*H]: the state's part of this step
  T* reset;        // GRU: [N, H], r * h, and [N, H], its product
  T *h, *c;        // [N, H]: the state
  T* bias;         // [G*H] w's plus r's; GRU: [H] r's for h alone behind it, which is then not in the sum
  int64_t at = 0;  // steps done

  int64_t length(int64_t n) const { return data.lengths == nullptr ? s.T : data.lengths[n]; }
  bool active(int64_t n) const { return at < length(n); }
  // For kernels/recurrent_cells.h. width: gates of `step` for a sequence.
  CellStep cell(int64_t n, int64_t width) const {
    CellStep step_of;
    if constexpr (std::is_same_v<T, float>) {
      step_of.H = s.H;
      step_of.in = input(n);
      step_of.bias = bias;
      step_of.state = step + n * width * s.H;
      step_of.h = h + n * s.H;
      step_of.c = c + n * s.H;
      step_of.reset = reset + n * s.H;
      step_of.candidate = reset + (s.N + n) * s.H;
      step_of.state_bias = bias + 3 * s.H;
    }
    return step_of;
  }
  int64_t time(int64_t n) const { return backwards ? length(n) - 1 - at : at; }
  const T* input(int64_t n) const {
    const int64_t row = s.batch_first ? n * s.T + time(n) : time(n) * s.N + n;
    return gates + row * s.gates() * s.H;
  }
  int64_t y_offset(int64_t t, int64_t n) const {
    return (s.batch_first ? (n * s.T + t) * s.D + d : (t * s.D + d) * s.N + n) * s.H;
  }
  int64_t state_offset(int64_t n) const { return (s.batch_first ? n * s.D + d : d * s.N + n) * s.H; }
  void bound(T* x, int64_t count) const {
    if (s.clip <= 0) return;
    const T limit = static_cast<T>(s.clip);
    for (int64_t i = 0; i < count; ++i) x[i] = std::min(std::max(x[i], -limit), limit);
  }
};

namespace {

// c = a product, whole.
class Store final : public ProductSink {
 public:
  Store(float* c, int64_t columns) {
    finish_.y = c;
    finish_.stride = columns;
    finish_.low = -std::numeric_limits<float>::infinity();
    finish_.high = std::numeric_limits<float>::infinity();
  }
  void take(int64_t row, int64_t rows, int64_t column, int64_t columns, const void* sums, int64_t stride) const override {
    for (int64_t r = 0; r < rows; ++r)
      std::copy_n(static_cast<const float*>(sums) + r * stride, columns, finish_.y + (row + r) * finish_.stride + column);
  }
  const TileFinish* in_tiles() const override { return &finish_; }

 private:
  TileFinish finish_;
};

NhwcConv shape_on_tiles(const GemmShape& s) { return matmul_shape(s.m, s.k, s.n); }

// A step's products of few sequences, whose weights stay in the second-level cache, want no call of a large product. Kernels
// of one shape each hold their own.
constexpr int64_t kMostSmallRows = 16, kMostSmallWeights = 1 << 16;
constexpr int64_t kLeastParallelFlops = int64_t{1} << 21;  // of a product: below, threads cost more than they save

}  // namespace

template <typename T>
size_t Recurrent<T>::Product::workspace_bytes() const {
  if (packed) return product_workspace(*isa, shape_on_tiles(shape), *packed, ActivationType::kF32, threads);
  return program ? program->workspace_bytes() : 0;
}

template <typename T>
void Recurrent<T>::Product::run(const T* a, const T* b, T* c, std::byte* workspace) const {
  if constexpr (std::is_same_v<T, float>) {
    if (small != nullptr) return small(shape.m, shape.n, shape.k, a, small_weights.data(), c);
    if (packed) return packed_product(*isa, shape_on_tiles(shape), {a, ActivationType::kF32, 0}, *packed, Store(c, shape.n), threads, workspace);
  }
  if (program) {
    const void* operands[] = {a, b, nullptr};
    program->run(operands, c, workspace);
  } else {
    gemm<T>(shape, 1, T(1), a, nullptr, b, nullptr, false, c);
  }
}

template <typename T>
typename Recurrent<T>::Product Recurrent<T>::product(const RecurrentNative* native, int64_t m, int64_t n, int64_t k, const T* weights, int64_t part,
                                                     const SharePacking& share) const {
  Product p;
  p.shape = {m, n, k, false, true};
  if constexpr (std::is_same_v<T, float>) {
    if (native == nullptr || m == 0 || n == 0 || k == 0) return p;
    if (weights != nullptr && m <= kMostSmallRows && n * k <= kMostSmallWeights) {
      p.small = native->isa >= Isa::kAvx512 ? small_product_avx512 : small_product_avx2;
      p.small_weights.resize(static_cast<size_t>(small_product_elements(n, k)));
      pack_small_product(n, k, weights, p.small_weights.data());
      return p;
    }
    if (weights != nullptr) {
      p.isa = tile_isa(TileType::kF32, native->isa);
      p.threads = 2 * checked_mul(checked_mul(m, n), k) < kLeastParallelFlops ? 1 : native->threads;
      const NhwcConv shape = shape_on_tiles(p.shape);
      const auto pack = [&] { return pack_product(TileType::kF32, *p.isa, shape, false, weights, WeightType::kF32); };
      p.packed = share ? share(packing_form(*p.isa, shape, false) + " at " + std::to_string(part), pack) : std::make_shared<const PackedWeights>(pack());
      return p;
    }
    onednn::MatMulRequest request;
    request.shape = p.shape;
    std::string why;
    p.program = onednn::matmul(request, why);
  }
  return p;
}

template <typename T>
Recurrent<T>::Recurrent(RecurrentShape shape, const RecurrentNative* native, const T* w, const T* r) : s_(std::move(shape)), native_(native != nullptr) {
  const int64_t G = s_.gates(), H = s_.H;
  const bool two_products = s_.cell == Cell::kGru && !s_.linear_before_reset;
  const int64_t first = two_products ? 2 : G;  // gates of the recurrent product
  const SharePacking share_w = native != nullptr ? native->share_w : nullptr, share_r = native != nullptr ? native->share_r : nullptr;
  size_t product_bytes = 0;
  bool all_packed = true;
  for (int64_t d = 0; d < s_.D; ++d) {
    const T* w_d = w == nullptr ? nullptr : w + d * G * H * s_.I;
    const T* r_d = r == nullptr ? nullptr : r + d * G * H * H;
    Direction direction;
    direction.input = product(native, s_.T * s_.N, G * H, s_.I, w_d, d * G * H * s_.I, share_w);
    direction.recurrent = product(native, s_.N, first * H, H, r_d, d * G * H * H, share_r);
    if (two_products) direction.candidate = product(native, s_.N, H, H, r_d == nullptr ? nullptr : r_d + 2 * H * H, (d * G + 2) * H * H, share_r);
    for (const Product* p : {&direction.input, &direction.recurrent, &direction.candidate}) {
      product_bytes = std::max(product_bytes, p->workspace_bytes());
      all_packed = all_packed && p->program == nullptr;
    }
    directions_.push_back(std::move(direction));
  }
  side_by_side_ = native != nullptr && s_.D == 2 && native->threads > 1 && all_packed;
  const auto usual = [](const GateActivation& a, Unary op) { return a.kind == GateActivation::kUnary && a.op == op; };
  const size_t each = s_.activations.size() / static_cast<size_t>(std::max<int64_t>(1, s_.D));
  bool vectors = native != nullptr && s_.cell != Cell::kRnn && s_.clip <= 0 && !s_.input_forget;
  for (size_t i = 0; i < s_.activations.size(); ++i) vectors = vectors && usual(s_.activations[i], i % each == 0 ? Unary::kSigmoid : Unary::kTanh);
  if (vectors) cells_ = native->isa >= Isa::kAvx512 ? &kCellsAvx512 : &kCellsAvx2;
  const auto reserve = [&](size_t& at, int64_t elements) {
    at = workspace_;
    workspace_ += (static_cast<size_t>(elements) * sizeof(T) + 63) / 64 * 64;
  };
  reserve(gates_at_, checked_mul(checked_mul(s_.T, s_.N), checked_mul(G, H)));
  reserve(step_at_, s_.N * first * H);
  reserve(reset_at_, two_products ? 2 * s_.N * H : 0);
  reserve(h_at_, s_.N * H);
  reserve(c_at_, s_.cell == Cell::kLstm ? s_.N * H : 0);
  reserve(bias_at_, (G + 1) * H);
  product_at_ = workspace_;
  workspace_ = (workspace_ + product_bytes + 63) / 64 * 64;
}

template <typename T>
size_t Recurrent<T>::packed_bytes() const {
  size_t bytes = 0;
  for (const Direction& d : directions_)
    for (const Product* p : {&d.input, &d.recurrent, &d.candidate})
      bytes += p->small != nullptr ? p->small_weights.size() * sizeof(float) : p->packed ? p->packed->bytes() : p->program ? p->program->packed_bytes() : 0;
  return bytes;
}

template <typename T>
void Recurrent<T>::activate(const GateActivation& a, int64_t n, const T* x, T* out) const {
  const T alpha = static_cast<T>(a.alpha), beta = static_cast<T>(a.beta);
  if (a.kind == GateActivation::kAffine) {
    for (int64_t i = 0; i < n; ++i) out[i] = alpha * x[i] + beta;
    return;
  }
  if (a.kind == GateActivation::kScaledTanh) {
    for (int64_t i = 0; i < n; ++i) out[i] = alpha * std::tanh(beta * x[i]);
    return;
  }
  if constexpr (std::is_same_v<T, float>)
    if (native_ && avx2::has_unary(a.op)) return avx2::unary(a.op, n, x, out, a.alpha, a.beta);
  unary<T>(a.op, n, x, out, a.alpha, a.beta);
}

// h = f(x W + h R + b)
template <typename T>
void Recurrent<T>::cell_rnn(const Pass& p, int64_t n) const {
  const int64_t H = s_.H;
  const T* in = p.input(n);
  T *g = p.step + n * H, *h = p.h + n * H;
  for (int64_t i = 0; i < H; ++i) g[i] += in[i] + p.bias[i];
  p.bound(g, H);
  activate(p.f[0], H, g, h);
}

// z and r; without linear_before_reset also r * h, which the second product takes.
template <typename T>
void Recurrent<T>::gru_gates(const Pass& p, int64_t n) const {
  const int64_t H = s_.H, width = s_.linear_before_reset ? 3 * H : 2 * H;
  T *g = p.step + n * width, *h = p.h + n * H;
  if constexpr (std::is_same_v<T, float>)
    if (cells_ != nullptr && p.active(n)) return s_.linear_before_reset ? void() : cells_->gru_gates(p.cell(n, 2));
  if (p.active(n)) {
    const T* in = p.input(n);
    for (int64_t i = 0; i < 2 * H; ++i) g[i] += in[i] + p.bias[i];
    p.bound(g, 2 * H);
    activate(p.f[0], 2 * H, g, g);
  } else if (!s_.linear_before_reset) {
    std::fill(g, g + 2 * H, T(0));
  }
  if (s_.linear_before_reset) return;
  T* reset = p.reset + n * H;
  for (int64_t i = 0; i < H; ++i) reset[i] = g[H + i] * h[i];
}

// h = (1 - z) g(...) + z h
template <typename T>
void Recurrent<T>::cell_gru(const Pass& p, int64_t n) const {
  if constexpr (std::is_same_v<T, float>)
    if (cells_ != nullptr) return s_.linear_before_reset ? cells_->gru_linear(p.cell(n, 3)) : cells_->gru_finish(p.cell(n, 2));
  const int64_t H = s_.H;
  const T *in = p.input(n) + 2 * H, *bias = p.bias + 2 * H;
  T *z = p.step + n * (s_.linear_before_reset ? 3 * H : 2 * H), *r = z + H, *h = p.h + n * H;
  if (s_.linear_before_reset) {
    const T *state = z + 2 * H, *state_bias = bias + H;
    for (int64_t i = 0; i < H; ++i) r[i] = in[i] + r[i] * (state[i] + state_bias[i]) + bias[i];
  } else {
    const T* state = p.reset + (s_.N + n) * H;
    for (int64_t i = 0; i < H; ++i) r[i] = in[i] + state[i] + bias[i];
  }
  p.bound(r, H);
  activate(p.f[1], H, r, r);
  for (int64_t i = 0; i < H; ++i) h[i] = (T(1) - z[i]) * r[i] + z[i] * h[i];
}

// c = f c + i g(...); h = o h(c); i, f and o see c through the peepholes.
template <typename T>
void Recurrent<T>::cell_lstm(const Pass& p, int64_t n) const {
  if constexpr (std::is_same_v<T, float>)
    if (cells_ != nullptr && p.data.p == nullptr) return cells_->lstm(p.cell(n, 4));
  const int64_t H = s_.H;
  const T* in = p.input(n);
  T *i = p.step + n * 4 * H, *o = i + H, *f = o + H, *g = f + H, *h = p.h + n * H, *c = p.c + n * H;
  for (int64_t j = 0; j < 4 * H; ++j) i[j] += in[j] + p.bias[j];
  const T* peephole = p.data.p == nullptr ? nullptr : p.data.p + p.d * 3 * H;
  if (peephole != nullptr)
    for (int64_t j = 0; j < H; ++j) {
      i[j] += peephole[j] * c[j];
      f[j] += peephole[2 * H + j] * c[j];
    }
  p.bound(i, H);
  p.bound(f, 2 * H);
  // Without peepholes o does not wait for c, and its neighbours i and f go with it.
  const bool together = peephole == nullptr && !s_.input_forget;
  if (together) p.bound(o, H);
  activate(p.f[0], together ? 3 * H : H, i, i);
  if (s_.input_forget)
    for (int64_t j = 0; j < H; ++j) f[j] = T(1) - i[j];
  else if (!together)
    activate(p.f[0], H, f, f);
  activate(p.f[1], H, g, g);
  for (int64_t j = 0; j < H; ++j) c[j] = f[j] * c[j] + i[j] * g[j];
  if (!together) {
    for (int64_t j = 0; peephole != nullptr && j < H; ++j) o[j] += peephole[H + j] * c[j];
    p.bound(o, H);
    activate(p.f[0], H, o, o);
  }
  activate(p.f[2], H, c, g);
  for (int64_t j = 0; j < H; ++j) h[j] = o[j] * g[j];
}

template <typename T>
void Recurrent<T>::run_direction(int64_t d, const RecurrentData<T>& data, std::byte* workspace) const {
  const int64_t G = s_.gates(), H = s_.H;
  const Direction& direction = directions_[static_cast<size_t>(d)];
  const size_t per_direction = s_.activations.size() / static_cast<size_t>(s_.D);
  const auto place = [&](size_t at) { return reinterpret_cast<T*>(workspace + at); };
  Pass p{s_,
         d,
         s_.D == 2 ? d == 1 : s_.reverse,
         s_.activations.data() + static_cast<size_t>(d) * per_direction,
         data,
         place(gates_at_),
         place(step_at_),
         place(reset_at_),
         place(h_at_),
         place(c_at_),
         place(bias_at_)};

  std::fill(p.bias, p.bias + (G + 1) * H, T(0));
  if (data.b != nullptr) {
    const T *for_w = data.b + d * 2 * G * H, *for_r = for_w + G * H;
    const bool apart = s_.cell == Cell::kGru && s_.linear_before_reset;
    for (int64_t i = 0; i < G * H; ++i) p.bias[i] = for_w[i] + (apart && i >= 2 * H ? T(0) : for_r[i]);
    if (apart) std::copy(for_r + 2 * H, for_r + 3 * H, p.bias + G * H);
  }
  int64_t steps = data.lengths == nullptr ? s_.T : 0;
  for (int64_t n = 0; n < s_.N; ++n) {
    const auto start = [&](const T* from, T* to) {
      if (from == nullptr || p.length(n) == 0)
        std::fill(to, to + H, T(0));
      else
        std::copy(from + p.state_offset(n), from + p.state_offset(n) + H, to);
    };
    start(data.h0, p.h + n * H);
    if (s_.cell == Cell::kLstm) start(data.c0, p.c + n * H);
    steps = std::max(steps, p.length(n));
    for (int64_t t = p.length(n); data.y != nullptr && t < s_.T; ++t)
      std::fill(data.y + p.y_offset(t, n), data.y + p.y_offset(t, n) + H, T(0));
  }

  std::byte* scratch = workspace + product_at_;
  const T* r = data.r + d * G * H * H;
  if (steps > 0) direction.input.run(data.x, data.w + d * G * H * s_.I, p.gates, scratch);
  const int64_t grain = (1 << 10) / std::max<int64_t>(1, G * H) + 1;
  const auto each_sequence = [&](auto&& body) {
    parallel_for(s_.N, grain, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) body(n);
    });
  };
  for (; p.at < steps; ++p.at) {
    direction.recurrent.run(p.h, r, p.step, scratch);
    if (s_.cell == Cell::kGru) each_sequence([&](int64_t n) { gru_gates(p, n); });
    if (s_.cell == Cell::kGru && !s_.linear_before_reset)
      direction.candidate.run(p.reset, r + 2 * H * H, p.reset + s_.N * H, scratch);
    each_sequence([&](int64_t n) {
      if (!p.active(n)) return;
      if (s_.cell == Cell::kRnn)
        cell_rnn(p, n);
      else if (s_.cell == Cell::kGru)
        cell_gru(p, n);
      else
        cell_lstm(p, n);
      if (data.y != nullptr) std::copy(p.h + n * H, p.h + (n + 1) * H, data.y + p.y_offset(p.time(n), n));
    });
  }
  for (int64_t n = 0; n < s_.N; ++n) {
    if (data.y_h != nullptr) std::copy(p.h + n * H, p.h + (n + 1) * H, data.y_h + p.state_offset(n));
    if (data.y_c != nullptr) std::copy(p.c + n * H, p.c + (n + 1) * H, data.y_c + p.state_offset(n));
  }
}

template <typename T>
void Recurrent<T>::run(const RecurrentData<T>& data, std::byte* workspace) const {
  const auto run_some = [&](int64_t begin, int64_t end) {
    for (int64_t d = begin; d < end; ++d) run_direction(d, data, workspace + (side_by_side_ ? static_cast<size_t>(d) * workspace_ : 0));
  };
  if (side_by_side_) parallel_for(s_.D, 1, run_some);
  else run_some(0, s_.D);
}

template class Recurrent<float>;
template class Recurrent<double>;

}  // namespace ds::kernels
