"""Every format that holds parameters, and `load_weights`, which takes any of them."""

import json
from pathlib import Path

import jax
from flax import nnx

from m2snet_jax.errors import InputError
from m2snet_jax.weights.names import load_state_dict, state_dict
from m2snet_jax.weights.pretrained import weights_path
from m2snet_jax.weights.torch_file import read_torch_file, write_safetensors

__all__ = [
    'load_state_dict', 'load_weights', 'read_torch_file', 'recorded_config', 'state_dict', 'trained_config',
    'write_safetensors',
]  # fmt: skip


def load_weights(model, source):
    """Puts weights into `model`, in place, and returns it.

    Args:
        model: an MSNet or M2SNet, which may be without values (`nnx.eval_shape`); from a file also a Res2Net or
            LossNet.
        source: the folder of a run or converted model (its newest checkpoint is taken, or the one that its `select`
            chose), the folder `checkpoints` in it or one step's folder in that, a PyTorch or safetensors file, or a
            name of `pretrained.PRETRAINED`.

    Raises:
        InputError: nothing there, or weights that do not fit the model.
    """
    path = weights_path(source)
    if not path.is_dir():
        arrays = read_torch_file(path)
        try:
            return load_state_dict(model, arrays)
        except InputError as error:
            raise InputError(f'{path}: {error}') from None
    from m2snet_jax.weights.checkpoint import restore_model  # here, because orbax takes a second to import

    run, step = _run_and_step(path)
    choose = recorded_config(run).get('select', 'last') != 'last'
    _, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    restored = restore_model(run / 'checkpoints', params, batch_stats, step, choose=choose)
    nnx.update(model, *jax.device_put(restored))
    return model


def recorded_config(path):
    """Returns the resolved config of a run or converted model, a dict; raises InputError where there is none.

    Args:
        path: the folder of a run, the folder `checkpoints` in it, or one step's folder in that.
    """
    return _record(path)['config']


def trained_config(path):
    """Returns the config that a model was trained with, a dict, or None where nobody knows.

    Args:
        path: a file, of which nobody knows, or as for `recorded_config`; what `convert` makes of a file has a config
            that says which model it is, not how it was trained.
    """
    if Path(path).is_file():
        return None
    record = _record(path)
    return record['config'] if record.get('trained_with_config', True) else None


def _record(path):
    """Returns what `config.json` of a run holds."""
    run, _ = _run_and_step(Path(path))
    try:
        record = json.loads((run / 'config.json').read_text())
        if not isinstance(record['config'], dict):
            raise TypeError('not a config')
        return record
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f'{run}: holds no run (no readable config.json); name the folder of a run') from None


def _run_and_step(path):
    """Returns the folder of the run that `path` is or lies in, and the step that it names or None."""
    path = path.absolute()
    if path.name == 'checkpoints':
        return path.parent, None
    if path.parent.name == 'checkpoints' and path.name.isdecimal():
        return path.parent.parent, int(path.name)
    return path, None
