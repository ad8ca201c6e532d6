"""Models that are small enough for tests, written as files."""

from flax import nnx
from safetensors.numpy import save_file

from m2snet_jax.build import create_model
from m2snet_jax.models.layers import Conv
from m2snet_jax.weights import state_dict

SETTINGS = {
    'model.encoder': 'res2net14',
    'data.size': 48,
    'data.count': 10,
    'data.test_count': 5,
    'evaluate.batch': 2,
    'evaluate.bootstrap': 100,
}
ARGUMENTS = ['--config=quickstart', *(f'--config.{key}={value}' for key, value in SETTINGS.items())]


def write_model(path, seed=0, classes=1, encoder='res2net14'):
    """Writes an untrained M2SNet as a safetensors file; returns its path."""
    save_file(state_dict(create_model('m2snet', encoder, classes, seed=seed)), path)
    return path


class Plain(nnx.Module):
    """An encoder of one small convolution a level."""

    channels = (64, 8, 8, 8, 8)

    def __init__(self, name='plain', *, dtype, param_dtype, rngs):
        module = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
        sizes = zip((3, *self.channels), self.channels, (4, 1, 2, 2, 2), strict=False)
        self.convs = nnx.List([Conv(before, after, stride=stride, **module) for before, after, stride in sizes])

    def __call__(self, x):
        maps = []
        for conv in self.convs:
            x = nnx.relu(conv(x))
            maps.append(x)
        return maps
