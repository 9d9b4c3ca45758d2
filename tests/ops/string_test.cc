// Strings through operators that move elements, and the operators on strings.
#include <gtest/gtest.h>

#include "libds/ir/rewriter.h"
#include "libds/run/session.h"

namespace ds {
namespace {

std::vector<Tensor> run_op(std::string_view op, const std::vector<Tensor>& inputs, Attributes attrs = {}, size_t outputs = 1) {
  auto graph = std::make_shared<Graph>();
  Rewriter rw(*graph);
  std::vector<ValueId> ids;
  for (size_t i = 0; i < inputs.size(); ++i)
    ids.push_back(rw.add_input(fmt::format("x{}", i), inputs[i].dtype(), to_dims(inputs[i].shape())));
  const NodeId node = rw.add_node(op, ids, std::move(attrs), op, outputs);
  rw.set_outputs(graph->node(node).outputs);
  return Session(graph).run(inputs);
}

std::vector<std::string> words(const Tensor& t) { return {t.strings().begin(), t.strings().end()}; }

TEST(Strings, MoveLikeNumbers) {
  const Tensor x = Tensor::of_strings({2, 3}, {"a", "b", "c", "d", "e", "f"});
  EXPECT_EQ(words(run_op("Transpose", {x})[0]), (std::vector<std::string>{"a", "d", "b", "e", "c", "f"}));
  const Tensor indices = Tensor::of<int64_t>({2}, {2, -3});
  EXPECT_EQ(words(run_op("Gather", {x, indices}, {{"axis", int64_t{1}}})[0]), (std::vector<std::string>{"c", "a", "f", "d"}));
  EXPECT_EQ(words(run_op("Concat", {x, x}, {{"axis", int64_t{0}}})[0]).size(), 12u);
  const Tensor pads = Tensor::of<int64_t>({4}, {0, 1, 0, 0});
  EXPECT_EQ(words(run_op("Pad", {x, pads})[0]), (std::vector<std::string>{"", "a", "b", "c", "", "d", "e", "f"}));
}

TEST(Strings, BlocksCachesAndSizes) {
  const Tensor x = Tensor::of_strings({1, 4, 1, 2}, {"a", "b", "c", "d", "e", "f", "g", "h"});
  const Tensor wide = run_op("DepthToSpace", {x}, {{"blocksize", int64_t{2}}})[0];
  EXPECT_EQ(words(wide), (std::vector<std::string>{"a", "c", "b", "d", "e", "g", "f", "h"}));
  EXPECT_EQ(words(run_op("SpaceToDepth", {wide}, {{"blocksize", int64_t{2}}})[0]), words(x));
  EXPECT_EQ(run_op("Shape", {x})[0].to_ints(), (std::vector<int64_t>{1, 4, 1, 2}));
  EXPECT_EQ(run_op("Size", {x})[0].to_ints(), (std::vector<int64_t>{8}));
  const Tensor cache = Tensor::of_strings({1, 3, 1}, {"x", "y", "z"}), update = Tensor::of_strings({1, 1, 1}, {"new"});
  EXPECT_EQ(words(run_op("TensorScatter", {cache, update, Tensor::of<int64_t>({1}, {1})})[0]), (std::vector<std::string>{"x", "new", "z"}));
}

TEST(Strings, UniqueOrdersAndGroupsThem) {
  const Tensor x = Tensor::of_strings({5}, {"pear", "fig", "pear", "", "fig"});
  auto r = run_op("Unique", {x}, {}, 4);
  EXPECT_EQ(words(r[0]), (std::vector<std::string>{"", "fig", "pear"}));
  EXPECT_EQ(r[1].to_ints(), (std::vector<int64_t>{3, 1, 0}));
  EXPECT_EQ(r[2].to_ints(), (std::vector<int64_t>{2, 1, 2, 0, 1}));
  EXPECT_EQ(r[3].to_ints(), (std::vector<int64_t>{1, 2, 2}));
  EXPECT_EQ(words(run_op("Unique", {x}, {{"sorted", int64_t{0}}})[0]), (std::vector<std::string>{"pear", "fig", ""}));
  const Tensor columns = Tensor::of_strings({2, 3}, {"b", "a", "b", "c", "d", "c"});
  EXPECT_EQ(words(run_op("Unique", {columns}, {{"axis", int64_t{1}}})[0]), (std::vector<std::string>{"a", "b", "d", "c"}));
}

TEST(Strings, AreNotAddedUp) {  // once a crash
  const Tensor x = Tensor::of_strings({3}, {"a", "b", "c"}), y = Tensor::of_strings({1}, {"d"});
  const Attributes add = {{"reduction", std::string("add")}};
  EXPECT_THROW(run_op("ScatterElements", {x, Tensor::of<int64_t>({1}, {1}), y}, add), Error);
  EXPECT_THROW(run_op("ScatterND", {x, Tensor::of<int64_t>({1, 1}, {1}), y}, add), Error);
}

TEST(Strings, PackedNumbersMoveToo) {
  const Tensor bytes = Tensor::of<int8_t>({2, 3}, {1, -2, 3, -4, 5, -6});
  const Tensor turned = run_op("Transpose", {bytes.pack_as(DType::kI4)})[0];
  EXPECT_EQ(turned.dtype(), DType::kI4);
  EXPECT_EQ(turned.unpacked().to_ints(), (std::vector<int64_t>{1, -4, -2, 5, 3, -6}));
}

TEST(Strings, EqualBroadcasts) {
  const Tensor x = Tensor::of_strings({2, 1}, {"a", "b"}), y = Tensor::of_strings({2}, {"b", "c"});
  EXPECT_EQ(run_op("Equal", {x, y})[0].to_ints(), (std::vector<int64_t>{0, 0, 1, 0}));
}

TEST(Strings, SplitPadsShortRows) {
  const Tensor x = Tensor::of_strings({2}, {"a,b,,c", "d"});
  const auto parts = run_op("StringSplit", {x}, {{"delimiter", std::string(",")}}, 2);
  EXPECT_EQ(parts[0].shape(), (Shape{2, 4}));
  EXPECT_EQ(words(parts[0]), (std::vector<std::string>{"a", "b", "", "c", "d", "", "", ""}));
  EXPECT_EQ(parts[1].to_ints(), (std::vector<int64_t>{4, 1}));
  const auto spaces = run_op("StringSplit", {Tensor::of_strings({1}, {"  one two   three "})}, {{"maxsplit", int64_t{1}}}, 2);
  EXPECT_EQ(words(spaces[0]), (std::vector<std::string>{"one", "two   three"}));
}

TEST(Strings, NormalizerDropsStopWordsAndChangesCase) {
  const Tensor x = Tensor::of_strings({3}, {"Monday", "straße", "ÉTÉ"});
  const Attributes attrs = {{"case_change_action", std::string("UPPER")}, {"stopwords", std::vector<std::string>{"MONDAY"}}};
  EXPECT_EQ(words(run_op("StringNormalizer", {x}, attrs)[0]), (std::vector<std::string>{"STRAßE", "ÉTÉ"}));
  const Attributes all = {{"stopwords", std::vector<std::string>{"monday", "straße", "été"}}};
  EXPECT_EQ(words(run_op("StringNormalizer", {x}, all)[0]), (std::vector<std::string>{""}));
}

TEST(Strings, SequencesAreBuiltAndTakenApart) {
  const Tensor a = Tensor::of<float>({2}, {1, 2}), b = Tensor::of<float>({2}, {3, 4});
  const Tensor list = run_op("SequenceConstruct", {a, b})[0];
  ASSERT_EQ(list.items().size(), 2u);
  EXPECT_TRUE(list.items()[1].equal_bits(b));
  const Tensor parts = run_op("SplitToSequence", {Tensor::of<float>({3}, {1, 2, 3}), Tensor::scalar<int64_t>(2)})[0];
  EXPECT_EQ(parts.items()[1].shape(), (Shape{1}));
}

}  // namespace
}  // namespace ds
