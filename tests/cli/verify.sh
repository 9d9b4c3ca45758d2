#!/usr/bin/env bash
# ds-bench verify from the shell: references of every kind, --bisect, exit codes.
source "$(dirname "${BASH_SOURCE[0]}")/support/expect.sh"
cd "$work" || exit 1
bench=$DS_BIN/ds-bench
images=$DS_ROOT/testdata/mnist/mnist-test-images-idx3-ubyte.gz

for seed in 1 2; do "$DS_BIN/ds-train" init --arch lenet --scale 0.00392156862745098 --seed $seed -o $seed.onnx || complain "no model to start from"; done

expect_status 0 "$bench" verify 1.onnx --reference 1.onnx --shape batch:1 --shape batch:3
[ "$(grep -c '^logits .* ok$' <<< "$out")" -eq 2 ] || complain "two rounds expected: $out"
expect_status 1 "$bench" verify 1.onnx --reference 2.onnx --bisect
[[ $out == *"first divergence at node 'conv1' (Conv)"* ]] || complain "bisect says: $out"
expect_status 1 "$bench" verify 1.onnx --reference 2.onnx --bisect --json
grep -q '"schema": "ds-bench-verify/1"' <<< "$out" || complain "no schema in: $out"
expect_status 1 "$bench" verify 1.onnx --reference 2.onnx --quiet
[ -z "$out" ] || complain "--quiet says: $out"
expect_status 0 "$bench" verify 1.onnx --bisect --data "$images" --batch 4
[[ $out == *"no value inside diverges"* ]] || complain "bisect of a model with itself says: $out"

# Quantized: 8-bit steps are within reach of each other.
"$DS_BIN/ds-quantize" 1.onnx --calibration-data "$images" --calibration-samples 64 --quiet -o 8.onnx > /dev/null || complain "cannot quantize"
expect_status 0 "$bench" verify 8.onnx --bisect --data "$images" --batch 4 --atol 0.02 --rtol 0.02

# Same command, same bytes.
"$bench" verify 1.onnx --reference 2.onnx --bisect --json > a.json
"$bench" verify 1.onnx --reference 2.onnx --bisect --json > b.json
cmp a.json b.json || complain "verify gives other bytes the second time"

# ONNX's own layout, here of ReLU on [-1, 2]: one set, and the folder above it.
if [ -d /usr/share/libonnx-testdata ]; then
  case=$(find /usr/share/libonnx-testdata -type d -name test_relu | head -n 1)
  expect_status 0 "$bench" verify "$case/model.onnx" --reference "$case/test_data_set_0"
  expect_status 0 "$bench" verify "$case/model.onnx" --reference "$case"
  expect_error 64 "brings its own inputs" "$bench" verify "$case/model.onnx" --reference "$case" --shape x:1
fi

expect_error 64 "--reference is missing" "$bench" verify 1.onnx
expect_error 64 "exclude each other" "$bench" verify 1.onnx --reference 2.onnx --data "$images" --shape batch:2
expect_error 66 "absent.onnx" "$bench" verify 1.onnx --reference absent.onnx
finish
