"""MSNet (MICCAI 2021) and M2SNet (arXiv 2303.10894): encoder → reduction → pyramid → enhancement → decoder."""

import jax.numpy as jnp
from flax import nnx

from m2snet_jax.model.convolution import Conv
from m2snet_jax.model.layers import ConvBatchNormRelu, at_least_float32, resize
from m2snet_jax.model.res2net import DEPTHS, Res2Net
from m2snet_jax.model.subtraction import CHANNELS, SubtractionPyramid

ENCODERS = dict.fromkeys(DEPTHS, Res2Net)  # by name; `channels` of one says how many each of its five maps has

# The difference maps of each level that are added up before the decoder. The paper's figure also adds the level
# itself; the released program, whose numbers were published, does not.
ENHANCEMENT = {
    'level3': ('x4_x3', 'x5_x4_x3'),
    'level2': ('x3_x2', 'x4_x3_x2', 'x5_x4_x3_x2'),
    'level1': ('x2_x1', 'x3_x2_x1', 'x4_x3_x2_x1', 'x5_x4_x3_x2_x1'),
}


class MSNet(nnx.Module):
    """Multi-scale subtraction network: normalised images `[B, H, W, 3]` → logits `[B, H, W, classes]`.

    H and W are at least 33 and may be odd. Logits are in at least float32; convolutions run in `dtype`, parameters
    and statistics are kept in `param_dtype`. `train()` and `eval()` choose between batch and running statistics;
    `fixed_filters`, a bool that may be traced, makes the shared batch norms of M2SNet's full-one filters keep theirs in
    training too.

    Args:
        encoder: a name of `ENCODERS`: 'res2net50', 'res2net101', or 'res2net14' for tests.
        classes: foreground classes, one logit map each.
        dtype: of the convolutions and the maps between them.
        param_dtype: of the parameters.
        rngs: source of the initial weights.
    """

    filter_sizes = ()

    def __init__(self, encoder='res2net50', classes=1, *, dtype=jnp.float32, param_dtype=jnp.float32, rngs: nnx.Rngs):
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

    def __call__(self, images, fixed_filters=None):
        x1, *deeper = self.encoder(images)
        levels = [x1, *(reduce(x) for reduce, x in zip(self.reduction, deeper, strict=True))]
        maps = self.pyramid(levels, fixed_filters)
        logits = self._decode(deeper[-1], maps)
        return resize(logits.astype(at_least_float32(logits.dtype)), *images.shape[1:3])

    def _decode(self, x5, maps):
        """Enhances each level by its difference maps and decodes from the coarsest to the finest."""
        levels = {name: self.enhancement[name](sum(maps[key] for key in keys)) for name, keys in ENHANCEMENT.items()}
        decoded = self.x5_dem_5(x5)
        for output, level in (
            (self.output4, maps['x5_x4']),
            (self.output3, levels['level3']),
            (self.output2, levels['level2']),
            (self.output1, levels['level1']),
        ):
            decoded = output(resize(decoded, *level.shape[1:3]) + level)
        return decoded


class M2SNet(MSNet):
    """MSNet with multi-scale subtraction units: one pair of full-one filters, 3×3 and 5×5, shared by all ten."""

    filter_sizes = (3, 5)
