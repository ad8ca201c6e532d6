"""What people save beside the tensors: left out unread and named in the log; in a tensor's place it is refused."""

import argparse
import collections
import datetime
import fractions
import pathlib
import pickle
import uuid

import numpy as np
import pytest
from torch_files import dict_of, nothing_runs, storage, tensor, text, write

from m2snet_jax.errors import InputError
from m2snet_jax.weights.torch_file import read_torch_file

ONE = np.float32([1]).tobytes()


class Settings:
    """A class of a training program; files hold its name alone."""

    def __init__(self):
        self.lr, self.folder = 0.1, pathlib.PurePosixPath('/a/b')


@pytest.fixture(params=['zip', 'stream'])
def path(request, tmp_path):
    return tmp_path / f'{request.param}.pth'


def pickled(value, protocol=2):
    """The opcodes that make a value, to stand inside another pickle."""
    return pickle.dumps(value, protocol)[2:-1]


def weight(name='layer.weight'):
    return dict_of({name: tensor(storage('FloatStorage', '0', 1), 0, (1,), (1,))})


EXTRAS = {
    'scalar': (np.float64(0.9), 'multiarray.scalar'),
    'array': (np.arange(5.0), 'multiarray._reconstruct'),
    'generator': (np.random.default_rng(0), 'numpy.random'),
    'random state': (np.random.RandomState(0), 'numpy.random'),
    'namespace': (argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath('/a')), 'argparse.Namespace'),
    'path': (pathlib.PurePosixPath(*'abcdefghijkl'), 'PurePosixPath'),
    'nested': ({'folders': [{'out': pathlib.PurePosixPath('/a')}]}, 'PurePosixPath'),
    'date': (datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC), 'datetime.datetime'),
    'duration': (datetime.timedelta(seconds=3), 'datetime.timedelta'),
    'counter': (collections.Counter(a=1), 'collections.Counter'),
    'default': (collections.defaultdict(dict, {'a': {}}), 'collections.defaultdict'),
    'queue': (collections.deque([1, 2], 4), 'collections.deque'),
    'fraction': (fractions.Fraction(1, 3), 'fractions.Fraction'),
    'id': (uuid.UUID(int=5), 'uuid.UUID'),
    'own class': (Settings(), 'test_checkpoint_extras.Settings'),
    'class itself': (Settings, 'test_checkpoint_extras.Settings'),
    'function itself': (pickled, 'test_checkpoint_extras.pickled'),
}


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('kind', EXTRAS)
def test_what_is_no_tensor_is_left_out_and_named(kind, protocol, path, caplog):
    value, name = EXTRAS[kind]
    write(
        path, dict_of({'epoch': b'K\x05', 'state_dict': weight(), 'extra thing': pickled(value, protocol)}), {'0': ONE}
    )
    with nothing_runs():
        assert read_torch_file(path) == {'layer.weight': 1}
    assert f'{path}: left out unread' in caplog.text
    assert 'extra thing' in caplog.text
    assert name in caplog.text


def test_plain_data_are_left_out_without_a_word(path, caplog):
    optimizer = pickled({'state': {0: {'step': 3}}, 'param_groups': [{'lr': 0.1, 'betas': (0.9, 0.99), 'params': [0]}]})
    write(path, dict_of({'optimizer': optimizer, 'seen': pickled({'a', 'b'}, 4), 'state_dict': weight()}), {'0': ONE})
    assert read_torch_file(path) == {'layer.weight': 1}
    assert caplog.text == ''


@pytest.mark.parametrize('value', [np.float32(1), np.ones(1, 'f4'), argparse.Namespace(a=1), Settings()])
def test_in_the_place_of_a_tensor_it_is_refused(value, path):
    inside = weight()[:-1] + text('layer.bias') + pickled(value) + b'u'
    for content in (dict_of({'state_dict': inside}), inside):
        write(path, content, {'0': ONE})
        with (
            nothing_runs(),
            pytest.raises(InputError, match=r'layer\.bias is no tensor; refused: it asks for ') as caught,
        ):
            read_torch_file(path)
        assert type(value).__name__ in str(caught.value) or 'numpy' in str(caught.value)


@pytest.mark.parametrize('where', ['top', 'state_dict', 'storage'])
def test_in_the_place_of_everything_it_is_refused(where, path):
    stranger = pickled(Settings())
    content = {
        'top': stranger,
        'state_dict': dict_of({'epoch': b'K\x05', 'state_dict': stranger}),
        'storage': dict_of({'w': tensor(stranger, 0, (1,), (1,))}),
    }[where]
    write(path, content)
    with nothing_runs(), pytest.raises(InputError, match=r'refused: it asks for test_checkpoint_extras\.Settings'):
        read_torch_file(path)


CALLS = {  # none of them makes plain data
    'another function': (b'cnumpy.testing\nrunstring\n' + text('x') + b'\x85R', r'numpy\.testing\.runstring'),
    'another class': (b'csomewhere\nCommand\n' + text('x') + b'\x85R', r'somewhere\.Command'),
    'a method of a path': (b'\x8c\x07pathlib\x8c\x0bPath.unlink\x93' + text('x') + b'\x85R', r'pathlib\.Path\.unlink'),
    'a class of Python': (b'csubprocess\nPopen\n' + text('x') + b'\x85\x81', r'subprocess\.Popen'),
    'under an old name': (b'c__builtin__\neval\n' + text('1') + b'\x85R', r'__builtin__\.eval'),
    'what a placeholder returns': (b'cdatetime\ndate\n)R)R', r'datetime\.date'),
    'getattr': (b'cbuiltins\ngetattr\ncposix\nposix\n' + text('system') + b'\x86R', r'builtins\.getattr'),
    'partial': (b'cfunctools\npartial\ncposix\nsystem\n\x85\x81', r'functools\.partial'),
}


@pytest.mark.parametrize('call', CALLS)
def test_other_calls_are_refused_by_name_wherever_they_are(call, path):
    content, name = CALLS[call]
    write(path, dict_of({'state_dict': weight(), 'extra': content}), {'0': ONE})
    with nothing_runs(), pytest.raises(InputError, match=f'refused: it asks for {name}'):
        read_torch_file(path)
