"""Weights whose arrays would fit a network with other switches: what is recorded of them is compared."""

import functools
import json
import re

import numpy as np
import pytest
from flax import nnx

from m2snet_jax import InputError, M2SNet, load_config, load_model
from m2snet_jax.__main__ import main
from m2snet_jax.weights import load_weights, state_dict, write_safetensors

CONFIG = ['--config=quickstart', '--config.data.size=48']
SWITCHES = {'add': {'operation': 'add'}, 'level': {'add_level': True}, 'filters': {'filters': (5, 7)}}
SHOWN = {
    'add': 'columns=5, filters=(3, 5), operation=add, add_level=False',
    'level': 'columns=5, filters=(3, 5), operation=subtract, add_level=True',
    'filters': 'columns=5, filters=(5, 7), operation=subtract, add_level=False',
}
HERE = 'columns=5, filters=(3, 5), operation=subtract, add_level=False'


@functools.cache
def arrays():
    """Of a network; the switches above do not change their shapes."""
    return state_dict(M2SNet('res2net14', rngs=nnx.Rngs(0)))


def empty(**switches):
    return nnx.eval_shape(lambda: M2SNet('res2net14', **switches, rngs=nnx.Rngs(0)))


@pytest.fixture(scope='module', params=SWITCHES)
def converted(request, tmp_path_factory):
    """The name of some switches, and their network as a file and as a folder, both written by `convert`."""
    folder, switches = tmp_path_factory.mktemp(request.param), SWITCHES[request.param]
    renamed = {name.replace('conv_5', 'conv_7').replace('conv_3', 'conv_5'): array for name, array in arrays().items()}
    write_safetensors(folder / 'bare.safetensors', renamed if request.param == 'filters' else arrays())
    keys = [f'--config.model.{key}={value}' for key, value in switches.items()]
    for target in ('model.safetensors', 'model'):
        assert main(['', 'convert', str(folder / 'bare.safetensors'), str(folder / target), *CONFIG, *keys]) == 0
    return request.param, folder


@pytest.mark.parametrize('target', ['model.safetensors', 'model'])
def test_weights_of_other_switches_are_refused_though_their_arrays_fit(converted, target):
    name, folder = converted
    there = f'they are of a network with {SHOWN[name]}, and this one has {HERE}'
    message = f'{folder / target}: the weights do not fit M2SNet: {there}'
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load_weights(empty(), folder / target)
    assert '\n' not in str(caught.value)
    loaded = state_dict(load_weights(empty(**SWITCHES[name]), folder / target))
    np.testing.assert_array_equal(loaded['x5_x4.0.weight'], arrays()['x5_x4.0.weight'])


def test_a_folder_predicts_with_its_own_switches(converted):
    name, folder = converted
    predictor = load_model(folder / 'model')
    assert predictor.model.switches == empty(**SWITCHES[name]).switches
    keys = {f'model.{key}': value for key, value in SWITCHES[name].items()}
    other = load_model(folder / 'model.safetensors', config=load_config('quickstart', **{'data.size': 48, **keys}))
    assert other.model.switches == predictor.model.switches
    assert other.model_hash == predictor.model_hash
    graph = nnx.split(predictor.model)[0]
    assert graph == nnx.split(other.model)[0]


def test_a_file_without_a_record_is_read_as_the_config_says(converted):
    name, folder = converted
    if name != 'filters':  # whose sizes are in the names
        load_weights(empty(), folder / 'bare.safetensors')
    with pytest.raises(InputError, match=r'expected m2snet with res2net14'):
        load_model(folder / 'model.safetensors', config=load_config('quickstart'))


def test_a_run_from_before_the_switches_has_their_defaults(tmp_path):
    write_safetensors(tmp_path / 'bare.safetensors', arrays())
    run = tmp_path / 'run'
    assert main(['', 'convert', str(tmp_path / 'bare.safetensors'), str(run), *CONFIG]) == 0
    record = json.loads((run / 'config.json').read_text())
    for room, keys in (
        ('model', ('columns', 'filters', 'operation', 'add_level', 'drop_path')),
        ('optimizer', ('name', 'schedule', 'warmup', 'clip')),
        ('data', ('normalisation',)),
    ):
        for key in keys:
            del record['config'][room][key]
    (run / 'config.json').write_text(json.dumps(record))
    assert load_model(run).model.switches == empty().switches
    load_weights(empty(), run)
