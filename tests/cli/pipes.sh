#!/usr/bin/env bash
# Programs joined by pipes give the same bytes as through files.
source "$(dirname "${BASH_SOURCE[0]}")/support/expect.sh"
cd "$work" || exit 1
PATH=$(cd "$DS_BIN" && pwd):$PATH
set -e

awk 'BEGIN { print "a,b,c,d,label"; for (i = 0; i < 60; i++) print i % 7 "," i % 5 "," i % 3 "," i % 11 "," i % 3 }' > table.csv
ds train init --arch mlp --features 4 --hidden-sizes 32,16 --classes 3 --seed 1 -o init.onnx
ds-prune init.onnx --target-sparsity 0.5 --quiet -o pruned.onnx
ds-quantize pruned.onnx --calibration-data table.csv --quiet -o int8.onnx > /dev/null

ds train init --arch mlp --features 4 --hidden-sizes 32,16 --classes 3 --seed 1 -o - |
  ds prune - --target-sparsity 0.5 --quiet -o - |
  ds quantize - --calibration-data table.csv --quiet -o - > piped.onnx
cmp int8.onnx piped.onnx || complain "the pipe gives another file"
ds bench inspect - < int8.onnx > a.txt
ds bench inspect int8.onnx > b.txt
# The name and, for a file, its size are all that differs.
diff <(sed 1d a.txt) <(sed '1d; /^  file /d' b.txt) > /dev/null || complain "inspect - differs from inspect FILE"

# Without a terminal nothing is drawn or coloured, neither on stdout nor on stderr.
for line in "ds-bench inspect int8.onnx" "ds-bench init.onnx int8.onnx --iterations 3" \
  "ds-train init.onnx --data table.csv --epochs 2 -o t.onnx" "ds-prune init.onnx --target-sparsity 0.5 -o p.onnx"; do
  # shellcheck disable=SC2086
  expect_status 0 $line
  ! LC_ALL=C grep -q $'[\033\r]' out "$work/out" "$work/err" 2> /dev/null || complain "$line writes control characters"
done
finish
