"""The logs of a run: JSON lines, the console, TensorBoard and, if configured, Weights & Biases."""

import contextlib
import json
import math
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, UInt8

from m2snet_jax.config import FREE_KEYS, flatten, to_json
from m2snet_jax.devices import processes
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.scores import Scores
from m2snet_jax.metrics.precision_recall import THRESHOLDS, precision_recall
from m2snet_jax.storage import append, publish, read_json_lines, with_addresses, write

# The scores that compare runs, as the papers print them; the sheets in `scores/` have all.
HEADLINES = (
    *(f'hard/{name}' for name in ('Dice', 'IoU')),
    *(f'released/{name}' for name in ('Dice', 'IoU', 'wFm', 'Sm', 'Em', 'MAE')),
    *(f'pranet/{name}' for name in ('meanDic', 'meanIoU', 'wFm', 'Sm', 'maxEm', 'MAE')),
)


class Logs:
    """Writes scalars to `metrics.jsonl` and, as a line, to stderr; these and pictures to TensorBoard and W&B.

    Of several processes only the first one writes. A run resumes at `step`; rows of an interrupted run after it are
    removed. TensorBoard and W&B get the keys of `config` that shape the result. Raises InputError if W&B cannot start.
    """

    def __init__(
        self, workdir: str | Path, step: int = 0, *, tensorboard: bool = True, wandb: bool = False, config: Any = None
    ):
        self._path: Path | None = None
        self._events: Any = None
        self._wandb: Any = None
        if not processes.is_primary():
            return
        self._path = Path(workdir) / 'metrics.jsonl'
        rows = [row for row in read_json_lines(self._path) if row['step'] <= step]
        write(self._path, ''.join(json.dumps(row) + '\n' for row in rows))
        self._keys = {} if config is None else _shaping_keys(config)
        if tensorboard:
            from m2snet_jax.training.event_file import EventFile  # here, because it takes 0.25 s

            self._events = EventFile(workdir, step + 1)
        if wandb:
            self._wandb = _start_wandb(Path(workdir), self._keys)

    def write(self, step: int, scalars: Mapping[str, float], line: str | None = None) -> None:
        """Writes one row of scalars for a step, and `line` to the console."""
        if self._path is None:
            return
        append(self._path, json.dumps({'step': step, **scalars}) + '\n')
        self._show(step, scalars)
        if line:
            log(line)
        publish(self._path.parent)

    def write_image(self, step: int, name: str, image: UInt8[np.ndarray, 'height width 3']) -> None:
        """Writes one image to TensorBoard and Weights & Biases."""
        if self._events:
            self._events.add_image(step, name, image)
        if self._wandb:
            import wandb  # pyright: ignore[reportMissingImports] (optional)

            self._wandb.log({'step': step, name: wandb.Image(image)})

    def write_scores(self, step: int, scores: Scores) -> None:
        """Writes the scores of a finished run, whose last step is `step`, to TensorBoard and Weights & Biases.

        TensorBoard gets the `HEADLINES` as scalars and, with the config's keys, in its table of hyperparameters;
        Weights & Biases gets all scores as the run's summary. Both get a precision–recall curve of each test set and
        class, over the pixels of all images.
        """
        chosen = {name: float(value) for name, value in scores.figures.items() if name.partition('/')[2] in HEADLINES}
        chosen = {name: value for name, value in chosen.items() if math.isfinite(value)}
        self._show(step, chosen)
        if self._events:
            self._events.add_hyperparameters(self._keys, chosen)
        for test_set, entry in scores.details.items():
            for number, levels in enumerate(entry['levels'], start=1):
                suffix = f'/class{number}' if len(entry['levels']) > 1 else ''
                self._write_curve(step, f'precision_recall/{test_set}{suffix}', levels)
        if self._wandb:
            self._wandb.summary.update(scores.figures)

    def close(self) -> None:
        """Closes the event file and the run on Weights & Biases."""
        if self._events:
            self._events.close()
        if self._wandb:
            self._wandb.finish()

    def _show(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._events:
            for name, value in scalars.items():
                self._events.add_scalar(step, name, value)
        if self._wandb:
            self._wandb.log({'step': step, **scalars})

    def _write_curve(self, step: int, name: str, levels: Any) -> None:
        """Writes a precision–recall curve from the counts of all pixels and of lesion pixels at each of 256 levels."""
        counts = precision_recall(*levels)
        if not counts['recall'].any():  # there is no lesion
            return
        if self._events:
            self._events.add_curve(step, name, *counts.values(), len(THRESHOLDS))
        if self._wandb:
            import wandb  # pyright: ignore[reportMissingImports] (optional)

            columns = np.stack([counts['recall'], counts['precision'], THRESHOLDS], 1).tolist()
            table = wandb.Table(data=columns, columns=['recall', 'precision', 'threshold'])
            self._wandb.log({'step': step, name: wandb.plot.line(table, 'recall', 'precision', title=name)})


class Progress:
    """Keeps the losses of the steps on the device until they are reported, and measures the time.

    `batch` is the number of images per step, `total` and `epoch_steps` are the steps of the run and of an epoch.
    """

    def __init__(self, logs: Logs, batch: int, total: int, epoch_steps: int):
        self._logs, self._batch, self._total, self._epoch_steps = logs, batch, total, epoch_steps
        self._pending, self._unchecked, self._sizes = [], [], set()
        self._reported = time.monotonic()
        self._compiled = self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for data."""
        begun = time.monotonic()
        yield
        self._waited += time.monotonic() - begun

    @contextlib.contextmanager
    def compiling(self, size: int) -> Iterator[None]:
        """Counts the time inside, before the first step of a size, as compilation."""
        if size not in self._sizes:
            jax.block_until_ready(self._pending)  # steps still running would count as compilation
        begun = time.monotonic()
        yield
        if size not in self._sizes:
            self._sizes.add(size)
            self._compiled += time.monotonic() - begun

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Excludes the time inside from the speed of training."""
        jax.block_until_ready(self._pending)
        begun = time.monotonic()
        yield
        self._reported += time.monotonic() - begun

    def add(self, step: int, losses: dict[str, Array]) -> None:
        """Adds the scalars of a step, still on the device."""
        self._pending.append((step, losses))
        self._unchecked.append((step, losses))

    def check(self) -> None:
        """Raises FloatingPointError naming the first step since the last check whose loss is not finite."""
        steps, losses = [step for step, _ in self._unchecked], jax.device_get([one for _, one in self._unchecked])
        self._unchecked = []
        for step, one in zip(steps, losses, strict=True):
            if not math.isfinite(one['loss']):
                raise FloatingPointError(
                    f'the loss is {one["loss"]} at step {step} of {self._total}; the checkpoints are of earlier steps; '
                    'lower --config.optimizer.peak_lr, or look at the images of this step'
                )

    def report(self) -> None:
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
        self._logs.write(step, scalars, f'{line}, {wait:.0%} of the time waiting for data, {duration(left)} left')
        self._pending, self._reported, self._compiled, self._waited = [], now, 0.0, 0.0


def _shaping_keys(config: Any) -> dict[str, Any]:
    """Returns the keys that are not None and shape the result, dotted; lists as text."""
    keys = {key: value for key, value in flatten(to_json(config)).items() if not key.startswith(FREE_KEYS)}
    return {
        key: ' '.join(map(str, value)) if isinstance(value, list) else value
        for key, value in keys.items()
        if value is not None
    }


def _start_wandb(workdir: Path, keys: dict[str, Any]) -> Any:
    """Starts the run on Weights & Biases, or resumes the one whose id is in `wandb_id.txt`."""
    import wandb  # pyright: ignore[reportMissingImports] (optional)

    path = workdir / 'wandb_id.txt'
    if not path.exists():
        write(path, secrets.token_hex(4) + '\n')
    about = {'project': 'm2snet_jax', 'name': workdir.resolve().name, 'config': keys, 'dir': str(workdir)}
    try:
        run = wandb.init(id=path.read_text().strip(), resume='allow', **about)
    except wandb.Error as error:
        reason = ' '.join(str(error).split())
        raise InputError(
            f'--config.log.wandb=True: cannot start ({reason}); log in with `wandb login`, or set WANDB_MODE=offline'
        ) from None
    run.define_metric('*', step_metric='step')  # its own step cannot go back after an interruption
    return run


def log(line: str) -> None:
    """Writes a line to stderr, in the first process only; stdout is for results."""
    if processes.is_primary():
        print(with_addresses(line), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Returns a time as text: '42 s', '3 min 20 s', '2 h 5 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f'{seconds} s'
    if seconds < 3600:
        return f'{seconds // 60} min {seconds % 60} s'
    return f'{seconds // 3600} h {seconds % 3600 // 60} min'
