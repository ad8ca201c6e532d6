"""The score sheets of a run: written once, read by `compare` and `report`.

`scores/` in a folder gets
    summary.json     what was scored by what, every score with its interval
    per_image.csv    every score of every image
    details.json     curves, calibration, pixels of each level and chosen cases, from which the report is drawn
    cases/           those cases as image, mask, map and errors
"""

import collections
import contextlib
import csv
import importlib.metadata
import json
import math
import os
from pathlib import Path

import numpy as np
from PIL import Image

from m2snet_jax import metrics
from m2snet_jax.data.splits import clip_of
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.scoring import NOTES, read_maps
from m2snet_jax.images import read_mask
from m2snet_jax.metrics import hard, pranet, reference
from m2snet_jax.metrics.statistics import PROTOCOLS, groups, interval, resample, stack
from m2snet_jax.plot import case_panels
from m2snet_jax.published import PROTOCOL_NOTE, SOURCE, published

LEVEL, SEED = 0.95, 0  # of the bootstrap intervals
WORST, BEST = 10, 5  # cases of each test set that are drawn
CONSTANTS = {
    'reference': {
        'source': 'released program of M²SNet', 'stretch': 'min-max', 'mask': '> half of its maximum',
        'beta_squared': 0.3, 'epsilon': reference.EPSILON, 'smooth': reference.SMOOTH, 'thresholds': reference.BINS,
    },
    'pranet': {
        'source': 'MATLAB toolbox of PraNet', 'stretch': 'min-max', 'mask': '> 128',
        'beta_squared': 1, 'epsilon': pranet.EPSILON, 'thresholds': len(pranet.THRESHOLDS),
    },
    'hard': {'source': 'cut at one level', 'stretch': 'none', 'mask': '> half of its maximum', 'level': hard.THRESHOLD},
}  # fmt: skip
PACKAGES = ('m2snet_jax', 'jax', 'flax', 'optax', 'numpy', 'scipy', 'opencv-python-headless', 'pillow')
SELECTED_ON_TEST = 'the checkpoint was chosen on the test set: these scores are flattered and comparable with nothing'
HARD_ALONE = ('pooled/', 'lesion_free/')  # figures of `hard` that stand without its name


def write_sheets(results, tests, config, workdir, about, warnings=()):
    """Writes everything in `scores/` and returns the scores.

    Args:
        results: {test set: [(index, name, paths of the maps, what `scoring.score_maps` returned)]}.
        tests: {test set: random access by that index → dict of mask, uint8 [H, W] or a path, and image or None}.
        config: `data.{name, classes}`, `evaluate.bootstrap` and `select` are read.
        workdir: gets `scores/`.
        about: first entries of `summary.json`.
        warnings: lines on the model, beside those on the maps and masks that are found here.
    """
    scores, intervals, rows, details, counts = {}, {}, [], {}, {}
    warnings = [*([SELECTED_ON_TEST] if config.get('select') == 'test' else []), *warnings]
    for test_set, members in results.items():
        names, images = [member[1] for member in members], [member[-1] for member in members]
        classes = [list(one) for one in zip(*(image['scores'] for image in images), strict=True)]
        clips = [clip_of(name) for name in names]
        clusters = groups(clips if any(clips) else None, len(names))
        flat, bounds = _summarise(classes, clusters, config.evaluate.bootstrap)
        scores |= {f'{test_set}/{name}': value for name, value in flat.items()}
        intervals |= {f'{test_set}/{name}': value for name, value in bounds.items()}
        rows += [row for name, image in zip(names, images, strict=True) for row in _rows(test_set, name, image)]
        counts[test_set] = {'images': len(names), 'resampled': 'clips' if any(clips) else 'images'}
        for note, number in collections.Counter(note for image in images for note in image['notes']).items():
            warnings.append(f'{test_set}: {number} {NOTES[note]}')
        details[test_set] = {
            'classes': [_curves(one) for one in classes],
            'calibration': sum(image['calibration'] for image in images).tolist(),
            'levels': sum(image['levels'] for image in images).astype(int).tolist(),
            'cases': _draw_cases(test_set, members, tests[test_set], workdir / 'scores' / 'cases'),
        }
    folder = workdir / 'scores'
    _write_csv(folder / 'per_image.csv', rows)
    _write_text(folder / 'details.json', json.dumps(plain(details)))
    bootstrap = {'resamples': config.evaluate.bootstrap, 'seed': SEED, 'level': LEVEL}
    sheet = {'test_sets': counts, 'warnings': warnings, 'protocols': CONSTANTS, 'bootstrap': bootstrap}
    beside = {test_set: published(config.data.name, test_set) for test_set in results}
    if any(beside.values()):
        sheet['published'] = {'source': SOURCE, 'note': PROTOCOL_NOTE, 'test_sets': beside}
    (folder / 'summary.json').unlink(missing_ok=True)
    write_summary(workdir, scores, {**about, **sheet, 'intervals': intervals})
    return scores


def write_summary(workdir, scores, about):
    """Writes `scores/summary.json`, or adds to what `evaluate` wrote there: the scores beside what identifies the run.

    NaN and ∞ are stored as 'nan' and 'inf'.
    """
    path = Path(workdir) / 'scores' / 'summary.json'
    before = json.loads(path.read_text()) if path.exists() else {}
    _write_text(path, json.dumps(plain({**about, **before, **about, 'scores': scores}), indent=1) + '\n')


def read_summary(workdir):
    """Returns the scores that `write_summary` wrote, None if there are none."""
    path = Path(workdir) / 'scores' / 'summary.json'
    if not path.exists():
        return None
    return {name: float(value) for name, value in json.loads(path.read_text())['scores'].items()}


def versions():
    """Returns {package: version} of what shapes a result."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def read_sheet(folder, name='summary.json'):
    """Returns a JSON file of `scores/` in a run's folder; raises InputError where there is none."""
    path = Path(folder) / 'scores' / name
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        raise InputError(f'{path}: no readable score sheet; name a folder that train or evaluate wrote') from None


def read_per_image(folder):
    """Returns the rows of `scores/per_image.csv` as dicts of text; raises InputError where there is none."""
    path = Path(folder) / 'scores' / 'per_image.csv'
    try:
        with path.open(newline='', encoding='utf-8') as file:
            return list(csv.DictReader(file))
    except OSError:
        raise InputError(f'{path}: no such score sheet; name a folder that train or evaluate wrote') from None


def _summarise(classes, clusters, resamples):
    """({'<protocol>/<name>': figure}, {the same: (low, high)}) of one test set.

    With several classes these are means over them, and those of each stand under 'class<k>/…'.
    """
    summaries = [metrics.aggregate_all(scores) for scores in classes]
    figures, bounds = dict(summaries[0]), {}
    if len(classes) > 1:
        figures = metrics.class_mean(summaries)
        figures |= {f'class{k}/{name}': v for k, summary in enumerate(summaries, 1) for name, v in summary.items()}
    if not resamples:
        return figures, bounds
    for protocol in PROTOCOLS:
        runs = [stack([image[protocol] for image in scores]) for scores in classes]
        drawn = resample(runs, protocol, clusters, resamples, SEED, 'keep')
        for name in drawn[0]:
            key = name if name.startswith(HARD_ALONE) else f'{protocol}/{name}'
            values = {key: np.mean([one[name] for one in drawn], axis=0)}
            if len(classes) > 1:
                values |= {f'class{k}/{key}': one[name] for k, one in enumerate(drawn, 1)}
            bounds |= {name: interval(figures[name], one, clusters, LEVEL) for name, one in values.items()}
    return figures, bounds


def _curves(scores):
    """Mean curves of one class."""
    curves = {
        f'{protocol}/{name}': np.mean([image[protocol][name] for image in scores], axis=0).tolist()
        for protocol in PROTOCOLS
        for name, value in scores[0][protocol].items()
        if np.ndim(value)
    }
    return curves | {'pranet/thresholds': pranet.THRESHOLDS.tolist()}


def _rows(test_set, name, image):
    """One CSV row a class: every score that is a number."""
    for number, scores in enumerate(image['scores'], start=1):
        row = {'set': test_set, 'name': name, 'class': number}
        for protocol in PROTOCOLS:
            row.update({f'{protocol}/{key}': value for key, value in scores[protocol].items() if np.ndim(value) == 0})
        yield row


def _draw_cases(test_set, members, source, folder):
    """Draws the worst and best images with a lesion and the worst without; returns [{kind, name, Dice, file}]."""

    def dice(member):
        return float(np.mean([scores['hard']['Dice'] for scores in member[-1]['scores']]))

    def pixels(member, *names):
        return sum(scores['hard'][name] for scores in member[-1]['scores'] for name in names)

    with_lesion = sorted((member for member in members if pixels(member, 'TP', 'FN')), key=dice)
    free = sorted((member for member in members if not pixels(member, 'TP', 'FN')), key=lambda one: -pixels(one, 'FP'))
    best = with_lesion[WORST:][-BEST:][::-1]
    chosen = {'worst': with_lesion[:WORST], 'best': best, 'lesion_free': [m for m in free if pixels(m, 'FP')][:BEST]}
    cases = []
    for kind, members_of_kind in chosen.items():
        for rank, member in enumerate(members_of_kind, start=1):
            index, name, paths, _ = member
            example = source[index]
            mask = example['mask'] if isinstance(example['mask'], np.ndarray) else read_mask(example['mask'])
            if len(paths) > 1:
                mask = np.where(mask > 0, 255, 0).astype(np.uint8)
            path = folder / test_set / f'{kind}_{rank:02}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f'.{path.name}')
            panels = case_panels(example.get('image'), mask, read_maps(paths).max(-1))
            Image.fromarray(panels).save(temporary, 'JPEG', quality=85)
            os.replace(temporary, path)
            cases.append({'kind': kind, 'name': name, 'Dice': dice(member), 'file': str(path.relative_to(folder))})
    return cases


def plain(value):
    """Returns the same with NaN and ∞ as text, for they are no JSON."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}')
    with temporary.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ['set', 'name'])
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def _write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}')
    temporary.write_text(text, encoding='utf-8')
    os.replace(temporary, path)
