"""Atomic writes of the files that this package itself writes, the cache folder, and JSON.

Orbax, TFDS and TensorBoard write their own files.
"""

import contextlib
import importlib.metadata
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from m2snet_jax.errors import InputError

PACKAGES = ('m2snet_jax', 'jax', 'flax', 'optax', 'numpy', 'scipy', 'opencv-python-headless', 'pillow')


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, a file or a folder, which gets its name when the block ends without error.

    The parent folder is made. A file replaces an older one. Raises InputError if it cannot be written.
    """
    path = Path(path)
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
    """Writes text, as UTF-8, or bytes; see `whole`."""
    with whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


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
    """Returns the folder of this package in the user's cache; it need not exist."""
    return platformdirs.user_cache_path('m2snet_jax', appauthor=False)


def versions() -> dict[str, str]:
    """Returns the versions of the packages that shape a result."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
