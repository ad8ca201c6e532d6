"""Paths as users write them, atomic writes of the files that this package writes, the cache folder, and JSON.

A path at gs:// becomes that of its copy on this computer; see buckets/.

Orbax, TFDS and TensorBoard write their own files.
"""

import contextlib
import errno
import importlib.metadata
import json
import math
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from m2snet_jax import buckets
from m2snet_jax.buckets import fetch, finish, publish, refetch, with_addresses
from m2snet_jax.errors import InputError

__all__ = ['fetch', 'finish', 'publish', 'refetch', 'with_addresses']

PACKAGES = ('m2snet_jax', 'jax', 'flax', 'optax', 'numpy', 'scipy', 'opencv-python-headless', 'pillow')
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)
_ADDRESS = re.compile(r'[A-Za-z][A-Za-z0-9+.-]+:/')  # pathlib makes one slash of two; C:/ is a drive
_VARIABLE = re.compile(r'\$(?:([A-Za-z_]\w*)|\{([^}]*)\})')


def local_path(path: str | Path, name: str = '', *, written: bool = False, fetched: bool = True) -> Path:
    """Returns a path as users write it as a path of this computer, which need not exist.

    `~` and `$VARIABLES` are expanded. A name that exists in the other Unicode form (macOS decomposes accents) is
    returned as it exists. What lies in a bucket (gs://) is fetched, and the path of the copy is returned.

    Args:
        name: of the flag, key or environment variable that holds the path, for the error.
        written: whether the program writes there; a copy in a bucket is then this process's own.
        fetched: without, nothing is fetched yet; a later call for the returned path does it.

    Raises:
        InputError: another address, `~` without a home folder, a variable that is not set, a link that leads to
            itself, or a bucket that cannot be read.
    """
    text = os.fspath(path)
    given = f'{name}={text}' if name else text
    if buckets.is_address(text):
        text = str(buckets.copy_of(text, given, cache_folder(), written=written))
    refuse_address(text, given)
    if text.startswith('~'):
        expanded = os.path.expanduser(text)
        if expanded == text:
            user = text.partition(os.sep)[0]
            raise InputError(f'{given}: there is no home folder for {user}; give an absolute path')
        text = expanded
    if '$' in text and not os.path.lexists(text):
        for found in _VARIABLE.finditer(text):
            if (variable := found[1] or found[2]) not in os.environ:
                raise InputError(f'{given}: the environment variable {variable} is not set')
        text = os.path.expandvars(text)
        if _ADDRESS.match(text):
            return local_path(text, name, written=written, fetched=fetched)
    if fetched:
        fetch(Path(text), checkpoints=False)
    for form in (text, unicodedata.normalize('NFC', text), unicodedata.normalize('NFD', text)):
        if _exists(form, given):
            return Path(form)
    return Path(text)


def refuse_address(text: str, given: str) -> None:
    """Raises InputError, which begins with `given`, for s3:// and the like, and gs:// where none may be."""
    if _ADDRESS.match(text):
        kind = text.partition(':')[0]
        raise InputError(
            f'{given}: an address ({kind}://) where a local folder is needed; copy the files, mount it, or use gs://'
        )


def _exists(path, given):
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            raise InputError(f'{given}: cannot be opened ({error.strerror}); name another path') from None
        return False
    except ValueError:  # a null character
        raise InputError(f'{given!r}: not a path') from None
    return True


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, a file or a folder, which gets its name when the block ends without error.

    The parent folder is made. A file replaces an older one. Raises InputError for an address, or a path that
    cannot be written.
    """
    path = Path(path)
    refuse_address(str(path), str(path))
    temporary = path.with_name(f'.{os.getpid()}.{path.name}')  # the ending is kept, since some writers look at it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f'{path}: cannot be written ({error.strerror or error})') from None
    except InputError as error:  # of a file inside the folder
        raise InputError(str(error).replace(str(temporary), str(path))) from None
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                temporary.unlink()


def write(path: str | Path, content: str | bytes) -> None:
    """Writes text, as UTF-8, or bytes; see `whole`. In a text, file names that are not UTF-8 keep their bytes."""
    with whole(path) as temporary:
        temporary.write_bytes(content.encode(errors='surrogateescape') if isinstance(content, str) else content)


def append(path: Path, text: str) -> None:
    """Appends text, as UTF-8, to a file; raises InputError if it cannot be written."""
    try:
        with path.open('a', encoding='utf-8', errors='surrogateescape') as file:
            file.write(text)
    except OSError as error:
        raise InputError(f'{path}: cannot be written ({error.strerror or error})') from None


def refusal(error: BaseException | None) -> str | None:
    """Returns why the system refused to write, e.g. a full disk, from what a library raised; None for other errors."""
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        for number in REFUSALS:
            if os.strerror(number) in str(error):  # as libraries in C++ say it
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


def write_json(path: str | Path, value: Any) -> None:
    """Writes a value as indented JSON; NaN and infinity as text, see `json_value`."""
    write(path, json.dumps(json_value(value), indent=1) + '\n')


def json_value(value: Any) -> Any:
    """Returns a value with NaN and infinity as the text 'nan', 'inf' or '-inf', since JSON has neither."""
    if isinstance(value, dict):
        return {key: json_value(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_json_lines(path: str | Path) -> list:
    """Returns the values of a file with one JSON value a line, up to the first line that is incomplete."""
    path, rows = Path(path), []
    for line in path.read_text(encoding='utf-8').splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def cache_folder() -> Path:
    """Returns the folder of this package in the user's cache; it need not exist.

    That of a user without a home folder is in the folder for temporary files.
    """
    path = platformdirs.user_cache_path('m2snet_jax', appauthor=False)
    if path.is_absolute() and '~' not in path.parts:
        return path
    path = Path(tempfile.gettempdir()) / f'm2snet_jax-{os.getuid()}'
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.getuid():  # anybody may make folders there
        raise InputError(f"{path}: is another user's; set the environment variable XDG_CACHE_HOME to a folder of yours")
    return path


def versions() -> dict[str, str]:
    """Returns the versions of the packages that shape a result."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
