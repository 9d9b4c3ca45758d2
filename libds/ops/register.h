// The list of operator families. A new family is one line here and one in register.cc.
#pragma once

#include "libds/ir/op_def.h"

namespace ds {

void register_all_ops(OpRegistry& registry);

void register_shape_ops(OpRegistry& registry);        // Shape, views, Constant, Range
void register_movement_ops(OpRegistry& registry);     // Transpose, Concat, Split, Expand, Tile, ...
void register_slice_pad_ops(OpRegistry& registry);
void register_resize_ops(OpRegistry& registry);       // Resize (Upsample) and its gradient
void register_grid_sample_ops(OpRegistry& registry);  // GridSample, AffineGrid
void register_roi_ops(OpRegistry& registry);          // RoiAlign, MaxRoiPool, NonMaxSuppression
void register_deform_conv_ops(OpRegistry& registry);
void register_placement_ops(OpRegistry& registry);    // MaxUnpool, CenterCropPad
void register_indexing_ops(OpRegistry& registry);     // Gather*, Scatter*, OneHot, NonZero
void register_quant_ops(OpRegistry& registry);        // QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear
void register_qproduct_ops(OpRegistry& registry);     // MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv
void register_nbits_ops(OpRegistry& registry);        // com.microsoft: MatMulNBits, GatherBlockQuantized
void register_contrib_quant_ops(OpRegistry& registry);  // com.microsoft: QLinear*, QGemm, ...
void register_qfused_ops(OpRegistry& registry);       // internal 8-bit products: QConv, QMatMul
void register_qpointwise_ops(OpRegistry& registry);   // internal 8-bit operators beside: QAdd, QTable, ...
void register_binary_ops(OpRegistry& registry);       // arithmetic with broadcasting; Min, Max, Sum, Mean
void register_compare_ops(OpRegistry& registry);      // comparisons, logic, Where
void register_unary_ops(OpRegistry& registry);        // activations and other functions of one operand; Clip
void register_cast_ops(OpRegistry& registry);         // Cast, Identity
void register_reduce_ops(OpRegistry& registry);       // Reduce*, ArgMax, CumSum, TopK
void register_elementwise_ops(OpRegistry& registry);  // unary, binary with broadcasting, Where, Cast
void register_observe_ops(OpRegistry& registry);  // SampleRange (internal)
void register_control_flow_ops(OpRegistry& registry);
void register_sequence_ops(OpRegistry& registry);
void register_string_ops(OpRegistry& registry);
void register_regex_ops(OpRegistry& registry);        // RegexFullMatch
void register_ml_tree_ops(OpRegistry& registry);      // ai.onnx.ml: TreeEnsemble and its predecessors
void register_ml_linear_ops(OpRegistry& registry);    // ai.onnx.ml: Linear*, SVM*
void register_ml_label_ops(OpRegistry& registry);     // ai.onnx.ml: LabelEncoder, CategoryMapper, OneHotEncoder
void register_ml_feature_ops(OpRegistry& registry);   // ai.onnx.ml: Scaler, Normalizer, Imputer, ...
void register_softmax_ops(OpRegistry& registry);
void register_batchnorm_ops(OpRegistry& registry);
void register_norm_ops(OpRegistry& registry);      // LayerNormalization and other norms within a sample
void register_microsoft_ops(OpRegistry& registry);  // domain com.microsoft
void register_attention_ops(OpRegistry& registry);  // Attention, RotaryEmbedding, TensorScatter
void register_loss_ops(OpRegistry& registry);
void register_optimizer_ops(OpRegistry& registry);
void register_random_ops(OpRegistry& registry);    // Dropout
void register_conv_ops(OpRegistry& registry);     // Conv, ConvTranspose and their gradients
void register_matmul_ops(OpRegistry& registry);   // MatMul, Gemm
void register_einsum_ops(OpRegistry& registry);
void register_recurrent_ops(OpRegistry& registry);  // RNN, GRU, LSTM
void register_signal_ops(OpRegistry& registry);        // DFT, STFT
void register_signal_table_ops(OpRegistry& registry);  // HannWindow and its like, MelWeightMatrix
void register_col2im_ops(OpRegistry& registry);
void register_linear_attention_ops(OpRegistry& registry);
void register_causal_conv_ops(OpRegistry& registry);  // CausalConvWithState
void register_pool_ops(OpRegistry& registry);     // MaxPool, AveragePool and the global forms
void register_bitwise_ops(OpRegistry& registry);      // Bitwise*, BitShift, BitCast
void register_composed_ops(OpRegistry& registry);     // formulas over other operators
void register_selection_ops(OpRegistry& registry);    // Unique, ReverseSequence
void register_draw_ops(OpRegistry& registry);         // Random*, Multinomial, Bernoulli
void register_det_ops(OpRegistry& registry);
void register_fused_ops(OpRegistry& registry);        // FusedConv, Reorder (internal)
void register_fused_matmul_ops(OpRegistry& registry);  // FusedMatMul (internal)
void register_fused_elementwise_ops(OpRegistry& registry);  // FusedElementwise (internal)

}  // namespace ds
