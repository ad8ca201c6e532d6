"""The copies on this computer of what lies in buckets: their paths and addresses.

What is read is kept in the user's cache. What is written lies in a temporary folder of this process.
"""

import atexit
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path

from m2snet_jax.buckets.client import library
from m2snet_jax.errors import InputError

ADDRESS = re.compile(r'gs:/{1,2}([^/]+)/?(.*)', re.DOTALL)  # pathlib makes one slash of two
NAME = re.compile(r'[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]')  # of a bucket
LOCK = 'writer.lock'
STEP = re.compile(r'(.*/)?checkpoints/\d+/')  # what is below is whole once its last file is there
LAST_OF_STEP = '_CHECKPOINT_METADATA'


class Copies:
    """The copies that this process reads and writes, and what is still to be put."""

    def __init__(self):
        self.cache: Path | None = None
        self.scratch: Path | None = None
        self.fetched: set[tuple[Path, bool]] = set()
        self.put: dict[Path, tuple] = {}  # {path in scratch: signature of what was fetched or is to be put}
        self.pending: dict[Path, tuple | None] = {}  # what is to be put, None for what is to be deleted
        self.changed = threading.Condition()
        self.strays: set[Path] = set()  # left by a save that did not end
        self.working = False
        self.error: InputError | None = None
        self.thread: threading.Thread | None = None


state = Copies()


def is_address(text: str) -> bool:
    """Whether a text is an address in a bucket: gs://bucket/path."""
    return ADDRESS.match(text) is not None


def copy_of(address: str, given: str, cache: Path, *, written: bool) -> Path:
    """Returns the path of the copy of an address; nothing is fetched.

    Raises:
        InputError: no name of a bucket, or the library is missing; it begins with `given`.
    """
    found = ADDRESS.match(address)
    if found is None or not NAME.fullmatch(found[1]) or '..' in found[2].split('/'):
        raise InputError(f'{given}: not an address in a bucket; give gs://BUCKET/PATH')
    library(given)
    state.cache = cache / 'gs'
    if written and state.scratch is None:
        state.scratch = Path(tempfile.mkdtemp(prefix='m2snet_jax-')).resolve() / 'gs'
        atexit.register(remove_scratch)
    root = state.scratch if written else state.cache
    assert root is not None
    return root / found[1] / found[2].strip('/')


def address_of(path: Path) -> tuple[str, str] | None:
    """Returns (bucket, name) of what a path is the copy of; None for other paths."""
    for root in (state.scratch, state.cache):
        if root is not None and path.is_relative_to(root):
            bucket, *parts = path.relative_to(root).parts or ('',)
            return bucket, '/'.join(parts)
    return None


def with_addresses(text: str) -> str:
    """Returns a text with the addresses of the copies that it names."""
    for root in (state.scratch, state.cache):
        if root is not None:
            text = text.replace(f'{root}{os.sep}', 'gs://')
    return text


def signature(status: os.stat_result) -> tuple[int, int, int]:
    """Returns what changes when a file does: size, time, inode."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def remove_scratch() -> None:
    """Removes what this process wrote, if all of it is in the bucket."""
    if state.scratch is not None and state.error is None and not state.pending and not state.working:
        shutil.rmtree(state.scratch.parent, ignore_errors=True)
