"""The encoder: Res2Net v1b with 26 channels × 4 scales (Gao et al., TPAMI 2021).

Facts from the released program's encoder; attribute names follow its state dict where they can.
"""

import functools

import jax.numpy as jnp
from flax import nnx

from m2snet_jax.model.convolution import Conv, he_normal_fan_out
from m2snet_jax.model.layers import BatchNorm, average_pool, average_pool_ceil, max_pool

SCALES = 4
EXPANSION = 4
PLANES = (64, 128, 256, 512)
STRIDES = (1, 2, 2, 2)
CHANNELS = (64, *(planes * EXPANSION for planes in PLANES))  # of the five levels, finest first
DEPTHS = {
    'res2net14': (1, 1, 1, 1),  # for tests: every kind of block, a seventh of the work
    'res2net50': (3, 4, 6, 3),
    'res2net101': (3, 4, 23, 3),
}


class Block(nnx.Module):
    """One residual block of Res2Net: `[B, H, W, in]` → `[B, ⌈H/stride⌉, ⌈W/stride⌉, 4·planes]`.

    The first block of a stage (`first`) treats its channel groups apart, pools the fourth, and projects the
    shortcut; in the others each group is added to the next before its convolution.
    """

    def __init__(self, in_channels, planes, *, first, stride, dtype, param_dtype, rngs):
        self.first, self.stride = first, stride
        width, channels = planes * 26 // 64, planes * EXPANSION
        conv = functools.partial(Conv, init=he_normal_fan_out, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        norm = functools.partial(BatchNorm, param_dtype=param_dtype)
        self.conv1, self.bn1 = conv(in_channels, width * SCALES, 1), norm(width * SCALES)
        self.convs = nnx.List([conv(width, width, stride=stride) for _ in range(SCALES - 1)])
        self.bns = nnx.List([norm(width) for _ in range(SCALES - 1)])
        self.conv3, self.bn3 = conv(width * SCALES, channels, 1), norm(channels)
        self.downsample = nnx.List([conv(in_channels, channels, 1), norm(channels)]) if first else None

    def __call__(self, x):
        *groups, last = jnp.split(nnx.relu(self.bn1(self.conv1(x))), SCALES, axis=-1)
        outputs = []
        for group, conv, norm in zip(groups, self.convs, self.bns, strict=True):
            if outputs and not self.first:
                group = outputs[-1] + group
            outputs.append(nnx.relu(norm(conv(group))))
        outputs.append(average_pool(last, self.stride) if self.first else last)
        y = self.bn3(self.conv3(jnp.concatenate(outputs, axis=-1)))
        return nnx.relu(y + self._shortcut(x))

    def _shortcut(self, x):
        if not self.first:
            return x
        conv, norm = self.downsample
        return norm(conv(average_pool_ceil(x, self.stride)))


class Res2Net(nnx.Module):
    """`[B, H, W, 3]`, normalised → five maps, finest first: 1/4, 1/4, 1/8, 1/16 and 1/32 of the input, rounded up.

    Their channels are 64, 256, 512, 1024 and 2048. There is no classifier.

    Attributes:
        remat: compute each stage again for the gradient instead of keeping its maps.
    """

    channels = CHANNELS

    def __init__(self, name='res2net50', *, dtype=jnp.float32, param_dtype=jnp.float32, rngs):
        conv = functools.partial(Conv, init=he_normal_fan_out, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        norm = functools.partial(BatchNorm, param_dtype=param_dtype)
        self.conv1 = nnx.List([conv(3, 32, stride=2), norm(32), conv(32, 32), norm(32), conv(32, 64)])
        self.bn1 = norm(64)
        in_channels, stages = 64, []
        for planes, stride, depth in zip(PLANES, STRIDES, DEPTHS[name], strict=True):
            blocks = []
            for index in range(depth):
                first = index == 0
                blocks.append(
                    Block(
                        in_channels,
                        planes,
                        first=first,
                        stride=stride if first else 1,
                        dtype=dtype,
                        param_dtype=param_dtype,
                        rngs=rngs,
                    )
                )
                in_channels = planes * EXPANSION
            stages.append(nnx.List(blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.remat = False

    def __call__(self, x):
        first, first_norm, second, second_norm, third = self.conv1
        x = nnx.relu(first_norm(first(x)))
        x = nnx.relu(second_norm(second(x)))
        x = max_pool(nnx.relu(self.bn1(third(x))), 3, 2, padding=1)
        levels = [x]
        run = nnx.remat(_run_stage) if self.remat else _run_stage
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = run(stage, x)
            levels.append(x)
        return levels


def _run_stage(blocks, x):
    for block in blocks:
        x = block(x)
    return x
