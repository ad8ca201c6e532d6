"""Deterministic weights and inputs for the golden values in this folder (numpy only).

Every tensor is drawn from numpy's frozen legacy generator (`RandomState`), seeded by
the tensor's own name, so any program can rebuild a 110 MB checkpoint from the few
kilobytes stored here.  Names and shapes are those of the released PyTorch
checkpoints (see `state_dict_shapes.json`); layouts are PyTorch's (OIHW, NCHW).
"""

import zlib

import numpy as np


def _rng(name, seed):
    return np.random.RandomState((zlib.crc32(name.encode()) ^ (seed * 0x9E3779B1)) & 0xFFFFFFFF)


def tensor(name, shape, seed):
    """One float32 parameter, by its state-dict name."""
    rng, shape = _rng(name, seed), tuple(shape)
    if len(shape) >= 2:  # convolution or linear weight: He-normal on fan-in
        fan_in = int(np.prod(shape[1:]))
        return (rng.standard_normal(shape) * np.sqrt(2.0 / fan_in)).astype(np.float32)
    if name.endswith('weight'):  # batch-norm scale
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (rng.standard_normal(shape) * 0.1).astype(np.float32)  # any bias


def state_dict(shapes, seed):
    """Learned parameters only: running statistics come from `*_buffers.npz`."""
    return {
        name: tensor(name, shape, seed)
        for name, shape in shapes.items()
        if not name.endswith(('running_mean', 'running_var', 'num_batches_tracked'))
    }


def images(tag, batch, height, width, seed):
    """float32 [batch, 3, height, width], already normalised images."""
    return _rng('image/' + tag, seed).standard_normal((batch, 3, height, width)).astype(np.float32)


def masks(tag, batch, height, width, seed):
    """float32 [batch, 1, height, width] soft blob masks in [0, 1]."""
    rng = _rng('mask/' + tag, seed)
    y, x = np.mgrid[0:height, 0:width]
    out = np.zeros((batch, 1, height, width), np.float32)
    for b in range(batch):
        for _ in range(rng.randint(1, 4)):
            cy, cx = rng.uniform(0, height), rng.uniform(0, width)
            ry, rx = rng.uniform(0.08, 0.3) * height, rng.uniform(0.08, 0.3) * width
            d = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2
            out[b, 0] = np.maximum(out[b, 0], np.clip((1.1 - d) / 0.2, 0, 1))
    return out


def direction(name, shape, seed):
    """float64 unit vector that a gradient is projected on."""
    v = _rng('direction/' + name, seed).standard_normal(tuple(shape))
    return v / np.linalg.norm(v)
