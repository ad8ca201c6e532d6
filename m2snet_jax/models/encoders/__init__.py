"""The encoders by name; `channels` of an encoder are those of its five maps."""

from m2snet_jax.models.encoders.res2net import DEPTHS, Res2Net

ENCODERS = dict.fromkeys(DEPTHS, Res2Net)
