"""Encoders and decoders, as TorchScript and dynamo exports write them at their opsets."""
import json
import pathlib
import struct

import numpy as np

from zoo.net import BOOL, F32, I32, I64, Net


def attention_mask(n, mask):
    """[batch, length] of 0 and 1 to what is added to the scores, [batch, 1, 1, length]."""
    m = n.op("Cast", n.unsqueeze(mask, 1, 2), to=F32)
    return n.op("Mul", n.op("Sub", n.f(1), m), n.f(np.finfo(np.float32).min))


def heads(n, x, batch, length, count, size):
    return n.op("Transpose", n.reshape(x, batch, length, count, size), perm=[0, 2, 1, 3])


def attend(n, q, k, v, size, add_mask=None):
    """Softmax of the scaled products; q, k, v are [batch, heads, length, size]."""
    scores = n.op("MatMul", q, n.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = n.op("Div", scores, n.f(np.sqrt(size)))
    if add_mask is not None:
        scores = n.op("Add", scores, add_mask)
    return n.op("MatMul", n.op("Softmax", scores, axis=3 if n.opset < 13 else -1), v)


def merge(n, x, batch, length, width):
    return n.reshape(n.op("Transpose", x, perm=[0, 2, 1, 3]), batch, length, width)


def encoder_layer(n, x, batch, length, width, count, mask, gelu):
    size = width // count
    q, k, v = (heads(n, n.linear(x, width, width), batch, length, count, size) for _ in range(3))
    y = n.linear(merge(n, attend(n, q, k, v, size, mask), batch, length, width), width, width)
    x = n.layer_norm(n.op("Add", y, x), width)
    y = n.linear(n.gelu(n.linear(x, width, 4 * width), gelu), 4 * width, width)
    return n.layer_norm(n.op("Add", y, x), width)


def bert(opset, width=64, layers=2, count=4, vocabulary=500, positions=512, gelu="erf", ids=I64):
    """ids, mask [batch, length] -> hidden [batch, length, width], pooled [batch, width]."""
    n = Net(opset)
    x, mask = n.input("input_ids", ids, ["batch", "length"]), n.input("attention_mask", ids, ["batch", "length"])
    batch, length = n.dim(x, 0), n.dim(x, 1)
    table = n.const(np.arange(positions, dtype=np.int64).reshape(1, -1))
    where = n.slice(table, 0, n.unsqueeze(length, 0), 1)
    h = n.op("Add", n.op("Gather", n.weight(vocabulary, width, scale=1), x),
             n.op("Gather", n.weight(positions, width, scale=1), where))
    h = n.layer_norm(h, width)
    m = attention_mask(n, mask)
    for _ in range(layers):
        h = encoder_layer(n, h, batch, length, width, count, m, gelu)
    n.output(h, "last_hidden_state", F32, ["batch", "length", width])
    first = n.op("Gather", h, n.const(np.int64(0)), axis=1)
    pooled = n.op("Gemm", first, n.weight(width, width), n.weight(width, scale=0.1), transB=1)
    n.output(n.op("Tanh", pooled), "pooler_output", F32, ["batch", width])
    return n.model()


def gpt2(opset, width=96, layers=3, count=4, vocabulary=300, positions=256):
    """A step of generation: ids [batch, new], past keys and values of `past` tokens, and the mask over both."""
    size = width // count
    n = Net(opset)
    ids = n.input("input_ids", I64, ["batch", "new"])
    mask = n.input("attention_mask", I64, ["batch", "total"])
    past = [[n.input(f"past.{i}.{kv}", F32, ["batch", count, "past", size]) for kv in ("key", "value")] for i in range(layers)]
    batch, new, before = n.dim(ids, 0), n.dim(ids, 1), n.dim(past[0][0], 2)
    total = n.op("Add", new, before)
    # Positions count the tokens that are not padding, as generate() feeds them.
    running = n.op("CumSum", mask, n.const(np.int64(1)))
    running = n.op("Max", n.op("Sub", running, n.const(np.int64(1))), n.const(np.int64(0)))
    where = n.slice(running, n.unsqueeze(before, 0), n.unsqueeze(total, 0), 1)
    tokens = n.weight(vocabulary, width, scale=0.5)
    h = n.op("Add", n.op("Gather", tokens, n.reshape(ids, -1, new)), n.op("Gather", n.weight(positions, width, scale=0.3), where))
    # The causal buffer is cut to the rows of the new tokens.
    causal = n.const(np.tril(np.ones((positions, positions), bool)).reshape(1, 1, positions, positions))
    causal = n.slice(causal, n.unsqueeze(before, 0), n.unsqueeze(total, 0), 2)
    causal = n.slice(causal, 0, n.unsqueeze(total, 0), 3)
    padding = attention_mask(n, mask)
    for i in range(layers):
        y = n.layer_norm(h, width)
        q, k, v = n.split(n.linear(y, width, 3 * width), [width] * 3, 2)
        q, k, v = (heads(n, t, batch, new, count, size) for t in (q, k, v))
        k = n.op("Concat", past[i][0], k, axis=-2)
        v = n.op("Concat", past[i][1], v, axis=-2)
        n.output(k, f"present.{i}.key", F32, ["batch", count, "total", size])
        n.output(v, f"present.{i}.value", F32, ["batch", count, "total", size])
        scores = n.op("Div", n.op("MatMul", q, n.op("Transpose", k, perm=[0, 1, 3, 2])), n.f(np.sqrt(size)))
        scores = n.op("Where", causal, scores, n.f(np.finfo(np.float32).min))
        p = n.op("Softmax", n.op("Add", scores, padding), axis=3)
        h = n.op("Add", h, n.linear(merge(n, n.op("MatMul", p, v), batch, new, width), width, width))
        y = n.layer_norm(h, width)
        h = n.op("Add", h, n.linear(n.gelu(n.linear(y, width, 4 * width), "tanh"), 4 * width, width))
    logits = n.op("MatMul", n.layer_norm(h, width), n.op("Transpose", tokens, perm=[1, 0]))
    n.output(logits, "logits", F32, ["batch", "new", vocabulary])
    return n.model()


def rotate(n, x, cos, sin, size):
    half = size // 2
    a, b = n.slice(x, 0, half, 3), n.slice(x, half, size, 3)
    return n.op("Add", n.op("Mul", x, cos), n.op("Mul", n.op("Concat", n.op("Neg", b), a, axis=-1), sin))


def rms_norm(n, x, width):
    scale = n.const((1 + 0.1 * n.rng.standard_normal(width)).astype(np.float32))
    if n.opset >= 23:
        return n.op("RMSNormalization", x, scale, axis=-1, epsilon=1e-6)
    square = n.op("Pow", x, n.f(2))
    inverse = n.op("Reciprocal", n.op("Sqrt", n.op("Add", n.mean(square, [-1]), n.f(1e-6))))
    return n.op("Mul", scale, n.op("Mul", x, inverse))


def llama(opset, width=64, layers=2, count=4, groups=2, vocabulary=200):
    """Rotary positions, grouped keys and values, RMS norm, gated MLP; positions as an input. With opset 23
    the operators that it brought, below that Range, Einsum, Expand and Trilu."""
    size = width // count
    n = Net(opset)
    ids = n.input("input_ids", I64, ["batch", "new"])
    past = [[n.input(f"past.{i}.{kv}", F32, ["batch", groups, "past", size]) for kv in ("key", "value")] for i in range(layers)]
    batch, new, before = n.dim(ids, 0), n.dim(ids, 1), n.dim(past[0][0], 2)
    total = n.op("Add", new, before)
    positions = n.op("Range", before, total, n.const(np.int64(1)))
    frequency = n.const((1 / 10000 ** (np.arange(0, size, 2) / size)).astype(np.float32))
    angles = n.op("Einsum", n.op("Cast", positions, to=F32), frequency, equation="i,j->ij")
    if opset < 23:
        angles = n.op("Concat", angles, angles, axis=-1)
    cos, sin = n.op("Cos", angles), n.op("Sin", angles)
    h = n.op("Gather", n.weight(vocabulary, width, scale=0.5), ids)
    mask = None
    if opset < 23:
        full = n.op("Expand", n.f(-1e9), n.shape(new, total))
        mask = n.op("Trilu", full, n.op("Add", before, n.const(np.int64(1))), upper=1)
    for i in range(layers):
        y = rms_norm(n, h, width)
        q = heads(n, n.linear(y, width, width, bias=False), batch, new, count, size)
        k, v = (heads(n, n.linear(y, width, groups * size, bias=False), batch, new, groups, size) for _ in range(2))
        if opset >= 23:
            # Of rank 2 the caches are looked up by position.
            at = n.op("Expand", n.op("Range", n.const(np.int64(0)), new, n.const(np.int64(1))), n.shape(batch, new))
            q, k = (n.op("RotaryEmbedding", t, cos, sin, at) for t in (q, k))
        else:
            q, k = (rotate(n, t, cos, sin, size) for t in (q, k))
        k = n.op("Concat", past[i][0], k, axis=2)
        v = n.op("Concat", past[i][1], v, axis=2)
        n.output(k, f"present.{i}.key", F32, ["batch", groups, "total", size])
        n.output(v, f"present.{i}.value", F32, ["batch", groups, "total", size])
        if opset >= 23:
            whole = n.op("Expand", n.f(-1e9), n.shape(new, total))
            y = n.op("Attention", q, k, v, n.op("Trilu", whole, n.op("Add", before, n.const(np.int64(1))), upper=1))
        else:
            repeat = n.shape(batch, groups, count // groups, total, size)
            k, v = (n.reshape(n.op("Expand", n.unsqueeze(t, 2), repeat), batch, count, total, size) for t in (k, v))
            y = attend(n, q, k, v, size, mask)
        h = n.op("Add", h, n.linear(merge(n, y, batch, new, width), width, width, bias=False))
        y = rms_norm(n, h, width)
        gate = n.linear(y, width, 2 * width, bias=False)
        gate = n.op("Mul", gate, n.op("Sigmoid", gate))
        h = n.op("Add", h, n.linear(n.op("Mul", gate, n.linear(y, width, 2 * width, bias=False)), 2 * width, width, bias=False))
    n.output(n.linear(rms_norm(n, h, width), width, vocabulary, bias=False), "logits", F32, ["batch", "new", vocabulary])
    return n.model()


def vit(opset, width=96, layers=3, count=3, patch=16, grid=14, classes=10, any_size=False):
    """pixels [batch, 3, height, width] -> logits. With any_size the position table is resized to the image."""
    n = Net(opset)
    size = 16 * grid
    x = n.input("pixel_values", F32, ["batch", 3, "height", "width"] if any_size else ["batch", 3, size, size])
    e = n.conv(x, 3, width, patch, patch, pad=0)
    batch, rows, columns = n.dim(e, 0), n.dim(e, 2), n.dim(e, 3)
    tokens = n.op("Transpose", n.reshape(e, batch, width, -1), perm=[0, 2, 1])
    first = n.op("Expand", n.weight(1, 1, width), n.shape(batch, 1, width))
    h = n.op("Concat", first, tokens, axis=1)
    if any_size:
        table = n.op("Transpose", n.reshape(n.weight(1, grid * grid, width, scale=0.3), 1, grid, grid, width), perm=[0, 3, 1, 2])
        to = n.shape(1, width, rows, columns)
        table = n.op("Resize", table, None, None, to, mode="cubic", coordinate_transformation_mode="half_pixel", cubic_coeff_a=-0.75)
        table = n.reshape(n.op("Transpose", table, perm=[0, 2, 3, 1]), 1, -1, width)
        table = n.op("Concat", n.weight(1, 1, width, scale=0.3), table, axis=1)
    else:
        table = n.weight(1, grid * grid + 1, width, scale=0.3)
    h = n.op("Add", h, table)
    length = n.dim(h, 1)
    for _ in range(layers):
        y = n.layer_norm(h, width)
        qkv = n.op("Transpose", n.reshape(n.linear(y, width, 3 * width), batch, length, 3, count, width // count), perm=[2, 0, 3, 1, 4])
        q, k, v = (n.op("Gather", qkv, n.const(np.int64(i)), axis=0) for i in range(3))
        h = n.op("Add", h, n.linear(merge(n, attend(n, q, k, v, width // count), batch, length, width), width, width))
        y = n.layer_norm(h, width)
        h = n.op("Add", h, n.linear(n.gelu(n.linear(y, width, 4 * width), "op"), 4 * width, width))
    cls = n.op("Gather", n.layer_norm(h, width), n.const(np.int64(0)), axis=1)
    n.output(n.op("Gemm", cls, n.weight(classes, width), n.weight(classes), transB=1), "logits", F32, ["batch", classes])
    return n.model()


def einsum_encoder(opset, width=48, count=4, layers=2):
    """Attention written with Einsum, as mixed libraries of vision models export it; a boolean key mask."""
    size = width // count
    n = Net(opset)
    x, mask = n.input("x", F32, ["batch", "length", width]), n.input("keep", BOOL, ["batch", "length"])
    h = x
    hidden = n.op("Not", n.unsqueeze(mask, 1, 2))
    for _ in range(layers):
        q, k, v = (n.op("Einsum", h, n.weight(width, count, size, scale=1 / np.sqrt(width)), equation="bld,dhk->bhlk") for _ in range(3))
        s = n.op("Mul", n.op("Einsum", q, k, equation="bhik,bhjk->bhij"), n.f(size**-0.5))
        p = n.op("Softmax", n.op("Where", hidden, n.f(-1e30), s), axis=-1)
        y = n.op("Einsum", p, v, equation="bhij,bhjk->bihk")
        y = n.op("Einsum", y, n.weight(count, size, width, scale=1 / np.sqrt(width)), equation="blhk,hkd->bld")
        h = n.layer_norm(n.op("Add", h, y), width)
    n.output(h, "y", F32, ["batch", "length", width])
    return n.model()


def read_safetensors(path):
    """{name: array} of a safetensors file of float32 or int64 tensors."""
    data = pathlib.Path(path).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    kinds = {"F32": np.float32, "I64": np.int64, "F16": np.float16}
    out = {}
    for name, info in header.items():
        if name != "__metadata__":
            a, b = info["data_offsets"]
            out[name] = np.frombuffer(data[8 + size + a : 8 + size + b], kinds[info["dtype"]]).reshape(info["shape"])
    return out


class WordPiece:
    """Just enough of BERT's tokenizer for plain lower-case ASCII sentences."""

    def __init__(self, vocabulary):
        self.ids = {w: i for i, w in enumerate(pathlib.Path(vocabulary).read_text().splitlines())}

    def encode(self, text):
        ids = [self.ids["[CLS]"]]
        for mark in ",.?!'":
            text = text.replace(mark, f" {mark} ")
        for word in text.lower().split():
            start = 0
            while start < len(word):
                end = len(word)
                while end > start and ("##" if start else "") + word[start:end] not in self.ids:
                    end -= 1
                if end == start:
                    ids.append(self.ids["[UNK]"])
                    break
                ids.append(self.ids[("##" if start else "") + word[start:end]])
                start = end
        return [*ids, self.ids["[SEP]"]]

    def batch(self, sentences):
        rows = [self.encode(s) for s in sentences]
        longest = max(map(len, rows))
        ids = np.array([r + [0] * (longest - len(r)) for r in rows], np.int64)
        mask = np.array([[1] * len(r) + [0] * (longest - len(r)) for r in rows], np.int64)
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def minilm(folder, opset=14):
    """all-MiniLM-L6-v2 from its safetensors: mean of the last layer over the tokens, length one."""
    config = json.loads((folder / "config.json").read_text())
    weights = read_safetensors(folder / "model.safetensors")
    weights = {k.removeprefix("bert."): v for k, v in weights.items()}
    width, count = config["hidden_size"], config["num_attention_heads"]
    size = width // count
    n = Net(opset)
    ids, mask, kinds = (n.input(name, I64, ["batch", "length"]) for name in ("input_ids", "attention_mask", "token_type_ids"))
    batch, length = n.dim(ids, 0), n.dim(ids, 1)

    def get(name):
        return n.const(weights[name])

    def linear(x, name):
        y = n.op("MatMul", x, n.const(np.ascontiguousarray(weights[name + ".weight"].T)))
        return n.op("Add", get(name + ".bias"), y)

    def norm(x, name):
        d = n.op("Sub", x, n.mean(x, [-1]))
        variance = n.mean(n.op("Pow", d, n.f(2)), [-1])
        y = n.op("Div", d, n.op("Sqrt", n.op("Add", variance, n.f(config["layer_norm_eps"]))))
        return n.op("Add", n.op("Mul", y, get(name + ".weight")), get(name + ".bias"))

    table = n.const(np.arange(config["max_position_embeddings"], dtype=np.int64).reshape(1, -1))
    where = n.slice(table, 0, n.unsqueeze(length, 0), 1)
    e = "embeddings."
    h = n.op("Add", n.op("Gather", get(e + "word_embeddings.weight"), ids),
             n.op("Gather", get(e + "token_type_embeddings.weight"), kinds))
    h = norm(n.op("Add", h, n.op("Gather", get(e + "position_embeddings.weight"), where)), e + "LayerNorm")
    m = attention_mask(n, mask)
    for i in range(config["num_hidden_layers"]):
        p = f"encoder.layer.{i}."
        q, k, v = (heads(n, linear(h, f"{p}attention.self.{w}"), batch, length, count, size) for w in ("query", "key", "value"))
        y = linear(merge(n, attend(n, q, k, v, size, m), batch, length, width), p + "attention.output.dense")
        h = norm(n.op("Add", y, h), p + "attention.output.LayerNorm")
        y = linear(n.gelu(linear(h, p + "intermediate.dense")), p + "output.dense")
        h = norm(n.op("Add", y, h), p + "output.LayerNorm")
    wide = n.op("Cast", n.op("Expand", n.unsqueeze(mask, -1), n.op("Shape", h)), to=F32)
    total = n.op("Clip", n.sum(wide, [1], 0), n.f(1e-9))
    mean = n.op("Div", n.sum(n.op("Mul", h, wide), [1], 0), total)
    length = n.op("Clip", n.op("ReduceL2", mean, axes=[1], keepdims=1), n.f(1e-12))
    n.output(n.op("Div", mean, n.op("Expand", length, n.op("Shape", mean))), "sentence_embedding", F32, ["batch", width])
    return n.model()
