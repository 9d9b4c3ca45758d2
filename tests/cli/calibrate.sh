#!/usr/bin/env bash
# ds-bench calibrate, and what programs make of the table it writes: used only when named, refused when it does not fit.
source "$(dirname "${BASH_SOURCE[0]}")/support/expect.sh"
cd "$work" || exit 1
bench=$DS_BIN/ds-bench
few=(--iterations 3 --warmup 0)
unset DS_COSTS
export XDG_CACHE_HOME=$work/cache

"$DS_BIN/ds-train" init --arch lenet --seed 1 -o m.onnx || complain "no model to start from"

expect_status 0 "$bench" calibrate --threads 1
[[ $out == *"bf16"*"weights are read at "*"written to $work/cache/ds/costs.json, hash "* ]] || complain "calibrate says: $out"
costs=$work/cache/ds/costs.json
[ -s "$costs" ] || complain "no table in the cache"
hash=$(sed -n 's/.*"hash": "\([0-9a-f]\{16\}\)".*/\1/p' "$costs")
[ -n "$hash" ] || complain "no hash in $(cat "$costs")"
grep -q "hash $hash" <<< "$out" || complain "the hash printed is not that of the file: $out"

# Not looked at unless it is named.
expect_status 0 "$bench" m.onnx --precision auto --json "${few[@]}"
grep -q '"costs": null' <<< "$out" || complain "a table that nobody named was used"
expect_status 0 "$bench" m.onnx --precision auto --costs "$costs" --json "${few[@]}"
grep -q "\"hash\": \"$hash\"" <<< "$out" || complain "the table is not in the result"
DS_COSTS=$costs expect_status 0 "$bench" m.onnx --precision auto --json "${few[@]}"
grep -q "\"hash\": \"$hash\"" <<< "$out" || complain "DS_COSTS was not followed"
DS_LOG=precision expect_status 0 "$bench" m.onnx --precision auto --costs "$costs" "${few[@]}"
grep -q "\[precision\] costs of $costs, $hash: bf16 is" <<< "$err" || complain "DS_LOG=precision says: $err"
DS_COSTS=missing.json expect_status 0 "$bench" m.onnx "${few[@]}"  # fp32 has nothing to choose

expect_status 0 "$bench" calibrate --threads 1 -o - --quiet
grep -q '"schema": "ds-costs/1"' <<< "$out" || complain "-o - wrote: $out"

sed 's/"bandwidth": [0-9.]*/"bandwidth": 1e6/' "$costs" > damaged.json
expect_error 65 "damaged.json: changed or damaged" "$bench" m.onnx --precision auto --costs damaged.json
sed 's/"cpu": "/"cpu": "Other /' "$costs" > other.json
expect_error 65 "other.json: " "$bench" m.onnx --precision auto --costs other.json
head -c 100 "$costs" > short.json
expect_error 65 "short.json: no table of costs" "$bench" run m.onnx -i x.npz -o y.npz --costs short.json
expect_error 66 "missing.json" "$bench" m.onnx --precision auto --costs missing.json
expect_error 73 "no/such" "$bench" calibrate -o no/such/costs.json
HOME='' XDG_CACHE_HOME='' expect_error 64 "name a file by --output" "$bench" calibrate
finish
