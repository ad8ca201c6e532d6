"""Scores of another program that a study is compared with."""

import json
from pathlib import Path
from typing import Any

from m2snet_jax.config import current_score_name
from m2snet_jax.errors import InputError

HARD = ('hard/Dice', 'hard/IoU', 'hard/MAE')  # the columns of another program's scores


def read_references(folder: str | Path) -> dict[str, dict[tuple[int, int | None], dict[str, Any]]]:
    """Reads another program's scores, one run a JSON file.

    A file is a dict of `model`, `seed`, and `per_image`, {image: [Dice, IoU, MAE]} of protocol `hard` or {image:
    {'<protocol>/<name>': score}}; where known also `fold`, `seconds` and `loss_per_epoch`. JSON files without
    `per_image` are skipped.

    Returns:
        {model: {(seed, fold): dict of images, {image: {score: value}}; losses; seconds or None}}.

    Raises:
        InputError: a file that cannot be used, or none with scores.
    """
    found = {}
    for path in sorted(Path(folder).glob('*.json')):
        try:
            run = json.loads(path.read_text(encoding='utf-8'))
            if 'per_image' not in run:
                continue
            images = {
                name: {current_score_name(key): value for key, value in one.items()}
                if isinstance(one, dict)
                else dict(zip(HARD, map(float, one), strict=True))
                for name, one in run['per_image'].items()
            }
            key = int(run['seed']), run.get('fold')
            found.setdefault(run['model'], {})[key] = {
                'images': images,
                'losses': [float(loss) for loss in run.get('loss_per_epoch', ())],
                'seconds': run.get('seconds'),
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f'{path}: not the scores of a run ({type(error).__name__}: {error})') from None
    if not found:
        raise InputError(f'--reference={folder}: contains no JSON files with per_image')
    return found


def reference_name(model: str) -> str:
    """Returns the name of a row of another program's scores."""
    return f'reference {model}'
