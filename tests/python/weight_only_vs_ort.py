"""Models whose weights alone are quantized, as onnxruntime's quantizers write them (MatMulNBits, and DequantizeLinear in
blocks, by column and as a whole, with and without zero points), against onnxruntime. The numbers come from
onnxruntime's own quantizing functions, which its matmul_nbits_quantizer calls.

Usage: weight_only_vs_ort.py BIN_DIR [unittest arguments].
"""
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi import _pybind_state as native

BIN = pathlib.Path("build/release/bin")
F32, U8, I8 = np.float32, np.uint8, np.int8
SIZES = (96, 75, 40)  # of x, of what is between the two products, of y


class Writer:
    """Nodes and initializers of one model."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, name, array):
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def packed(self, name, dtype, shape, data):
        self.constants.append(helper.make_tensor(name, dtype, shape, data.tobytes(), True))
        return name

    def node(self, op, inputs, output, **attrs):
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attrs))
        return output


def nbits(bits, block, symmetric, accuracy=0):
    """The QOperator format."""
    def product(m, x, weight, y):
        depth, columns = weight.shape
        blocks, per_byte = -(-depth // block), 8 // bits
        packed, zero = np.zeros((columns, blocks, block // per_byte), U8), np.zeros((columns, -(-blocks // per_byte)), U8)
        scale = np.zeros((columns, blocks), F32)
        padded = np.pad(weight, ((0, blocks * block - depth), (0, 0)))
        quantize = native.quantize_matmul_4bits if bits == 4 else native.quantize_matmul_8bits
        quantize(packed, padded, scale, zero, block, columns, depth, symmetric)
        inputs = [x, m.constant(y + "_w", packed), m.constant(y + "_s", scale)]
        if not symmetric:
            inputs.append(m.constant(y + "_z", zero))
        attrs = {"accuracy_level": accuracy} if accuracy else {}
        m.node("MatMulNBits", inputs, y, domain="com.microsoft", K=depth, N=columns, bits=bits, block_size=block, **attrs)
    return product


def qdq4(block, symmetric):
    """The QDQ format; block None: a scale a column."""
    def product(m, x, weight, y):
        depth, columns = weight.shape
        size = block or depth
        blocks = -(-depth // size)
        packed, zero = np.zeros((depth * columns + 1) // 2, U8), np.zeros((columns * blocks + 1) // 2, U8)
        scale = np.zeros((blocks, columns), F32)
        native.quantize_qdq_matmul_4bits(packed, weight, scale, zero, size, columns, depth, symmetric)
        kind = TensorProto.INT4 if symmetric else TensorProto.UINT4
        inputs = [m.packed(y + "_w", kind, weight.shape, packed), m.constant(y + "_s", scale)]
        if not symmetric:
            inputs.append(m.packed(y + "_z", kind, scale.shape, zero))
        m.node("DequantizeLinear", inputs, y + "_real", axis=0, block_size=size)
        m.node("MatMul", [x, y + "_real"], y)
    return product


def qdq8(per_column, symmetric, turned):
    """8 bits, as weight-only static quantization writes them; `turned`: behind a Transpose or transB."""
    def product(m, x, weight, y):
        low, high = (np.minimum(weight.min(0), 0), np.maximum(weight.max(0), 0)) if per_column else (weight.min(), weight.max())
        if symmetric:
            scale = np.maximum(-low, high) / F32(127)
            zero = np.zeros_like(scale, I8)
        else:
            scale = (high - low) / F32(255)
            zero = np.round(-low / scale).astype(U8)
        stored = np.clip(np.round(weight / scale) + zero, *((-127, 127) if symmetric else (0, 255))).astype(zero.dtype)
        m.constant(y + "_w", np.ascontiguousarray(stored.T) if turned else stored)
        m.node("DequantizeLinear", [y + "_w", m.constant(y + "_s", scale.astype(F32)), m.constant(y + "_z", zero)], y + "_real", axis=0 if turned else 1)
        if turned and symmetric:
            m.node("Transpose", [y + "_real"], y + "_turned", perm=[1, 0])
            m.node("MatMul", [x, y + "_turned"], y)
        else:
            bias = m.constant(y + "_b", weight[0])
            m.node("Gemm", [x, y + "_real", bias], y, transB=int(turned))
    return product


class WeightOnly(unittest.TestCase):
    def check(self, product, rows, tolerance=1e-4):
        rng = np.random.default_rng(rows)
        m = Writer()
        w = [rng.standard_normal(s).astype(F32) / 8 for s in (SIZES[:2], SIZES[1:])]
        product(m, "x", w[0], "h")
        m.node("Relu", ["h"], "r")
        product(m, "r", w[1], "y0")
        m.node("Add", ["y0", m.constant("bias", rng.standard_normal(SIZES[2]).astype(F32))], "y")
        graph = helper.make_graph(m.nodes, "weight_only", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, SIZES[0]])],
                                  [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, SIZES[2]])], m.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)])
        model.ir_version = 10
        x = rng.standard_normal((rows, SIZES[0])).astype(F32)
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            onnx.save(model, folder / "m.onnx")
            options = ort.SessionOptions()
            # By itself onnxruntime rounds activations to 8 bits where it turns DequantizeLinear into MatMulNBits.
            options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
            expected = ort.InferenceSession(folder / "m.onnx", options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
            np.savez(folder / "x.npz", x=x)
            command = [BIN / "ds-bench", "run", folder / "m.onnx", "--input", folder / "x.npz", "--output", folder / "y.npz"]
            done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 0, done.stderr)
            got = np.load(folder / "y.npz")["y"]
        self.assertLessEqual(np.abs(got - expected).max(), tolerance * max(1, np.abs(expected).max()))

    def every(self, makers, tolerance=1e-4):
        for args, product in makers:
            for rows in (1, 5, 33):
                with self.subTest(args=args, rows=rows):
                    self.check(product, rows, tolerance)

    def test_matmul_nbits(self):
        self.every([((b, s, z), nbits(b, s, z)) for b in (4, 8) for s in (16, 32, 128) for z in (True, False)])

    def test_matmul_nbits_of_rounded_activations(self):
        # Both round the activations to 8 bits, in blocks; where a tie goes is their own affair.
        self.every([((b, z), nbits(b, 32, z, 4)) for b in (4, 8) for z in (True, False)], 1e-2)

    def test_dequantize_in_blocks_of_four_bits(self):
        self.every([((s, z), qdq4(s, z)) for s in (16, 32, 128, None) for z in (True, False)])

    def test_dequantize_of_eight_bits(self):
        self.every([((c, z, t), qdq8(c, z, t)) for c in (True, False) for z in (True, False) for t in (True, False)])


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        BIN = pathlib.Path(sys.argv.pop(1))
    unittest.main()
