"""Files that other programs made of ours: onnxruntime's quantizers, optimizers and its float16 converter."""
import logging
import pathlib

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import (CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static)

logging.getLogger("root").setLevel(logging.ERROR)


class Reader(CalibrationDataReader):
    def __init__(self, feeds):
        self.rest = iter(feeds)

    def get_next(self):
        return next(self.rest, None)


def quantized(source, target, feeds, form="QDQ", per_channel=True, activations="QUInt8", **options):
    quantize_static(str(source), str(target), Reader(feeds), quant_format=QuantFormat[form], per_channel=per_channel,
                    activation_type=QuantType[activations], weight_type=QuantType.QInt8, **options)


def quantized_dynamic(source, target):
    # 7 bits, so that sums of two products of MatMulInteger do not saturate in onnxruntime without VNNI.
    quantize_dynamic(str(source), str(target), weight_type=QuantType.QInt8, reduce_range=True)


def half(source, target):
    """Weights and activations in float16, inputs and outputs left in float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def optimized(source, target, level="EXTENDED"):
    """What onnxruntime itself writes after its graph optimizers: com.microsoft operators among it."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def fused(source, target, kind="bert", heads=4, width=64):
    """onnxruntime.transformers.optimizer: Attention, SkipLayerNormalization, EmbedLayerNormalization, FastGelu, ..."""
    from onnxruntime.transformers import optimizer
    optimizer.optimize_model(str(source), model_type=kind, num_heads=heads, hidden_size=width, opt_level=0).save_model_to_file(str(target))
