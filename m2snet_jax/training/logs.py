"""What a run tells while it goes on: JSON lines, the console, TensorBoard."""

import contextlib
import json
import math
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np

from m2snet_jax import hosts


class Logs:
    """Writes scalars to `metrics.jsonl`, TensorBoard and, as a line, to stderr; of several processes the first one.

    Args:
        workdir: the run's folder.
        step: where the run goes on; what an interrupted run wrote beyond it is taken back.
        tensorboard: also write event files.
    """

    def __init__(self, workdir, step=0, *, tensorboard=True):
        self._path = self._events = None
        if not hosts.is_first():
            return
        self._path = Path(workdir) / 'metrics.jsonl'
        rows = [row for row in read_metrics(workdir) if row['step'] <= step]
        temporary = self._path.with_name('.metrics.jsonl')
        temporary.write_text(''.join(json.dumps(row) + '\n' for row in rows))
        os.replace(temporary, self._path)
        if tensorboard:
            from tensorboardX import SummaryWriter  # here, because it takes a quarter of a second

            self._events = SummaryWriter(str(workdir), purge_step=step + 1 if step else None)

    def write(self, step, scalars, line=None):
        """Writes one row of scalars for a step, and `line` to the console."""
        if self._path is None:
            return
        with self._path.open('a') as file:
            file.write(json.dumps({'step': step, **scalars}) + '\n')
        if self._events:
            for name, value in scalars.items():
                self._events.add_scalar(name, value, step)
        if line:
            say(line)

    def write_image(self, step, name, image):
        """Writes one image, uint8 [H, W, 3], to TensorBoard."""
        if self._events:
            self._events.add_image(name, image, step, dataformats='HWC')

    def close(self):
        if self._events:
            self._events.close()


class Progress:
    """Keeps the losses of the steps on the device until they are reported, and the time beside them.

    Args:
        logs: where reports go.
        batch: images a step.
        total: steps in all.
        epoch_steps: steps of one epoch.
    """

    def __init__(self, logs, batch, total, epoch_steps):
        self._logs, self._batch, self._total, self._epoch_steps = logs, batch, total, epoch_steps
        self._pending, self._unchecked, self._sizes = [], [], set()
        self._reported = time.monotonic()
        self._compiled = self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self):
        """Counts the time inside as waiting for data."""
        begun = time.monotonic()
        yield
        self._waited += time.monotonic() - begun

    @contextlib.contextmanager
    def dispatching(self, size):
        """Tells of the compilation that the first step of a size brings with it, and counts it apart."""
        if size not in self._sizes:
            jax.block_until_ready(self._pending)  # steps still running would count as compilation
            say(f'compiling the training step for {size}×{size} pixels')
        begun = time.monotonic()
        yield
        if size not in self._sizes:
            self._sizes.add(size)
            self._compiled += time.monotonic() - begun

    def add(self, step, losses):
        """Takes the scalars of a step, still on the device."""
        self._pending.append((step, losses))
        self._unchecked.append((step, losses))

    def check(self):
        """Raises FloatingPointError naming the first step since the last check whose loss is not finite."""
        steps, losses = [step for step, _ in self._unchecked], jax.device_get([one for _, one in self._unchecked])
        self._unchecked = []
        for step, one in zip(steps, losses, strict=True):
            if not math.isfinite(one['loss']):
                raise FloatingPointError(
                    f'the loss is {one["loss"]} at step {step} of {self._total}; checkpoints hold earlier steps only; '
                    'lower --config.optimizer.peak, or look at the images of this step'
                )

    def report(self):
        """Writes the means of the losses since the last report, the speed, the time left and the wait for data."""
        self.check()
        step = self._pending[-1][0]
        losses = jax.device_get([one for _, one in self._pending])
        means = {name: float(np.mean([one[name] for one in losses])) for name in losses[0]}
        now = time.monotonic()
        elapsed = max(now - self._reported - self._compiled, 1e-9)
        speed = len(losses) * self._batch / elapsed
        wait = self._waited / elapsed
        left = (self._total - step) * self._batch / speed
        epoch = step / self._epoch_steps
        scalars = {**means, 'epoch': epoch, 'images_per_second': speed, 'data_wait': wait, 'compile': self._compiled}
        parts = ' '.join(f'{name} {value:.4f}' for name, value in means.items())
        width = len(str(self._total))
        line = f'step {step:{width}} of {self._total}, epoch {epoch:.1f}: {parts}, {speed:.1f} images/s'
        self._logs.write(step, scalars, f'{line}, {wait:.0%} of it waiting for data, {duration(left)} left')
        self._pending, self._reported, self._compiled, self._waited = [], now, 0.0, 0.0


def read_metrics(workdir):
    """Returns the rows of a run's `metrics.jsonl`, an unfinished last line left out."""
    path = Path(workdir) / 'metrics.jsonl'
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def say(line):
    """Writes a line to stderr, in the first process only; stdout is kept for results."""
    if hosts.is_first():
        print(line, file=sys.stderr, flush=True)


def duration(seconds):
    """Returns seconds in words: '42 s', '3 min 20 s', '2 h 5 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f'{seconds} s'
    if seconds < 3600:
        return f'{seconds // 60} min {seconds % 60} s'
    return f'{seconds // 3600} h {seconds % 3600 // 60} min'
