"""Runs a function over many items on every core; scoring is many small steps, too short for threads.

The workers are plain Python processes that receive work through pipes. Those of `multiprocessing` would run the
caller's script again, and forked ones would copy the locks of JAX's threads.
"""

import collections
import concurrent.futures
import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

FEWEST = 48  # below it, starting processes takes longer than the work
_PACKAGE = Path(__file__).resolve().parents[2]
_PROGRAM = f'from {__name__} import serve; serve()'


def in_processes(
    function: Callable[..., Any], items: Iterable[tuple], count: int, processes: int | None = None
) -> Iterator[Any]:
    """Yields `function(*item)` for each item, in order; raises what `function` raises.

    Args:
        function: defined at the top of a module, so that a worker can import it.
        items: read as results are fetched, at most four a process ahead.
        count: about how many items there are; few are computed in this process.
        processes: by default one for each core that this process may use.
    """
    processes = processes or _cores()
    if count < FEWEST or processes == 1:
        for item in items:
            yield function(*item)
        return
    workers = [_start() for _ in range(processes)]
    idle = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def work(item):
        worker = idle.get()
        try:
            pickle.dump((function, item), worker.stdin, pickle.HIGHEST_PROTOCOL)
            worker.stdin.flush()
            result, error = pickle.load(worker.stdout)
        finally:
            idle.put(worker)
        if error is not None:
            raise error
        return result

    pending = collections.deque()
    try:
        with concurrent.futures.ThreadPoolExecutor(processes) as threads:
            for item in items:
                pending.append(threads.submit(work, item))
                if len(pending) > 4 * processes:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
    finally:
        for worker in workers:
            worker.communicate()  # ends its input, and with it the worker


def serve() -> None:
    """Computes what arrives through standard input until it ends; the program of a worker."""
    results, sys.stdout = sys.stdout.buffer, sys.stderr
    while True:
        try:
            function, item = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = function(*item), None
        except Exception as error:
            answer = None, error
        pickle.dump(answer, results, pickle.HIGHEST_PROTOCOL)
        results.flush()


def _cores():
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def _start():
    paths = [str(_PACKAGE), *filter(None, [os.environ.get('PYTHONPATH')])]
    one_thread = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'), '1')
    environment = {**os.environ, **one_thread, 'PYTHONPATH': os.pathsep.join(paths)}
    command = [sys.executable, '-c', _PROGRAM]
    # A new session: Ctrl-C reaches the program alone, whose end ends the workers.
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
