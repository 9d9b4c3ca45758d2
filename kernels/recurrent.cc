#include "kernels/recurrent.h"

#include <algorithm>
#include <cmath>
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

template <typename T>
void Recurrent<T>::Product::run(const T* a, const T* b, T* c, std::byte* workspace) const {
  if constexpr (std::is_same_v<T, float>)
    if (small != nullptr) return small(shape.m, shape.n, shape.k, a, packed.data(), c);
  if (program) {
    const void* operands[] = {a, b, nullptr};
    program->run(operands, c, workspace);
  } else {
    gemm<T>(shape, 1, T(1), a, nullptr, b, nullptr, false, c);
  }
}

template <typename T>
typename Recurrent<T>::Product Recurrent<T>::product(int64_t m, int64_t n, int64_t k, const T* weights, int64_t part, const onednn::Content::Share& share) {
  Product p;
  p.shape = {m, n, k, false, true};
  if constexpr (std::is_same_v<T, float>) {
    onednn::MatMulRequest request;
    request.shape = p.shape;
    if (weights != nullptr) request.weights.plain = [weights] { return std::shared_ptr<const void>(weights, [](const void*) {}); };
    if (weights != nullptr && share)
      request.weights.share = [&share, part](const std::string& form, const std::function<onednn::Content::Bytes()>& make, bool& made) {
        return share(form + " at " + std::to_string(part), make, made);
      };
    std::string why;
    if (native_ && m > 0 && n > 0 && k > 0) p.program = onednn::matmul(request, why);
  }
  return p;
}

// Of the state [N, H] with weights [n, H].
template <typename T>
typename Recurrent<T>::Product Recurrent<T>::step_product(int64_t n, const T* weights, int64_t part, const onednn::Content::Share& share) {
  constexpr int64_t kMostRows = 16, kMostWeights = 1 << 16;
  if constexpr (std::is_same_v<T, float>) {
    if (small_ != nullptr && weights != nullptr && s_.N <= kMostRows && n * s_.H <= kMostWeights) {
      Product p;
      p.shape = {s_.N, n, s_.H, false, true};
      p.small = small_;
      p.packed.resize(static_cast<size_t>(small_product_elements(n, s_.H)));
      pack_small_product(n, s_.H, weights, p.packed.data());
      return p;
    }
  }
  return product(s_.N, n, s_.H, weights, part, share);
}

template <typename T>
Recurrent<T>::Recurrent(RecurrentShape shape, bool native, SmallProductFn* small, const T* w, const T* r, const onednn::Content::Share& share_w,
                        const onednn::Content::Share& share_r)
    : s_(std::move(shape)), native_(native), small_(small) {
  const int64_t G = s_.gates(), H = s_.H;
  const bool two_products = s_.cell == Cell::kGru && !s_.linear_before_reset;
  const int64_t first = two_products ? 2 : G;  // gates of the recurrent product
  size_t program_bytes = 0;
  for (int64_t d = 0; d < s_.D; ++d) {
    const T* w_d = w == nullptr ? nullptr : w + d * G * H * s_.I;
    const T* r_d = r == nullptr ? nullptr : r + d * G * H * H;
    Direction direction;
    direction.input = product(s_.T * s_.N, G * H, s_.I, w_d, d * G * H * s_.I, share_w);
    direction.recurrent = step_product(first * H, r_d, d * G * H * H, share_r);
    if (two_products) direction.candidate = step_product(H, r_d == nullptr ? nullptr : r_d + 2 * H * H, (d * G + 2) * H * H, share_r);
    for (const Product* p : {&direction.input, &direction.recurrent, &direction.candidate})
      if (p->program) program_bytes = std::max(program_bytes, p->program->workspace_bytes());
    directions_.push_back(std::move(direction));
  }
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
  program_at_ = workspace_;
  workspace_ += program_bytes;
}

template <typename T>
size_t Recurrent<T>::packed_bytes() const {
  size_t bytes = 0;
  for (const Direction& d : directions_)
    for (const Product* p : {&d.input, &d.recurrent, &d.candidate})
      bytes += p->program ? p->program->packed_bytes() : p->packed.size() * sizeof(float);
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

  std::byte* scratch = workspace + program_at_;
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
  for (int64_t d = 0; d < s_.D; ++d) run_direction(d, data, workspace);
}

template class Recurrent<float>;
template class Recurrent<double>;

}  // namespace ds::kernels
