"""Batch norms folded into the convolutions before them: the same maps from fewer operations."""

from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from m2snet_jax.models.batch_norm import EPSILON
from m2snet_jax.models.encoders.res2net import Block, Res2Net
from m2snet_jax.models.encoders.resnet import Bottleneck, ResNet
from m2snet_jax.models.layers import ConvBatchNormRelu
from m2snet_jax.models.m2snet import MSNet
from m2snet_jax.models.packing import NOT_PACKED, Packing

Model = TypeVar('Model', bound=MSNet)


class Identity(nnx.Module):
    """Replaces a batch norm that was folded: returns its input."""

    def __call__(self, x: Array, packing: Packing = NOT_PACKED) -> Array:
        return x


def fold_batch_norms(model: Model) -> Model:
    """Returns a copy of `model` in evaluation mode with every batch norm folded into the convolution before it.

    Its logits equal those of `model` in evaluation mode to rounding. With s = scale / √(var + ε), a kernel becomes
    kernel · s and a bias (bias − mean) · s + shift, computed in float64 and rounded once. The norms of the full-one
    filters remain, since no convolution precedes them, as do the layer norms of a transformer. A folded model cannot be
    trained and has no PyTorch names.
    """
    folded = nnx.merge(*nnx.split(model))
    for _, module in nnx.iter_modules(folded):
        if isinstance(module, ConvBatchNormRelu):
            module.norm = _fold(module.conv, module.norm)
        elif isinstance(module, Block):
            module.bn1, module.bn3 = _fold(module.conv1, module.bn1), _fold(module.conv3, module.bn3)
            module.bns = nnx.List([_fold(*pair) for pair in zip(module.convs, module.bns, strict=True)])
            if module.downsample is not None:
                module.downsample[1] = _fold(*module.downsample)
        elif isinstance(module, Res2Net):
            first, first_norm, second, second_norm, third = module.conv1
            module.conv1[1], module.conv1[3] = _fold(first, first_norm), _fold(second, second_norm)
            module.bn1 = _fold(third, module.bn1)
        elif isinstance(module, Bottleneck):
            module.bn1, module.bn2 = _fold(module.conv1, module.bn1), _fold(module.conv2, module.bn2)
            module.bn3 = _fold(module.conv3, module.bn3)
            if module.downsample is not None:
                module.downsample[1] = _fold(*module.downsample)
        elif isinstance(module, ResNet):
            module.bn1 = _fold(module.conv1, module.bn1)
    folded.eval()
    return folded


def _fold(conv: Any, norm: Any) -> Any:
    """Folds `norm` into `conv`, in place, and returns the Identity that replaces it."""
    scale, shift, mean, var = (np.float64(value[...]) for value in (norm.scale, norm.bias, norm.mean, norm.var))
    with np.errstate(invalid='ignore'):  # a variance below 0 gives NaN here as it does in the norm
        factor = scale / np.sqrt(var + EPSILON)
    bias = -mean if conv.bias is None else np.float64(conv.bias[...]) - mean
    kernel = np.asarray(conv.kernel[...])
    scaled = np.empty_like(kernel)
    # Into an array of the kernel's dtype, in pieces, so that no float64 copy of the kernel takes memory.
    np.multiply(kernel, factor, out=scaled, dtype=np.float64, casting='same_kind')
    conv.kernel = nnx.Param(jnp.asarray(scaled))
    conv.bias = nnx.data(nnx.Param(jnp.asarray(bias * factor + shift, kernel.dtype)))
    return Identity()
