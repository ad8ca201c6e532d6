"""Reading PyTorch files: those that torch wrote, and odd tensors written by hand."""

import struct

import numpy as np
import pytest
from torch_files import GOLDEN, dict_of, integer, storage, tensor, text, tuple_of, write, write_stream, write_zip

from m2snet_jax.errors import InputError
from m2snet_jax.weights.torch_file import read_torch_file


@pytest.fixture(params=['zip', 'stream'])
def path(request, tmp_path):
    return tmp_path / f'{request.param}.pth'


@pytest.mark.parametrize('name', ['new_format', 'old_format', 'wrapped_data_parallel'])
def test_golden_files_are_read_equal(name):
    expected = np.load(GOLDEN / 'expected.npz')
    arrays = read_torch_file(GOLDEN / f'{name}.pth')
    assert list(arrays) == list(expected)
    for key, array in arrays.items():
        assert array.dtype == expected[key].dtype
        np.testing.assert_array_equal(array, expected[key])
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_views_of_one_storage(path):
    data = np.arange(120, dtype=np.float32)
    whole = storage('FloatStorage', '7', 120)
    tensors = {
        'module.channels_last': tensor(whole, 0, (2, 3, 4, 5), (60, 1, 15, 3)),
        'module.transposed': tensor(whole, 0, (6, 10), (1, 6)),
        'module.every_third': tensor(whole, 2, (4,), (3,)),
        'module.expanded': tensor(whole, 5, (3, 2), (0, 1)),
        'module.overlapping': tensor(whole, 0, (118, 3), (1, 1)),
        'module.scalar': tensor(whole, 119, (), ()),
        'module.empty': tensor(whole, 120, (0, 10**6), (1, 1)),
    }
    write(path, dict_of({'epoch': b'K\x05', 'model': dict_of({'state_dict': dict_of(tensors)})}), {'7': data.tobytes()})
    arrays = read_torch_file(path)
    assert list(arrays) == [name.removeprefix('module.') for name in tensors]
    np.testing.assert_array_equal(arrays['channels_last'], data.reshape(2, 4, 5, 3).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(arrays['transposed'], data[:60].reshape(10, 6).T)
    np.testing.assert_array_equal(arrays['every_third'], [2, 5, 8, 11])
    np.testing.assert_array_equal(arrays['expanded'], [[5, 6]] * 3)
    np.testing.assert_array_equal(arrays['overlapping'], data[:118, None] + np.arange(3))
    assert arrays['scalar'].shape == ()
    assert arrays['scalar'] == 119
    assert arrays['empty'].shape == (0, 10**6)
    arrays['expanded'][0, 0] = -1  # copies: of the file, and of one another
    assert arrays['every_third'][1] == 5


KINDS = {
    'Double': 'f8', 'Float': 'f4', 'Half': 'f2', 'ComplexDouble': 'c16', 'ComplexFloat': 'c8', 'Long': 'i8',
    'Int': 'i4', 'Short': 'i2', 'Char': 'i1', 'Byte': 'u1',
}  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_storage(kind, tmp_path):
    data = np.random.default_rng(0).integers(0, 100, 48).astype(KINDS[kind])
    contents = dict_of({'w': tensor(storage(f'{kind}Storage', '0', 48), 8, (5, 8), (8, 1))})
    write_zip(tmp_path / 'zip.pth', contents, {'0': data.tobytes()})
    write_stream(tmp_path / 'stream.pth', contents, {'0': data.tobytes()}, {'0': 48})
    for name in ('zip.pth', 'stream.pth'):
        array = read_torch_file(tmp_path / name)['w']
        assert array.dtype == data.dtype
        np.testing.assert_array_equal(array, data[8:].reshape(5, 8))


def test_bfloat16_becomes_float32_and_bools_are_zero_or_one(tmp_path):
    bits = np.arange(2**16, dtype=np.uint16)  # every bfloat16 there is: the upper half of a float32
    content = dict_of(
        {
            'b': tensor(storage('BFloat16Storage', '0', 2**16), 0, (2**16,), (1,)),
            't': tensor(storage('BoolStorage', '1', 3), 0, (3,), (1,)),
        }
    )
    write_zip(tmp_path / 'a.pth', content, {'0': bits.tobytes(), '1': bytes([0, 1, 255])})
    arrays = read_torch_file(tmp_path / 'a.pth')
    assert arrays['b'].dtype == np.float32
    np.testing.assert_array_equal(arrays['b'], (bits.astype(np.uint32) << 16).view(np.float32))
    np.testing.assert_array_equal(arrays['t'].view(np.uint8), [0, 1, 1])


def test_other_ways_to_rebuild_a_tensor(tmp_path):
    data = np.arange(6, dtype=np.uint16)
    untyped = storage('UntypedStorage', '0', 12).replace(b'ctorch\n', b'ctorch.storage\n')
    part = storage('FloatStorage', '1', 8, view=tuple_of(text('part'), integer(2), integer(4)))
    plain = tensor(part, 1, (2,), (1,))
    content = dict_of(
        {
            'typed': tensor(untyped, 2, (2, 2), (2, 1), '_rebuild_tensor_v3', [b'ctorch\nuint16\n']),
            'part': plain,
            'parameter': b'ctorch._utils\n_rebuild_parameter\n' + tuple_of(plain, b'\x88', b'N') + b'R',
            'attributes': plain + dict_of({'_is_buffer': b'\x88'}) + b'b',
            'class': b'ctorch._tensor\n_rebuild_from_type_v2\n'
            + tuple_of(b'ctorch._utils\n_rebuild_parameter\n', b'ctorch\nTensor\n', tuple_of(plain), dict_of({}))
            + b'R',
        }
    )
    python2 = b'ccollections\nOrderedDict\n](](' + text('state_dict') + content + b'ee\x85R'
    write_zip(tmp_path / 'a.pth', python2, {'0': data.tobytes(), '1': np.arange(8, dtype=np.float32).tobytes()})
    arrays = read_torch_file(tmp_path / 'a.pth')
    np.testing.assert_array_equal(arrays.pop('typed'), np.uint16([[2, 3], [4, 5]]), strict=True)
    assert len(arrays) == 4
    for array in arrays.values():
        np.testing.assert_array_equal(array, np.float32([3, 4]), strict=True)


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip('safetensors.numpy')
    arrays = {'module.w': np.arange(6, dtype=np.float32).reshape(2, 3), 'module.n': np.array(7)}
    safetensors.save_file(arrays, tmp_path / 'a.safetensors')
    read = read_torch_file(tmp_path / 'a.safetensors')
    assert sorted(read) == ['n', 'w']
    for name, array in read.items():
        np.testing.assert_array_equal(array, arrays[f'module.{name}'], strict=True)
    header = b'{"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    data = struct.pack('<Q', len(header)) + header + b'\x80\x3f\x20\xc0'
    (tmp_path / 'b.safetensors').write_bytes(data)
    np.testing.assert_array_equal(read_torch_file(tmp_path / 'b.safetensors')['b'], np.float32([1, -2.5]), strict=True)
    (tmp_path / 'b.safetensors').write_bytes(data[:-1])
    with pytest.raises(InputError, match=r'b\.safetensors: truncated'):
        read_torch_file(tmp_path / 'b.safetensors')


@pytest.mark.parametrize('layout', ['zip', 'stream'])
@pytest.mark.parametrize('protocol', [2, 4])
def test_what_torch_writes_is_read_equal(layout, protocol, tmp_path):
    torch = pytest.importorskip('torch')
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    state = net.state_dict()
    whole = torch.randn(60)
    state |= {
        'slice': whole[3:50:4],
        'shared': whole,
        'expanded': whole[:5].expand(7, 5),
        'flipped': whole.view(6, 10).t(),
    }
    for name in ('float64', 'float16', 'bfloat16', 'complex64', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool'):
        state[name] = (50 * torch.randn(7)).abs().to(getattr(torch, name))
    state |= {'parameter': torch.nn.Parameter(whole[:3]), 'empty': torch.zeros(0, 3), 'scalar': torch.tensor(2.5)}
    contents = {'epoch': 3, 'optimizer': optimizer.state_dict(), 'device': torch.device('cpu'), 'size': whole.size()}
    contents['state_dict'] = {f'module.{name}': value for name, value in state.items()}
    torch.save(
        contents,
        tmp_path / 'a.pth',
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=layout == 'zip',
    )
    arrays = read_torch_file(tmp_path / 'a.pth')
    assert list(arrays) == list(state)
    for name, value in state.items():
        value = value.detach().float() if name == 'bfloat16' else value.detach()
        np.testing.assert_array_equal(arrays[name], value.numpy(), strict=True)
