"""PyTorch files, read without PyTorch and without running anything in them.

A `.pth` file is a program: a pickle, whose opcodes name functions and call them. `torch_pickle.py` interprets it
without running anything and returns where each tensor is in the file. The numbers are then read by memory map, after
every size and position was checked.

Two layouts exist. Since PyTorch 1.6 a file is an uncompressed zip: `<top>/data.pkl`, and the bytes of each storage in
`<top>/data/<key>`. Before, it is five pickles one after the other (magic number, version, system, the objects, the list
of storage keys), then for each key the number of elements (int64) and the bytes.
"""

import json
import mmap
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from m2snet_jax.errors import InputError
from m2snet_jax.storage import write
from m2snet_jax.weights.torch_pickle import Tensor, printable, unpickle

Array = Shaped[np.ndarray, '...']
_LONGEST_READ = 4 * 2**20  # bytes of one string or number of a pickle, or of the directory of a zip file
_LARGEST_RESULT = 4  # times the file's size: expanded views, shared storages, bfloat16 widened …
_SMALL_RESULT = 64 * 2**20  # … but this many bytes are always fine
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_WRAPPERS = ('state_dict', 'model_state_dict', 'model_state', 'model', 'net', 'network', 'weights', 'params')


def read_torch_file(path: str | Path) -> dict[str, Array]:
    """Reads the tensors of a `.safetensors` file, or of any other file as PyTorch's of either layout.

    Returns:
        The arrays by name, in the file's order, with PyTorch's names and layouts: contiguous, writable copies of the
        stored type, but bfloat16, which numpy lacks, as float32 (exact). The state dict is also looked for under the
        usual keys (`{'state_dict': …}`, `{'model': …}`). Other entries, what is not a tensor, and the prefixes
        `module.` and `_orig_mod.`, where every name has them, are left out.

    Raises:
        InputError: the file is missing, empty, truncated, damaged or of another kind, claims more bytes than it has, or
            asks for anything but tensors in plain containers; the message says for what.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f'{path}: no such file')
    if path.stat().st_size == 0:
        raise InputError(f'{path}: the file is empty')
    try:
        return _without_prefixes(_read_safetensors(path) if path.suffix == '.safetensors' else _read_pickled(path))
    except InputError as error:
        raise InputError(f'{path}: {error}') from None
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror or error})') from error
    except Exception as error:  # on invalid bytes any step can fail in any way
        found = printable(str(error) if isinstance(error, ValueError) else f'{type(error).__name__}: {error}')
        raise InputError(f'{path}: truncated, damaged or not a weights file ({found})') from error


def write_safetensors(path: str | Path, arrays: Mapping[str, Array], about: Mapping[str, str] | None = None) -> None:
    """Writes arrays by name as a safetensors file, with `about` in its header.

    The file is written whole or not at all; raises InputError if it cannot be written.
    """
    from safetensors.numpy import save

    # The library ignores strides, and its own `save_file` writes files that only their owner can read.
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    data = save(contiguous, {'format': 'pt', **(about or {})})
    # It also writes `about` in random order. Sorted, the same arrays give the same file.
    start, size = 8, int.from_bytes(data[:8], 'little')
    header = json.loads(data[start : start + size])
    header['__metadata__'] = dict(sorted(header['__metadata__'].items()))
    text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
    write(path, data[:start] + text.ljust(size) + data[start + size :])


def read_about(path: Path) -> dict[str, str]:
    """Returns what the header of a safetensors file says about it; nothing for a file of another kind."""
    if path.suffix != '.safetensors':
        return {}
    from safetensors import safe_open

    with safe_open(path, 'numpy') as file:
        return file.metadata() or {}


def _read_safetensors(path: Path) -> dict[str, Array]:
    from safetensors.numpy import load_file

    arrays = load_file(path)
    wide = {name: array.astype(np.float32) for name, array in arrays.items() if array.dtype.name == 'bfloat16'}
    return arrays | wide


def _read_pickled(path: Path) -> dict[str, Array]:
    with path.open('rb') as handle:
        file = _MappedFile(handle.fileno(), 0, access=mmap.ACCESS_READ)
    if file[:4] == b'PK\3\4':
        content, starts = _read_zip(file)
    else:
        content, starts = _read_stream(file, path)
    tensors = _find_state_dict(content)
    nbytes = sum(tensor.nbytes() for tensor in tensors.values())
    if nbytes > max(_LARGEST_RESULT * len(file), _SMALL_RESULT):
        raise InputError(f'its tensors claim {nbytes:,} bytes, the file has {len(file):,}')
    arrays = {}
    for name, tensor in tensors.items():
        arrays[name] = tensor.array(file, starts[tensor.storage.key])
        file.release()
    return arrays


def _find_state_dict(content: Any) -> dict[str, Tensor]:
    """Returns the tensors by name, from inside the wrappers if there are any."""
    for _ in range(len(_WRAPPERS)):
        if not isinstance(content, dict):
            raise InputError(f'holds no state dict but a {type(content).__name__.strip("_").lower()}')
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), dict) and content[key]]
        if not inner:
            break
        content = inner[0]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        found = ', '.join(printable(key) for key in list(content)[:8]) or 'nothing'
        raise InputError(f'holds no tensors, neither at its top nor under {", ".join(_WRAPPERS)}; found: {found}')
    return tensors


def _without_prefixes(arrays: dict[str, Array]) -> dict[str, Array]:
    for prefix in ('module.', '_orig_mod.', 'module.'):  # DataParallel, torch.compile, or both
        if all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays


class _MappedFile(mmap.mmap):
    """The file as bytes and as a stream that refuses to copy a long piece, whatever length a header claims."""

    def read(self, length: int | None = None) -> bytes:
        if length is not None and length > _LONGEST_READ:
            raise InputError(f'has a piece of {length:,} bytes where at most {_LONGEST_READ:,} make sense')
        return super().read(length)

    def release(self) -> None:
        """Releases the pages read so far, since what was read is copied."""
        if hasattr(mmap, 'MADV_DONTNEED'):
            self.madvise(mmap.MADV_DONTNEED)


def _read_zip(file: _MappedFile) -> tuple[Any, dict[str, int]]:
    """Returns the content and {storage key: position of its first byte}."""
    entries = _zip_entries(file)
    pickles = [name for name in entries if name.endswith('/data.pkl') and name.count('/') == 1]
    if len(pickles) != 1:
        raise InputError('is a zip file, but not of PyTorch: it holds no data.pkl')
    top = pickles[0].removesuffix('data.pkl')
    if f'{top}byteorder' in entries and file[slice(*entries[f'{top}byteorder'][:2])] != b'little':
        raise InputError('was written on a big-endian machine, which is not supported')
    file.seek(entries[pickles[0]][0])
    content, storages = unpickle(file)
    names = {key: f'{top}data/{key}' for key in storages}
    for key, name in names.items():
        start, end, _ = entries.get(name, (0, 0, 0))
        if end - start != storages[key].nbytes():
            raise InputError(f'{printable(name)} should have {storages[key].nbytes():,} bytes, it has {end - start:,}')
    for name in (pickles[0], *names.values()):
        start, end, checksum = entries[name]
        with memoryview(file) as view, view[start:end] as piece:
            if zlib.crc32(piece) != checksum:
                raise InputError(f'damaged (or saved without checksums): the checksum of {printable(name)} is wrong')
        file.release()
    return content, {key: entries[name][0] for key, name in names.items()}


def _zip_entries(file: Any) -> dict[str, tuple[int, int, int]]:
    """Returns {name: (start, end, checksum)} of a zip file in which nothing is compressed or overlaps."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise InputError('is a truncated or damaged zip file') from error
    entries, limit = {}, archive.start_dir
    for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset, reverse=True):
        name, header = printable(entry.filename), file[entry.header_offset : entry.header_offset + 30]
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise InputError(f'its entry {name} is compressed or encrypted: no state dict (a TorchScript program?)')
        lengths = int.from_bytes(header[26:28], 'little') + int.from_bytes(header[28:30], 'little')  # name, padding
        start = entry.header_offset + len(header) + lengths
        end = start + entry.file_size
        if header[:4] != b'PK\3\4' or end > limit or entry.filename in entries:
            raise InputError(f'its zip entry {name} is damaged or overlaps another')
        entries[entry.filename] = start, end, entry.CRC
        limit = entry.header_offset
    return entries


def _read_stream(file: _MappedFile, path: Path) -> tuple[Any, dict[str, int]]:
    """Does the same for the layout before PyTorch 1.6."""
    try:
        magic, _ = unpickle(file)
    except InputError:
        raise
    except Exception:
        magic = None
    if magic != _MAGIC_NUMBER:
        if tarfile.is_tarfile(path):
            raise InputError('is a tar archive, the layout before PyTorch 0.2: load and save it with a newer PyTorch')
        raise InputError('is not a PyTorch file')
    for _ in ('version', 'system'):
        unpickle(file)
    content, storages = unpickle(file)
    keys, _ = unpickle(file)
    if not isinstance(keys, list) or any(type(key) is not str for key in keys) or set(keys) != set(storages):
        raise InputError('damaged: its list of storages does not fit its tensors')
    starts, position = {}, file.tell()
    for key in keys:
        count = int.from_bytes(file[position : position + 8], 'little')
        starts[key] = position + 8
        position += 8 + storages[key].nbytes()
        if position > len(file):
            raise InputError(f'truncated: it should have at least {position:,} bytes, it has {len(file):,}')
        if count != storages[key].count:
            raise InputError(f'damaged: storage {printable(key)} should have {storages[key].count:,} elements')
    return content, starts
