"""Names the format of a file that is given as weights and is in another format."""

import html
import re
from collections.abc import Iterable
from pathlib import Path

from m2snet_jax.weights.placeholders import printable

HEAD = 4096  # bytes that are looked at
_BROWSER = 'the download needs a login or a confirmation: open its address in a browser, and save the file itself'
_EXPORT = "save the weights, under PyTorch's names, as .safetensors"
_UNPACK = 'unpack it, and name the file inside'
# (bytes, their position, what begins with them, what to do)
_BEGINNINGS = (
    (b'\x89HDF\r\n\x1a\n', 0, 'HDF5, as Keras writes it', _EXPORT),
    (b'\x1f\x8b', 0, 'a gzip archive', _UNPACK),
    (b'BZh', 0, 'a bzip2 archive', _UNPACK),
    (b'\xfd7zXZ', 0, 'an xz archive', _UNPACK),
    (b'\x28\xb5\x2f\xfd', 0, 'a Zstandard archive', _UNPACK),
    (b'7z\xbc\xaf', 0, 'a 7-Zip archive', _UNPACK),
    (b'Rar!', 0, 'a RAR archive', _UNPACK),
    (b'\x93NUMPY', 0, 'a NumPy array', _EXPORT),
    (b'TFL3', 4, 'a TensorFlow Lite model', _EXPORT),
    (b'GGUF', 0, 'GGUF', _EXPORT),
    (b'\x89PNG', 0, 'a PNG image', 'name the file of the weights'),
    (b'\xff\xd8\xff', 0, 'a JPEG image', 'name the file of the weights'),
    (b'%PDF', 0, 'a PDF document', 'name the file of the weights'),
)
_TORCH_MAGIC = b'\x80\x02\x8a\x0a'  # of the layout before PyTorch 1.6
_TABLE_END = b'\x57\xfb\x80\x8b\x24\x75\x47\xdb'  # of an index file of TensorFlow, a table of LevelDB


def foreign_format(path: Path) -> str | None:
    """Returns 'WHAT; WHAT TO DO' of a file that begins as another format than its ending says, else None.

    A file that does not end in `.safetensors` should be PyTorch's.
    """
    with path.open('rb') as file:
        head = file.read(HEAD)
    if head.startswith(b'version https://git-lfs'):
        size = re.search(rb'^size (\d{1,18})$', head, re.MULTILINE)
        meant = f'the file of {int(size[1]):,} bytes' if size else 'the file'
        return f'a Git LFS pointer to {meant}; run "git lfs pull" in its repository, or download the file itself'
    if _is_web_page(head):
        title = re.search(rb'<title[^>]*>(.*?)</title', head, re.DOTALL | re.IGNORECASE)
        title = title and printable(' '.join(html.unescape(title[1].decode(errors='replace')).split()))
        return f'a web page{f" ({title})" if title else ""}; {_BROWSER}'
    if path.suffix == '.safetensors':
        if head.startswith((b'PK\3\4', _TORCH_MAGIC)):
            return 'a PyTorch file; rename it so that it ends in .pth'
    elif _is_safetensors(head):
        return f'a safetensors file; rename it to {path.stem}.safetensors'
    return next((f'{what}; {advice}' for start, at, what, advice in _BEGINNINGS if head[at:].startswith(start)), None)


def guessed_format(path: Path) -> str | None:
    """Returns 'WHAT; WHAT TO DO' of a file that is no PyTorch file, by its name and bytes, or None."""
    with path.open('rb') as file:
        head = file.read(HEAD)
        file.seek(max(path.stat().st_size - len(_TABLE_END), 0))
        end = file.read()
    if end == _TABLE_END or re.search(r'\.data-\d{5}-of-\d{5}$', path.name) or b'model_checkpoint_path:' in head[:200]:
        return f'a part of a TensorFlow checkpoint; {_EXPORT}'
    if path.suffix == '.onnx' or (head[:1] == b'\x08' and re.search(rb'pytorch|onnx', head[:64])):
        return f'an ONNX model; {_EXPORT}'
    if path.suffix == '.pb':
        return f'a TensorFlow graph; {_EXPORT}'
    if path.suffix == '.msgpack':
        return f'a checkpoint of Flax in MessagePack; {_EXPORT}'
    if head[:1] == b'\x80' and head[1:2] in b'\2\3\4\5':
        return f'a pickle of Python, not of PyTorch; {_EXPORT}'
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return None
    if not all(character.isprintable() or character.isspace() for character in text):
        return None
    line = (text.strip().splitlines() or [''])[0]
    return f'text ({printable(line)}); download the file of the weights again'


def foreign_archive(names: Iterable[str]) -> str | None:
    """Returns 'WHAT; WHAT TO DO' of a zip file with these entries, which has no state dict, or None."""
    names = list(names)
    if any(name.endswith('/constants.pkl') or '/code/' in name for name in names):
        return 'a TorchScript program; save the state_dict() of the model alone'
    if 'model.weights.h5' in names:
        return f'a Keras model; {_EXPORT}'
    if names and all(name.endswith('.npy') for name in names):
        return f'NumPy arrays (.npz); {_EXPORT}'
    inside = next((name for name in names if name.lower().endswith(('.pth', '.pt', '.safetensors'))), None)
    return None if inside is None else f'a zip archive around {printable(inside)}; {_UNPACK}'


def _is_safetensors(head):
    """Whether a file begins with the length of a JSON header and that header."""
    return len(head) > 8 and int.from_bytes(head[:8], 'little') < 2**32 and head[8:].lstrip(b' ').startswith(b'{"')


def _is_web_page(head):
    start = head.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    return start.startswith((b'<!doctype', b'<html', b'<head', b'<?xml', b'<body', b'<script'))
