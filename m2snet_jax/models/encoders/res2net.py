"""The encoder Res2Net v1b with 26 channels × 4 scales (Gao et al., TPAMI 2021).

As in the released program, whose state dict the attribute names follow where they can.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from m2snet_jax.models.batch_norm import BatchNorm
from m2snet_jax.models.initial_weights import he_normal_fan_out
from m2snet_jax.models.kernels import Maps, max_pool
from m2snet_jax.models.layers import Conv, average_pool, average_pool_ceil
from m2snet_jax.models.packing import NOT_PACKED, Packing, columns_for, pack, unpack
from m2snet_jax.models.scopes import scoped

SCALES = 4
EXPANSION = 4
PLANES = (64, 128, 256, 512)
STRIDES = (1, 2, 2, 2)
DEPTHS = {
    'res2net14': (1, 1, 1, 1),  # for tests: one block of each stage
    'res2net50': (3, 4, 6, 3),
    'res2net101': (3, 4, 23, 3),
}


class Block(nnx.Module):
    """One residual block of Res2Net, with 4·planes output channels.

    The first block of a stage (`first`) convolves three of its four channel groups independently, pools the fourth, and
    projects the shortcut. The other blocks add the output of each group to the next group before its convolution.
    """

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        first: bool,
        stride: int,
        dtype: Dtype,
        param_dtype: Dtype,
        rngs: nnx.Rngs,
    ):
        self.first, self.stride = first, stride
        width, channels = planes * 26 // 64, planes * EXPANSION
        conv = functools.partial(Conv, init=he_normal_fan_out, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        norm = functools.partial(BatchNorm, param_dtype=param_dtype)
        self.conv1, self.bn1 = conv(in_channels, width * SCALES, 1), norm(width * SCALES)
        self.convs = nnx.List([conv(width, width, stride=stride) for _ in range(SCALES - 1)])
        self.bns = nnx.List([norm(width) for _ in range(SCALES - 1)])
        self.conv3, self.bn3 = conv(width * SCALES, channels, 1), norm(channels)
        self.downsample = nnx.List([conv(in_channels, channels, 1), norm(channels)]) if first else None

    def __call__(self, x: Maps, columns: int = 1) -> Maps:
        """Computes the block on maps of which `columns` are packed, more than 1 only with stride 1."""
        whole, grouped = Packing(columns), Packing(columns, SCALES)
        *groups, last = jnp.split(nnx.relu(self.bn1(self.conv1(x, whole, grouped), packing=grouped)), SCALES, axis=-1)
        outputs = []
        for group, conv, norm in zip(groups, self.convs, self.bns, strict=True):
            if outputs and not self.first:
                group = outputs[-1] + group
            outputs.append(nnx.relu(norm(conv(group, whole, whole), packing=whole)))
        outputs.append(self._pooled(last, columns) if self.first else last)
        y = self.bn3(self.conv3(jnp.concatenate(outputs, axis=-1), grouped, whole), packing=whole)
        return nnx.relu(y + self._shortcut(x, whole))

    def _pooled(self, x, columns):
        return pack(average_pool(unpack(x, columns), self.stride), columns)

    def _shortcut(self, x, packing):
        if self.downsample is None:
            return x
        modules: Any = self.downsample
        conv, norm = modules
        return norm(conv(average_pool_ceil(x, self.stride), packing, packing), packing=packing)


class Res2Net(nnx.Module):
    """Res2Net: normalised images → five maps, finest first.

    Their sides are 1/4, 1/4, 1/8, 1/16 and 1/32 of the input's, rounded up, and their channels 64, 256, 512, 1024 and
    2048. There is no classifier. The name is a key of `DEPTHS`. With the attribute `remat` each stage is computed again
    in the backward pass instead of keeping its maps; with `packed` its maps of few channels are packed.
    """

    def __init__(
        self, name: str = 'res2net50', *, dtype: Dtype = jnp.float32, param_dtype: Dtype = jnp.float32, rngs: nnx.Rngs
    ):
        conv = functools.partial(Conv, init=he_normal_fan_out, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        norm = functools.partial(BatchNorm, param_dtype=param_dtype)
        self.conv1 = nnx.List([conv(3, 32, stride=2), norm(32), conv(32, 32), norm(32), conv(32, 64)])
        self.bn1 = norm(64)
        block = functools.partial(Block, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        in_channels, stages = 64, []
        for planes, stride, depth in zip(PLANES, STRIDES, DEPTHS[name], strict=True):
            channels = planes * EXPANSION
            blocks = [block(in_channels, planes, first=True, stride=stride)]
            blocks += [block(channels, planes, first=False, stride=1) for _ in range(depth - 1)]
            stages.append(nnx.List(blocks))
            in_channels = channels
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.remat = self.packed = False

    @scoped
    def __call__(self, x: Float[Array, 'batch height width 3'], key: Array | None = None) -> list[Maps]:
        """Returns the five maps; there is no drop path, so `key` is not used."""
        x = max_pool(self._stem(x), 3, 2, padding=1)
        levels = [x]
        run: Any = nnx.remat(_run_stage, static_argnums=2) if self.remat else _run_stage
        for number, stage in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            with jax.named_scope(f'layer{number}'):
                x = run(stage, x, self.packed)
            levels.append(x)
        return levels

    def _stem(self, x):
        modules: Any = self.conv1
        first, first_norm, second, second_norm, third = modules
        columns = columns_for(x.shape[2], first.kernel.shape[-1], first.stride) if self.packed else 1
        images, packing = Packing(columns * first.stride) if columns > 1 else NOT_PACKED, Packing(columns)
        x = nnx.relu(first_norm(first(pack(x, images.columns), images, packing), packing=packing))
        x = nnx.relu(second_norm(second(x, packing, packing), packing=packing))
        return unpack(nnx.relu(self.bn1(third(x, packing, packing), packing=packing)), columns)


def _run_stage(blocks, x, packed):
    columns = 1
    for index, block in enumerate(blocks):
        with jax.named_scope(f'block{index}'):
            if packed and columns == 1 and block.stride == 1:
                columns = columns_for(x.shape[2], block.convs[0].kernel.shape[-1])
                x = pack(x, columns)
            x = block(x, columns)
    return unpack(x, columns)
