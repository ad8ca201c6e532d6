"""Damaged and foreign files: read rightly or refused with one clear line, whatever happened to their bytes."""

import io
import random
import struct
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torch_files import GOLDEN, dict_of, nothing_runs, storage, tensor, write_stream, write_zip

from m2snet_jax.errors import InputError
from m2snet_jax.weights.torch_file import read_torch_file

ONE = np.float32([1]).tobytes()
GOOD = dict_of({'w': tensor(storage('FloatStorage', '0', 1), 0, (1,), (1,))})


def test_the_zip_itself_is_checked(tmp_path):
    path = tmp_path / 'a.pth'

    def refused(message):
        with pytest.raises(InputError, match=message):
            read_torch_file(path)

    write_zip(path, GOOD, {'0': ONE})
    data = bytearray(path.read_bytes())
    assert read_torch_file(path) == {'w': 1}
    path.write_bytes(data.replace(ONE, b'\0\0\0\0'))
    refused('checksum of archive/data/0')
    last = data.rindex(b'PK\x01\x02')
    path.write_bytes(data[: last + 42] + struct.pack('<I', 0) + data[last + 46 :])  # data/0 begins where data.pkl does
    refused('overlaps')
    write_zip(path, GOOD, {'0': bytes(10**6)}, compression=zipfile.ZIP_DEFLATED)
    refused('compressed')
    write_zip(path, GOOD, {'0': ONE * 2})
    refused('should have 4 bytes, it has 8')
    write_zip(path, GOOD, {})
    refused('should have 4 bytes, it has 0')
    write_zip(path, GOOD, {'0': ONE})
    with zipfile.ZipFile(path, 'a') as file, pytest.warns(UserWarning, match='Duplicate'):
        file.writestr('archive/data/0', ONE)
    refused('overlaps')
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('document.xml', 'a word processor writes zip files too')
    refused('no data.pkl')
    write_zip(path, GOOD, {'0': ONE})
    with zipfile.ZipFile(path, 'a') as file:
        file.writestr('archive/byteorder', 'big')
    refused('big-endian')
    write_zip(path, GOOD, {'0': ONE} | {f'{i:060000}': b'' for i in range(80)})
    refused('piece of 4,8')  # the table of contents alone takes more


def test_the_stream_itself_is_checked(tmp_path):
    path = tmp_path / 'a.pth'
    write_stream(path, GOOD, {'0': ONE}, {'0': 2})
    with pytest.raises(InputError, match='storage 0 should have 1 elements'):
        read_torch_file(path)
    write_stream(path, GOOD, {'1': ONE})
    with pytest.raises(InputError, match='list of storages'):
        read_torch_file(path)


def test_missing_and_foreign_files(tmp_path):
    def refused(name, message):
        with pytest.raises(InputError, match=f'{name}.*{message}') as caught:
            read_torch_file(tmp_path / name)
        assert '\n' not in str(caught.value)

    refused('missing.pth', 'no such file')
    refused('', 'no such file')
    (tmp_path / 'empty.pth').touch()
    refused('empty.pth', 'empty')
    for name, start in {
        'text': b'weights\n',
        'png': b'\x89PNG\r\n\x1a\n',
        'hdf5': b'\x89HDF\r\n',
        'json': b'{"a": 1}',
    }.items():
        (tmp_path / f'{name}.pth').write_bytes(start * 50)
        refused(f'{name}.pth', 'is not a PyTorch file')
    with tarfile.open(tmp_path / 'tar.pth', 'w') as file:
        for name in ('sys_info', 'pickle', 'storages', 'tensors'):
            file.addfile(tarfile.TarInfo(name), io.BytesIO())
    refused('tar.pth', 'tar archive')
    for name in ('truncated_new', 'truncated_old', 'not_a_checkpoint'):
        with pytest.raises(InputError, match=f'{name}.pth.*(truncated|not a PyTorch file)'):
            read_torch_file(GOLDEN / f'{name}.pth')


def damaged(data, draw):
    """Returns bytes changed as a bad disk, a bad line or a bad person would."""
    data = bytearray(data)
    where = draw.randrange(len(data) if draw.random() < 0.5 else min(len(data), 1500))
    match draw.randrange(5):
        case 0:
            return data[:where]
        case 1:
            data[where : where + 8] = draw.choice([b'\xff', b'\x7f', b'\x00']) * draw.choice([1, 4, 8])
        case 2:
            data[where:where] = data[draw.randrange(len(data)) :][: draw.randrange(1, 40)]
        case _:
            for _ in range(draw.choice([1, 1, 2, 8])):
                data[draw.randrange(where, len(data))] = draw.randrange(256)
    return data


@pytest.mark.parametrize('name', sorted(file.stem for file in GOLDEN.glob('*.pth')))
def test_damaged_files_are_read_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    original, path, draw = (GOLDEN / f'{name}.pth').read_bytes(), tmp_path / 'damaged.pth', random.Random(name)
    errors = []
    tracemalloc.start()
    for _ in range(400):
        path.write_bytes(damaged(original, draw) or b'\0')
        tracemalloc.reset_peak()
        started, (before, _) = time.perf_counter(), tracemalloc.get_traced_memory()
        with nothing_runs():
            try:
                assert all(isinstance(array, np.ndarray) for array in read_torch_file(path).values())
            except InputError as error:
                errors.append(str(error))
        assert tracemalloc.get_traced_memory()[1] - before < 70e6
        assert time.perf_counter() - started < 5
    tracemalloc.stop()
    assert len(errors) > 100
    assert all('damaged.pth: ' in error and error.isprintable() for error in errors)
    assert not Path('PWNED').exists()
