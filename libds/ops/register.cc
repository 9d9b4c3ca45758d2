#include "libds/ops/register.h"

namespace ds {

OpRegistry& OpRegistry::instance() {
  static OpRegistry registry = [] {
    OpRegistry r;
    register_all_ops(r);
    return r;
  }();
  return registry;
}

void register_all_ops(OpRegistry& registry) {
  register_binary_ops(registry);
  register_compare_ops(registry);
  register_unary_ops(registry);
  register_cast_ops(registry);
  register_reduce_ops(registry);
  register_softmax_ops(registry);
  register_batchnorm_ops(registry);
  register_norm_ops(registry);
  register_attention_ops(registry);
  register_microsoft_ops(registry);
  register_loss_ops(registry);
  register_optimizer_ops(registry);
  register_random_ops(registry);
  register_conv_ops(registry);
  register_fused_ops(registry);
  register_fused_matmul_ops(registry);
  register_fused_elementwise_ops(registry);
  register_matmul_ops(registry);
  register_einsum_ops(registry);
  register_recurrent_ops(registry);
  register_signal_ops(registry);
  register_signal_table_ops(registry);
  register_col2im_ops(registry);
  register_linear_attention_ops(registry);
  register_causal_conv_ops(registry);
  register_pool_ops(registry);
  register_shape_ops(registry);
  register_movement_ops(registry);
  register_slice_pad_ops(registry);
  register_resize_ops(registry);
  register_grid_sample_ops(registry);
  register_roi_ops(registry);
  register_deform_conv_ops(registry);
  register_placement_ops(registry);
  register_indexing_ops(registry);
  register_quant_ops(registry);
  register_qproduct_ops(registry);
  register_nbits_ops(registry);
  register_contrib_quant_ops(registry);
  register_qfused_ops(registry);
  register_qpointwise_ops(registry);
  register_bitwise_ops(registry);
  register_composed_ops(registry);
  register_selection_ops(registry);
  register_draw_ops(registry);
  register_det_ops(registry);
  register_observe_ops(registry);
  register_control_flow_ops(registry);
  register_sequence_ops(registry);
  register_string_ops(registry);
  register_regex_ops(registry);
  register_ml_tree_ops(registry);
  register_ml_linear_ops(registry);
  register_ml_label_ops(registry);
  register_ml_feature_ops(registry);
}

}  // namespace ds
