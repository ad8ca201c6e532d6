"""The encoder PVT v2-B2, a pyramid vision transformer (Wang et al., arXiv 2106.13797).

As in timm, whose names the attributes have.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax.nn.initializers import normal, variance_scaling
from jaxtyping import Array, Float

from m2snet_jax.models.batch_norm import at_least_float32
from m2snet_jax.models.kernels import Maps, convolve_depthwise
from m2snet_jax.models.scopes import scoped

CHANNELS = (64, 128, 320, 512)
DEPTHS = {'pvt_v2_b2': (3, 4, 6, 3)}
HEADS = (1, 2, 5, 8)
EXPANSIONS = (8, 8, 4, 4)  # channels inside the feed-forward network ÷ those of the stage
REDUCTIONS = (8, 4, 2, 1)  # sides of the map of the queries ÷ those of the map of keys and values
EPSILON, BLOCK_EPSILON = 1e-5, 1e-6  # of layer norms: PyTorch's default, and that of blocks and stages


class PatchEmbed(nnx.Module):
    """A convolution of overlapping patches and a layer norm."""

    def __init__(self, in_channels: int, channels: int, size: int, stride: int, *, module: dict[str, Any]):
        self.proj = nnx.Conv(
            in_channels,
            channels,
            (size, size),
            stride,
            padding=size // 2,
            kernel_init=variance_scaling(2.0, 'fan_out', 'normal'),
            **module,
        )
        self.norm = _layer_norm(channels, EPSILON, module)

    @scoped
    def __call__(self, x: Maps) -> Maps:
        return self.norm(self.proj(x))


class Attention(nnx.Module):
    """Multi-head attention whose keys and values come from a map that is `reduction` times smaller."""

    def __init__(self, channels: int, heads: int, reduction: int, *, module: dict[str, Any]):
        self.heads = heads
        self.q = nnx.Linear(channels, channels, kernel_init=normal(0.02), **module)
        self.kv = nnx.Linear(channels, 2 * channels, kernel_init=normal(0.02), **module)
        self.proj = nnx.Linear(channels, channels, kernel_init=normal(0.02), **module)
        size, init = (reduction, reduction), variance_scaling(2.0, 'fan_out', 'normal')
        reduce = functools.partial(nnx.Conv, padding='VALID', kernel_init=init, **module)
        self.sr = reduce(channels, channels, size, reduction) if reduction > 1 else None
        self.norm = _layer_norm(channels, EPSILON, module) if reduction > 1 else None

    @scoped
    def __call__(self, x: Maps) -> Maps:
        reduced = x if self.sr is None or self.norm is None else self.norm(self.sr(x))
        query, (key, value) = self._by_head(self.q(x)), map(self._by_head, jnp.split(self.kv(reduced), 2, axis=-1))
        # Not by jax.nn.dot_product_attention, whose softmax is in float32 for float64 too.
        wide = at_least_float32(x.dtype)
        products = jnp.einsum('bqhc,bkhc->bhqk', query, key, preferred_element_type=wide)
        weights = jax.nn.softmax(products * query.shape[-1] ** -0.5, axis=-1).astype(value.dtype)
        return self.proj(jnp.einsum('bhqk,bkhc->bqhc', weights, value).reshape(x.shape))

    def _by_head(self, x):
        batch, height, width, channels = x.shape
        return x.reshape(batch, height * width, self.heads, channels // self.heads)


class DepthwiseConv(nnx.Module):
    """A 3×3 convolution of each channel by itself, with bias."""

    def __init__(self, channels: int, *, dtype: Dtype, param_dtype: Dtype, rngs: nnx.Rngs):
        self.dtype = dtype
        self.kernel = nnx.Param(normal((2 / 9) ** 0.5)(rngs.params(), (3, 3, 1, channels), param_dtype))
        self.bias = nnx.Param(jnp.zeros(channels, param_dtype))

    @scoped
    def __call__(self, x: Maps) -> Maps:
        y = convolve_depthwise(x.astype(self.dtype), self.kernel[...].astype(self.dtype))
        return y + self.bias[...].astype(self.dtype)


class FeedForward(nnx.Module):
    """Two linear layers with a depthwise convolution and GELU between them."""

    def __init__(self, channels: int, hidden: int, *, module: dict[str, Any]):
        self.fc1 = nnx.Linear(channels, hidden, kernel_init=normal(0.02), **module)
        self.dwconv = DepthwiseConv(hidden, **module)
        self.fc2 = nnx.Linear(hidden, channels, kernel_init=normal(0.02), **module)

    @scoped
    def __call__(self, x: Maps) -> Maps:
        return self.fc2(jax.nn.gelu(self.dwconv(self.fc1(x)), approximate=False))


class Block(nnx.Module):
    """Attention and a feed-forward network, each after a layer norm and added to its input.

    In training each of the two is dropped with probability `drop_path`, for each image by itself.
    """

    def __init__(
        self, channels: int, heads: int, reduction: int, expansion: int, drop_path: float, *, module: dict[str, Any]
    ):
        self.drop_path = drop_path
        self.norm1 = _layer_norm(channels, BLOCK_EPSILON, module)
        self.attn = Attention(channels, heads, reduction, module=module)
        self.norm2 = _layer_norm(channels, BLOCK_EPSILON, module)
        self.mlp = FeedForward(channels, channels * expansion, module=module)

    @scoped
    def __call__(self, x: Maps, key: Array | None = None) -> Maps:
        keys = (None, None) if key is None else jax.random.split(key)
        x = x + _drop(self.attn(self.norm1(x)), keys[0], self.drop_path)
        return x + _drop(self.mlp(self.norm2(x)), keys[1], self.drop_path)


class Stage(nnx.Module):
    """A patch embedding, but for the first stage, blocks and a layer norm."""

    def __init__(self, in_channels: int | None, channels: int, blocks: list[Block], *, module: dict[str, Any]):
        self.downsample = None if in_channels is None else PatchEmbed(in_channels, channels, 3, 2, module=module)
        self.blocks = nnx.List(blocks)
        self.norm = _layer_norm(channels, BLOCK_EPSILON, module)

    @scoped
    def __call__(self, x: Maps, key: Array | None = None) -> Maps:
        x = x if self.downsample is None else self.downsample(x)
        keys = [None] * len(self.blocks) if key is None else jax.random.split(key, len(self.blocks))
        for block, block_key in zip(self.blocks, keys, strict=True):
            x = block(x, block_key)
        return self.norm(x)


class Pvt(nnx.Module):
    """PVT v2: normalised images → five maps, finest first: the normalised patch embedding and the four stages.

    There is no classifier and no batch norm. With the attribute `remat` each stage is computed again in the backward
    pass instead of keeping its maps.

    Args:
        name: a key of `DEPTHS`.
        drop_path: probability with which the last block drops each of its two branches in training; it grows linearly
            from 0 in the first block.
        dtype, param_dtype: of the layers and their maps, and of parameters.
        rngs: source of the initial weights.
    """

    def __init__(
        self,
        name: str = 'pvt_v2_b2',
        *,
        drop_path: float = 0.0,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        module = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
        self.deterministic = False  # set by `train()` and `eval()`
        self.patch_embed = PatchEmbed(3, CHANNELS[0], 7, 4, module=module)
        depths, stages = DEPTHS[name], []
        for index, channels in enumerate(CHANNELS):
            block = channels, HEADS[index], REDUCTIONS[index], EXPANSIONS[index]
            numbers = range(sum(depths[:index]), sum(depths[: index + 1]))
            rates = [drop_path * number / (sum(depths) - 1) for number in numbers]
            blocks = [Block(*block, rate, module=module) for rate in rates]
            stages.append(Stage(CHANNELS[index - 1] if index else None, channels, blocks, module=module))
        self.stages = nnx.List(stages)
        self.remat = False

    @scoped
    def __call__(self, x: Float[Array, 'batch height width 3'], key: Array | None = None) -> list[Maps]:
        """Returns the five maps; in training, a `key` drops paths, and without one none is dropped."""
        key = None if self.deterministic else key
        x = self.patch_embed(x)
        levels = [x]
        run = nnx.remat(_run_stage) if self.remat else _run_stage
        for index, stage in enumerate(self.stages):
            x = run(stage, x, None if key is None else jax.random.fold_in(key, index))
            levels.append(x)
        return levels


def _run_stage(stage, x, key):
    return stage(x, key)


def _layer_norm(channels, epsilon, module):
    # The variance around the mean: E[x²] − E[x]² cancels.
    return nnx.LayerNorm(channels, epsilon=epsilon, use_fast_variance=False, **module)


def _drop(branch, key, rate):
    """Returns a branch, for each image 0 with probability `rate`, else divided by 1 − rate."""
    if key is None or not rate:
        return branch
    kept = jax.random.bernoulli(key, 1 - rate, (len(branch), 1, 1, 1))
    return jnp.where(kept, branch / (1 - rate), 0)
