"""The processes of a run, one a host on a TPU pod: how they meet, which of them writes, and how they agree.

Every process runs the same program; arrays that are split over all devices tie them together. With a single process,
the common case, everything here is a plain function call.
"""

import contextlib
import os
import pickle
import signal
import sys
import threading

import jax
import numpy as np
from jax.experimental import multihost_utils

from m2snet_jax.errors import InputError

SILENCE = 30  # seconds without a sign of life after which a process counts as dead, and the others end
ADDRESS, COUNT, INDEX = 'JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'


def join(distributed=None):
    """Joins the other processes of a run; must come before any other use of a device.

    Args:
        distributed: None joins where jax recognises a cluster (TPU pod, SLURM, Kubernetes, Open MPI) or the variables
            JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID name one; True insists on it; False stays
            alone.

    Raises:
        InputError: no cluster where one is insisted on, or one that cannot be joined.
    """
    if distributed is False:
        return
    named = {variable: os.environ.get(variable) for variable in (ADDRESS, COUNT, INDEX)}
    try:
        count, index = (None if named[name] is None else int(named[name]) for name in (COUNT, INDEX))
        jax.distributed.initialize(num_processes=count, process_id=index, heartbeat_timeout_seconds=SILENCE)
    except Exception as error:
        no_cluster = 'coordinator_address should be defined' in str(error)
        too_late = 'must be called before any JAX calls' in str(error)  # a program that imports us and runs alone
        if distributed is None and not any(named.values()) and (no_cluster or too_late):
            return
        if isinstance(error, ValueError):
            raise InputError(f'--distributed: {error}; set {ADDRESS}, {COUNT} and {INDEX}') from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f'the other processes cannot be joined ({reason}); --nodistributed stays alone') from None


def is_first():
    """Whether this is the process that writes logs, sheets and reports."""
    return jax.process_index() == 0


def gather(value):
    """Returns the list of every process's `value`, anything that can be pickled, in the order of the processes.

    All processes must call it, and wait in it for each other.
    """
    if jax.process_count() == 1:
        return [value]
    own = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.int64(own.size)).tolist()
    padded = np.zeros(max(sizes), np.uint8)
    padded[: own.size] = own
    rows = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


@contextlib.contextmanager
def termination():
    """Yields `asked(step) → bool`: whether the run is to end after `step`, since a process was sent SIGTERM.

    Several processes agree on a common step, for which jax listens for the signal; they must all ask at every step.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    terminated = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set a handler
        yield lambda step: terminated.is_set()
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: terminated.set())
    try:
        yield lambda step: terminated.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


def end_if_another_did(error):
    """Ends this process at once, with status 1, if `error` may come from another process that has ended.

    An orderly end would wait for the other one. Without several processes this does nothing.
    """
    if jax.process_count() > 1 and isinstance(error, jax.errors.JaxRuntimeError):
        reason = str(error).splitlines()[0]
        print(
            f'error: another process has ended or cannot be reached ({reason}); '
            'start the same command on all hosts again: it goes on from the last checkpoint',
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)
