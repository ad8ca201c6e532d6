"""The encoder ResNet-50 (He et al., CVPR 2016), as in torchvision and timm, whose names the attributes have."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from m2snet_jax.models.batch_norm import BatchNorm
from m2snet_jax.models.initial_weights import he_normal_fan_out
from m2snet_jax.models.kernels import Maps, max_pool
from m2snet_jax.models.layers import Conv
from m2snet_jax.models.scopes import scoped

EXPANSION = 4
PLANES = (64, 128, 256, 512)
STRIDES = (1, 2, 2, 2)
DEPTHS = {'resnet50': (3, 4, 6, 3)}


class Bottleneck(nnx.Module):
    """One residual block: convolutions 1×1, 3×3 (with the stride) and 1×1, with 4·planes output channels.

    With `project` the shortcut is a 1×1 convolution with the stride.
    """

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        stride: int,
        project: bool,
        dtype: Dtype,
        param_dtype: Dtype,
        rngs: nnx.Rngs,
    ):
        self.stride, channels = stride, planes * EXPANSION
        conv = functools.partial(Conv, init=he_normal_fan_out, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        norm = functools.partial(BatchNorm, param_dtype=param_dtype)
        self.conv1, self.bn1 = conv(in_channels, planes, 1), norm(planes)
        self.conv2, self.bn2 = conv(planes, planes, stride=stride), norm(planes)
        self.conv3, self.bn3 = conv(planes, channels, 1), norm(channels)
        self.downsample = nnx.List([conv(in_channels, channels, 1), norm(channels)]) if project else None

    def __call__(self, x: Maps) -> Maps:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = nnx.relu(self.bn2(self.conv2(y)))
        return nnx.relu(self.bn3(self.conv3(y)) + self._shortcut(x))

    def _shortcut(self, x):
        if self.downsample is None:
            return x
        conv, norm = self.downsample
        # A 1×1 convolution with a stride is a matrix product of every stride-th pixel.
        return norm(conv(x[:, :: self.stride, :: self.stride]))


class ResNet(nnx.Module):
    """ResNet: normalised images → five maps, finest first: after the max-pool and after each stage.

    There is no classifier. The name is a key of `DEPTHS`. With the attribute `remat` each stage is computed again in
    the backward pass instead of keeping its maps.
    """

    def __init__(
        self, name: str = 'resnet50', *, dtype: Dtype = jnp.float32, param_dtype: Dtype = jnp.float32, rngs: nnx.Rngs
    ):
        module = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
        self.conv1 = Conv(3, 64, 7, stride=2, init=he_normal_fan_out, **module)
        self.bn1 = BatchNorm(64, param_dtype=param_dtype)
        in_channels, stages = 64, []
        for planes, stride, depth in zip(PLANES, STRIDES, DEPTHS[name], strict=True):
            channels = planes * EXPANSION
            blocks = [Bottleneck(in_channels, planes, stride=stride, project=True, **module)]
            blocks += [Bottleneck(channels, planes, stride=1, project=False, **module) for _ in range(depth - 1)]
            stages.append(nnx.List(blocks))
            in_channels = channels
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.remat = False

    @scoped
    def __call__(self, x: Float[Array, 'batch height width 3'], key: Array | None = None) -> list[Maps]:
        """Returns the five maps; there is no drop path, so `key` is not used."""
        x = max_pool(nnx.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        levels = [x]
        run = nnx.remat(run_stage) if self.remat else run_stage
        for number, stage in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            with jax.named_scope(f'layer{number}'):
                x = run(stage, x)
            levels.append(x)
        return levels


def run_stage(blocks: nnx.List, x: Maps) -> Maps:
    """Returns the output of a stage of blocks, one after the other."""
    for index, block in enumerate(blocks):
        with jax.named_scope(f'block{index}'):
            x = block(x)
    return x
