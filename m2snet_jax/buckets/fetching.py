"""Fetches what lies in a bucket into its copy, and only what has changed."""

import base64
import concurrent.futures
import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from m2snet_jax.buckets import copies
from m2snet_jax.buckets.client import THREADS, TIMEOUT, object_at, patiently, storage_client
from m2snet_jax.buckets.copies import LAST_OF_STEP, LOCK, STEP, address_of, signature
from m2snet_jax.errors import InputError


class Stored(NamedTuple):
    """One object of a bucket: its name, bytes, hash and generation."""

    name: str
    size: int
    hash: str
    generation: int


def fetch(path: Path, *, checkpoints: bool = True) -> None:
    """Fetches what lies at the address of a copy and is not there yet; nothing for other paths.

    The copy's time is computed from the hash of the object, so that an unchanged one is recognised. Several processes
    of a computer wait for each other, so that each object is fetched once.

    Args:
        path: a file, a folder, or a pattern, whose folder before the first * is fetched.
        checkpoints: without, only which checkpoints are whole.

    Raises:
        InputError: the bucket cannot be read.
    """
    path = _before_pattern(path)
    place = address_of(path)
    if place is None or any((one, True) in copies.state.fetched for one in (path, *path.parents)):
        return
    if (path, checkpoints) in copies.state.fetched:
        return
    written = copies.state.scratch is not None and path.is_relative_to(copies.state.scratch)
    with contextlib.nullcontext() if written else _one_at_a_time(path):
        _fetch(path, *place, checkpoints, written)
    copies.state.fetched.add((path, checkpoints))


def refetch(path: Path) -> None:
    """Fetches what other processes have put below a copy that is written, and leaves what is there."""
    if (place := address_of(path)) is not None:
        _fetch(path, *place, True, True)


def _fetch(path, bucket, prefix, checkpoints, written):
    top = Path(str(path)[: len(str(path)) - len(prefix)] if prefix else path)
    stored = _listed(bucket, prefix)
    whole = {found[0] for one in stored if (found := STEP.match(one.name)) and one.name == found[0] + LAST_OF_STEP}
    wanted, strays = [], []
    for one in stored:
        step = STEP.match(one.name)
        if step and step[0] not in whole:  # a save that did not end
            strays.append(top / one.name)
            continue
        deferred = step and not checkpoints and one.name != step[0] + LAST_OF_STEP and not STEP.match(f'{prefix}/')
        if not deferred and one.name.rpartition('/')[2] != LOCK and not _is_there(top / one.name, one, written):
            wanted.append(one)
    _fetch_all(bucket, wanted, top, written)
    if written:
        copies.state.strays.update(strays)
    elif path.is_dir():
        names = {top / one.name for one in stored}
        for file in path.rglob('*'):
            if file.is_file() and file not in names and not file.name.startswith('.'):
                file.unlink(missing_ok=True)


def _is_there(path, stored, written):
    try:
        status = path.stat()
    except OSError:
        return False
    return written or (status.st_size, status.st_mtime_ns) == (stored.size, _time_of(stored.hash))


def _fetch_all(bucket, wanted, top, written):
    """Fetches objects, several at once, each under another name until it is whole."""
    from tqdm import tqdm

    def one(stored):
        path = top / stored.name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f'.{os.getpid()}.{path.name}')
        blob = object_at(bucket, stored.name)
        options = {'retry': None, 'timeout': TIMEOUT, 'raw_download': True}
        try:
            patiently(lambda: blob.download_to_filename(str(temporary), **options), f'gs://{bucket}/{stored.name}')
            time_of_hash = _time_of(stored.hash)
            os.utime(temporary, ns=(time_of_hash, time_of_hash))
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(f'{path}: cannot be written ({error.strerror or error})') from None
        finally:
            temporary.unlink(missing_ok=True)
        if written:
            with copies.state.changed:
                copies.state.put[path] = signature(path.stat())

    shown = {'unit': 'file', 'disable': None, 'file': sys.stderr}
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        running = [threads.submit(one, stored) for stored in wanted]
        try:
            for done in tqdm(concurrent.futures.as_completed(running), f'gs://{bucket}', len(running), **shown):
                done.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _before_pattern(path):
    parts = path.parts
    return Path(*parts[: next((n for n, part in enumerate(parts) if '*' in part), len(parts))])


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Waits until no other process of this computer fetches into the cache what lies at the same address."""
    try:
        import fcntl
    except ImportError:  # Windows; each object is replaced whole anyway
        yield
        return
    assert copies.state.cache is not None
    name = '.' + re.sub(r'[^\w.-]', '+', str(path.relative_to(copies.state.cache)))[:200] + '.lock'
    copies.state.cache.mkdir(parents=True, exist_ok=True)
    with (copies.state.cache / name).open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _listed(bucket: str, prefix: str) -> list[Stored]:
    """Returns the objects at or below a name."""

    def listed():
        return list(storage_client().list_blobs(bucket, prefix=prefix or None, retry=None, timeout=TIMEOUT))

    found = []
    for blob in patiently(listed, f'gs://{bucket}/{prefix}', missing=f'gs://{bucket}: there is no such bucket'):
        inside = not prefix or blob.name == prefix or blob.name.startswith(f'{prefix}/')
        if not inside or blob.name.endswith('/'):
            continue
        if {'', '.', '..'} & set(blob.name.split('/')):
            raise InputError(f'gs://{bucket}/{blob.name}: this name cannot be a path; rename the object')
        found.append(Stored(blob.name, blob.size or 0, blob.md5_hash or blob.crc32c or '', blob.generation or 0))
    return found


def _time_of(hash_: str) -> int:
    """Returns a time in ns, between 2001 and 2017, computed from the hash of an object."""
    return 10**18 + int.from_bytes(base64.b64decode(hash_)[:8].ljust(8, b'\0')) % (5 * 10**17) // 1000 * 1000
