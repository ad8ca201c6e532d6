"""MSNet (MICCAI 2021) and M2SNet (arXiv 2303.10894): encoder → reduction → pyramid → enhancement → decoder."""

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from m2snet_jax.models.batch_norm import at_least_float32
from m2snet_jax.models.encoders import ENCODERS
from m2snet_jax.models.layers import Conv, ConvBatchNormRelu, resize
from m2snet_jax.models.scopes import name_modules, scoped
from m2snet_jax.models.subtraction import CHANNELS, SubtractionPyramid

# The difference maps of each level that are summed and convolved before the decoder. The paper's figure also adds the
# level itself; the released program, whose numbers were published, does not. Level 4 has a single map, `x5_x4`, which
# goes to the decoder as it is.
ENHANCEMENT = {
    'level3': ('x4_x3', 'x5_x4_x3'),
    'level2': ('x3_x2', 'x4_x3_x2', 'x5_x4_x3_x2'),
    'level1': ('x2_x1', 'x3_x2_x1', 'x4_x3_x2_x1', 'x5_x4_x3_x2_x1'),
}


class MSNet(nnx.Module):
    """Multi-scale subtraction network: normalised images → logits.

    Height and width are at least 33 and may be odd. Logits are at least float32. `train()` and `eval()` choose between
    the statistics of the batch and the running ones.

    Args:
        encoder: a name of `ENCODERS`; 'res2net14' is for tests.
        classes: foreground classes, one logit map each.
        dtype, param_dtype: of the convolutions and their maps, and of parameters and statistics.
        rngs: source of the initial weights.
    """

    filter_sizes = ()

    def __init__(
        self,
        encoder: str = 'res2net50',
        classes: int = 1,
        *,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        module = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
        self.encoder = ENCODERS[encoder](encoder, **module)
        self.reduction = nnx.List([ConvBatchNormRelu(n, CHANNELS, **module) for n in self.encoder.channels[1:]])
        self.pyramid = SubtractionPyramid(self.filter_sizes, **module)
        self.enhancement = nnx.Dict({name: ConvBatchNormRelu(CHANNELS, CHANNELS, **module) for name in ENHANCEMENT})
        self.x5_dem_5 = ConvBatchNormRelu(self.encoder.channels[-1], CHANNELS, **module)
        self.output4 = ConvBatchNormRelu(CHANNELS, CHANNELS, **module)
        self.output3 = ConvBatchNormRelu(CHANNELS, CHANNELS, **module)
        self.output2 = ConvBatchNormRelu(CHANNELS, CHANNELS, **module)
        self.output1 = Conv(CHANNELS, classes, use_bias=True, **module)
        name_modules(self)

    @scoped
    def __call__(
        self, images: Float[Array, 'batch height width 3'], *, frozen: ArrayLike | None = None
    ) -> Float[Array, 'batch height width classes']:
        """Returns the logits of a batch of normalised images.

        In training mode, `frozen`, a bool that may be traced, makes the shared batch norms of M2SNet's full-one filters
        use and keep their running statistics.
        """
        x1, *deeper = self.encoder(images)
        levels = [x1, *(reduce(x) for reduce, x in zip(self.reduction, deeper, strict=True))]
        maps = self.pyramid(levels, frozen)
        logits = self._decode(deeper[-1], maps)
        return resize(logits.astype(at_least_float32(logits.dtype)), *images.shape[1:3])

    def _decode(self, x5: Array, maps: dict[str, Array]) -> Array:
        """Sums the difference maps of each level and decodes from the coarsest level to the finest."""
        enhanced = [
            self.enhancement[name](sum((maps[key] for key in others), start=maps[first]))
            for name, (first, *others) in ENHANCEMENT.items()
        ]
        outputs = (self.output4, self.output3, self.output2, self.output1)
        decoded = self.x5_dem_5(x5)
        for output, level in zip(outputs, (maps['x5_x4'], *enhanced), strict=True):
            decoded = output(resize(decoded, *level.shape[1:3]) + level)
        return decoded


class M2SNet(MSNet):
    """MSNet with multi-scale subtraction units: one pair of full-one filters, 3×3 and 5×5, shared by all ten."""

    filter_sizes = (3, 5)
