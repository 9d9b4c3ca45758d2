#include "libds/data/test_data_set.h"

#include "libds/ir/onnx_value.h"
#include "libds/ir/rewriter.h"
#include "tests/data/files.h"

namespace ds {
namespace {

using testing::expect_error;
using testing::Folder;

// TensorProto {dims: [2], data_type: FLOAT, raw_data: 1.0, 2.0}
const std::string kOneTwo("\x08\x02\x10\x01\x4a\x08\0\0\x80\x3f\0\0\0\x40", 14);

TEST(OnnxValue, TensorFromItsBytes) {
  EXPECT_TRUE(parse_onnx_tensor(kOneTwo).equal_bits(Tensor::of<float>({2}, {1, 2})));
}

TEST(OnnxValue, BytesThatAreNoTensor) {
  expect_error([] { parse_onnx_tensor("\x0f\x0f"); }, "is not a serialized onnx.TensorProto");
  for (size_t n = 5; n < kOneTwo.size(); ++n)
    expect_error([&] { parse_onnx_tensor(kOneTwo.substr(0, n)); }, n == 5 ? "is not a serialized" : "");
  expect_error([] { parse_onnx_tensor(""); }, "element type is undefined");
}

TEST(OnnxValue, SequencesAndOptionals) {
  const auto field = [](int number, const std::string& message) {
    return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(message.size())} + message;
  };
  const std::string tensors = std::string("\x10\x01") + field(3, kOneTwo) + field(3, kOneTwo);  // elem_type: TENSOR
  const Tensor sequence = parse_onnx_value(tensors, DType::kSequence);
  ASSERT_EQ(sequence.items().size(), 2u);
  EXPECT_TRUE(sequence.items()[1].equal_bits(Tensor::of<float>({2}, {1, 2})));
  EXPECT_EQ(parse_onnx_value("", DType::kSequence).items().size(), 0u);
  const Tensor optional = parse_onnx_value("\x10\x01" + field(3, kOneTwo), DType::kOptional);
  ASSERT_EQ(optional.items().size(), 1u);
  EXPECT_EQ(optional.items()[0].dtype(), DType::kF32);
  EXPECT_EQ(parse_onnx_value("\x10\x01", DType::kOptional).items().size(), 0u);
  EXPECT_EQ(parse_onnx_value("\x10\x03" + field(5, tensors), DType::kOptional).items()[0].items().size(), 2u);
  expect_error([&] { parse_onnx_value("\x10\x04", DType::kSequence); }, "maps or sparse tensors", ExitCode::kUnsupported);
  expect_error([&] { parse_onnx_value(field(3, "no"), DType::kOptional); }, "is not a serialized onnx.OptionalProto");
}

TEST(TestDataSet, ByTheOrderOfTheInterface) {
  Graph graph;
  Rewriter rewriter(graph);
  const ValueId a = rewriter.add_input("a", DType::kF32, Dims{2}), b = rewriter.add_input("b", DType::kF32, Dims{2});
  rewriter.add_output(b);
  rewriter.add_output(a);
  const Folder folder;
  std::filesystem::create_directory(folder.path("test_data_set_0"));
  EXPECT_EQ(find_test_data_sets(folder.path("")).size(), 1u);
  const std::string set = folder.path("test_data_set_0");
  folder.write("test_data_set_0/input_0.pb", kOneTwo);
  expect_error([&] { read_test_data_set(set, graph); }, "input_1.pb is missing: it would hold input 'b'");
  folder.write("test_data_set_0/input_1.pb", kOneTwo);
  folder.write("test_data_set_0/output_0.pb", kOneTwo);
  const TestDataSet values = read_test_data_set(set, graph);
  EXPECT_EQ(values.inputs.size(), 2u);
  EXPECT_EQ(values.outputs.size(), 1u);
  folder.write("test_data_set_0/input_2.pb", kOneTwo);
  expect_error([&] { read_test_data_set(set, graph); }, "input_2.pb is one more than the model has inputs");
  folder.write("test_data_set_0/input_0.pb", "no");
  expect_error([&] { read_test_data_set(set, graph); }, "input_0.pb: is not a serialized");
  expect_error([&] { read_test_data_set(folder.path("nowhere"), graph); }, "no such folder", ExitCode::kNoInput);
}

}  // namespace
}  // namespace ds
