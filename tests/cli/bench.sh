#!/usr/bin/env bash
# ds-bench's timing command: sweeps, formats, the baseline gate, and what it says about wrong values.
source "$(dirname "${BASH_SOURCE[0]}")/support/expect.sh"
cd "$work" || exit 1
bench=$DS_BIN/ds-bench
few=(--iterations 6 --warmup 0 --quiet)

"$DS_BIN/ds-train" init --arch lenet --seed 1 -o m.onnx || complain "no model to start from"

expect_error 64 "--precision: 'fp8' is not one of fp32, auto, bf16, fp16" "$bench" m.onnx --precision fp32,fp8
expect_error 64 "--threads: 'two' is not a whole number" "$bench" m.onnx --threads 1,two
expect_error 64 "--threads: 5000 is out of range" "$bench" m.onnx --threads 5000
expect_error 64 "--batch: 0 is out of range" "$bench" m.onnx --batch 8,0
expect_error 64 "--batch: '' is not a whole number" "$bench" m.onnx --batch 8,
expect_error 64 "--format: 'xml' is not one of table, json, csv, md" "$bench" m.onnx --format xml
expect_error 64 "--json and another --format" "$bench" m.onnx --json --format csv
expect_error 64 "--vary: 'batch' is no range; expected dim:FROM-TO" "$bench" m.onnx --vary batch
expect_error 64 "advance together" "$bench" m.onnx --vary batch:1-3 --vary batch:1-4
expect_error 64 "--profile is of one shape" "$bench" m.onnx --vary batch:1-3 --profile
expect_error 64 "no open dimension 'nothing'" "$bench" m.onnx --vary nothing:1-3 --quiet
expect_error 64 "--max-regression needs a --baseline" "$bench" m.onnx --max-regression 5%
expect_error 64 "--max-regression: 'a bit' is no percentage, such as 5%" "$bench" m.onnx --baseline x.json --max-regression "a bit"
expect_error 66 "missing.json" "$bench" m.onnx --baseline missing.json
echo '{"schema": "something else"}' > other.json
expect_error 65 "other.json: no result of ds-bench" "$bench" m.onnx --baseline other.json
expect_error 73 "no/such" "$bench" m.onnx --html no/such/page.html
expect_error 66 "missing.onnx" "$bench" missing.onnx --quiet

expect_status 0 "$bench" m.onnx --batch 1,2 --threads 1,2 --precision fp32 --format csv "${few[@]}"
[ "$(wc -l < "$work/out")" -eq 5 ] || complain "two batches at two thread counts are: $out"
[[ $out == model,precision,threads,batch,* ]] || complain "CSV begins with: ${out:0:60}"
expect_status 0 "$bench" m.onnx --format md "${few[@]}"
grep -q '^| m.onnx |' <<< "$out" || complain "Markdown says: $out"
expect_status 0 "$bench" m.onnx --profile "${few[@]}"
grep -q 'of roofline' <<< "$out" || complain "--profile says: $out"
expect_status 0 "$bench" m.onnx --format json "${few[@]}" -o saved.json
grep -q '"schema": "ds-bench/2"' <<< "$out" || complain "JSON says: $out"
cmp -s "$work/out" saved.json || complain "--output differs from --format json"
expect_status 0 "$bench" m.onnx --vary batch:1-4 "${few[@]}"
grep -q '4 (batch:1-4)' <<< "$out" || complain "--vary says: $out"

expect_error 64 "--input is of one shape" "$bench" m.onnx --input x.npz --batch 2
expect_error 66 "x.npz" "$bench" m.onnx --input x.npz --quiet

expect_status 0 "$bench" m.onnx --html page.html "${few[@]}"
[[ $(head -c 15 page.html) == '<!DOCTYPE html>' ]] || complain "the page begins with: $(head -c 40 page.html)"
expect_status 0 "$bench" m.onnx --html - "${few[@]}"
[[ $out == '<!DOCTYPE html>'* && $out == *'</html>' ]] || complain "--html - wrote something else beside the page"

# A baseline a million times as fast fails the gate, one a million times as slow does not.
sed -E 's/("(p50|p50_low|p50_high)": )[0-9.e+-]+/\11e-9/' saved.json > fast.json
sed -E 's/("(p50|p50_low|p50_high)": )[0-9.e+-]+/\11000/' saved.json > slow.json
expect_status 1 "$bench" m.onnx --baseline fast.json --max-regression 5% "${few[@]}"
[[ $err == "ds-bench: m.onnx ("*"): slower than fast.json: median "*" is more than 5 %" ]] || complain "the gate says: $err"
expect_status 0 "$bench" m.onnx --baseline slow.json "${few[@]}"
[ -z "$err" ] || complain "faster than the baseline, yet: $err"
expect_status 0 "$bench" m.onnx --baseline fast.json --batch 3 --iterations 6 --warmup 0
grep -q 'warning: m.onnx (.*): not in fast.json' <<< "$err" || complain "a row that is missing in the baseline: $err"
finish
