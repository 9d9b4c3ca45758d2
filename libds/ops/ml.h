// What the operators of domain ai.onnx.ml share. Most are formulas over standard operators (OpDef::lower); trees,
// the distances and probabilities of support vector machines, and look-ups of labels have kernels.
//
// Where the specification is silent on classifiers with a single score, they do what onnxruntime does for the models
// that converters write (no transform, or LOGISTIC).
#pragma once

#include "libds/ir/onnx_versions.h"
#include "libds/ops/lowering.h"

namespace ds::ops {

// An operator of ai.onnx.ml with one input; the rest is the caller's.
OpDef ml_op(std::string_view name, InferFn infer);
OpDef ml_lowered(std::string_view name, InferFn infer, LowerFn lower);

// Throws unless input 0 is one of f32, f64, i32, i64.
void require_ml_number(InferContext& c);
// [N, F] is N rows of F features, [F] one row; the number of rows, fresh when it is not known. Throws on other ranks,
// and on another number of features than `features` (-1: any).
Dim rows_of(InferContext& c, int64_t features = -1);
// The rows as a matrix of `dtype`.
ValueId as_matrix(Lowering& l, DType dtype);

// --- classes and scores --------------------------------------------------------------------------

// Labels of a classifier: a 1-D tensor, i64 or string, from whichever attribute is there. Throws when none or both are.
Tensor class_labels(const Node& n, const char* ints, const char* strings);
// Types the outputs (labels, scores) of a classifier whose scores are [rows, columns].
void infer_classifier(InferContext& c, const Tensor& labels, Dim rows, int64_t columns);
// Sets output 0 to the labels at the largest of `scores` in each row, the first of equal ones.
void set_top_label(Lowering& l, const Tensor& labels, ValueId scores);

// Throws on a transform that is not known.
void check_post_transform(const Node& n);
// The node's post_transform of scores [N, E].
ValueId post_transformed(Lowering& l, ValueId scores, const std::string& transform);
// Two columns from a single score per row: [1 - s, s] where the scores are probabilities, else [-s, s].
ValueId two_scores(Lowering& l, ValueId score, bool probabilities);

}  // namespace ds::ops
