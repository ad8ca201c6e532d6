"""The lock of a folder in a bucket, so that one program writes there: an object that only one program can make."""

import contextlib
import datetime
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging

from m2snet_jax.buckets import copies
from m2snet_jax.buckets.client import TIMEOUT, object_at, patiently, reason, server_time
from m2snet_jax.buckets.copies import LOCK, address_of
from m2snet_jax.buckets.uploads import finish
from m2snet_jax.errors import InputError

REFRESH, STALE = 60, 600  # seconds after which a lock is refreshed; without which it counts as left behind


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds the lock of a copy that is written: an object that only one program can make, refreshed every minute.

    Raises:
        InputError: another program holds it and has refreshed it in the last ten minutes.
    """
    bucket, name = address_of(folder) or ('', '')
    blob = object_at(bucket, f'{name}/{LOCK}')
    about = {'pid': os.getpid(), 'host': socket.gethostname(), 'machine': _machine()}
    about['since'] = datetime.datetime.now().astimezone().isoformat(' ', 'seconds')
    content = json.dumps(about)
    generation = _take(blob, content, f'gs://{bucket}/{name}')
    with copies.state.changed:  # only the one writer may delete them: another's save may be under way
        copies.state.pending.update(dict.fromkeys(path for path in copies.state.strays if path.is_relative_to(folder)))
        copies.state.strays.clear()
    ended = threading.Event()

    def refresh():
        nonlocal generation
        while not ended.wait(REFRESH):
            try:
                generation = _conditional_put(blob, content, generation)
            except Exception as error:
                if type(error).__name__ == 'PreconditionFailed':
                    copies.state.error = copies.state.error or InputError(
                        f'gs://{bucket}/{name}: another run has taken over this folder, since this one had not '
                        'refreshed its lock for ten minutes'
                    )
                    return
                logging.warning('gs://%s/%s: the lock cannot be refreshed (%s)', bucket, name, reason(error))

    thread = threading.Thread(target=refresh, daemon=True, name='lock')
    thread.start()
    try:
        yield
        finish(folder)
    except BaseException:
        with contextlib.suppress(InputError):
            finish(folder)
        raise
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(Exception):
            blob.delete(if_generation_match=generation, retry=None, timeout=TIMEOUT)


def _take(blob: Any, content: str, what: str) -> int:
    """Makes the object of a lock and returns its generation; takes over one that was left behind."""
    from google.api_core.exceptions import NotFound, PreconditionFailed  # pyright: ignore[reportMissingImports]

    for _ in range(5):  # it may vanish while it is looked at
        try:
            return patiently(lambda: _conditional_put(blob, content, 0), what)
        except PreconditionFailed:
            pass
        try:
            patiently(lambda: blob.reload(retry=None, timeout=TIMEOUT), what)
            before = patiently(lambda: blob.download_as_bytes(retry=None, timeout=TIMEOUT), what)
        except NotFound:
            continue
        try:
            about = json.loads(before)
            who = f'process {about["pid"]} on {about["host"]}, which has been writing here since {about["since"]}'
        except (ValueError, KeyError, TypeError):
            about, who = {}, 'another process'
        if about.get('machine') == _machine() is not None and about['pid'] == os.getpid():
            raise InputError(f'{what}: this process is writing here already')
        age = (server_time() - blob.updated).total_seconds()
        dead = about.get('machine') == _machine() is not None and not _is_alive(about['pid'])
        if age < STALE and not dead:
            raise InputError(
                f'{what}: locked by {who} (refreshed {age:.0f} s ago); wait until it ends, or name another folder. '
                f'If it has died, the same command goes on in {STALE - age:.0f} s'
            )
        with contextlib.suppress(PreconditionFailed):
            generation = patiently(lambda: _conditional_put(blob, content, blob.generation), what)
            why = 'has ended' if dead else f'has not refreshed its lock for {age / 60:.0f} min'
            logging.warning('%s: %s, %s; its lock is taken over', what, who, why)
            return generation
    raise InputError(f'{what}: another process is writing here; wait until it ends, or name another folder')


def _conditional_put(blob: Any, content: str, generation: int) -> int:
    options = {'content_type': 'application/json', 'retry': None, 'timeout': TIMEOUT}
    blob.upload_from_string(content, if_generation_match=generation, **options)
    return blob.generation


def _machine() -> str | None:
    """Returns what is the same for processes that see each other's numbers, None where that is not known."""
    with contextlib.suppress(OSError):
        return f'{Path("/proc/sys/kernel/random/boot_id").read_text().strip()} {os.readlink("/proc/self/ns/pid")}'
    return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
