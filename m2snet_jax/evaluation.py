"""Predict, score, write: what happens to the test sets at the end of training."""

import csv
import itertools
import json
import math
import os
from pathlib import Path

import numpy as np

from m2snet_jax import mesh as devices
from m2snet_jax import metrics
from m2snet_jax.data.pipeline import eval_examples
from m2snet_jax.images import write_png
from m2snet_jax.metrics.statistics import PROTOCOLS
from m2snet_jax.plot import overlay
from m2snet_jax.predictor import released_map


def evaluate(predict, dataset, config, mesh, workdir):
    """Predicts and scores every test set and writes maps, overlays and score sheets.

    Args:
        predict: images `[B, S, S, 3]`, sharded over the mesh → probabilities `[B, S, S, C]`.
        dataset: whose `tests` are scored, at the original size of every image.
        config: `data`, `evaluate` and `log.images` are read.
        mesh: devices to predict on.
        workdir: gets `maps/<set>/<name>.png` as the released program writes maps (`<name>_<class>.png` for several
            classes), `overlays/<set>/<name>.png` for the first few, `scores/per_image.csv`.

    Returns:
        (scores, overlays): {'<set>/<protocol>/<name>': figure} and {'<set>/<name>': uint8 [H, W, 3]}.
    """
    scores, rows, overlays = {}, [], {}
    for test_set, source in dataset.tests.items():
        per_image = []
        for number, (example, maps) in enumerate(_maps(predict, source, config, mesh)):
            _write_maps(workdir / 'maps' / test_set, example['name'], maps)
            if number < config.log.images:
                drawn = overlay(example['original'], _lesion(example['mask'], config), maps.max(-1))
                overlays[f'{test_set}/{example["name"]}'] = drawn
                _write(workdir / 'overlays' / test_set / f'{example["name"]}.png', drawn)
            per_image.append(_score(maps, example['mask'], config.data.classes))
            rows += _rows(test_set, example['name'], per_image[-1])
        scores.update({f'{test_set}/{name}': value for name, value in _aggregate(per_image).items()})
    _write_csv(workdir / 'scores' / 'per_image.csv', rows)
    return scores, overlays


def write_summary(workdir, scores, about):
    """Writes `scores/summary.json`: the scores beside what identifies the run; NaN and ∞ as 'nan' and 'inf'."""
    plain = {name: value if math.isfinite(value) else str(value) for name, value in scores.items()}
    path = workdir / 'scores' / 'summary.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name('.summary.json')
    temporary.write_text(json.dumps({**about, 'scores': plain}, indent=1) + '\n')
    os.replace(temporary, path)


def read_summary(workdir):
    """Returns the scores that `write_summary` wrote, None if there are none."""
    path = Path(workdir) / 'scores' / 'summary.json'
    if not path.exists():
        return None
    return {name: float(value) for name, value in json.loads(path.read_text())['scores'].items()}


def _maps(predict, source, config, mesh):
    """Yields every example with its maps, uint8 [H, W, C], at its own size."""
    examples = eval_examples(source, config)
    size = -(-config.evaluate.batch // mesh.size) * mesh.size
    try:
        while batch := list(itertools.islice(examples, size)):
            # Always the same shape, so that one program serves; what fills up the last batch is not looked at.
            images = [example['image'] for example in batch] + [batch[-1]['image']] * (size - len(batch))
            probabilities = np.asarray(predict(devices.shard(np.stack(images), mesh)))
            for example, probability in zip(batch, probabilities, strict=False):
                height, width = example['mask'].shape
                channels = np.moveaxis(probability, -1, 0)
                yield example, np.stack([released_map(channel, height, width) for channel in channels], -1)
    finally:
        examples.close()


def _lesion(mask, config):
    """The mask as levels 0…255, all classes together."""
    return mask if config.data.classes == 1 else np.where(mask > 0, 255, 0).astype(np.uint8)


def _score(maps, mask, classes):
    """Scores by every protocol, one dict a class."""
    pairs = [(maps[..., 0], mask)] if classes == 1 else metrics.class_pairs(maps, mask)
    return [metrics.score_all(prediction, truth) for prediction, truth in pairs]


def _aggregate(per_image):
    """{'<protocol>/<name>': figure}; with several classes their mean, and 'class<k>/<protocol>/<name>' beside."""
    summaries = [metrics.aggregate_all(list(scores)) for scores in zip(*per_image, strict=True)]
    if len(summaries) == 1:
        return summaries[0]
    classes = {f'class{k}/{name}': v for k, summary in enumerate(summaries, 1) for name, v in summary.items()}
    return {**metrics.class_mean(summaries), **classes}


def _rows(test_set, name, classes):
    """One CSV row a class: every score that is a number."""
    for number, scores in enumerate(classes, start=1):
        row = {'set': test_set, 'name': name, 'class': number}
        for protocol in PROTOCOLS:
            row.update({f'{protocol}/{key}': value for key, value in scores[protocol].items() if np.ndim(value) == 0})
        yield row


def _write_maps(folder, name, maps):
    for number in range(maps.shape[-1]):
        suffix = '' if maps.shape[-1] == 1 else f'_{number + 1}'
        _write(folder / f'{name}{suffix}.png', maps[..., number])


def _write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, image)


def _write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}')
    with temporary.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ['set', 'name'])
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)
