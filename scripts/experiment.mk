# The whole pipeline on real digits: init -> train -> prune -> fine-tune -> quantize -> bench -> serve.
#
#   make -f scripts/experiment.mk            everything, into build/demo
#   make -f scripts/experiment.mk SEED=2     another seed (use another OUT to keep both)
#
# Every file is made from its prerequisites alone, so a second `make` rebuilds nothing. The 2,000
# test digits are read once, by the benchmark at the end: training, calibration and the choice of
# settings use the 8,000 training digits only.

BIN      ?= build/release/bin
OUT      ?= build/demo
DIGITS   ?= testdata/mnist
SEED     ?= 1
EPOCHS   ?= 14
FINETUNE ?= 10

TRAIN_DATA := $(DIGITS)/mnist-train-images-idx3-ubyte.gz,$(DIGITS)/mnist-train-labels-idx1-ubyte.gz
TEST_DATA  := $(DIGITS)/mnist-test-images-idx3-ubyte.gz,$(DIGITS)/mnist-test-labels-idx1-ubyte.gz

.PHONY: all
all: $(OUT)/bench.json $(OUT)/answer.txt

$(OUT):
	mkdir -p $@

$(OUT)/init.onnx: | $(OUT)
	$(BIN)/ds-train init --arch lenet --in-channels 1 --image-size 28 --classes 10 \
	  --scale 0.00392156862745098 --mean 0.1307 --std 0.3081 --seed $(SEED) -o $@

$(OUT)/trained.onnx: $(OUT)/init.onnx
	$(BIN)/ds-train $< --data $(TRAIN_DATA) --val-split 0.1 --augment shift:2 \
	  --loss cross-entropy --optimizer adamw --lr 0.003 --weight-decay 0.01 --schedule cosine --warmup 100 \
	  --epochs $(EPOCHS) --batch-size 64 --seed $(SEED) --metrics $(OUT)/trained.jsonl -o $@

$(OUT)/cut.onnx: $(OUT)/trained.onnx
	$(BIN)/ds-prune $< --structured channels --target-flops 0.5 --channel-multiple auto -o $@

$(OUT)/pruned.onnx: $(OUT)/cut.onnx
	$(BIN)/ds-train $< --data $(TRAIN_DATA) --val-split 0.1 --augment shift:2 \
	  --loss cross-entropy --optimizer adamw --lr 0.002 --weight-decay 0.01 --schedule cosine --warmup 100 \
	  --epochs $(FINETUNE) --batch-size 64 --seed $(SEED) --metrics $(OUT)/pruned.jsonl -o $@

$(OUT)/int8.onnx: $(OUT)/pruned.onnx
	$(BIN)/ds-quantize $< --calibration-data $(TRAIN_DATA) --calibration-samples 512 --observer moving-average -o $@

# One run of the benchmark gives the file and, on the way, the table.
$(OUT)/bench.json: $(OUT)/init.onnx $(OUT)/trained.onnx $(OUT)/pruned.onnx $(OUT)/int8.onnx
	$(BIN)/ds-bench $^ --data $(TEST_DATA) --batch 64 -o $@ > $(OUT)/bench.txt
	cat $(OUT)/bench.txt

$(OUT)/answer.txt: $(OUT)/int8.onnx $(OUT)/bench.json scripts/ask_digit
	scripts/ask_digit $(BIN) $< $(DIGITS) > $@.part
	mv $@.part $@
	cat $@
