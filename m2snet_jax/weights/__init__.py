"""The formats of weights, and `load_weights`, which reads any of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
from flax import nnx

from m2snet_jax.config import read_record
from m2snet_jax.errors import InputError
from m2snet_jax.models.m2snet import MODELS, MSNet
from m2snet_jax.models.model_weights import split_model
from m2snet_jax.weights.names import Array, load_state_dict, state_dict
from m2snet_jax.weights.placeholders import printable
from m2snet_jax.weights.pretrained import weights_path
from m2snet_jax.weights.torch_file import read_about, read_torch_file, write_safetensors

Model = TypeVar('Model', bound=nnx.Module)
__all__ = [
    'about_network', 'load_arrays', 'load_state_dict', 'load_weights', 'read_torch_file', 'recorded_config',
    'recorded_reading', 'run_folder', 'state_dict', 'trained_config', 'write_safetensors',
]  # fmt: skip
NAMES_SHOWN = 3  # of each kind of mismatch between a file and a model


def load_weights(model: Model, source: str | Path, average: str | None = None) -> Model:
    """Puts weights into `model`, in place, and returns it.

    Args:
        model: an MSNet or M2SNet, which may be without values (`nnx.eval_shape`); from a file also an encoder or a
            LossNet.
        source: the folder of a run or converted model (its newest checkpoint, or the one that its `select` chose), its
            folder `checkpoints` or that of one step, a PyTorch or safetensors file, or a name of
            `pretrained.PRETRAINED`.
        average: the name of averaged weights in a file, see `read_torch_file`.

    Raises:
        InputError: `source` does not exist, or its weights do not fit the model.
    """
    path = weights_path(source)
    if not path.is_dir():
        return load_arrays(model, read_torch_file(path, average), path)
    if average is not None:
        raise InputError(f'--config.model.weights_average={average}: {path} is a folder; only files hold such entries')
    from m2snet_jax.weights.checkpoint import restore_model  # here, because orbax takes a second to import

    run, step = _run_and_step(path)
    config = recorded_config(run)
    _check_switches(model, _switches_of(config['model']), path)
    choose = config.get('select', 'last') != 'last'
    restored = jax.device_put(restore_model(run / 'checkpoints', split_model(model)[1], step, choose=choose))
    nnx.update(model, restored.params, restored.batch_stats)
    return model


def load_arrays(model: Model, arrays: Mapping[str, Array], path: Path) -> Model:
    """Puts the arrays of a file, as `read_torch_file` returns them, into `model`, in place, and returns it.

    Raises:
        InputError: they do not fit the model; the message begins with `path`.
    """
    _check_switches(model, read_about(path).get('switches'), path)
    try:
        return load_state_dict(model, arrays, names_shown=NAMES_SHOWN)
    except InputError as error:
        raise InputError(f'{path}: {error}') from None


def about_network(model: nnx.Module) -> dict[str, str]:
    """Returns what a safetensors file of `model` says of it in its header: the switches of a network."""
    return {'switches': _text(model.switches)} if isinstance(model, MSNet) else {}


def _check_switches(model: nnx.Module, found: str | None, path: Path) -> None:
    """Raises InputError if weights are of a network with other switches, whose arrays may have the same shapes.

    `found` are the switches that `path` records, None where it does not.
    """
    if found is None or not isinstance(model, MSNet):
        return
    here = _text(model.switches)
    if found != here:
        networks = f'they are of a network with {printable(found)}, and this one has {here}'
        raise InputError(f'{path}: the weights do not fit {type(model).__name__}: {networks}')


def _switches_of(recorded: Mapping[str, Any]) -> str:
    """Returns the switches of the network in a recorded config."""
    kind, keys = MODELS.get(recorded['name'], MSNet), ('columns', 'operation', 'add_level')
    filters = kind.sizes_used(recorded['columns'], recorded['filters'])
    return _text({'filters': filters, **{key: recorded[key] for key in keys}})


def _text(switches: Mapping[str, Any]) -> str:
    return ', '.join(f'{key}={switches[key]}' for key in ('columns', 'filters', 'operation', 'add_level'))


def recorded_config(path: str | Path) -> dict:
    """Returns the resolved config of a folder that `load_weights` takes; raises InputError where there is none."""
    return read_record(_run_and_step(Path(path))[0])['config']


def recorded_reading(path: str | Path) -> dict | None:
    """Returns how the files of a run were read, as JSON values, None where its folder does not record it."""
    return read_record(_run_and_step(Path(path))[0]).get('reading')


def trained_config(path: str | Path) -> dict | None:
    """Returns the config that a model was trained with, None where it is not recorded.

    Weights files record no config, and the config that `convert` writes names the model, not its training.
    """
    if Path(path).is_file():
        return None
    record = read_record(_run_and_step(Path(path))[0])
    return record['config'] if record.get('trained_with_config', True) else None


def run_folder(path: str | Path) -> Path:
    """Returns the folder of the run that a path is or is in: itself, `checkpoints` in it, or one step's folder."""
    return _run_and_step(Path(path))[0]


def _run_and_step(path: Path) -> tuple[Path, int | None]:
    """Returns the folder of the run that `path` is or is in, and the step that it names."""
    path = path.absolute()
    if path.name == 'checkpoints':
        return path.parent, None
    if path.parent.name == 'checkpoints' and path.name.isdecimal():
        return path.parent.parent, int(path.name)
    return path, None
