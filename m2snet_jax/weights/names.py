"""PyTorch names ↔ our paths, as one table, and state dicts in and out of a model.

Our paths follow PyTorch's dotted names; the rules below are the places where they differ. PyTorch keeps a
convolution as `[out, in, k, k]` and a linear layer as `[out, in]`, we keep `[k, k, in, out]` and `[in, out]`.
"""

import functools
import hashlib
import re
import types
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Shaped

from m2snet_jax.errors import InputError
from m2snet_jax.models.encoders import ENCODERS
from m2snet_jax.models.encoders.pvt import Pvt
from m2snet_jax.models.encoders.res2net import Res2Net
from m2snet_jax.models.encoders.resnet import ResNet
from m2snet_jax.models.encoders.vgg import BLOCKS, Vgg
from m2snet_jax.models.lossnet import LossNet
from m2snet_jax.models.m2snet import MSNet
from m2snet_jax.models.subtraction import CHANNELS
from m2snet_jax.weights.mismatches import mismatches

DEEPEST = 8  # shared prefixes of names, one after the other
Model = TypeVar('Model', bound=nnx.Module)
Array = Shaped[np.ndarray, '...']
_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}  # PyTorch's order of our axes, by their number
_ENCODER = 'resnet.'  # of the encoder in a network, whichever it is, as in the released program
_STEM = ('0', '1', '3', '4', '6')  # PyTorch counts the stem's ReLUs too
_FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # and the ReLUs and max-pools of a VGG-16
_VGG = ((r'^blocks\.(\d)\.(\d)', lambda match: f'features.{_feature(int(match[1]), int(match[2]))}'),)
# (our path, PyTorch's name), applied in this order to the whole dotted path. Without rules the two are equal.
_RULES = {
    Res2Net: (
        (r'^conv1\.(\d)', lambda match: f'conv1.{_STEM[int(match[1])]}'),
        (r'\.downsample\.(\d)', lambda match: f'.downsample.{int(match[1]) + 1}'),  # 0 is its pool
    ),
    Vgg: _VGG,
    LossNet: _VGG,
    MSNet: (
        (r'^reduction\.(\d)', lambda match: f'x{int(match[1]) + 2}_dem_1'),
        (r'^pyramid\.filters\.(\d+)\.norm', r'conv_\1.NORM'),
        (r'^(pyramid\.units|pyramid|enhancement)\.', ''),
        (r'\.project\.', '.'),
        (r'\.conv\.', '.0.'),
        (r'\.norm\.', '.1.'),
        (r'\.NORM\.', '.norm.'),
        (r'^output1\.', 'output1.0.'),
    ),
}
# What a file may hold beside the parameters of a model: ImageNet classifiers (of a VGG, torchvision's and timm's), and
# VGG beyond relu4_3.
_IGNORED = {
    Res2Net: r'fc\.',
    ResNet: r'fc\.',
    Vgg: r'(classifier|pre_logits|head)\.',
    Pvt: r'head\.',
    LossNet: r'(classifier|pre_logits|head|features\.(2[4-9]|[3-9]\d))\.',
}


def _feature(block: int, index: int) -> int:
    return _FEATURES[sum(map(len, BLOCKS[:block])) + index]


def _of_kind(table: Mapping[type, Any], model: nnx.Module, default: Any) -> Any:
    return next((entry for kind, entry in table.items() if isinstance(model, kind)), default)


def torch_name(model: nnx.Module, path: tuple) -> str:
    """Returns PyTorch's name of the variable at `path` (attributes and indices) in `model`."""
    if isinstance(model, MSNet) and path[0] == 'encoder':
        return _ENCODER + torch_name(model.encoder, path[1:])
    *parents, leaf = [str(part) for part in path]
    if isinstance(model, MSNet) and parents[:2] == ['pyramid', 'filters']:
        parents[2] = str(model.filter_sizes[int(parents[2])])
    name = '.'.join([*parents, ''])
    for pattern, replacement in _of_kind(_RULES, model, ()):
        name = re.sub(pattern, replacement, name)
    return name + _LEAVES[leaf]


def _variables(model: nnx.Module) -> dict[str, tuple[tuple, nnx.Variable]]:
    """Returns {PyTorch's name: (path, variable)} over all parameters and running statistics of `model`."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    return {torch_name(model, path): (path, variable) for path, variable in flat}


def _to_torch(array):
    return np.transpose(array, _AXES[array.ndim]) if array.ndim in _AXES else array


def _from_torch(array):
    return np.transpose(array, np.argsort(_AXES[array.ndim])) if array.ndim in _AXES else array


def state_dict(model: nnx.Module) -> dict[str, Array]:
    """Returns {PyTorch's name: array in PyTorch's layout} of everything `model` holds, in its own dtype.

    `model` is an MSNet, an M2SNet, an encoder or a LossNet. This is the exact inverse of `load_state_dict` over these
    names.
    """
    return {name: _to_torch(np.asarray(variable[...])) for name, (_, variable) in _variables(model).items()}


def model_hash(model: nnx.Module) -> str:
    """Returns the hexadecimal SHA-256 of everything `model` holds, as float32 under its PyTorch names.

    The same weights give the same hash, whatever kind of file they come from.
    """
    digest = hashlib.sha256()
    for name, array in sorted(state_dict(model).items()):
        digest.update(f'{name} {array.shape}\n'.encode())
        digest.update(np.ascontiguousarray(array, '<f4').data)
    return digest.hexdigest()


def load_state_dict(model: Model, arrays: Mapping[str, Array], *, names_shown: int | None = None) -> Model:
    """Puts a PyTorch state dict into `model`, in place, and returns the model.

    Args:
        model: an MSNet, an M2SNet, an encoder or a LossNet.
        arrays: by PyTorch's names, which may share prefixes, see `without_shared_prefixes`. Values are cast to the
            dtypes that the model holds.
        names_shown: of each kind of mismatch in the message; None: all.

    Raises:
        InputError: the weights are those of another encoder, or tensors are missing, misshapen or left over; the
            message names the encoders or these tensors, and the model is unchanged. Only ImageNet classifiers,
            `num_batches_tracked`, VGG beyond relu4_3 and full-one filters, which must be ones with zero bias, may be
            left over.
    """
    variables, arrays = _variables(model), without_shared_prefixes(model, arrays)
    shapes = _torch_shapes(variables)
    filters = _full_one_filters(model)
    problems = mismatches(shapes, arrays, filters, lambda name: _may_be_left_over(model, name), names_shown)
    if problems:
        held, there = (_encoder_in(known) for known in (shapes, {name: np.shape(arrays[name]) for name in arrays}))
        if there and held != there:
            has = f'; the encoder here is {held}' if held else ''
            # Without the names, which are hundreds.
            problems = [problem.partition(' (')[0] if problem[0].isdigit() else problem for problem in problems]
            problems[:0] = [f'they are those of the encoder {there}{has}']
        raise InputError(f'the weights do not fit {type(model).__name__}: ' + '; '.join(problems))
    flat = {
        path: variable.replace(jnp.asarray(_from_torch(np.asarray(arrays[name])), variable.dtype))
        for name, (path, variable) in variables.items()
    }
    nnx.update(model, nnx.from_flat_state(flat))
    return model


def without_shared_prefixes(model: nnx.Module, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    """Returns arrays without the prefixes that all their names share, as `model.` or `module.net.`.

    They are returned as they are where the names do not fit `model` then, or fit it already.
    """
    expected, shorter = _variables(model).keys(), arrays
    for _ in range(DEEPEST):
        if expected <= shorter.keys():
            return shorter
        if not all('.' in name for name in shorter) or len({name.partition('.')[0] for name in shorter}) != 1:
            break
        shorter = {name.partition('.')[2]: array for name, array in shorter.items()}
    return arrays


def _torch_shapes(variables: Mapping[str, tuple[tuple, nnx.Variable]]) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(item.shape[axis] for axis in _AXES.get(len(item.shape), range(len(item.shape))))
        for name, (_, item) in variables.items()
    }


@functools.cache
def _encoder_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Returns {PyTorch's name: shape} of an encoder of the table."""
    key = jax.random.key(0)
    rngs: Any = types.SimpleNamespace(params=lambda: key)  # as in `build.empty_model`
    dtypes = {'dtype': jnp.float32, 'param_dtype': jnp.float32}
    return _torch_shapes(_variables(nnx.eval_shape(lambda: ENCODERS[name](name, rngs=rngs, **dtypes))))


def _encoder_in(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Returns the name of the encoder whose tensors all are among these, alone or in a network; None without one."""
    found = {name.removeprefix(_ENCODER): shape for name, shape in shapes.items()}
    fitting = [name for name in ENCODERS if _encoder_shapes(name).items() <= found.items()]
    return max(fitting, key=lambda name: len(_encoder_shapes(name)), default=None)  # one may begin as another does


def _may_be_left_over(model: nnx.Module, name: str) -> bool:
    """Returns whether a tensor that `model` does not hold belongs to a file of ImageNet weights."""
    if isinstance(model, MSNet):
        return name.startswith(_ENCODER) and _may_be_left_over(model.encoder, name.removeprefix(_ENCODER))
    return re.match(_of_kind(_IGNORED, model, r'(?!)'), name) is not None


def _full_one_filters(model: nnx.Module) -> dict[str, Array]:
    """Returns {PyTorch's name: array} of the constant filters, which a file may hold and the models here do not."""
    filters = {}
    for size in getattr(model, 'filter_sizes', ()):
        filters[f'conv_{size}.weight'] = np.broadcast_to(1.0, (CHANNELS, CHANNELS, size, size))
        filters[f'conv_{size}.bias'] = np.zeros(CHANNELS)
    return filters
