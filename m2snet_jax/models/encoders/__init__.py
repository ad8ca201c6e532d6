"""The table of encoders."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from m2snet_jax.models.encoders.pvt import Pvt
from m2snet_jax.models.encoders.res2net import Res2Net
from m2snet_jax.models.encoders.resnet import ResNet
from m2snet_jax.models.encoders.vgg import Vgg


@dataclass(frozen=True)
class Encoder:
    """A line of the table; `ENCODERS[name](name, …)` makes the encoder.

    Attributes:
        module: made as `module(name, dtype=…, param_dtype=…, rngs=…)`, and with `drop_path=…` if it has drop path.
        channels: of the five maps, finest first. The first has 64.
        strides: sides of the input ÷ those of the five maps.
        weights: name of the published file, trained on ImageNet; None: none whose name contains its hash.
    """

    module: Callable[..., Any]
    channels: tuple[int, int, int, int, int]
    strides: tuple[int, int, int, int, int]
    weights: str | None = None

    def __call__(self, name: str, **options: Any) -> Any:
        """Returns the module, which also has the attributes `channels` and `strides`."""
        encoder = self.module(name, **options)
        encoder.channels, encoder.strides = self.channels, self.strides
        return encoder


_RESIDUAL = (64, 256, 512, 1024, 2048), (4, 4, 8, 16, 32)

ENCODERS = {
    'res2net14': Encoder(Res2Net, *_RESIDUAL),  # for tests
    'res2net50': Encoder(Res2Net, *_RESIDUAL, 'res2net50_v1b_26w_4s-3cf99910.pth'),
    'res2net101': Encoder(Res2Net, *_RESIDUAL, 'res2net101_v1b_26w_4s-0812c246.pth'),
    'resnet50': Encoder(ResNet, *_RESIDUAL, 'resnet50-0676ba61.pth'),
    'vgg16': Encoder(Vgg, (64, 128, 256, 512, 512), (1, 2, 4, 8, 16), 'vgg16-397923af.pth'),
    'pvt_v2_b2': Encoder(Pvt, (64, 64, 128, 320, 512), (4, 4, 8, 16, 32)),
}
