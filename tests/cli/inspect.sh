#!/usr/bin/env bash
# ds-bench inspect and ops, ds-train --check: text, JSON, pages.
source "$(dirname "${BASH_SOURCE[0]}")/support/expect.sh"
cd "$work" || exit 1
bench=$DS_BIN/ds-bench

"$DS_BIN/ds-train" init --arch lenet --seed 1 -o m.onnx || complain "no model to start from"
expect_status 0 "$bench" inspect m.onnx --html page.html
[[ $out == m.onnx* ]] || complain "inspect says: $out"
[ -s page.html ] || complain "no page"
"$bench" inspect m.onnx --html - > piped.html || complain "--html - failed"
cmp page.html piped.html || complain "--html - gives another page"
expect_status 0 "$bench" inspect m.onnx --html page.html --quiet
[ -z "$out" ] || complain "--quiet says: $out"
expect_error 73 "no/such" "$bench" inspect m.onnx --html no/such/page.html
expect_status 0 "$bench" inspect m.onnx --json
grep -q '"schema": "ds-bench-inspect/1"' <<< "$out" || complain "no schema in: $out"

expect_status 0 "$bench" ops
grep -q '^Conv ' <<< "$out" || complain "ops does not list Conv"

expect_status 0 "$DS_BIN/ds-train" m.onnx --check
[[ $out == "m.onnx: can be trained: "* ]] || complain "--check says: $out"
expect_status 0 "$DS_BIN/ds-train" m.onnx --check --json
grep -q '"trainable": true' <<< "$out" || complain "--check --json says: $out"
expect_status 1 "$DS_BIN/ds-train" m.onnx --check --freeze '*'
[[ $out == "m.onnx: cannot be trained: it has no trainable parameters"* ]] || complain "--check says: $out"
expect_error 64 "--json goes with --check" "$DS_BIN/ds-train" m.onnx --json --data x.npz -o y.onnx
echo text > m.txt
expect_error 65 "m.txt" "$DS_BIN/ds-train" m.txt --check
finish
