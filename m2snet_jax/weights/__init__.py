"""Every format that holds parameters, and `load_weights`, which takes any of them."""

import json

from flax import nnx

from m2snet_jax.errors import InputError
from m2snet_jax.weights.names import load_state_dict, state_dict
from m2snet_jax.weights.pretrained import weights_path
from m2snet_jax.weights.torch_file import read_torch_file

__all__ = ['load_state_dict', 'load_weights', 'read_torch_file', 'recorded_config', 'state_dict']


def load_weights(model, source):
    """Puts weights into `model`, in place, and returns it.

    Args:
        model: an MSNet or M2SNet; from a file also a Res2Net or LossNet.
        source: the folder of a run (its newest checkpoint is taken), a PyTorch or safetensors file, or a name of
            `pretrained.PRETRAINED`.

    Raises:
        InputError: nothing there, or weights that do not fit the model.
    """
    path = weights_path(source)
    if not path.is_dir():
        return load_state_dict(model, read_torch_file(path))
    from m2snet_jax.weights.checkpoint import Checkpoints  # here, because orbax takes a second to import

    recorded_config(path)
    _, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    checkpoints = Checkpoints(path / 'checkpoints')
    try:
        nnx.update(model, *checkpoints.restore_model(params, batch_stats))
    except (ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'{path}: holds another model than {type(model).__name__} of this config') from None
    finally:
        checkpoints.close()
    return model


def recorded_config(run):
    """Returns the resolved config of a run's folder, a dict; raises InputError where there is no run."""
    try:
        return json.loads((run / 'config.json').read_text())['config']
    except (OSError, ValueError, KeyError):
        raise InputError(f'{run}: holds no run (no readable config.json); name the folder of a run') from None
