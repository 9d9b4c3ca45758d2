// Attention and its companions: every kernel against f64, gradients, and the rules of masking.
#include "libds/ir/rewriter.h"
#include "libds/run/session.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

Tensor lengths(std::vector<int64_t> n) { return Tensor::vector<int64_t>(n); }

Tensor truths(Shape shape, uint64_t seed) {
  const Tensor x = random_tensor(shape, seed);
  Tensor t = Tensor::empty(DType::kBool, shape);
  for (int64_t i = 0; i < x.numel(); ++i) t.mutable_data<bool>()[i] = x.data<double>()[i] > -0.3;
  return t;
}

// [B, H, L, D] queries against [B, G, S, D] keys and [B, G, S, E] values.
std::vector<Tensor> qkv(int64_t B, int64_t H, int64_t G, int64_t L, int64_t S, int64_t D, int64_t E) {
  return {random_tensor({B, H, L, D}, 1, -2, 2), random_tensor({B, G, S, D}, 2, -2, 2), random_tensor({B, G, S, E}, 3)};
}
std::vector<Tensor> with(std::vector<Tensor> list, std::vector<Tensor> more) {
  list.insert(list.end(), more.begin(), more.end());
  return list;
}

const Attributes kCausal = {{"is_causal", int64_t{1}}};

const bool added = add_cases({
    {"Attention", qkv(2, 3, 3, 4, 5, 6, 7), {}, 1, {}, 1e-5, "cross"},
    {"Attention", qkv(1, 4, 2, 7, 7, 8, 5), kCausal, 1, {}, 1e-5, "grouped_causal"},
    {"Attention", qkv(1, 2, 1, 77, 150, 19, 33), {{"softcap", 1.5f}, {"scale", 0.7f}}, 1, {-1}, 1e-5, "several_tiles"},
    {"Attention", qkv(1, 1, 1, 70, 140, 16, 16), {{"is_causal", int64_t{1}}, {"left_window_size", int64_t{20}}}, 1, {-1}, 1e-5, "window_tiles"},
    {"Attention", qkv(1, 8, 2, 1, 700, 40, 24), kCausal, 1, {-1}, 1e-5, "decoding"},
    {"Attention", with(qkv(1, 3, 3, 45, 90, 24, 40), {random_tensor({1, 3, 45, 90}, 4)}), {}, 1, {-1}, 1e-5, "mask_tiles"},
    {"Attention", with({random_tensor({2, 50, 1024}, 1, -2, 2), random_tensor({2, 70, 1024}, 2, -2, 2), random_tensor({2, 70, 1040}, 3)}, {truths({2, 1, 1, 70}, 4)}),
     {{"q_num_heads", int64_t{16}}, {"kv_num_heads", int64_t{16}}}, 1, {-1}, 1e-5, "token_tiles"},
    {"Attention", qkv(1, 2, 2, 4, 6, 4, 4), {{"softcap", 0.8f}, {"left_window_size", int64_t{2}}, {"right_window_size", int64_t{1}}}, 1, {}, 1e-5, "softcap_window"},
    {"Attention", with(qkv(2, 2, 2, 3, 5, 4, 4), {random_tensor({2, 1, 3, 5}, 4)}), {}, 1, {}, 1e-5, "mask"},
    {"Attention", with(qkv(2, 2, 1, 3, 5, 4, 4), {random_tensor({3, 4}, 4)}), kCausal, 1, {}, 1e-5, "short_mask"},
    {"Attention", with(qkv(2, 2, 2, 3, 5, 4, 4), {truths({2, 2, 3, 5}, 4)}), {}, 1, {}, 1e-5, "truth_mask"},
    {"Attention", with(qkv(2, 2, 1, 3, 4, 4, 5), {Tensor(), random_tensor({2, 1, 2, 4}, 5), random_tensor({2, 1, 2, 5}, 6)}), kCausal, 3, {}, 1e-5, "past", 3},
    {"Attention", with(qkv(3, 2, 2, 3, 5, 4, 4), {Tensor(), Tensor(), Tensor(), lengths({5, 4, 0})}), kCausal, 1, {}, 1e-5, "lengths"},
    {"Attention", {random_tensor({2, 3, 8}, 1), random_tensor({2, 5, 4}, 2), random_tensor({2, 5, 6}, 3)},
     {{"q_num_heads", int64_t{4}}, {"kv_num_heads", int64_t{2}}}, 1, {}, 1e-5, "tokens"},
    {"Attention", qkv(1, 2, 1, 5, 70, 4, 4), {{"qk_matmul_output_mode", int64_t{0}}}, 4, {-1}, 1e-5, "raw_scores"},
    {"Attention", qkv(1, 2, 1, 5, 70, 4, 4), {{"qk_matmul_output_mode", int64_t{2}}, {"is_causal", int64_t{1}}, {"softcap", 2.0f}}, 4, {-1}, 1e-5, "biased_scores"},
    {"Attention", qkv(1, 2, 1, 5, 70, 4, 4), {{"qk_matmul_output_mode", int64_t{3}}, {"is_causal", int64_t{1}}}, 4, {-1}, 1e-5, "probabilities"},
    {"RotaryEmbedding", {random_tensor({2, 3, 4, 8}, 1), random_tensor({2, 4, 4}, 2), random_tensor({2, 4, 4}, 3)}, {}, 1, {0}},
    {"RotaryEmbedding", {random_tensor({2, 4, 24}, 1), random_tensor({9, 2}, 2), random_tensor({9, 2}, 3), Tensor::of<int64_t>({2, 4}, {0, 1, 2, 3, 8, 7, 6, 5})},
     {{"num_heads", int64_t{3}}, {"rotary_embedding_dim", int64_t{4}}, {"interleaved", int64_t{1}}}, 1, {0}, 1e-5, "partial"},
    {"TensorScatter", {random_tensor({2, 3, 5, 2}, 1), random_tensor({2, 3, 2, 2}, 2), lengths({0, 3})}},
    {"TensorScatter", {random_tensor({2, 5, 3}, 1), random_tensor({2, 4, 3}, 2), lengths({4, 3})}, {{"mode", std::string("circular")}}, 1, {}, 1e-5, "circular"},
    {"TensorScatter", {random_tensor({2, 5, 3}, 1), random_tensor({2, 4, 3}, 2)}, {}, 1, {}, 1e-5, "from_the_start"},
    {"CacheAppend", {random_tensor({2, 3, 5, 2}, 1), random_tensor({2, 3, 2, 2}, 2), lengths({0, 3}), lengths({5})}},
    {"CacheAppend", {random_tensor({2, 3, 5, 2}, 1), random_tensor({2, 3, 2, 2}, 2), lengths({5, 4}), lengths({8})}, {}, 1, {}, 1e-5, "growing"},
});

TEST(Attention, ACacheThatDiesIsAppendedToInPlace) {
  auto graph = std::make_shared<Graph>();
  Rewriter rw(*graph);
  const Tensor past = random_tensor({2, 1, 4, 3}, 1), fresh = random_tensor({2, 1, 1, 3}, 2), start = lengths({2, 3});
  const ValueId a = rw.add_input("past", DType::kF64, to_dims(past.shape())), b = rw.add_input("fresh", DType::kF64, to_dims(fresh.shape()));
  const ValueId at = rw.add_constant("start", start), rows = rw.add_constant("rows", lengths({4}));
  rw.add_output(rw.emit("CacheAppend", {rw.emit("Neg", {a}), rw.emit("Neg", {b}), at, rows}));
  const Tensor y = Session(graph).run(std::vector<Tensor>{past, fresh})[0];
  const Tensor expected = run_op({"CacheAppend", {past, fresh, start, lengths({4})}})[0];
  for (int64_t i = 0; i < y.numel(); ++i) EXPECT_EQ(y.data<double>()[i], -expected.data<double>()[i]) << i;
}

TEST(Attention, ARowThatSeesNothingIsZero) {
  const Tensor never = Tensor::of<double>({2, 2}, {0, 0, -kInf, -kInf});
  const auto out = run_op({"Attention", with(qkv(1, 1, 1, 2, 2, 4, 3), {never}), {{"qk_matmul_output_mode", int64_t{3}}}, 4}, DType::kF32);
  for (int64_t i = 0; i < 3; ++i) EXPECT_EQ(out[0].data<float>()[3 + i], 0.0f);
  for (int64_t i = 0; i < 2; ++i) EXPECT_EQ(out[3].data<float>()[2 + i], 0.0f);
  EXPECT_NEAR(out[3].data<float>()[0] + out[3].data<float>()[1], 1.0f, 1e-6f);
}

TEST(Attention, PastKeysComeFirst) {
  // One query that sees two past keys and itself gets the same as three tokens at once, the last of them.
  std::vector<Tensor> all = qkv(1, 1, 1, 3, 3, 4, 4);
  const auto rows = [](const Tensor& t, int64_t begin, int64_t end) { return t.reshaped({3, 4}).rows(begin, end).reshaped({1, 1, end - begin, 4}); };
  const Tensor whole = run_op({"Attention", all, kCausal})[0];
  const auto step = run_op({"Attention", {rows(all[0], 2, 3), rows(all[1], 2, 3), rows(all[2], 2, 3), Tensor(), rows(all[1], 0, 2), rows(all[2], 0, 2)}, kCausal, 3});
  EXPECT_LE(relative_error(step[0], rows(whole, 2, 3)), 1e-12);
  EXPECT_LE(relative_error(step[1], all[1]), 0);
}

TEST(Attention, WrongModelsAreNamed) {
  EXPECT_THROW(run_op({"Attention", qkv(1, 3, 2, 2, 2, 4, 4)}), Error);  // 3 heads in 2 groups
  EXPECT_THROW(run_op({"Attention", with(qkv(1, 1, 1, 2, 2, 4, 4), {random_tensor({3, 2}, 1)})}), Error);
  EXPECT_THROW(run_op({"Attention", with(qkv(2, 1, 1, 2, 2, 4, 4), {Tensor(), Tensor(), Tensor(), lengths({2, 3})})}), Error);
  EXPECT_THROW(run_op({"TensorScatter", {random_tensor({1, 5, 3}, 1), random_tensor({1, 4, 3}, 2), lengths({2})}}), Error);
  for (int64_t start : {-1, 3, 4})
    EXPECT_THROW(run_op({"CacheAppend", {random_tensor({1, 1, 3, 2}, 1), random_tensor({1, 1, 2, 2}, 2), lengths({start}), lengths({start < 4 ? 4 : 7})}}), Error);
}

}  // namespace
}  // namespace ds::test
