"""The event file of a run, for TensorBoard.

tensorboardX's own `SummaryWriter` writes in a thread. The thread ends if the disk is full, and the program then waits
for it without end.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

from m2snet_jax.errors import InputError


class EventFile:
    """Writes a new event file into a folder.

    TensorBoard hides what older files of the folder hold from the step `first` on. Raises InputError if the file cannot
    be written.
    """

    def __init__(self, folder: str | Path, first: int):
        self._path = Path(folder) / 'events'
        older = list(self._path.parent.glob('events.out.tfevents.*'))
        with self._named():
            self._writer = EventsWriter(str(self._path), f'.{os.getpid()}')
        if older:
            self._write(Event(step=first, file_version='brain.Event:2'))
            self._write(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def add_scalar(self, step: int, name: str, value: float) -> None:
        """Writes one number of a step."""
        self._add(step, summary.scalar(name, value))

    def add_image(self, step: int, name: str, image: UInt8[np.ndarray, 'height width 3']) -> None:
        """Writes one picture of a step."""
        self._add(step, summary.image(name, image, dataformats='HWC'))

    def add_curve(self, step: int, name: str, *counts: Any) -> None:
        """Writes a precision–recall curve; `counts` as `summary.pr_curve_raw` takes them after the name."""
        self._add(step, summary.pr_curve_raw(name, *counts))

    def add_hyperparameters(self, keys: dict[str, Any], scores: dict[str, float]) -> None:
        """Writes the config's keys and the scores for the table of hyperparameters."""
        for one in summary.hparams(keys, scores):  # `SummaryWriter.add_hparams` writes them as a separate run
            self._add(0, one)

    def close(self) -> None:
        """Closes the file. Everything is on disk already."""
        with contextlib.suppress(OSError):
            self._writer.close()

    def _add(self, step, one):
        self._write(Event(step=step, summary=one))

    def _write(self, event):
        event.wall_time = time.time()
        with self._named():
            self._writer.write_event(event)
            self._writer.flush()

    @contextlib.contextmanager
    def _named(self):
        try:
            yield
        except OSError as error:
            raise InputError(f'{self._path}.out.tfevents.*: cannot be written ({error.strerror or error})') from None
