"""Puts what a program writes into the bucket: a thread puts each file as one whole object."""

import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from m2snet_jax.buckets import copies
from m2snet_jax.buckets.client import THREADS, TIMEOUT, object_at, patiently
from m2snet_jax.buckets.copies import LAST_OF_STEP, LOCK, STEP, address_of
from m2snet_jax.errors import InputError

LONG_PATIENCE = 3600  # seconds for which is tried again to put what was computed
_LAST_OF_RUN = 'scores/summary.json'


def publish(folder: Path) -> None:
    """Puts what has changed below a copy that is written into the bucket, in the background; nothing for other paths.

    Each file gets there as it is now, even if the program appends to it meanwhile.

    Raises:
        InputError: what was to be put before could not be, for an hour.
    """
    if copies.state.scratch is None or not folder.is_relative_to(copies.state.scratch):
        return
    if copies.state.error is not None:
        raise copies.state.error
    now = {path: copies.signature(status) for path, status in _files(folder)}
    with copies.state.changed:
        known = {path: one for path, one in copies.state.put.items() if path.is_relative_to(folder)}
        changes: dict = {path: one for path, one in now.items() if known.get(path) != one}
        copies.state.put.update(changes)
        for path in known.keys() - now.keys():
            del copies.state.put[path]
            changes[path] = None
        copies.state.pending.update(changes)
        if copies.state.thread is None:
            copies.state.thread = threading.Thread(target=_put_all, daemon=True, name='bucket')
            copies.state.thread.start()
        copies.state.changed.notify_all()


def finish(folder: Path | None = None) -> None:
    """Puts everything below a folder, by default all that this process wrote, and waits until it is in the bucket.

    Raises:
        InputError: it cannot be put; the message names the folder of this computer that has it.
    """
    if copies.state.scratch is None or not copies.state.scratch.exists():
        return
    publish(folder or copies.state.scratch)
    with copies.state.changed:
        while (copies.state.pending or copies.state.working) and copies.state.error is None:
            copies.state.changed.wait(1)
    if copies.state.error is not None:
        raise copies.state.error


def _put_all():
    """Puts what is pending, again and again."""
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        while True:
            with copies.state.changed:
                copies.state.working = False
                copies.state.changed.notify_all()
                while not copies.state.pending:
                    copies.state.changed.wait()
                batch, copies.state.pending, copies.state.working = copies.state.pending, {}, True
            try:
                # What says that a folder is whole comes after the rest of it, and goes first.
                for order in sorted({_order(path, one) for path, one in batch.items()}):
                    chosen = [(path, one) for path, one in batch.items() if _order(path, one) == order]
                    list(threads.map(lambda pair: _put(*pair), chosen))
            except InputError as error:
                where = f'what this process has written is in {copies.state.scratch}'
                copies.state.error = InputError(
                    f'{error}; {where}: copy the run from there, or go on with it as --workdir'
                )
            except Exception as error:
                copies.state.error = InputError(f'the bucket cannot be written ({type(error).__name__}: {error})')
            if copies.state.error is not None:
                with copies.state.changed:
                    copies.state.working = False
                    copies.state.changed.notify_all()
                return


def _order(path, signature):
    name = path.as_posix()
    is_last_of_step = path.name == LAST_OF_STEP and STEP.fullmatch(f'{path.parent.as_posix()}/') is not None
    if signature is None:
        return 3 if is_last_of_step else 4
    return 1 if is_last_of_step else 2 if name.endswith(_LAST_OF_RUN) else 0


def _put(path, signature):
    """Puts a file as it was when its signature was taken, or deletes its object."""
    bucket, name = address_of(path) or ('', '')
    blob = object_at(bucket, name)
    what = f'gs://{bucket}/{name}'
    if signature is None:
        patiently(lambda: _deleted(blob), what, LONG_PATIENCE)
        return
    try:
        with path.open('rb') as file:
            appended = os.fstat(file.fileno()).st_ino == signature[2]
            content = file.read(signature[0] if appended else -1)  # another file took its place: a whole one
    except FileNotFoundError:  # removed meanwhile; the next look will find that
        return
    options = {'content_type': 'application/octet-stream', 'retry': None, 'timeout': TIMEOUT}
    patiently(lambda: blob.upload_from_string(content, **options), what, LONG_PATIENCE)


def _deleted(blob):
    from google.api_core.exceptions import NotFound  # pyright: ignore[reportMissingImports]

    with contextlib.suppress(NotFound):
        blob.delete(retry=None, timeout=TIMEOUT)


def _files(folder: Path) -> Iterable[tuple[Path, os.stat_result]]:
    """Yields the files below a folder that are whole, with their status."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name.startswith('.') or entry.name == LOCK or 'orbax-checkpoint-tmp' in entry.name:
            continue
        with contextlib.suppress(FileNotFoundError):
            if entry.is_dir():
                yield from _files(Path(entry.path))
            else:
                yield Path(entry.path), entry.stat()
