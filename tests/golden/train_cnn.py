"""Makes testdata/golden/train_cnn.txt: ten training steps of a small CNN, in numpy and float64.

The reference shares nothing with ds: the forward pass is written out, the gradients are central
differences. Network, for 6 images of 1x6x6 and 3 classes:

    Conv(4, 3x3, pad 1) -> BatchNorm -> Relu -> MaxPool(2) -> Flatten -> Gemm -> softmax cross-entropy

Run with: python tests/golden/train_cnn.py > testdata/golden/train_cnn.txt
Lines: "<optimizer> loss <step> <value>" and, after the last step, "<optimizer> <parameter> <values...>".
"""
import numpy as np

N, STEPS, STEP = 6, 10, 1e-6


def pattern(shape, a, b, scale):
    """Numbers both sides can make: ((a * i + b) mod 16 - 7.5) * scale: exact in float32, never zero (zeros count as pruned)."""
    i = np.arange(np.prod(shape))
    return (((a * i + b) % 16 - 7.5) * scale).reshape(shape).astype(np.float64)


def initial():
    return {
        "conv.weight": pattern((4, 1, 3, 3), 5, 3, 0.03125),
        "conv.bias": pattern((4,), 7, 1, 0.015625),
        "bn.weight": 1 + pattern((4,), 3, 2, 0.015625),
        "bn.bias": pattern((4,), 11, 5, 0.015625),
        "fc.weight": pattern((3, 36), 13, 4, 0.03125),
        "fc.bias": pattern((3,), 2, 9, 0.015625),
    }


def image_pattern():
    """((11 i² + 5 i) mod 509 - 254) / 256: irregular, so that no two pixels of a pooling window tie."""
    i = np.arange(N * 36)
    return (((11 * i * i + 5 * i) % 509 - 254) / 256).reshape(N, 1, 6, 6)


IMAGES = image_pattern()
LABELS = np.arange(N) % 3
BN_MOMENTUM = 0.9


def forward(p, statistics=None):
    x = np.pad(IMAGES, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((N, 4, 6, 6))
    for r in range(3):
        for s in range(3):
            y += np.einsum("nchw,oc->nohw", x[:, :, r:r + 6, s:s + 6], p["conv.weight"][:, :, r, s])
    y += p["conv.bias"][None, :, None, None]
    mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3))
    if statistics is not None:  # ONNX BatchNormalization: running = running * momentum + batch * (1 - momentum)
        statistics["bn.mean"] = statistics["bn.mean"] * BN_MOMENTUM + mean * (1 - BN_MOMENTUM)
        statistics["bn.var"] = statistics["bn.var"] * BN_MOMENTUM + var * (1 - BN_MOMENTUM)
    y = (y - mean[None, :, None, None]) / np.sqrt(var + 1e-5)[None, :, None, None]
    y = y * p["bn.weight"][None, :, None, None] + p["bn.bias"][None, :, None, None]
    windows = np.sort(y.reshape(N, 4, 3, 2, 3, 2).transpose(0, 1, 2, 4, 3, 5).reshape(-1, 4), axis=1)
    live = windows[:, 3] > 0
    if statistics is not None:  # differences need a smooth neighbourhood: no kink, no tie nearby
        assert np.abs(windows[:, 3]).min() > 5 * STEP and (windows[live, 3] - windows[live, 2]).min() > 5 * STEP
    y = np.maximum(y, 0).reshape(N, 4, 3, 2, 3, 2).max((3, 5)).reshape(N, 36)
    z = y @ p["fc.weight"].T + p["fc.bias"]
    z = z - z.max(1, keepdims=True)
    return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(N), LABELS]))


def gradients(p):
    grads = {}
    for name, value in p.items():
        g = np.zeros_like(value)
        for i in np.ndindex(value.shape):
            side = []
            for sign in (1, -1):
                q = dict(p)
                q[name] = value.copy()
                q[name][i] += sign * STEP
                side.append(forward(q))
            g[i] = (side[0] - side[1]) / (2 * STEP)
        grads[name] = g
    return grads


def run(optimizer):
    p = initial()
    statistics = {"bn.mean": np.zeros(4), "bn.var": np.ones(4)}
    v = {k: np.zeros_like(x) for k, x in p.items()}
    m = {k: np.zeros_like(x) for k, x in p.items()}
    for step in range(STEPS):
        loss = forward(p, statistics)
        print(optimizer, "loss", step, f"{loss:.9g}")
        for k, g in gradients(p).items():
            if optimizer == "adamw" and k == "conv.bias":
                continue  # frozen: before BatchNorm its gradient is zero but for noise, which AdamW would scale up
            decay = 0.01 if p[k].ndim >= 2 else 0.0
            if optimizer == "sgd":  # PyTorch's SGD: decay joins the gradient, v = 0.9 v + g, p -= lr v
                v[k] = 0.9 * v[k] + g + decay * p[k]
                p[k] = p[k] - 0.05 * v[k]
            else:  # decoupled decay (Loshchilov & Hutter), bias-corrected moments
                m[k] = 0.9 * m[k] + 0.1 * g
                v[k] = 0.999 * v[k] + 0.001 * g * g
                mh, vh = m[k] / (1 - 0.9 ** (step + 1)), v[k] / (1 - 0.999 ** (step + 1))
                p[k] = p[k] - 0.01 * (mh / (np.sqrt(vh) + 1e-8) + decay * p[k])
    for k, x in {**p, **statistics}.items():
        print(optimizer, k, *(f"{t:.9g}" for t in x.ravel()))


for kind in ("sgd", "adamw"):
    run(kind)
