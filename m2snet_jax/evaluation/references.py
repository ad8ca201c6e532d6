"""Scores of another program that studies and runs are compared with."""

import json
from pathlib import Path
from typing import Any

from m2snet_jax.config import current_score_name
from m2snet_jax.errors import InputError

HARD = ('hard/Dice', 'hard/IoU', 'hard/MAE')  # the columns of another program's scores


def read_references(folder: str | Path) -> dict[str, dict[tuple[int, int | None], dict[str, Any]]]:
    """Reads another program's scores, one run a JSON file. JSON files without `per_image` are skipped.

    Returns:
        {model: {(seed, fold): what `read_reference` returns}}.

    Raises:
        InputError: a file that cannot be used, two of one model, seed and fold, or none with scores.
    """
    found, files = {}, {}
    for path in sorted(Path(folder).glob('*.json')):
        if (run := read_reference(path)) is not None:
            model, key = run['model'], (run['seed'], run['fold'])
            if first := files.get((model, *key)):
                raise InputError(f'{path}: has model {model!r}, seed {key[0]}, fold {key[1]}, as {first}; remove one')
            files[model, *key] = path
            found.setdefault(model, {})[key] = run
    if not found:
        raise InputError(f'--reference={folder}: contains no JSON files with per_image')
    return found


def read_reference(path: str | Path) -> dict[str, Any] | None:
    """Reads another program's scores of one run from a JSON file.

    The file is a dict of `model`, `seed`, and `per_image`, where known also of `fold`, `seconds` and `loss_per_epoch`.
    `per_image` is {image: scores}, or with several test sets {test set: {image: scores}}. The scores of an image are
    [Dice, IoU, MAE] of protocol `hard`, or {'<protocol>/<name>': score}.

    Returns:
        The model, the seed, the fold or None, `test_sets`, {test set: {image: {'<protocol>/<name>': score}}} (`test`
        where the file does not name it), `losses` of the epochs, and `seconds` or None; None without `per_image`.

    Raises:
        InputError: the file cannot be used.
    """
    try:
        run = json.loads(Path(path).read_text(encoding='utf-8'))
        if 'per_image' not in run:
            return None
        images = run['per_image']
        if not images:
            raise ValueError('per_image has no image')
        several = all(isinstance(one, dict) and not _is_number(next(iter(one.values()))) for one in images.values())
        test_sets = images if several else {'test': images}
        return {
            'model': run['model'],
            'seed': int(run['seed']),
            'fold': run.get('fold'),
            'test_sets': {
                test_set: {name: _scores(one) for name, one in found.items()} for test_set, found in test_sets.items()
            },
            'losses': [float(loss) for loss in run.get('loss_per_epoch', ())],
            'seconds': run.get('seconds'),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise InputError(f'{path}: not the scores of a run ({type(error).__name__}: {error})') from None


def _is_number(value):
    return isinstance(value, (int, float))


def _scores(one):
    """The scores of one image by name."""
    if isinstance(one, dict):
        return {current_score_name(key): float(value) for key, value in one.items()}
    return dict(zip(HARD, map(float, one), strict=True))


def reference_name(model: str) -> str:
    """Returns the name of a row of another program's scores."""
    return f'reference {model}'
