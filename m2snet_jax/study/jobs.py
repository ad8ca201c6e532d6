"""Runs the cells of a study side by side, each in a process of its own on its share of the cores.

A process of a cell receives it through its standard input, and ends when that ends: with the study, however it ends.
"""

import collections
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from m2snet_jax.devices.cores import core_shares, pinned
from m2snet_jax.devices.processes import termination
from m2snet_jax.devices.programs import use_compilation_cache
from m2snet_jax.errors import InputError
from m2snet_jax.study.definition import Cell
from m2snet_jax.study.runner import check, not_run, progress, runs_of
from m2snet_jax.training.logs import log
from m2snet_jax.training.loop import train_and_evaluate

PAUSE, REPORT = 0.2, 30.0  # seconds between two looks at the processes, and between two lines of a run
KEPT = 40  # last lines of a process, shown if it ends by an unexpected error
_PACKAGE = Path(__file__).resolve().parents[2]
_PROGRAM = f'from {__name__} import train_cell; train_cell()'


class Job:
    """A process that trains and scores one cell; `lines` are the last that it logged."""

    def __init__(self, cell: Cell, cores: list[int]):
        self.cell, self.lines = cell, collections.deque(maxlen=KEPT)
        paths = [str(_PACKAGE), *filter(None, [os.environ.get('PYTHONPATH')])]
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}
        pipes: dict[str, Any] = {'stdin': subprocess.PIPE, 'stdout': subprocess.DEVNULL, 'stderr': subprocess.PIPE}
        with pinned(cores):
            # A new session: Ctrl-C reaches the study alone, which ends its runs in order.
            command = [sys.executable, '-c', _PROGRAM]
            self.process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # if it has ended; its status says so
            pickle.dump((cell.config, cell.folder), self.process.stdin)
            self.process.stdin.flush()  # and stays open
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.lines.append(line.decode(errors='replace').rstrip())

    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def wait(self) -> None:
        """Waits for the end of the process and reads its last lines."""
        self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self._reader.join(timeout=5)

    def failure(self) -> str | None:
        """Returns why the ended process failed, in one line, or None; logs a stack trace, if there is one."""
        if self.process.returncode == 0:
            return None
        told = [line.removeprefix('error: ') for line in self.lines if line.startswith('error: ')]
        if not told:
            log('\n'.join([f'{self.cell.name}: the last lines of its process:', *self.lines]))
        return told[-1] if told else f'its process ended with status {self.process.returncode}'


def run_side_by_side(cells: list[Cell], jobs: int, after: Callable[[], object] = lambda: None) -> list[str]:
    """Trains and scores the cells that are not finished, `jobs` at a time; interrupted runs resume.

    A cell that starts from the weights of another waits for it. A run is the same as with `run_study` on a computer
    that has only the cores of its share.

    Args:
        after: called whenever a run is finished.

    Returns:
        One line per run that failed; the others are run nevertheless.

    Raises:
        InputError: a cell cannot be run, or there are fewer cores than jobs; nothing is trained then.
        SystemExit: on SIGTERM or Ctrl-C; the runs have saved their last steps.
    """
    shares = core_shares(jobs)
    check(cells)
    runs, failed = runs_of(cells), {}
    waiting = [cell for cell in runs if not cell.is_finished]
    running: dict[int, Job] = {}
    reported = time.monotonic()
    with termination() as asked_to_end:
        try:
            while waiting or running:
                if (asked := asked_to_end(0)) is not None:
                    _end(running, signal.Signals(asked).name)
                    raise SystemExit(128 + asked)
                for share in set(range(jobs)) - set(running):
                    if (cell := _next(waiting, failed)) is not None:
                        log(f'run {runs.index(cell) + 1} of {len(runs)}: {cell.name} ({progress(runs, jobs)})')
                        running[share] = Job(cell, shares[share])
                for share, job in list(running.items()):
                    if not job.is_running():
                        del running[share]
                        _finish(job, failed, after)
                        log(f'{job.cell.name}: ended ({progress(runs, jobs)})')
                if time.monotonic() - reported > REPORT:
                    reported = time.monotonic()
                    for job in running.values():
                        log(f'{job.cell.name}: {job.lines[-1] if job.lines else "starting"}')
                time.sleep(PAUSE)
        finally:
            _end(running)
    log(progress(runs))
    return list(failed.values())


def _next(waiting, failed):
    """Takes the first cell that can start from the list and returns it; those that never can are moved to `failed`."""
    for cell in list(waiting):
        if cell.source is not None and cell.source.folder in failed:
            waiting.remove(cell)
            failed[cell.folder] = not_run(cell)
        elif cell.source is None or cell.source.is_finished:
            waiting.remove(cell)
            return cell
    return None


def _finish(job, failed, after):
    """Records the failure of an ended job, or calls `after`."""
    job.wait()
    if (failure := job.failure()) is None:
        after()
        return
    failed[job.cell.folder] = f'{job.cell.name}: {failure}'
    log(f'error: {failed[job.cell.folder]}')


def _end(running, reason=None):
    """Asks all jobs to save their step and end, and waits for them."""
    if running and reason:
        log(f'{reason} received: {len(running)} runs save their step and end; the same command goes on from there')
    for job in running.values():
        job.process.terminate()
    for job in running.values():
        job.wait()
    running.clear()


def train_cell() -> None:
    """Trains and scores the cell that arrives through standard input; the program of a process."""
    config, folder = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    use_compilation_cache()
    try:
        train_and_evaluate(config, folder)
    except (InputError, FloatingPointError) as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr, flush=True)
        sys.exit(1)


def _end_with_the_study():
    while os.read(0, 1):
        pass
    os._exit(1)  # as if it had been killed too: the next start resumes from the last checkpoint
