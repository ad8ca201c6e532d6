"""The lock of a folder, which one program at a time writes."""

import contextlib
import datetime
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from m2snet_jax import buckets
from m2snet_jax.buckets import LOCK
from m2snet_jax.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which one program at a time can hold.

    The kernel releases it when the program ends, however it ends. Windows and some network file systems have no such
    locks. On the latter a warning is logged, and nothing is checked. In a bucket the lock is an object.

    Raises:
        InputError: another program holds it; the message names process, host and time.
    """
    if buckets.address_of(folder) is not None:
        with buckets.lock(folder):
            yield
        return
    path, file = folder / LOCK, None
    try:
        while fcntl is not None and file is None:
            file = _locked(path)
        if file is not None:
            about = {'pid': os.getpid(), 'host': socket.gethostname()}
            about['since'] = datetime.datetime.now().astimezone().isoformat(' ', 'seconds')
            os.truncate(file, 0)
            os.write(file, json.dumps(about).encode())
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise InputError(f'{path}: cannot be written ({error.strerror or error})') from None
        logging.warning('%s: this file system has no locks; do not start a second run in this folder', folder)
    try:
        yield
    finally:
        if file is not None:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(file)


def _locked(path):
    """Returns a lock file, open and locked, or None if it was removed meanwhile; raises InputError if it is locked."""
    assert fcntl is not None
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file), os.stat(path)):
            return file
    except BlockingIOError:
        raise InputError(_writer(file, path.parent)) from None
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


def _writer(file, folder):
    """Returns the message that names the program that holds a lock, and closes the lock's file."""
    who = 'another process is writing here'
    with os.fdopen(file, encoding='utf-8') as text, contextlib.suppress(ValueError, KeyError, TypeError):
        about = json.loads(text.read())
        who = f'process {about["pid"]} on {about["host"]} has been writing here since {about["since"]}'
    return f'{folder}: {who}; wait until it ends, or name another folder'
