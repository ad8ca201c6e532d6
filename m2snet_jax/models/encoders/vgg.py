"""The encoder VGG-16 (Simonyan and Zisserman, ICLR 2015), without batch norms and classifier, as in torchvision."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from m2snet_jax.models.initial_weights import he_normal_fan_out
from m2snet_jax.models.kernels import Maps, max_pool
from m2snet_jax.models.layers import Conv
from m2snet_jax.models.scopes import scoped

# Output channels of the convolutions; every block after the first starts with a 2×2 max-pool.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class Vgg(nnx.Module):
    """VGG-16: normalised images → five maps, finest first: relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3.

    Their sides are those of the input divided by 1, 2, 4, 8 and 16, rounded down at each max-pool. The first three
    maps are larger than those of the other encoders, and so is all that the network computes on them. With the
    attribute `remat` each block is computed again in the backward pass instead of keeping its maps.
    """

    def __init__(
        self, name: str = 'vgg16', *, dtype: Dtype = jnp.float32, param_dtype: Dtype = jnp.float32, rngs: nnx.Rngs
    ):
        del name  # there is one
        module = {'use_bias': True, 'init': he_normal_fan_out, 'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
        in_channels, blocks = 3, []
        for block in BLOCKS:
            blocks.append(
                nnx.List([Conv(*channels, **module) for channels in itertools.pairwise((in_channels, *block))])
            )
            in_channels = block[-1]
        self.blocks = nnx.List(blocks)
        for conv in itertools.chain(*self.blocks):
            conv.bias[...] = jnp.zeros_like(conv.bias[...])
        self.remat = False

    @scoped
    def __call__(self, x: Float[Array, 'batch height width 3'], key: Array | None = None) -> list[Maps]:
        """Returns the five maps; there is no drop path, so `key` is not used."""
        levels = []
        run: Any = nnx.remat(_run_block) if self.remat else _run_block
        for number, block in enumerate(self.blocks, start=1):
            with jax.named_scope(f'block{number}'):
                pooled: Any = max_pool(x, 2, 2) if levels else x
                x = run(block, pooled)
            levels.append(x)
        return levels


def _run_block(convs, x):
    for conv in convs:
        x = nnx.relu(conv(x))
    return x
