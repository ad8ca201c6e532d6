"""Prefixes that all names of a file share, and short messages where names do not fit."""

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from m2snet_jax.errors import InputError
from m2snet_jax.models.encoders.res2net import Res2Net
from m2snet_jax.weights import load_state_dict, load_weights, state_dict
from m2snet_jax.weights.names import without_shared_prefixes


def encoder():
    return nnx.eval_shape(lambda: Res2Net('res2net14', rngs=nnx.Rngs(0)))


@pytest.fixture(scope='module')
def arrays():
    """Every tensor of an encoder, full of ones."""
    model = encoder()
    with pytest.raises(InputError) as caught:
        load_state_dict(model, {})
    assert ' more' not in str(caught.value)  # all of them by name
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), nnx.state(model))
    nnx.update(model, ones)
    return {name: np.ascontiguousarray(array) for name, array in state_dict(model).items()}


@pytest.mark.parametrize(
    'prefix', ['', 'model.', 'net.', 'module.model.', 'backbone.', '_orig_mod.module.encoder.net.']
)
def test_shared_prefixes_are_left_out_where_the_names_fit_then(prefix, arrays, tmp_path):
    more = {'fc.weight': np.zeros((3, 3), 'f4'), 'bn1.num_batches_tracked': np.array(3)}
    save_file({f'{prefix}{name}': array for name, array in (arrays | more).items()}, tmp_path / 'a.safetensors')
    loaded = state_dict(load_weights(encoder(), tmp_path / 'a.safetensors'))
    assert loaded.keys() == arrays.keys()
    assert all((array == 1).all() for array in loaded.values())


def test_without_a_fit_names_stay_as_they_are(arrays):
    model = encoder()
    less = {f'model.{name}': array for name, array in arrays.items() if name != 'bn1.bias'}
    assert without_shared_prefixes(model, less) is less
    mixed = {f'model.{name}': array for name, array in arrays.items()} | {'head.weight': np.zeros(1)}
    assert without_shared_prefixes(model, mixed) is mixed
    deep = {'a.' * 100_000 + 'b': np.zeros(1)}
    assert without_shared_prefixes(model, deep) is deep


def test_a_file_that_does_not_fit_shows_three_names_of_each_kind(arrays, tmp_path):
    other = {f'b.{name}' if 'layer4' in name else name: array for name, array in arrays.items()}
    other |= {'bn1.bias': np.ones(5, 'f4'), 'x\x1b[2J' * 50: np.ones(1, 'f4')}
    save_file(other, tmp_path / 'a.safetensors')
    with pytest.raises(InputError) as caught:
        load_weights(encoder(), tmp_path / 'a.safetensors')
    message = str(caught.value).removeprefix(str(tmp_path))
    count = sum('layer4' in name for name in arrays)
    assert f'{count} missing (layer4.0.' in message
    assert f' and {count - 3} more); 1 misshapen (bn1.bias is (5,), not (64,)); {count + 1} unexpected (' in message
    assert message.count('layer4') <= 6
    assert len(message) < 700
    assert message.isprintable()
