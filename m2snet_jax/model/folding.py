"""Batch norms folded into the convolutions before them: the same maps from fewer operations."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from m2snet_jax.model.layers import EPSILON, ConvBatchNormRelu
from m2snet_jax.model.res2net import Block, Res2Net


class Absorbed(nnx.Module):
    """Stands where a batch norm was that its convolution has taken in: returns what it is given."""

    def __call__(self, x):
        return x


def fold(model):
    """Returns `model` in evaluation mode with scale and shift of every batch norm moved into its convolution.

    The model that is given stays as it is. Equal to it in evaluation mode to rounding: kernel · s and
    (bias − mean) · s + shift with s = scale / √(var + ε), taken in float64 and rounded once. The norms of the
    full-one filters stay, having no convolution before them. A folded model cannot be trained further, nor has it
    PyTorch names: it is what a trained model is run as.

    Args:
        model: an MSNet or M2SNet.
    """
    folded = nnx.merge(*nnx.split(model))
    for _, module in nnx.iter_modules(folded):
        if isinstance(module, ConvBatchNormRelu):
            module.norm = _absorb(module.conv, module.norm)
        elif isinstance(module, Block):
            module.bn1, module.bn3 = _absorb(module.conv1, module.bn1), _absorb(module.conv3, module.bn3)
            module.bns = nnx.List([_absorb(*pair) for pair in zip(module.convs, module.bns, strict=True)])
            if module.downsample is not None:
                module.downsample[1] = _absorb(*module.downsample)
        elif isinstance(module, Res2Net):
            first, first_norm, second, second_norm, third = module.conv1
            module.conv1[1], module.conv1[3] = _absorb(first, first_norm), _absorb(second, second_norm)
            module.bn1 = _absorb(third, module.bn1)
    folded.eval()
    return folded


def _absorb(conv, norm):
    """Moves what `norm` does by its running statistics into `conv`, in place."""
    scale, shift, mean, var = (np.float64(value[...]) for value in (norm.scale, norm.bias, norm.mean, norm.var))
    with np.errstate(invalid='ignore'):  # a variance below 0 gives NaN here as it does in the norm
        factor = scale / np.sqrt(var + EPSILON)
    bias = -mean if conv.bias is None else np.float64(conv.bias[...]) - mean
    kernel = np.asarray(conv.kernel[...])
    scaled = np.empty_like(kernel)
    np.multiply(kernel, factor, out=scaled, dtype=np.float64, casting='same_kind')  # piece by piece, to spare memory
    conv.kernel = nnx.Param(jnp.asarray(scaled))
    conv.bias = nnx.data(nnx.Param(jnp.asarray(bias * factor + shift, kernel.dtype)))
    return Absorbed()
