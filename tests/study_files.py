"""Study files and finished runs made up for tests."""

import csv
import json

from m2snet_jax.config import to_json
from m2snet_jax.evaluation.comparison import MEANS
from m2snet_jax.study.definition import base_config, cells_of, load_study

SIZE = 100  # pixels of a made-up image, of which ten are lesion


def write_file(folder, body):
    path = folder / 'mine.py'
    path.write_text(f'def get_study():\n    return {body!r}\n')
    return str(path)


def study_of(folder, variants, **more):
    """The study of a file with these variants and its cells."""
    study = load_study(write_file(folder, {'config': 'quickstart', 'about': 'A <try>.', 'variants': variants, **more}))
    return study, cells_of(study, base_config(study), folder / 'runs')


def variants(*names, **common):
    return [
        {'name': name, 'about': f'About {name}.', 'changes': {'batch': 2 + k}, **common} for k, name in enumerate(names)
    ]


def write_run(cell, dice, names=None, lesion_free=2, log=True):
    """Writes what a finished run leaves: Dice of every image, IoU half of it, and two images without a lesion."""
    (cell.folder / 'scores').mkdir(parents=True)
    names = names or [f'image{k}' for k in range(len(dice))]
    rows = []
    for number, (name, value) in enumerate(
        zip([*names, *(f'free{k}' for k in range(lesion_free))], [*dice, *[0.0] * lesion_free], strict=True)
    ):
        row = {f'{protocol}/{key}': value / 2 for protocol, keys in MEANS.items() for key in keys}
        row |= {'set': 'test', 'name': name, 'class': 1, 'hard/Dice': value, 'released/Dice': value}
        free = number >= len(dice)
        rows.append(row | {'hard/TP': 0 if free else 10, 'hard/FN': 0, 'hard/FP': int(name == 'free0')})
    with (cell.folder / 'scores' / 'per_image.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (cell.folder / 'config.json').write_text(json.dumps({'config': to_json(cell.config), 'manifest_hash': 'x'}))
    if log:
        lines = [{'step': 3, 'epoch': 0.75, 'loss': 4.0, 'images_per_second': 2.0, 'compile': 5.0}]
        lines += [{'step': 8, 'epoch': 2.0, 'loss': 2.0, 'images_per_second': 1.0, 'compile': 0.0}]
        (cell.folder / 'metrics.jsonl').write_text(''.join(json.dumps(one) + '\n' for one in lines) + '{"step": 9, ')
    (cell.folder / 'scores' / 'summary.json').write_text('{"step": 8}')
