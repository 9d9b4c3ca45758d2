#!/usr/bin/env bash
# Models that skl2onnx and LightGBM's converter wrote give what scikit-learn and LightGBM predict, by a plan and node by
# node (testdata/classical/make.py made them).
set -euo pipefail
for mode in "" --eager; do
  "$DS_BIN/ds_tool_onnx_cases" $mode --min-rate 1 "$DS_ROOT/testdata/classical"
done
