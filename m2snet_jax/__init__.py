"""M2SNet and MSNet for medical image segmentation, in JAX and Flax.

The names below are loaded when first used, so that `import m2snet_jax` and `--help` cost nothing.
"""

import importlib

TYPE_CHECKING = False  # the module `typing` is a third of the import's time
if TYPE_CHECKING:
    from typing import Any

__version__ = '0.2.0'

_HOMES = {
    'InputError': 'errors',
    'LossNet': 'models.lossnet',
    'M2SNet': 'models.m2snet',
    'MSNet': 'models.m2snet',
    'Predictor': 'prediction.predictor',
    'load_config': 'config',
    'load_model': 'prediction.predictor',
    'structure_loss': 'models.losses',
    'train_and_evaluate': 'training.loop',
}
_ROOMS = ('metrics', 'weights')
__all__ = [*_HOMES, *_ROOMS]  # pyright: ignore[reportUnsupportedDunderAll]  (loaded when first used)


def __getattr__(name: str) -> 'Any':
    if name in _HOMES:
        return getattr(importlib.import_module(f'{__name__}.{_HOMES[name]}'), name)
    if name in _ROOMS:
        return importlib.import_module(f'{__name__}.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
