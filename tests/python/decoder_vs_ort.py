"""The attention operators of domain com.microsoft with a cache, against onnxruntime: prompts, then tokens one at a
time, each step with the cache that onnxruntime returned from the step before.

Usage: decoder_vs_ort.py BIN_DIR [unittest arguments].
"""
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

BIN = pathlib.Path("build/release/bin")
F32, I32, I64 = np.float32, np.int32, np.int64
DOMAINS = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
ROWS = 32  # of the tables of cosines and sines


class Step:
    """One node with its inputs (None: left out) and what onnxruntime answers. `valid`: per sample, how many of the
    query's rows are tokens; what onnxruntime writes into the padding behind them is of no meaning."""

    def __init__(self, op, inputs, attrs, outputs, valid=None, constant=()):
        self.op, self.inputs, self.attrs, self.outputs, self.valid, self.constant = op, inputs, attrs, outputs, valid, constant
        model, feeds = build([self])
        options = ort.SessionOptions()
        options.log_severity_level = 4
        self.expected = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def build(steps, free=False):
    """One model of all steps. `free`: sizes are not told in the model."""
    nodes, inputs, outputs, constants, feeds = [], [], [], [], {}
    for s, step in enumerate(steps):
        names = ["" if array is None else f"s{s}_in{i}" for i, array in enumerate(step.inputs)]
        results = [f"s{s}_out{i}" if wanted else "" for i, wanted in enumerate(step.outputs)]
        nodes.append(helper.make_node(step.op, names, results, name=f"s{s}", domain="com.microsoft", **step.attrs))
        for i, (name, array) in enumerate(zip(names, step.inputs)):
            if array is None:
                continue
            if i in step.constant:
                constants.append(onnx.numpy_helper.from_array(array, name))
                continue
            shape = [f"{name}_{d}" if free and d != array.ndim - 1 else n for d, n in enumerate(array.shape)]
            inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape))
            feeds[name] = array
        kind = helper.np_dtype_to_tensor_dtype(step.inputs[0].dtype)
        outputs.extend(helper.make_tensor_value_info(r, kind, None) for r in results if r)
    model = helper.make_model(helper.make_graph(nodes, "decoder", inputs, outputs, constants), opset_imports=DOMAINS)
    model.ir_version = 9
    return model, feeds


class Decoder(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(7)

    def normal(self, *shape):
        return self.rng.standard_normal(shape).astype(F32)

    def check(self, steps, free=False, atol=2e-5):
        model, feeds = build(steps, free)
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            onnx.save(model, folder / "m.onnx")
            np.savez(folder / "x.npz", **feeds)
            command = [BIN / "ds-bench", "run", folder / "m.onnx", "--input", folder / "x.npz", "--output", folder / "y.npz"]
            done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 0, done.stderr)
            got = dict(np.load(folder / "y.npz"))
        for s, step in enumerate(steps):
            for i, expected in zip([i for i, wanted in enumerate(step.outputs) if wanted], step.expected):
                with self.subTest(step=s, op=step.op, output=i, shapes=[None if a is None else a.shape for a in step.inputs], attrs=step.attrs):
                    y = got[f"s{s}_out{i}"]
                    self.assertEqual((y.dtype, y.shape), (expected.dtype, expected.shape))
                    if i == 3:  # scores of what is not seen: onnxruntime has the lowest number for -inf
                        y = np.maximum(y, np.finfo(y.dtype).min)
                    for b in range(y.shape[0]):
                        rows = step.valid[b] if i == 0 and step.valid is not None else None
                        np.testing.assert_allclose(y[b][:rows], expected[b][:rows], rtol=1e-5, atol=atol)

    def group_steps(self, lengths, tokens, room=0, packed=False, rotary=None, chunk=1, constant=(), **attrs):
        """A prompt of samples that have `lengths` tokens, then `tokens` steps of `chunk` tokens. `room`: rows of a
        cache that has the same size before and after; 0: the cache grows."""
        H, G, D, B = 4, 2, 32, len(lengths)
        attrs = {"num_heads": H, "kv_num_heads": G, **attrs}
        tables = [None, None]
        if rotary is not None:
            attrs.update(do_rotary=1, rotary_interleaved=rotary)
            angles = np.outer(np.arange(ROWS), 10.0 ** -np.arange(D // 2))
            tables = [np.cos(angles).astype(F32), np.sin(angles).astype(F32)]
        length, steps = np.array(lengths), []
        cache = [self.normal(B, G, room, D), self.normal(B, G, room, D)] if room else [None, None]
        for t in range(tokens + 1):
            L = max(lengths) if t == 0 else chunk
            if t > 0:
                length = length + L
            q, k, v = self.normal(B, L, H * D), self.normal(B, L, G * D), self.normal(B, L, G * D)
            if packed:
                q, k, v = np.concatenate([q, k, v], axis=2), None, None
            inputs = [q, k, v, *cache, (length - 1).astype(I32), np.array([length.max()], I32), *tables]
            while inputs[-1] is None:
                inputs.pop()
            steps.append(Step("GroupQueryAttention", inputs, attrs, [True] * 3, list(length) if t == 0 else None, constant))
            cache = steps[-1].expected[1:]
        return steps

    def test_group_query_attention(self):
        steps = []
        for room in (0, 12):
            for lengths in ([5], [5, 3], [2, 6]):
                steps += self.group_steps(lengths, 3, room)
                steps += self.group_steps(lengths, 3, room, rotary=0)
                steps += self.group_steps(lengths, 3, room, packed=True, rotary=1)
                steps += self.group_steps(lengths, 3, room, packed=True, local_window_size=2, scale=0.3)
                steps += self.group_steps(lengths, 3, room, rotary=1, local_window_size=4, softcap=1.5)
            steps += self.group_steps([4], 2, room, chunk=3, rotary=0)
            steps += self.group_steps([4], 2, room, chunk=2, packed=True, local_window_size=3)
        self.check(steps)
        self.check(steps, free=True)

    def test_sizes_known_before_the_run(self):
        self.check(self.group_steps([5, 3], 3, rotary=0, constant=(6,)) + self.group_steps([5, 3], 3, 9, constant=(5, 6)))

    def test_outputs_left_out(self):
        steps = self.group_steps([5, 3], 2, 9)  # onnxruntime reads no cache when it writes none
        for step in steps:
            step.outputs, step.expected = [True], step.expected[:1]
        self.check(steps)

    def test_position_ids_and_bias(self):
        steps = []
        for room in (0, 9):
            for step in self.group_steps([4, 2], 2, room, rotary=0):
                L, total = step.inputs[0].shape[1], int(step.inputs[6][0])
                positions = self.rng.integers(0, ROWS, (2, L)).astype(I64)
                for bias in (None, self.normal(2, 4, L, total), self.normal(1, 1, L, total)):
                    inputs = [*step.inputs, positions, bias]
                    steps.append(Step(step.op, inputs if bias is not None else inputs[:-1], step.attrs, [True] * 3, step.valid))
        self.check(steps)


    def test_bias_comes_after_softcap(self):
        steps = []
        for room in (0, 9):
            for step in self.group_steps([4, 2], 2, room, softcap=0.7, local_window_size=3):
                L, total = step.inputs[0].shape[1], int(step.inputs[6][0])
                inputs = [*step.inputs, None, None, None, self.normal(2, 4, L, total)]
                steps.append(Step(step.op, inputs, step.attrs, [True] * 3, step.valid))
        self.check(steps)

    def test_sinks(self):
        steps = []
        for room in (0, 9):
            for attrs in ({}, {"softcap": 0.7, "local_window_size": 3}):
                steps += self.group_steps([4, 2], 2, room, smooth_softmax=1, **attrs)
                for step in self.group_steps([4, 2], 2, room, **attrs):
                    L, total = step.inputs[0].shape[1], int(step.inputs[6][0])
                    for bias in (None, self.normal(2, 4, L, total)):
                        steps.append(Step(step.op, [*step.inputs, None, None, None, bias, self.normal(4)], step.attrs, [True] * 3, step.valid))
        self.check(steps)
        self.check(steps, free=True)

    def test_multi_head_attention_with_room(self):
        H, D, B, rows = 2, 8, 2, 9
        steps = []
        for attrs in ({}, {"unidirectional": 1, "scale": 0.3}):
            for bias in (None, self.normal(3 * H * D)):
                cache, length = [self.normal(B, H, rows, D), self.normal(B, H, rows, D)], 3
                for L in (1, 2, 1):
                    new = [self.normal(B, L, H * D) for _ in range(3)]
                    inputs = [*new, bias, None, None, *cache, np.array([length], I32)]
                    steps.append(Step("MultiHeadAttention", inputs, {"num_heads": H, **attrs}, [True] * 3))
                    cache, length = steps[-1].expected[1:], length + L
        self.check(steps)
        self.check(steps, free=True)

    def test_scores_of_multi_head_attention(self):
        H, D, B = 2, 8, 2
        steps = []
        for L, keys in ((3, 3), (2, 5)):
            q, k, v = self.normal(B, L, H * D), self.normal(B, keys, H * D), self.normal(B, keys, H * D)
            seen = (self.rng.random((B, keys)) < 0.7).astype(I32)
            for inputs in ([q, k, v], [q, k, v, self.normal(3 * H * D)], [q, k, v, None, seen], [q, k, v, None, None, self.normal(1, H, L, keys)]):
                steps.append(Step("MultiHeadAttention", inputs, {"num_heads": H}, [True, False, False, True]))
        steps.append(Step("MultiHeadAttention", [k, k, v], {"num_heads": H, "unidirectional": 1}, [True, False, False, True]))
        past = [self.normal(B, H, 4, D), self.normal(B, H, 4, D)]
        steps.append(Step("MultiHeadAttention", [q, k, v, None, None, None, *past], {"num_heads": H}, [True] * 4))
        self.check(steps)

    def test_half_precision(self):
        steps = []
        for room in (0, 9):
            for step in self.group_steps([5, 3], 3, room, rotary=0):
                inputs = [a.astype(np.float16) if a is not None and a.dtype == F32 else a for a in step.inputs]
                steps.append(Step(step.op, inputs, step.attrs, [True] * 3, step.valid))
        self.check(steps, atol=3e-3)

    def test_decoder_masked_multi_head_attention(self):
        H, D, B, rows = 2, 8, 4, 9
        attrs, steps = {"num_heads": H, "past_present_share_buffer": 1}, []
        cache, length = [self.normal(B, H, rows, D), self.normal(B, H, rows, D)], 3
        for _ in range(3):
            new = [self.normal(B, 1, H * D) for _ in range(3)]
            mask = (self.rng.random((B, length + 1)) < 0.7).astype(I32)
            mask[:, 0] = 1
            score_bias, all_bias = self.normal(B, H, 1, length + 1), self.normal(3 * H * D)
            past = [*cache, np.array([length], I32)]
            beams = [np.array([2], I32), self.rng.integers(0, 2, (B // 2, 2, rows)).astype(I32)]
            for inputs in ([*new, None, None, *past], [*new, mask, score_bias, *past, None, None, all_bias], [*new, None, None, *past, *beams],
                           [*new, mask, None, *past, *beams, all_bias]):
                steps.append(Step("DecoderMaskedMultiHeadAttention", inputs, attrs, [True] * 3))
            cache, length = steps[-1].expected[1:], length + 1
            memory = [self.normal(B, H, 5, D), self.normal(B, H, 5, D)]
            steps.append(Step("DecoderMaskedMultiHeadAttention", [new[0], *memory], {"num_heads": H}, [True]))
        self.check(steps)
        self.check(steps, free=True)


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        BIN = pathlib.Path(sys.argv.pop(1))
    unittest.main()
