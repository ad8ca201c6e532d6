"""Models that are small enough for tests, written as files."""

from safetensors.numpy import save_file

from m2snet_jax.build import create_model
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


def write_model(path, seed=0, classes=1):
    """Writes an untrained M2SNet with a Res2Net-14 as a safetensors file; returns its path."""
    save_file(state_dict(create_model('m2snet', 'res2net14', classes, seed=seed)), path)
    return path
