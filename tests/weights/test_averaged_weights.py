"""Averaged weights in a file: found, named, and taken only when they are asked for."""

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file
from torch_files import dict_of, integer, storage, tensor, write_zip

from m2snet_jax import LossNet, load_config
from m2snet_jax.build import build_model
from m2snet_jax.errors import InputError
from m2snet_jax.weights import load_weights, read_torch_file, state_dict

ORDINARY, AVERAGED = np.float32([1]).tobytes(), np.float32([2]).tobytes()


def weights(key, prefix=''):
    one = tensor(storage('FloatStorage', key, 1), 0, (1,), (1,))
    return {f'{prefix}{name}': one for name in ('conv.weight', 'norm.bias')}


def counted(key, prefix='module.'):
    return dict_of({'n_averaged': tensor(storage('FloatStorage', key, 1), 0, (), ()), **weights(key, prefix)})


LAYOUTS = {
    'ema': {'model': dict_of(weights('0')), 'ema': dict_of(weights('1'))},
    'state_dict_ema': {'state_dict': dict_of(weights('0')), 'state_dict_ema': dict_of(weights('1', 'module.'))},
    'model_ema': {'model': dict_of({'state_dict': dict_of(weights('0')), 'model_ema': dict_of(weights('1'))})},
    'ema_state_dict': {'net': dict_of(weights('0')), 'ema_state_dict': dict_of({'state_dict': dict_of(weights('1'))})},
    'EMA': {'state_dict': dict_of(weights('0')), 'EMA': dict_of({'decay': b'K\x01', 'shadow': dict_of(weights('1'))})},
    'swa': {'state_dict': dict_of(weights('0')), 'swa': counted('1')},
    'averaged_model': {'model': dict_of(weights('0')), 'averaged_model': counted('1')},
    'params_ema': {'params': dict_of(weights('0')), 'params_ema': dict_of(weights('1'))},
    'ema_model': {'state_dict': dict_of(weights('0', 'model.') | weights('1', 'ema_model.'))},
}


@pytest.mark.parametrize('name', LAYOUTS)
def test_they_are_named_and_taken_when_asked_for(name, tmp_path, caplog):
    path = tmp_path / 'a.pth'
    write_zip(path, dict_of({'epoch': integer(3), **LAYOUTS[name]}), {'0': ORDINARY, '1': AVERAGED})
    ordinary = read_torch_file(path)
    assert [array.tolist() for array in ordinary.values()] == [[1], [1]]
    assert f'{path}: averaged weights are there too, not taken: {name}' in caplog.text
    averaged = read_torch_file(path, name)
    assert [array.tolist() for array in averaged.values()] == [[2], [2]]
    assert next(iter(averaged)).endswith('conv.weight')
    with pytest.raises(InputError, match=f"no averaged weights 'other' .*; there are {name}"):
        read_torch_file(path, 'other')


def test_alone_they_are_not_taken_unasked(tmp_path):
    path = tmp_path / 'a.pth'
    write_zip(path, dict_of({'epoch': integer(3), 'model_ema': dict_of(weights('1'))}), {'1': AVERAGED})
    with pytest.raises(InputError, match=r'averaged weights alone; .*--config.model.weights_average=model_ema'):
        read_torch_file(path)
    assert read_torch_file(path, 'model_ema')['norm.bias'] == 2


def test_numbers_and_parts_of_a_network_are_no_averaged_weights(tmp_path, caplog):
    path = tmp_path / 'a.pth'
    content = {
        'average': integer(3),
        'ema': dict_of({'decay': integer(1)}),
        'state_dict': dict_of(weights('0', 'ema.')),
    }
    write_zip(path, dict_of({**content, 'swa': counted('0', 'other.')}), {'0': ORDINARY})
    assert list(read_torch_file(path)) == ['ema.conv.weight', 'ema.norm.bias']
    with pytest.raises(InputError, match=r'there are swa$'):
        read_torch_file(path, 'ema')


def test_a_model_and_a_config_choose_them(tmp_path):
    path = tmp_path / 'a.safetensors'
    plain = {name: np.zeros_like(array) for name, array in state_dict(LossNet(rngs=nnx.Rngs(0))).items()}
    plain = {name: array for name, array in plain.items() if 'features.0.' in name}
    save_file({f'net.{k}': a for k, a in plain.items()} | {f'swa.{k}': a + 1 for k, a in plain.items()}, path)
    assert not read_torch_file(path)['net.features.0.bias'].any()
    assert read_torch_file(path, 'swa')['features.0.bias'].all()
    with pytest.raises(InputError, match='the weights do not fit LossNet: 18 missing'):
        load_weights(nnx.eval_shape(lambda: LossNet(rngs=nnx.Rngs(0))), path, 'swa')
    keys = {'model.encoder': 'res2net14', 'model.weights_average': 'ema', 'model.weights': str(path)}
    with pytest.raises(InputError, match=r"no averaged weights 'ema' .*; there are swa"):
        build_model(load_config('quickstart', **keys))
