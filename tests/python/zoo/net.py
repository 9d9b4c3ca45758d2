"""Net: a thin hand for writing graphs as exporters do, at any opset.

Names are made up as they come; weights are drawn from a seed, so that a file is the same every time.
Where an operator's form changed (axes from attribute to input), the method takes care of it.
"""
import numpy as np
from onnx import TensorProto, helper, numpy_helper

F16, F32, F64 = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE
I32, I64, BOOL = TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL


class Net:
    def __init__(self, opset, seed=0, prefix=""):
        self.opset, self.prefix = opset, prefix
        self.rng = np.random.default_rng(seed)
        self.nodes, self.initializers, self.inputs, self.outputs, self.functions = [], [], [], [], []
        self.domains = {"": opset}
        self.count = 0

    def name(self, hint):
        self.count += 1
        return f"{self.prefix}{hint}_{self.count}"

    # --- leaves ---
    def input(self, name, dtype, shape):
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, value, name, dtype=F32, shape=None):
        """Names `value` as a graph output; the shape may stay open."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=self.name("out")))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def const(self, array, dtype=None):
        """An initializer."""
        array = np.asarray(array, dtype=dtype)
        name = self.name("c")
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *values):
        return self.const(np.array(values, np.int64))

    def constant(self, array, dtype=None):
        """A Constant node, as TorchScript exports write them."""
        return self.op("Constant", value=numpy_helper.from_array(np.asarray(array, dtype=dtype)))

    def weight(self, *shape, scale=None):
        if scale is None:
            scale = 1 / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 1)
        return self.const((self.rng.standard_normal(shape) * scale).astype(np.float32))

    # --- nodes ---
    def op(self, kind, *args, outputs=1, domain="", **attrs):
        args = [self.const(a) if isinstance(a, (float, np.ndarray, np.generic)) else a for a in args]
        args = ["" if a is None else a for a in args]
        outs = [self.name(kind.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, args, outs, name=self.name(kind), domain=domain, **attrs))
        if domain:
            self.domains.setdefault(domain, 1)
        return outs[0] if outputs == 1 else outs

    def f(self, value):
        return self.const(np.float32(value))

    def with_axes(self, kind, since, x, axes, **attrs):
        if self.opset >= since:
            return self.op(kind, x, self.ints(*axes), **attrs)
        return self.op(kind, x, axes=list(axes), **attrs)

    def unsqueeze(self, x, *axes):
        return self.with_axes("Unsqueeze", 13, x, axes)

    def squeeze(self, x, *axes):
        return self.with_axes("Squeeze", 13, x, axes)

    def mean(self, x, axes, keepdims=1):
        return self.with_axes("ReduceMean", 18, x, axes, keepdims=keepdims)

    def sum(self, x, axes, keepdims=1):
        return self.with_axes("ReduceSum", 13, x, axes, keepdims=keepdims)

    def slice(self, x, start, end, axis, step=1):
        start, end = (self.ints(v) if isinstance(v, int) else v for v in (start, end))
        return self.op("Slice", x, start, end, self.ints(axis), self.ints(step))

    def split(self, x, parts, axis):
        """Equal parts of known sizes."""
        if self.opset >= 13:
            return self.op("Split", x, self.ints(*parts), outputs=len(parts), axis=axis)
        return self.op("Split", x, outputs=len(parts), axis=axis, split=list(parts))

    def dim(self, x, axis):
        """One size as a scalar: Shape, Gather."""
        return self.op("Gather", self.op("Shape", x), self.const(np.int64(axis)), axis=0)

    def shape(self, *sizes):
        """A shape from numbers and scalars: Unsqueeze each, Concat."""
        return self.op("Concat", *(self.ints(s) if isinstance(s, int) else self.unsqueeze(s, 0) for s in sizes), axis=0)

    def reshape(self, x, *sizes):
        if all(isinstance(s, int) for s in sizes):
            return self.op("Reshape", x, self.ints(*sizes))
        return self.op("Reshape", x, self.shape(*sizes))

    # --- layers ---
    def linear(self, x, n_in, n_out, bias=True):
        y = self.op("MatMul", x, self.weight(n_in, n_out, scale=1 / np.sqrt(n_in)))
        return self.op("Add", self.weight(n_out, scale=0.02), y) if bias else y

    def layer_norm(self, x, width, eps=1e-5, decomposed=None):
        """One node where the opset has it; before, or when asked, as PyTorch takes it apart."""
        scale = self.const((1 + 0.1 * self.rng.standard_normal(width)).astype(np.float32))
        bias = self.weight(width, scale=0.1)
        if not (self.opset < 17 if decomposed is None else decomposed):
            return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=eps)
        d = self.op("Sub", x, self.mean(x, [-1]))
        variance = self.mean(self.op("Pow", d, self.f(2)), [-1])
        y = self.op("Div", d, self.op("Sqrt", self.op("Add", variance, self.f(eps))))
        return self.op("Add", self.op("Mul", y, scale), bias)

    def gelu(self, x, kind="erf"):
        if kind == "op" and self.opset >= 20:
            return self.op("Gelu", x)
        if kind == "tanh":
            cube = self.op("Mul", self.op("Pow", x, self.f(3)), self.f(0.044715))
            t = self.op("Tanh", self.op("Mul", self.op("Add", x, cube), self.f(np.sqrt(2 / np.pi))))
            return self.op("Mul", self.op("Mul", x, self.f(0.5)), self.op("Add", t, self.f(1)))
        e = self.op("Erf", self.op("Div", x, self.f(np.sqrt(2))))
        return self.op("Mul", self.op("Mul", x, self.op("Add", e, self.f(1))), self.f(0.5))

    def conv(self, x, n_in, n_out, kernel=3, stride=1, group=1, dilation=1, bias=True, dims=2, pad=None):
        pad = dilation * (kernel - 1) // 2 if pad is None else pad
        args = [x, self.weight(n_out, n_in // group, *[kernel] * dims, scale=np.sqrt(2 / (n_in // group * kernel**dims)))]
        if bias:
            args.append(self.weight(n_out, scale=0.05))
        return self.op("Conv", *args, kernel_shape=[kernel] * dims, strides=[stride] * dims, dilations=[dilation] * dims,
                       pads=[pad] * (2 * dims), group=group)

    def batch_norm(self, x, width):
        draw = self.rng.standard_normal
        return self.op("BatchNormalization", x, *(self.const(a.astype(np.float32)) for a in (
            1 + 0.1 * draw(width), 0.1 * draw(width), 0.1 * draw(width), 1 + 0.1 * np.abs(draw(width)))), epsilon=1e-5)

    # --- the file ---
    def graph(self, name="main"):
        return helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.initializers)

    def model(self):
        opsets = [helper.make_opsetid(d, v) for d, v in self.domains.items()]
        m = helper.make_model(self.graph(), opset_imports=opsets, functions=self.functions, producer_name="zoo")
        m.ir_version = max(8 if self.functions else 4, helper.find_min_ir_version_for(
            [o for o in opsets if o.domain in ("", "ai.onnx.ml")], True))
        return m
