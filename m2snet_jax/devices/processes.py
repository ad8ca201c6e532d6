"""The processes of a run, on a TPU pod one for each host: joining them, gathering values, and ending together.

Every process runs the same program on its part of the arrays that are split over all devices.
"""

import contextlib
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from m2snet_jax.devices import mesh
from m2snet_jax.errors import InputError

SILENCE = 30  # seconds without a heartbeat after which a process counts as dead, and the others end
PIECE = 2**24  # words of 4 bytes that are sent at once
ADDRESS, COUNT, INDEX = 'JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'


def join(distributed: bool | None = None) -> None:
    """Joins the other processes of a run. Call it before any other use of a device.

    By default it joins where jax recognises a cluster (TPU pod, SLURM, Kubernetes, Open MPI) or the variables
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID name one. True requires a cluster; with False the
    process runs alone.

    Raises:
        InputError: no cluster where one is required, or one that cannot be joined.
    """
    if distributed is False:
        return
    named = {variable: os.environ.get(variable) for variable in (ADDRESS, COUNT, INDEX)}
    try:
        count, index = (None if (text := named[name]) is None else int(text) for name in (COUNT, INDEX))
        jax.distributed.initialize(num_processes=count, process_id=index, heartbeat_timeout_seconds=SILENCE)
    except Exception as error:
        no_cluster = 'coordinator_address should be defined' in str(error)
        too_late = 'must be called before any JAX calls' in str(error)  # a program that imports this package
        if distributed is None and not any(named.values()) and (no_cluster or too_late):
            return
        if isinstance(error, ValueError):
            raise InputError(f'--distributed: {error}; set {ADDRESS}, {COUNT} and {INDEX}') from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f'the other processes cannot be joined ({reason}); --nodistributed runs this process alone'
        ) from None

    if jax.process_count() > 1:
        _connect()


def _connect():
    """Exchanges a value among all devices, and one among the processes.

    On CPUs a process waits only 30 s for the others when it exchanges something among some devices for the first time.
    Later, one process may still compile when another one begins to train.
    """
    gather(None)
    ones = mesh.shard(np.ones(jax.local_device_count(), np.float32), mesh.make_mesh())
    jax.block_until_ready(jax.jit(jax.numpy.sum)(ones))


def cpu_environment(devices: int) -> dict[str, str]:
    """Returns the environment variables of a process that uses this many CPU devices and joins no cluster."""
    environment = {key: value for key, value in os.environ.items() if key not in (ADDRESS, COUNT, INDEX)}
    return {**environment, 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(devices)}


def is_primary() -> bool:
    """Whether this is the process that writes logs, sheets and reports."""
    return jax.process_index() == 0


def gather(value: Any) -> list:
    """Returns every process's `value`, anything that can be pickled, in the order of the processes.

    All processes must call it; it waits for all of them.
    """
    if jax.process_count() == 1:
        return [value]
    own = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.int64(own.size)).tolist()
    padded = np.zeros(max(sizes), np.uint8)
    padded[: own.size] = own
    rows = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def from_primary(value: Any) -> Any:
    """Returns the first process's `value`, anything that can be pickled, in every process; all must call it."""
    if jax.process_count() == 1:
        return value
    own = pickle.dumps(value) if is_primary() else b''
    size = gather(len(own))[0]
    piece, received = min(-(-size // 4), PIECE), []
    for start in range(0, size, 4 * piece):
        words = np.zeros(piece, np.uint32)
        part = np.frombuffer(own[start : start + 4 * piece], np.uint8)
        words.view(np.uint8)[: part.size] = part
        received.append(np.asarray(multihost_utils.broadcast_one_to_all(words)).tobytes())
    return pickle.loads(b''.join(received))


@contextlib.contextmanager
def termination() -> Iterator[Callable[[int], int | None]]:
    """Yields `asked(step)`: the signal for which the run is to end after `step`, None if it is to go on.

    The signal is SIGTERM, or SIGINT from Ctrl-C; a second SIGINT ends the process at once, with status 130. Several
    processes agree on a common step (jax handles the signal); all of them must ask at every step.
    """
    several, received = jax.process_count() > 1, []

    def terminate(number, frame):
        if number == signal.SIGINT and received:
            os.write(2, b'interrupted again: ended without saving; the checkpoints are of earlier steps\n')
            os._exit(128 + signal.SIGINT)
        received.append(number)
        if several:
            os.kill(os.getpid(), signal.SIGTERM)  # jax handles no other
        if number == signal.SIGINT and os.isatty(2):
            os.write(2, b'interrupted: this step is finished and saved first; again ends at once\n')

    def asked(step):
        if several:
            return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else None
        return received[0] if received else None

    numbers = (signal.SIGINT,) if several else (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set a handler
        numbers = ()
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]  # as a shell's jobs have it
    before = {number: signal.signal(number, terminate) for number in numbers if number not in ignored}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_if_another_did(error: BaseException) -> None:
    """Ends this process at once, with status 1, if `error` may come from another process that has ended.

    A normal exit would wait for the other one. With a single process this does nothing.
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
