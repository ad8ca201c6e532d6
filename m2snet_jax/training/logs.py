"""What a run tells while it goes on: JSON lines, the console, TensorBoard and, where asked for, Weights & Biases."""

import contextlib
import json
import math
import os
import secrets
import sys
import time
from pathlib import Path

import jax
import numpy as np

from m2snet_jax import hosts
from m2snet_jax.config import FREE_KEYS, flatten, to_json
from m2snet_jax.errors import InputError
from m2snet_jax.metrics.precision_recall import THRESHOLDS, precision_recall
from m2snet_jax.plot.history import read_metrics

# The scores that stand for a run among others, as the papers print them; the sheets in `scores/` hold all.
HEADLINES = (
    *(f'hard/{name}' for name in ('Dice', 'IoU')),
    *(f'reference/{name}' for name in ('Dice', 'IoU', 'wFm', 'Sm', 'Em', 'MAE')),
    *(f'pranet/{name}' for name in ('meanDic', 'meanIoU', 'wFm', 'Sm', 'maxEm', 'MAE')),
)


class Logs:
    """Writes scalars to `metrics.jsonl` and, as a line, to stderr; these and pictures to TensorBoard and W&B.

    Of several processes only the first one writes.

    Args:
        workdir: the run's folder.
        step: where the run goes on; what an interrupted run wrote beyond it is taken back.
        tensorboard: also write event files.
        wandb: also tell Weights & Biases.
        config: whose keys that shape the result are told to both.

    Raises:
        InputError: Weights & Biases refuses to start.
    """

    def __init__(self, workdir, step=0, *, tensorboard=True, wandb=False, config=None):
        self._path = self._events = self._wandb = None
        if not hosts.is_first():
            return
        self._path = Path(workdir) / 'metrics.jsonl'
        rows = [row for row in read_metrics(workdir) if row['step'] <= step]
        temporary = self._path.with_name('.metrics.jsonl')
        temporary.write_text(''.join(json.dumps(row) + '\n' for row in rows))
        os.replace(temporary, self._path)
        self._keys = {} if config is None else _shaping_keys(config)
        if tensorboard:
            from tensorboardX import SummaryWriter  # here, because it takes a quarter of a second

            self._events = SummaryWriter(str(workdir), purge_step=step + 1 if step else None)
        if wandb:
            self._wandb = _start_wandb(Path(workdir), self._keys)

    def write(self, step, scalars, line=None):
        """Writes one row of scalars for a step, and `line` to the console."""
        if self._path is None:
            return
        with self._path.open('a') as file:
            file.write(json.dumps({'step': step, **scalars}) + '\n')
        self._show(step, scalars)
        if line:
            say(line)

    def write_image(self, step, name, image):
        """Writes one image, uint8 [H, W, 3], to TensorBoard and Weights & Biases."""
        if self._events:
            self._events.add_image(name, image, step, dataformats='HWC')
        if self._wandb:
            import wandb

            self._wandb.log({'step': step, name: wandb.Image(image)})

    def write_scores(self, step, scores, details):
        """Writes what a finished run scored to TensorBoard and Weights & Biases.

        TensorBoard gets the `HEADLINES` as scalars and, beside the config's keys, as metrics of its table of
        hyperparameters, Weights & Biases all scores as the run's summary. Both get a precision–recall curve of each
        test set and class, of the pixels of all images counted together.

        Args:
            step: the last.
            scores: as `evaluate` returns them.
            details: what it wrote into `scores/details.json`.
        """
        chosen = {name: float(value) for name, value in scores.items() if name.partition('/')[2] in HEADLINES}
        chosen = {name: value for name, value in chosen.items() if math.isfinite(value)}
        self._show(step, chosen)
        if self._events:
            from tensorboardX.summary import hparams

            # Into this run, not a run of their own, as `add_hparams` would have it.
            for summary in hparams(self._keys, chosen):
                self._events.file_writer.add_summary(summary)
        for test_set, entry in details.items():
            for number, levels in enumerate(entry['levels'], start=1):
                suffix = f'/class{number}' if len(entry['levels']) > 1 else ''
                self._write_curve(step, f'precision_recall/{test_set}{suffix}', levels)
        if self._wandb:
            self._wandb.summary.update(scores)

    def close(self):
        """Ends the event file, and the run on Weights & Biases."""
        if self._events:
            self._events.close()
        if self._wandb:
            self._wandb.finish()

    def _show(self, step, scalars):
        if self._events:
            for name, value in scalars.items():
                self._events.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log({'step': step, **scalars})

    def _write_curve(self, step, name, levels):
        """Writes a precision–recall curve from the pixels, and the lesion pixels among them, of each of 256 levels."""
        counts = precision_recall(*levels)
        if not counts['recall'].any():  # without a lesion there is nothing to find
            return
        if self._events:
            self._events.add_pr_curve_raw(name, *counts.values(), step, len(THRESHOLDS))
        if self._wandb:
            import wandb

            columns = np.stack([counts['recall'], counts['precision'], THRESHOLDS], 1).tolist()
            table = wandb.Table(data=columns, columns=['recall', 'precision', 'threshold'])
            self._wandb.log({'step': step, name: wandb.plot.line(table, 'recall', 'precision', title=name)})


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

    @contextlib.contextmanager
    def apart(self):
        """Leaves the time inside out of the speed of training."""
        jax.block_until_ready(self._pending)
        begun = time.monotonic()
        yield
        self._reported += time.monotonic() - begun

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


def _shaping_keys(config):
    """Returns {dotted key: value} of the set keys that shape the result; lists as text."""
    keys = {key: value for key, value in flatten(to_json(config)).items() if not key.startswith(FREE_KEYS)}
    return {
        key: ' '.join(map(str, value)) if isinstance(value, list) else value
        for key, value in keys.items()
        if value is not None
    }


def _start_wandb(workdir, keys):
    """Starts the run on Weights & Biases, or goes on with the one whose id is kept in `wandb_id.txt`."""
    import wandb

    path = workdir / 'wandb_id.txt'
    if not path.exists():
        temporary = path.with_name(f'.{path.name}')
        temporary.write_text(secrets.token_hex(4) + '\n')
        os.replace(temporary, path)
    about = {'project': 'm2snet_jax', 'name': workdir.resolve().name, 'config': keys, 'dir': str(workdir)}
    try:
        run = wandb.init(id=path.read_text().strip(), resume='allow', **about)
    except wandb.Error as error:
        reason = ' '.join(str(error).split())
        raise InputError(
            f'--config.log.wandb=True: cannot start ({reason}); log in with `wandb login`, or set WANDB_MODE=offline'
        ) from None
    run.define_metric('*', step_metric='step')  # its own count of steps cannot be taken back after an interruption
    return run


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
