"""Hostile and absurd files: one clear error each, in little time and memory, and nothing runs."""

import gc
import struct
import time
import tracemalloc

import numpy as np
import pytest
from torch_files import GOLDEN, dict_of, integer, nothing_runs, storage, tensor, text, tuple_of, write

from m2snet_jax.errors import InputError
from m2snet_jax.weights.torch_file import read_torch_file


def test_the_listener_hears():
    with pytest.raises(AssertionError), nothing_runs():
        eval('1 + 1')


@pytest.fixture(params=['zip', 'stream'])
def path(request, tmp_path):
    return tmp_path / f'{request.param}.pth'


NAMES = {'eval': '__builtin__.eval', 'import': 'importlib.import_module', 'system': 'posix.system'}


@pytest.mark.parametrize('layout', ['new', 'old'])
@pytest.mark.parametrize('attack', NAMES)
def test_malicious_files_are_refused_by_name(attack, layout, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = GOLDEN / f'malicious_{attack}_{layout}.pth'
    with nothing_runs(), pytest.raises(InputError, match=f'{file.name}.*{NAMES[attack]}'):
        read_torch_file(file)


ATTACKS = {  # by opcodes that torch never writes; each asks for posix.system
    'instance': b"(S'touch PWNED'\niposix\nsystem\n",
    'stack': b'\x8c\x05posix\x8c\x06system\x93' + text('touch PWNED') + b'\x85R',
    'new object': b'cposix\nsystem\n' + text('touch PWNED') + b'\x85\x81',
    'object': b'(cposix\nsystem\n' + text('touch PWNED') + b'o',
    'protocol 0': b"(lp0\ncposix\nsystem\n(S'touch PWNED'\ntRa",
}


@pytest.mark.parametrize('attack', ATTACKS)
def test_other_ways_to_call_are_refused_by_name(attack, path):
    write(path, ATTACKS[attack])
    with nothing_runs(), pytest.raises(InputError, match=r'posix\.system'):
        read_torch_file(path)
    path.write_bytes(ATTACKS[attack] + b'.')  # a bare pickle
    with nothing_runs(), pytest.raises(InputError, match=r'posix\.system'):
        read_torch_file(path)


def test_what_the_file_asks_for_cannot_break_the_message(path):
    write(path, b'cos\x1b[2J\n' + b'x' * 10_000 + b'\n')
    with pytest.raises(InputError) as caught:
        read_torch_file(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


ONE = np.float32([1]).tobytes()


def over(count, size, stride, offset=0):
    return dict_of({'w': tensor(storage('FloatStorage', '0', count), offset, size, stride)})


COLLIDING = [b'\x8a\x0c' + (i * (2**61 - 1)).to_bytes(12, 'little') + b'N' for i in range(25_000)]
ABSURD = {
    'a storage of 10^15 elements': (over(10**15, (10**15,), (1,)), r'4,000,000,000,000,\d\d\d bytes'),
    'a tensor of 10^15 elements': (over(1, (10**15,), (1,)), r'\(1000000000000000,\) reaches beyond'),
    'a view of 10^15 elements': (over(1, (10**15,), (0,)), 'claim 4,000,000,000,000,000 bytes'),
    'a view of more than numbers can hold': (over(1, (2**62,) * 64, (0,) * 64), 'bytes, the file has'),
    'more dimensions than numpy knows': (over(1, (1,) * 65, (1,) * 65), 'dimensions'),
    'an offset behind the end': (over(1, (1,), (1,), offset=1), 'reaches beyond'),
    'a negative offset': (over(1, (1,), (1,), offset=-1), 'not a count'),
    'a negative stride': (over(1, (1, 1), (1, -1)), 'not a count'),
    'a stride too few': (over(1, (1, 1), (1,)), 'strides'),
    'a size that is text': (over(1, (1,), (1,)).replace(tuple_of(integer(1)), text('1'), 1), 'not a count'),
    'a huge number': (
        over(1, (1,), (1,)).replace(integer(1), b'\x8b' + struct.pack('<I', 9999) + b'\x11' * 9999),
        'count',
    ),
    'many views': (
        dict_of({str(i): tensor(storage('FloatStorage', '0', 1), 0, (10**6,), (0,)) for i in range(100)}),
        'claim 400,000,000 bytes',
    ),
    'a storage of two types': (
        over(1, (1,), (1,)) + dict_of({'v': tensor(storage('IntStorage', '0', 1), 0, (1,), (1,))}),
        'two ways',
    ),
    'a piece of text of 2^63 bytes': (b'\x8d' + struct.pack('<Q', 2**63 - 1), 'piece of 9,223,372,036,854,775,807'),
    'bytes of 2^62 bytes': (b'\x8e' + struct.pack('<Q', 2**62), 'piece of'),
    'a number of 2^31 bytes': (b'\x8b' + struct.pack('<i', 2**31 - 1), 'piece of'),
    'a call of a number': (b'K\x05)R', 'not a function'),
    'a tensor without a storage': (tensor(b'K\x05', 0, (1,), (1,)), 'where another belongs'),
    'an empty stack': (b'R', 'truncated, damaged'),
    'a memo that was never written': (b'h\x05', 'truncated, damaged'),
    'tensors beside a dictionary': (
        b'](' + tensor(storage('FloatStorage', '0', 1), 0, (1,), (1,)) + b'e',
        'but a list',
    ),
    'no tensors': (dict_of({'epoch': b'K\x05', 'G': dict_of({})}), 'found: epoch, G'),
    'no end': (b'N' * 500_001, 'more than 500,000 opcodes'),
    # Harmless here, deadly for an unpickler that hashes, copies or allocates what it is told to.
    'one long list in many calls': (
        b'](NNeq\x02](' + b'h\x02' * 20_000 + b'eq\x00ccollections\nOrderedDict\nq\x01' + b'h\x01h\x00\x85R' * 20_000,
        'no tensors',
    ),
    'keys that collide': (b'}(' + b''.join(COLLIDING) + b'u', 'no tensors'),
}


@pytest.mark.parametrize('claim', ABSURD)
def test_absurd_claims_are_refused_in_little_time_and_memory(claim, path, nothing_allocated):
    content, message = ABSURD[claim]
    write(path, content, {'0': ONE} if text('storage') in content else {})
    with nothing_runs(), pytest.raises(InputError, match=f'{path.name}: .*({message})'):
        read_torch_file(path)


@pytest.fixture(params=['time', 'memory'])
def nothing_allocated(request):
    """Fails if a test computes for more than 5 seconds; in a second run, whose memory is traced, if it takes 100 MB."""
    gc.freeze()  # what earlier tests left is not looked through again
    if request.param == 'time':
        started = time.thread_time()
        yield
        found, most = time.thread_time() - started, 5
    else:
        tracemalloc.start()
        yield
        (_, found), most = tracemalloc.get_traced_memory(), 100e6
        tracemalloc.stop()
    gc.unfreeze()
    assert found < most


def test_deep_endless_and_far_numbered_things_do_no_harm(path, nothing_allocated):
    deep = b')' + b'\x85' * 50_000  # as a key, its hash recurses
    doubling = b')q\x00' + b'h\x00h\x00\x86q\x00' * 100  # as a key, its hash takes 2^100 steps
    endless = b'}r\xff\xff\xff\xff' + text('model_state') + b'j\xff\xff\xff\xffs'  # holds itself
    good = text('w') + tensor(storage('FloatStorage', '0', 1), 0, (1,), (1,))
    write(path, b'}(' + deep + b'N' + doubling + b'N' + text('e') + endless + good + b'u', {'0': ONE})
    assert read_torch_file(path) == {'w': 1}
    write(path, endless, {})
    with pytest.raises(InputError, match='no tensors'):
        read_torch_file(path)
