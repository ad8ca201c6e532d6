"""What a study reads of runs, beside their score sheets: times, losses of epochs, scores of another program."""

import json
from pathlib import Path

import numpy as np

from m2snet_jax.errors import InputError

HARD = ('hard/Dice', 'hard/IoU', 'hard/MAE')  # the columns of another program's scores


def training_seconds(folder):
    """Returns how long a run's training steps took with their compilation, from its log; None without one."""
    rows, seconds, before = _log(folder), 0.0, 0
    if not rows:
        return None
    config = json.loads((Path(folder) / 'config.json').read_text(encoding='utf-8'))['config']
    for row in rows:
        seconds += (row['step'] - before) * config['batch'] / row['images_per_second'] + row.get('compile', 0)
        before = row['step']
    return seconds


def epoch_losses(folder):
    """Returns the mean loss of every whole epoch of a run; lines of the log that cross a border count on both sides."""
    rows = _log(folder)
    if not rows:
        return []
    ends = np.array([0, *(row['epoch'] for row in rows)])
    sums = np.concatenate([[0], np.cumsum(np.diff(ends) * [row['loss'] for row in rows])])
    return np.diff(np.interp(np.arange(int(ends[-1] + 1e-9) + 1), ends, sums)).tolist()


def _log(folder):
    """The rows of `metrics.jsonl` that tell of training."""
    path, rows = Path(folder) / 'metrics.jsonl', []
    for line in path.read_text(encoding='utf-8').splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return [row for row in rows if {'loss', 'epoch', 'images_per_second'} <= row.keys()]


def read_references(folder):
    """Reads another program's scores, one run a JSON file.

    A file is a dict of `model`, `seed`, and `per_image`, {image: [Dice, IoU, MAE]} of protocol `hard` or {image:
    {'<protocol>/<name>': score}}; where known also `fold`, `seconds` and `loss_per_epoch`. JSON files without
    `per_image` are passed over.

    Returns:
        {model: {(seed, fold): dict of images, {image: {score: value}}; losses; seconds or None}}.
    """
    found = {}
    for path in sorted(Path(folder).glob('*.json')):
        try:
            run = json.loads(path.read_text(encoding='utf-8'))
            if 'per_image' not in run:
                continue
            images = {
                name: dict(one) if isinstance(one, dict) else dict(zip(HARD, map(float, one), strict=True))
                for name, one in run['per_image'].items()
            }
            key = int(run['seed']), run.get('fold')
            found.setdefault(run['model'], {})[key] = {
                'images': images,
                'losses': [float(loss) for loss in run.get('loss_per_epoch', ())],
                'seconds': run.get('seconds'),
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f'{path}: no scores of a run ({type(error).__name__}: {error})') from None
    if not found:
        raise InputError(f'--reference={folder}: holds no JSON files with per_image')
    return found
