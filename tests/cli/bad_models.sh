#!/usr/bin/env bash
# Every program that reads a model, on models that are none, and with outputs that cannot be written:
# one line that names the file, the documented exit code, no partial output.
source "$(dirname "${BASH_SOURCE[0]}")/support/expect.sh"
cd "$work" || exit 1
mkdir bad folder

"$DS_BIN/ds-train" init --arch mlp --features 4 --hidden-sizes 8 --classes 3 --seed 1 -o good.onnx || complain "no model to start from"
awk 'BEGIN { print "a,b,c,d,label"; for (i = 0; i < 30; i++) print i % 7 "," i % 5 "," i % 3 "," i % 11 "," i % 3 }' > table.csv
size=$(stat -c %s good.onnx)
: > bad/empty.onnx
echo "this is no model" > bad/text.onnx
head -c 4096 /dev/zero > bad/zeros.onnx
for part in 1 2 3; do head -c $((size * part / 4)) good.onnx > bad/cut$part.onnx; done
head -c $((size - 1)) good.onnx > bad/short.onnx
cp "$DS_BIN/ds" bad/program.onnx

# lines MODEL: the command lines under test.
lines() {
  local model=$1
  printf '%s\n' \
    "ds-bench inspect $model" \
    "ds-bench run $model --input x.npz --output out.npz" \
    "ds-bench $model --iterations 1 --quiet" \
    "ds-prune $model --target-sparsity 0.5 -o out.onnx" \
    "ds-prune $model --structured channels --target-flops 0.5 -o out.onnx" \
    "ds-quantize $model --calibration-data table.csv -o out.onnx" \
    "ds-quantize $model --dynamic -o out.onnx" \
    "ds-train $model --data table.csv --epochs 1 -o out.onnx" \
    "ds-serve $model --port 0"
}

# refuse CODE MODEL: each program refuses it with that exit code, naming it.
refuse() {
  local code=$1 model=$2 line
  while IFS= read -r line; do
    # shellcheck disable=SC2086
    expect_error "$code" "$model: " "$DS_BIN/"$line
    [ ! -e out.onnx ] && [ ! -e out.npz ] || complain "$line left an output"
  done < <(lines "$model")
}

for model in bad/*.onnx; do refuse 65 "$model"; done
refuse 66 missing.onnx
refuse 66 folder

# Outputs that cannot be written: a missing folder, a folder in place of the file, a full disk.
for target in no/such/folder/out.onnx folder; do
  expect_error 73 "$target: " "$DS_BIN/ds-train" init --arch mlp --features 4 --classes 3 --seed 1 -o $target
  expect_error 73 "$target: " "$DS_BIN/ds-train" good.onnx --data table.csv --epochs 1 -o $target --quiet
  expect_error 73 "$target: " "$DS_BIN/ds-prune" good.onnx --target-sparsity 0.5 -o $target --quiet
  expect_error 73 "$target: " "$DS_BIN/ds-quantize" good.onnx --dynamic -o $target --quiet
done
"$DS_BIN/ds-prune" good.onnx --target-sparsity 0.5 --quiet -o - > /dev/full 2> err
code=$?
[ $code -eq 74 ] || complain "ds-prune -o - on a full disk ended with $code: $(cat err)"
[ "$(find . -name '*.tmp*' -o -name '.*.onnx*' | wc -l)" -eq 0 ] || complain "temporary files are left: $(find . -name '*.tmp*')"
[ -z "$(ls -A folder)" ] || complain "folder is no longer empty"
finish
