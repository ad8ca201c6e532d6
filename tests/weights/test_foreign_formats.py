"""Files that are not weights, or not in the format of their ending: named as what they are, with what to do."""

import gzip
import io
import json
import struct
import zipfile

import numpy as np
import pytest
from torch_files import GOLDEN

from m2snet_jax.errors import InputError
from m2snet_jax.weights.torch_file import read_torch_file

LFS = b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 101203471\n'
PAGE = b'\n<!DOCTYPE html><html><head><title>Sign in &amp; go on\n</title></head><body></body></html>'
HEADER = json.dumps({'w': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}}).encode()
SAFETENSORS = struct.pack('<Q', len(HEADER)) + HEADER + bytes(4)


def zipped(*names):
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w') as file:
        for name in names:
            file.writestr(name, 'x')
    return data.getvalue()


FILES = {
    'lfs.pth': (LFS, 'not a PyTorch file but a Git LFS pointer to the file of 101,203,471 bytes; .*git lfs pull'),
    'lfs.safetensors': (LFS, 'not a safetensors file but a Git LFS pointer'),
    'page.pth': (PAGE, r'a web page \(Sign in & go on\); .*in a browser'),
    'page.safetensors': (PAGE, 'not a safetensors file but a web page'),
    'renamed.pth': (SAFETENSORS, 'a safetensors file; rename it to renamed.safetensors'),
    'torch.safetensors': ((GOLDEN / 'new_format.pth').read_bytes(), 'a PyTorch file; rename it'),
    'old.safetensors': ((GOLDEN / 'old_format.pth').read_bytes(), 'a PyTorch file; rename it'),
    'keras.h5': (b'\x89HDF\r\n\x1a\n' + bytes(99), 'HDF5, as Keras writes it; save the weights'),
    'model.keras': (zipped('metadata.json', 'config.json', 'model.weights.h5'), 'no data.pkl; it is a Keras model'),
    'arrays.npz': (zipped('a.npy', 'b.npy'), 'no data.pkl; it is NumPy arrays'),
    'archive.pth': (zipped('best/model.pth'), 'a zip archive around best/model.pth; unpack it'),
    'script.pt': (zipped('m/constants.pkl', 'm/code/a.py'), 'a TorchScript program; save the state_dict'),
    'document.pth': (zipped('word/document.xml'), 'a zip file, but not of PyTorch: it holds no data.pkl$'),
    'net.pth.gz': (gzip.compress(b'x' * 99), 'a gzip archive; unpack it'),
    'net.onnx': (b'\x08\x07\x12\x07pytorch\x1a\x052.1.0' + bytes(99), 'an ONNX model; save the weights'),
    'onnx.pth': (b'\x08\x07\x12\x07pytorch\x1a\x052.1.0' + bytes(99), 'an ONNX model; save the weights'),
    'model.ckpt-1.index': (bytes(99) + bytes.fromhex('57fb808b247547db'), 'a part of a TensorFlow checkpoint'),
    'model.ckpt-1.data-00000-of-00001': (bytes(range(1, 99)), 'a part of a TensorFlow checkpoint'),
    'checkpoint': (b'model_checkpoint_path: "model.ckpt-1"\n', 'a part of a TensorFlow checkpoint'),
    'saved_model.pb': (b'\x08\x01\x12\xff\x01' + bytes(99), 'a TensorFlow graph'),
    'error.pth': (b'{"error": "Not Found"}\n', r'text \(\{"error": "Not Found"\}\); download'),
    'arrays.pkl': (b'\x80\x04}\x94.', 'a pickle of Python, not of PyTorch'),
    'array.npy': (b'\x93NUMPY\x01\0' + bytes(99), 'a NumPy array'),
}


@pytest.mark.parametrize('name', FILES)
def test_the_format_is_named_with_what_to_do(name, tmp_path):
    content, message = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f'{name}: is .*{message}') as caught:
        read_torch_file(tmp_path / name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value).removeprefix(str(tmp_path))) < 300


def test_a_file_of_the_right_format_is_read(tmp_path):
    (tmp_path / 'a.safetensors').write_bytes(SAFETENSORS)
    assert read_torch_file(tmp_path / 'a.safetensors') == {'w': np.zeros(1)}
