"""The score sheets of a run: the files in `scores/` that Scores are written to and read from.

summary.json     the data and the model, every score with its interval
per_image.csv    every score of every image
details.json     curves, calibration, pixels of each level and chosen cases, for the report
cases/           those cases as image, mask, map and errors
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

from m2snet_jax.config import current_score_name, current_sheet
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.published import published
from m2snet_jax.evaluation.scores import Scores
from m2snet_jax.storage import json_value, with_addresses, write, write_json

FOLDER, SUMMARY, PER_IMAGE, DETAILS = 'scores', 'summary.json', 'per_image.csv', 'details.json'


def write_sheets(scores: Scores, folder: str | Path) -> None:
    """Writes Scores into `scores/` of a folder, the summary last: where it exists, the sheets are complete."""
    folder = Path(folder) / FOLDER
    (folder / SUMMARY).unlink(missing_ok=True)
    table = io.StringIO()
    columns = dict.fromkeys(column for row in scores.per_image for column in row)  # doubt only where it is computed
    writer = csv.DictWriter(table, list(columns) or ['set', 'name'])
    writer.writeheader()
    writer.writerows(scores.per_image)
    write(folder / PER_IMAGE, table.getvalue())
    write(folder / DETAILS, json.dumps(json_value(scores.details)))
    write_json(folder / SUMMARY, scores.summary)


def check_same_source(folder: str | Path, maps: str | Path | None) -> None:
    """Raises InputError if a folder holds scores of other maps than `maps`, or of a model.

    `maps` is None for a model: then those of a model are allowed, since `claim_folder` compares models by their hashes.
    """
    try:
        summary = _read(folder, SUMMARY)
    except InputError:
        return
    before = summary.get('maps') or (None if maps is None else summary.get('model'))
    if before is None:
        return
    if maps is None or (before != with_addresses(str(maps)) and Path(before).resolve() != Path(maps).resolve()):
        raise InputError(f'{folder}: holds the scores of {before}; name another folder with --output')


def read_sheets(folder: str | Path) -> Scores:
    """Returns the Scores that `train` or `evaluate` wrote into a folder.

    Raises:
        InputError: a sheet is missing or cannot be read.
    """
    return Scores(read_summary(folder), read_per_image(folder), current_sheet(_read(folder, DETAILS)))


def read_summary(folder: str | Path) -> dict[str, Any]:
    """Returns `Scores.summary` of a folder; raises InputError where there is none."""
    summary = current_sheet(_read(folder, SUMMARY))
    if 'test_sets' in summary.get('published', {}):  # written by version 0.1, which had figures without a source
        summary['published'] = {
            name: published(summary['config']['data']['name'], name) for name in summary['test_sets']
        }
    summary['scores'] = {name: float(value) for name, value in summary['scores'].items()}
    return summary


def read_per_image(folder: str | Path) -> list[dict[str, str]]:
    """Returns `Scores.per_image` of a folder, every value as text; raises InputError where there is none."""
    path = Path(folder) / FOLDER / PER_IMAGE
    try:
        with path.open(newline='', encoding='utf-8', errors='surrogateescape') as file:
            rows = list(csv.DictReader(file))
    except OSError:
        raise InputError(f'{path}: no such score sheet; name a folder that train or evaluate wrote') from None
    return [{current_score_name(key): value for key, value in row.items()} for row in rows]


def scored_step(folder: str | Path) -> int | None:
    """Returns the training step after which a run was scored, None where it was not."""
    try:
        return _read(folder, SUMMARY).get('step')
    except InputError:
        return None


def _read(folder, name):
    path = Path(folder) / FOLDER / name
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        raise InputError(f'{path}: no readable score sheet; name a folder that train or evaluate wrote') from None
