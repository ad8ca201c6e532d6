"""LossNet: the distance of two maps in the features of a frozen VGG-16 (M2SNet §III-E, "training-free")."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from m2snet_jax.model.convolution import Conv, he_normal_fan_in
from m2snet_jax.model.layers import at_least_float32, channel_sums, max_pool, resize

# Output channels of the convolutions up to relu4_3; every block after the first starts with a 2×2 max-pool.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))
# ImageNet's, in float32 as the released program keeps them: float64 results depend on it from the ninth digit.
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)


class LossNet(nnx.Module):
    """logits `[B, H, W, C]` and mask `[B, H, W, C]` in [0, 1] → the sum over four blocks of mean squared differences.

    Each class map is compared by itself, as a grey image. The sigmoid is applied here. No gradient flows through
    the mask, and the parameters are meant to stay as they are: give them to no optimizer. Without a file they are
    He-normal (fan-in) with zero bias; PyTorch's default start would make the loss all but vanish.

    Args:
        size: side in pixels at which the maps are compared; released program: 224.
        dtype: of the convolutions; differences are summed in at least float32.
        param_dtype: of the parameters.
        rngs: source of the weights; use a fixed seed that is not the run's.
    """

    def __init__(self, *, size=224, dtype=jnp.float32, param_dtype=jnp.float32, rngs: nnx.Rngs):
        self.size = size
        in_channels, blocks = 3, []
        for block in BLOCKS:
            convs = []
            for channels in block:
                conv = Conv(
                    in_channels,
                    channels,
                    use_bias=True,
                    frozen=True,
                    init=he_normal_fan_in,
                    dtype=dtype,
                    param_dtype=param_dtype,
                    rngs=rngs,
                )
                conv.bias[...] = jnp.zeros(channels, param_dtype)
                convs.append(conv)
                in_channels = channels
            blocks.append(nnx.List(convs))
        self.blocks = nnx.List(blocks)

    def __call__(self, logits, mask):
        wide = at_least_float32(logits.dtype)
        ours = self._features(jax.nn.sigmoid(logits.astype(wide)))
        theirs = self._features(mask.astype(wide))
        pairs = zip(ours, theirs, strict=True)
        differences = [a.astype(wide) - lax.stop_gradient(b.astype(wide)) for a, b in pairs]
        return sum(channel_sums(apart, apart).sum() / apart.size for apart in differences)

    def _features(self, maps):
        """maps `[B, H, W, C]` in [0, 1] → the outputs of the four blocks, B·C grey images each."""
        batch, height, width, classes = maps.shape
        grey = jnp.moveaxis(maps, -1, 1).reshape(batch * classes, height, width, 1)
        x = (grey - MEAN.astype(maps.dtype)) / STD.astype(maps.dtype)
        x = resize(x, self.size, self.size)
        features = []
        for block in self.blocks:
            if features:
                x = max_pool(x, 2, 2)
            for conv in block:
                x = nnx.relu(conv(x))
            features.append(x)
        return features
