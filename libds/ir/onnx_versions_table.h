// The rows behind onnx_versions.h. Internal to libds/ir/onnx_*.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <variant>

namespace ds::versions {

// An attribute that became an input.
enum class MovedKind {
  kInts,    // list of integers -> 1-D i64
  kInt,     // integer -> 1-D i64 of one element
  kIntScalar,  // integer -> i64 scalar
  kFloats,  // list of floats -> 1-D f32
  kFloat,   // float -> f32 scalar
  kLikeInput,  // float -> scalar of input 0's type
};
struct Moved {
  std::string_view op;
  int64_t since;
  std::string_view attr;
  size_t input;
  MovedKind kind;
};
// Within one operator the last input comes first, so that taking inputs off shortens the list.
inline constexpr Moved kMoved[] = {
    {"Clip", 11, "max", 2, MovedKind::kLikeInput},
    {"Clip", 11, "min", 1, MovedKind::kLikeInput},
    {"DFT", 20, "axis", 2, MovedKind::kIntScalar},
    {"Dropout", 12, "ratio", 1, MovedKind::kFloat},
    {"Pad", 11, "value", 2, MovedKind::kLikeInput},
    {"Pad", 11, "pads", 1, MovedKind::kInts},
    {"ReduceL1", 18, "axes", 1, MovedKind::kInts},
    {"ReduceL2", 18, "axes", 1, MovedKind::kInts},
    {"ReduceLogSum", 18, "axes", 1, MovedKind::kInts},
    {"ReduceLogSumExp", 18, "axes", 1, MovedKind::kInts},
    {"ReduceMax", 18, "axes", 1, MovedKind::kInts},
    {"ReduceMean", 18, "axes", 1, MovedKind::kInts},
    {"ReduceMin", 18, "axes", 1, MovedKind::kInts},
    {"ReduceProd", 18, "axes", 1, MovedKind::kInts},
    {"ReduceSum", 13, "axes", 1, MovedKind::kInts},
    {"ReduceSumSquare", 18, "axes", 1, MovedKind::kInts},
    {"Reshape", 5, "shape", 1, MovedKind::kInts},
    {"Slice", 10, "axes", 3, MovedKind::kInts},
    {"Slice", 10, "ends", 2, MovedKind::kInts},
    {"Slice", 10, "starts", 1, MovedKind::kInts},
    {"Split", 13, "split", 1, MovedKind::kInts},
    {"Squeeze", 13, "axes", 1, MovedKind::kInts},
    {"TopK", 10, "k", 1, MovedKind::kInt},
    {"Unsqueeze", 13, "axes", 1, MovedKind::kInts},
    {"Upsample", 9, "scales", 1, MovedKind::kFloats},
};

// An attribute that older versions lack. Where its value is `without`, what older versions did, it
// can be left out; a monostate can never be left out. Lists compare all their elements with it.
using Without = std::variant<std::monostate, int64_t, std::string_view>;
struct Added {
  std::string_view op;
  int64_t since;
  std::string_view attr;
  Without without;
};
inline constexpr Added kAdded[] = {
    {"ArgMax", 12, "select_last_index", int64_t{0}},
    {"ArgMin", 12, "select_last_index", int64_t{0}},
    {"Attention", 25, "left_window_size", int64_t{-1}},
    {"Attention", 25, "right_window_size", int64_t{-1}},
    {"AveragePool", 10, "ceil_mode", int64_t{0}},
    {"AveragePool", 19, "dilations", int64_t{1}},
    {"BatchNormalization", 14, "training_mode", int64_t{0}},
    {"Cast", 19, "saturate", int64_t{1}},
    {"Cast", 24, "round_mode", std::string_view("up")},
    {"CastLike", 19, "saturate", int64_t{1}},
    {"CastLike", 24, "round_mode", std::string_view("up")},
    {"DepthToSpace", 11, "mode", std::string_view("DCR")},
    {"DequantizeLinear", 13, "axis", int64_t{1}},
    {"DequantizeLinear", 21, "block_size", int64_t{0}},
    {"DequantizeLinear", 23, "output_dtype", int64_t{0}},
    {"Dropout", 12, "seed", {}},
    {"GatherND", 12, "batch_dims", int64_t{0}},
    {"GRU", 14, "layout", int64_t{0}},
    {"GroupNormalization", 21, "stash_type", int64_t{1}},
    {"LpPool", 18, "ceil_mode", int64_t{0}},
    {"LpPool", 18, "dilations", int64_t{1}},
    {"LSTM", 14, "layout", int64_t{0}},
    {"MaxPool", 8, "storage_order", int64_t{0}},
    {"MaxPool", 10, "ceil_mode", int64_t{0}},
    {"MaxPool", 10, "dilations", int64_t{1}},
    {"QuantizeLinear", 13, "axis", int64_t{1}},
    {"QuantizeLinear", 19, "saturate", int64_t{1}},
    {"QuantizeLinear", 21, "block_size", int64_t{0}},
    {"QuantizeLinear", 21, "output_dtype", int64_t{0}},
    {"QuantizeLinear", 23, "precision", int64_t{0}},
    {"ReduceL1", 18, "noop_with_empty_axes", int64_t{0}},
    {"ReduceL2", 18, "noop_with_empty_axes", int64_t{0}},
    {"ReduceLogSum", 18, "noop_with_empty_axes", int64_t{0}},
    {"ReduceLogSumExp", 18, "noop_with_empty_axes", int64_t{0}},
    {"ReduceMax", 18, "noop_with_empty_axes", int64_t{0}},
    {"ReduceMean", 18, "noop_with_empty_axes", int64_t{0}},
    {"ReduceMin", 18, "noop_with_empty_axes", int64_t{0}},
    {"ReduceProd", 18, "noop_with_empty_axes", int64_t{0}},
    {"ReduceSum", 13, "noop_with_empty_axes", int64_t{0}},
    {"ReduceSumSquare", 18, "noop_with_empty_axes", int64_t{0}},
    {"Reshape", 14, "allowzero", int64_t{0}},
    {"Resize", 18, "antialias", int64_t{0}},
    {"Resize", 18, "axes", {}},
    {"Resize", 18, "keep_aspect_ratio_policy", std::string_view("stretch")},
    {"RNN", 14, "layout", int64_t{0}},
    {"RoiAlign", 16, "coordinate_transformation_mode", std::string_view("output_half_pixel")},
    {"ScatterElements", 16, "reduction", std::string_view("none")},
    {"ScatterND", 16, "reduction", std::string_view("none")},
    {"Shape", 15, "end", {}},
    {"Shape", 15, "start", int64_t{0}},
    {"SpaceToDepth", 28, "mode", std::string_view("DCR")},
    {"TopK", 11, "largest", int64_t{1}},
    {"TopK", 11, "sorted", int64_t{1}},
};

// An input that older versions lack. Where its content is constant and all `without`, it can be left out.
struct AddedInput {
  std::string_view op;
  int64_t since;
  size_t input;
  bool removable;
  int64_t without;
};
inline constexpr AddedInput kAddedInputs[] = {
    {"Attention", 24, 6, false, 0},  // nonpad_kv_seqlen
    {"Dropout", 12, 2, true, 0},  // training_mode
    {"Pad", 18, 3, false, 0},     // axes
    {"Slice", 10, 4, true, 1},    // steps
};

// An input that older versions require.
struct Required {
  std::string_view op;
  int64_t since;  // optional from here on
  size_t input;
};
inline constexpr Required kRequired[] = {{"Gemm", 11, 2}};

// Operators that began after kOldestOpset.
struct Began {
  std::string_view op;
  int64_t since;
};
inline constexpr Began kBegan[] = {
    {"Expand", 8}, {"Scan", 8},
    {"Acosh", 9}, {"Asinh", 9}, {"Atanh", 9}, {"Compress", 9}, {"ConstantOfShape", 9}, {"Cosh", 9}, {"Erf", 9},
    {"EyeLike", 9}, {"IsNaN", 9}, {"ScatterElements", 9 /* as Scatter */}, {"MaxUnpool", 9}, {"MeanVarianceNormalization", 9}, {"NonZero", 9}, {"OneHot", 9},
    {"Shrink", 9}, {"Sign", 9}, {"Sinh", 9}, {"TfIdfVectorizer", 9}, {"Where", 9},
    {"ConvInteger", 10}, {"DequantizeLinear", 10}, {"IsInf", 10}, {"MatMulInteger", 10}, {"Mod", 10},
    {"NonMaxSuppression", 10}, {"QLinearConv", 10}, {"QLinearMatMul", 10}, {"QuantizeLinear", 10},
    {"ReverseSequence", 10}, {"RoiAlign", 10}, {"StringNormalizer", 10}, {"ThresholdedRelu", 10},
    {"BitShift", 11}, {"ConcatFromSequence", 11}, {"CumSum", 11}, {"Det", 11}, {"DynamicQuantizeLinear", 11},
    {"GatherElements", 11}, {"GatherND", 11}, {"Range", 11}, {"Round", 11}, {"ScatterND", 11},
    {"SequenceAt", 11}, {"SequenceConstruct", 11}, {"SequenceEmpty", 11}, {"SequenceErase", 11},
    {"SequenceInsert", 11}, {"SequenceLength", 11}, {"SplitToSequence", 11}, {"Unique", 11},
    {"Celu", 12}, {"Einsum", 12}, {"GreaterOrEqual", 12}, {"LessOrEqual", 12}, {"NegativeLogLikelihoodLoss", 12},
    {"SoftmaxCrossEntropyLoss", 12},
    {"HardSwish", 14}, {"Trilu", 14},
    {"Bernoulli", 15}, {"CastLike", 15}, {"Optional", 15}, {"OptionalGetElement", 15}, {"OptionalHasElement", 15},
    {"GridSample", 16},
    {"BlackmanWindow", 17}, {"DFT", 17}, {"HammingWindow", 17}, {"HannWindow", 17}, {"LayerNormalization", 17},
    {"MelWeightMatrix", 17}, {"STFT", 17}, {"SequenceMap", 17},
    {"BitwiseAnd", 18}, {"BitwiseNot", 18}, {"BitwiseOr", 18}, {"BitwiseXor", 18}, {"CenterCropPad", 18},
    {"Col2Im", 18}, {"Mish", 18},
    {"DeformConv", 19},
    {"AffineGrid", 20}, {"Gelu", 20}, {"ImageDecoder", 20}, {"RegexFullMatch", 20}, {"StringConcat", 20}, {"StringSplit", 20},
    {"GroupNormalization", 21},  // 18 to 20 scaled per group, which is another operator
    {"Attention", 23}, {"RMSNormalization", 23}, {"RotaryEmbedding", 23},
    {"Swish", 24}, {"TensorScatter", 24},
    {"BitCast", 26}, {"CumProd", 26},
    {"CausalConvWithState", 27}, {"LinearAttention", 27},
    {"SwiGLU", 28},
};

// Operators that took only integer elements in input 0 before.
inline constexpr Began kFloatsSince[] = {{"Equal", 11}};

// Operators that took only floating-point elements in input 0 before.
inline constexpr Began kIntegersSince[] = {
    {"Clip", 12}, {"Gemm", 9}, {"Greater", 9}, {"Less", 9}, {"MatMul", 9}, {"Max", 12}, {"Min", 12},
    {"Pad", 11}, {"Pow", 12}, {"PRelu", 9}, {"Relu", 14},
};

}  // namespace ds::versions
