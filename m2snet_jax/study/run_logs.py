"""What a study reads of runs beside their score sheets: training times and the losses of epochs."""

from pathlib import Path

import numpy as np

from m2snet_jax.config import read_record
from m2snet_jax.storage import read_json_lines


def training_seconds(folder: str | Path) -> float | None:
    """Returns the seconds of a run's training steps and their compilation by its log; None without a log."""
    rows, seconds, before = _log(folder), 0.0, 0
    if not rows:
        return None
    config = read_record(folder)['config']
    for row in rows:
        seconds += (row['step'] - before) * config['batch'] / row['images_per_second'] + row.get('compile', 0)
        before = row['step']
    return seconds


def epoch_losses(folder: str | Path) -> list[float]:
    """Returns the mean loss of every whole epoch; a log line that crosses a border counts on both sides."""
    rows = _log(folder)
    if not rows:
        return []
    ends = np.array([0, *(row['epoch'] for row in rows)])
    sums = np.concatenate([[0], np.cumsum(np.diff(ends) * [row['loss'] for row in rows])])
    return np.diff(np.interp(np.arange(int(ends[-1] + 1e-9) + 1), ends, sums)).tolist()


def _log(folder):
    """The rows of `metrics.jsonl` about training."""
    rows = read_json_lines(Path(folder) / 'metrics.jsonl')
    return [row for row in rows if {'loss', 'epoch', 'images_per_second'} <= row.keys()]
