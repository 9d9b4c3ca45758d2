#!/usr/bin/env bash
# ds-train: same command, same bytes; killed and resumed, same weights; bad input, one line and the
# documented exit code.
source "$(dirname "${BASH_SOURCE[0]}")/support/expect.sh"
train=$DS_BIN/ds-train
cd "$work" || exit 1

# 96 rows of four numbers and a class that depends on them.
awk 'BEGIN { print "a,b,c,d,label"; for (i = 0; i < 96; i++) { a = i % 7; b = i % 5; c = i % 3; d = i % 11; print a "," b "," c "," d "," (a > b) + (c > 1) } }' > table.csv
expect_status 0 "$train" init --arch mlp --features 4 --hidden-sizes 16,8 --classes 3 --scale 0.1 --seed 5 -o init.onnx
expect_status 0 "$train" init --arch mlp --features 4 --hidden-sizes 16,8 --classes 3 --scale 0.1 --seed 5 -o again.onnx
cmp init.onnx again.onnx || complain "init gives other bytes the second time"
"$train" init --arch mlp --features 4 --hidden-sizes 16,8 --classes 3 --scale 0.1 --seed 5 -o - > piped.onnx
cmp init.onnx piped.onnx || complain "init -o - differs from init -o FILE"

fit=("$train" init.onnx --data table.csv --val-split 0.25 --optimizer adamw --lr 0.01 --batch-size 8 --seed 5 --threads 2)
expect_status 0 "${fit[@]}" --epochs 6 --metrics m.jsonl -o a.onnx
[ "$(wc -l < m.jsonl)" -eq 6 ] || complain "6 epochs gave $(wc -l < m.jsonl) lines of metrics"
grep -q '"epoch":6,"step":54,.*"val_loss":' m.jsonl || complain "the last line of metrics is $(tail -n 1 m.jsonl)"
expect_status 0 "${fit[@]}" --epochs 6 --quiet -o b.onnx
[ -z "$err" ] || complain "--quiet said: $err"
cmp a.onnx b.onnx || complain "training gives other bytes the second time"
cmp -s a.onnx init.onnx && complain "training changed nothing"
expect_status 0 "${fit[@]}" --epochs 6 --no-static -o eager.onnx
cmp a.onnx eager.onnx || complain "--no-static gives other weights"
expect_status 0 "${fit[@]}" --epochs 1 -o one.onnx
"$train" - "${fit[@]:2}" --epochs 1 --quiet -o - < init.onnx > piped.onnx || complain "MODEL - failed"
cmp one.onnx piped.onnx || complain "a pipe gives other bytes than files"

# SIGKILL in mid-training, twice; --resume from the first start on.
long=("${fit[@]}" --epochs 60 --checkpoint-every 5 --checkpoint-dir ckpt --resume --metrics r.jsonl)
expect_status 0 "${fit[@]}" --epochs 60 -o whole.onnx
for _ in 1 2; do
  "${long[@]}" -o resumed.onnx 2> killed.err &
  pid=$!
  before=$(ls ckpt 2> /dev/null | tail -n 1)
  for _ in $(seq 200); do
    now=$(ls ckpt 2> /dev/null | grep '\.ckpt$' | tail -n 1)
    [ -n "$now" ] && [ "$now" != "$before" ] && break
    sleep 0.02
  done
  kill -KILL $pid 2> /dev/null
  wait $pid 2> /dev/null
done
[ -e resumed.onnx ] && complain "the run ended before it could be killed"
expect_status 0 "${long[@]}" -o resumed.onnx
[[ $err == *"resumed at step "* ]] || complain "--resume did not say where it went on: $err"
cmp whole.onnx resumed.onnx || complain "killed and resumed: other weights"
[ "$(wc -l < r.jsonl)" -eq 60 ] || complain "metrics of a resumed run have $(wc -l < r.jsonl) lines"
[ "$(ls ckpt | wc -l)" -eq 2 ] || complain "checkpoints kept: $(ls ckpt)"
expect_error 64 "another --checkpoint-dir" "${fit[@]}" --epochs 5 --quiet --checkpoint-dir ckpt --resume -o x.onnx

# SIGTERM: a checkpoint, exit code 75, no output.
"${fit[@]}" --epochs 100000 --checkpoint-dir stopped -o x.onnx 2> term.err &
pid=$!
for _ in $(seq 200); do [ -d stopped ] && break; sleep 0.02; done
kill -TERM $pid
wait $pid
code=$?
[ $code -eq 75 ] || complain "SIGTERM ended with $code: $(cat term.err)"
[ -e x.onnx ] && complain "a stopped training left an output"

# Masks: the sparsity asked for, and zeros that stay zero in fine-tuning.
expect_status 0 "${fit[@]}" --epochs 6 --prune magnitude --target-sparsity 0.5 --metrics p.jsonl -o sparse.onnx
grep -q '"epoch":6,.*"sparsity":0\.\(49\|5\)' p.jsonl || complain "sparsity at the end: $(tail -n 1 p.jsonl)"

# --- bad input ---
bad() {  # CODE PIECE ARGS...: no output may appear either
  rm -f x.onnx
  expect_error "$@" --quiet -o x.onnx
  [ -e x.onnx ] && complain "an output was written by: $*"
}
data=(--data table.csv --epochs 1 --batch-size 8)
bad 66 "absent.onnx" "$train" absent.onnx "${data[@]}"
bad 66 "absent.csv" "$train" init.onnx --data absent.csv
head -c 300 init.onnx > cut.onnx
bad 65 "cut.onnx" "$train" cut.onnx "${data[@]}"
echo "not a model" > text.onnx
bad 65 "text.onnx" "$train" text.onnx "${data[@]}"
sed 's/,[0-9]*$/,7/; 1s/7$/label/' table.csv | sed '1s/.*/a,b,c,d,label/' > labels.csv
bad 65 "labels.csv: row 0: label 7 is out of range [0, 3)" "$train" init.onnx --data labels.csv --batch-size 8
cut -d, -f1-3,5 table.csv > narrow.csv
bad 65 "wants samples of shape 4" "$train" init.onnx --data narrow.csv
sed '5s/^[0-9]*/x/' table.csv > word.csv
bad 65 "word.csv: line 5: column 1 (a): 'x' is not a number" "$train" init.onnx --data word.csv
cut -d, -f1-4 table.csv > unlabelled.csv
bad 65 "labels" "$train" init.onnx --data unlabelled.csv
bad 65 "fewer than one batch" "$train" init.onnx --data table.csv --batch-size 97
bad 65 "loss is" "$train" init.onnx "${data[@]}" --optimizer sgd --lr 1e30 --epochs 5
bad 64 "--data is missing" "$train" init.onnx
bad 64 "--target-sparsity" "$train" init.onnx "${data[@]}" --prune magnitude
bad 64 "--prune magnitude" "$train" init.onnx "${data[@]}" --target-sparsity 0.5
bad 64 "--resume" "$train" init.onnx "${data[@]}" --resume
bad 64 "--augment" "$train" init.onnx "${data[@]}" --augment rotate:3
bad 64 "--momentum" "$train" init.onnx "${data[@]}" --optimizer adamw --momentum 0.5
expect_error 73 "no/such" "$train" init.onnx "${data[@]}" --quiet -o no/such/x.onnx
expect_error 64 "not one of mlp" "$train" init --arch vgg -o x.onnx
expect_error 64 "means nothing" "$train" init --arch lenet --vocab 7 -o x.onnx
expect_error 73 "no/such" "$train" init --arch mlp -o no/such/x.onnx
finish
