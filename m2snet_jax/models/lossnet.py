"""LossNet: the distance of two maps in the features of a frozen VGG-16 (M2SNet §III-E, "training-free")."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float

from m2snet_jax.models.batch_norm import at_least_float32, channel_sums
from m2snet_jax.models.encoders import vgg
from m2snet_jax.models.initial_weights import he_normal_fan_in
from m2snet_jax.models.layers import Conv, resize
from m2snet_jax.models.packing import NOT_PACKED, Packing, max_pool_packed, pack
from m2snet_jax.models.scopes import name_modules

BLOCKS = vgg.BLOCKS[:4]  # up to relu4_3
# ImageNet's, in float32 as in the released program: float64 results depend on it from the ninth digit.
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)


class LossNet(nnx.Module):
    """Sums the mean squared differences of prediction and mask in the features of four blocks of VGG-16.

    `lossnet(logits, mask)` applies the sigmoid; the mask is in [0, 1], and no gradient flows through it. Each class map
    is compared separately, as a grey image. The parameters are not trained: do not give them to an optimizer. Before a
    file is loaded they are He-normal (fan-in) with zero bias; with PyTorch's default the loss would almost vanish.

    Args:
        size: side in pixels at which the maps are compared; the released program uses 224.
        dtype, param_dtype: of the convolutions, and of the parameters; sums are in at least float32.
        rngs: source of the weights; use a fixed seed that is not the run's.
    """

    def __init__(
        self, *, size: int = 224, dtype: Dtype = jnp.float32, param_dtype: Dtype = jnp.float32, rngs: nnx.Rngs
    ):
        self.size, self.dtype = size, jnp.dtype(dtype)
        conv = functools.partial(
            Conv, use_bias=True, frozen=True, init=he_normal_fan_in, dtype=dtype, param_dtype=param_dtype, rngs=rngs
        )
        in_channels, blocks = 3, []
        for block in BLOCKS:
            blocks.append(nnx.List([conv(*channels) for channels in itertools.pairwise((in_channels, *block))]))
            in_channels = block[-1]
        self.blocks = nnx.List(blocks)
        for module in itertools.chain(*self.blocks):
            module.bias[...] = jnp.zeros_like(module.bias[...])
        self.packed = False
        name_modules(self)

    @jax.named_scope('lossnet')
    def __call__(
        self, logits: Float[Array, 'batch height width classes'], mask: Float[Array, 'batch height width classes']
    ) -> Float[Array, '']:
        wide = at_least_float32(logits.dtype)
        with jax.named_scope('prediction'):
            prediction_features = self._features(jax.nn.sigmoid(logits.astype(wide)))
        with jax.named_scope('mask'):
            mask_features = self._features(mask.astype(wide))
        loss = jnp.zeros((), wide)
        for prediction, target in zip(prediction_features, mask_features, strict=True):
            difference = prediction.astype(wide) - lax.stop_gradient(target.astype(wide))
            # Of a large batch the number of values is not an int32, which jax would make of an int.
            loss += channel_sums(difference, difference).sum() / float(difference.size)
        return loss

    def _features(self, maps: Float[Array, 'batch height width classes']) -> list[Float[Array, 'images _ _ channels']]:
        """Returns the outputs of the four blocks for maps in [0, 1], as batch·classes grey images."""
        batch, height, width, classes = maps.shape
        grey = jnp.moveaxis(maps, -1, 1).reshape(batch * classes, height, width, 1)
        mean, std = MEAN.astype(maps.dtype), STD.astype(maps.dtype)
        if self.dtype == maps.dtype:
            x = resize((grey - mean) / std, self.size, self.size)
        else:  # equal but for rounding, and fewer cycles on a TPU: one channel is resized instead of three
            x = (resize(grey, self.size, self.size) - mean) / std
        features, packing = [], Packing(2 if self.packed and self.size % 2 == 0 else 1)
        x = pack(x, packing.columns)
        for block in self.blocks:
            if features:
                x, packing = max_pool_packed(x, packing.columns), NOT_PACKED
            for conv in block:
                x = nnx.relu(conv(x, packing, packing))
            features.append(x)
        return features
