"""The cores that this process may use, and their shares for programs that run side by side."""

import contextlib
import itertools
import os
from collections.abc import Iterator

import jax

from m2snet_jax.errors import InputError


def core_shares(jobs: int) -> list[list[int]]:
    """Returns the numbers of the cores of each of `jobs` programs, as equally many as possible, none in two shares.

    Raises:
        InputError: there are fewer cores than jobs, or the device is not a CPU.
    """
    if jax.default_backend() != 'cpu':
        raise InputError(f'--jobs={jobs}: runs share the cores of a CPU, and this device is another; omit --jobs')
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else list(range(os.cpu_count() or 1))
    if jobs > len(cores):
        raise InputError(f'--jobs={jobs}: this process may use {len(cores)} cores; give at most --jobs={len(cores)}')
    bounds = [len(cores) * share // jobs for share in range(jobs + 1)]
    return [cores[start:end] for start, end in itertools.pairwise(bounds)]


@contextlib.contextmanager
def pinned(cores: list[int]) -> Iterator[None]:
    """Keeps this thread, and every program that it starts meanwhile, on these cores; nothing where that is not offered.

    A program stays on them after the block ends, this thread does not.
    """
    if not hasattr(os, 'sched_setaffinity'):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
