"""Predict and score: what happens to the test sets at the end of training and in the command `evaluate`.

What is written into a folder, beside `maps/` and `overlays/`, stands in the head of sheet.py.
"""

import itertools
import sys
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from m2snet_jax import hosts
from m2snet_jax import mesh as devices
from m2snet_jax.data.pipeline import eval_batches
from m2snet_jax.evaluation.scoring import score_files, score_maps
from m2snet_jax.evaluation.sheet import write_sheets
from m2snet_jax.images import write_png
from m2snet_jax.metrics.workers import in_processes
from m2snet_jax.plot import case_panels, overlay
from m2snet_jax.predictor import released_map


def evaluate(predict, dataset, config, mesh, workdir, warnings=()):
    """Predicts and scores every test set and writes maps, overlays and score sheets.

    Several processes share the images, write the maps of theirs, and all return the scores of all; they need to see
    the same `workdir`.

    Args:
        predict: images `[B, S, S, 3]`, sharded over the mesh → probabilities `[B, S, S, C]`.
        dataset: whose `tests` are scored, at the original size of every image.
        config: `data`, `evaluate` and `log.images` are read.
        mesh: devices to predict on.
        workdir: gets the files listed in the head of sheet.py; maps are written as the released program writes
            them (`<name>_<class>.png` for several classes), overlays of the first few.
        warnings: lines that the score sheet is to show.

    Returns:
        (scores, panels): {'<set>/<protocol>/<name>': figure} and {'<set>/<name>': the first few as `case_panels`}.
    """
    results, panels, workdir = {}, {}, Path(workdir)
    process, processes = jax.process_index(), jax.process_count()

    def predicted(test_set, source, members):
        for number, (example, maps) in enumerate(_maps(predict, source, config, mesh)):
            index, name = process + number * processes, example['name']
            paths = map_paths(workdir / 'maps' / test_set, name, config.data.classes)
            members.append((index, name, paths))
            for path, levels in zip(paths, np.moveaxis(maps, -1, 0), strict=True):
                _write(path, levels)
            if index < config.log.images:
                case = example['original'], _lesion(example['mask'], config.data.classes), maps.max(-1)
                panels[f'{test_set}/{name}'] = case_panels(*case)
                _write(workdir / 'overlays' / test_set / f'{name}.png', overlay(*case))
            yield maps, example['mask'], config.data.classes

    for test_set, source in dataset.tests.items():
        members, count = [], -(-len(source) // processes)
        images = list(_bar(in_processes(score_maps, predicted(test_set, source, members), count), count, test_set))
        scored = [(*member, image) for member, image in zip(members, images, strict=True)]
        results[test_set] = sorted(itertools.chain(*hosts.gather(scored)), key=lambda member: member[0])
    about = {'manifest_hash': dataset.manifest_hash}
    scores = write_sheets(results, dataset.tests, config, workdir, about, warnings) if hosts.is_first() else None
    panels = {name: drawn for part in hosts.gather(panels) for name, drawn in part.items()}
    return hosts.gather(scores)[0], panels


def evaluate_maps(found, tests, config, workdir, about):
    """Scores maps that lie on disk, whoever wrote them, and writes the score sheets.

    Args:
        found: {test set: [(index, name, paths of the maps, one a class)]}.
        tests: {test set: random access by that index → dict of mask, uint8 [H, W] or a path, and image or None}.
        config: `data.classes` and `evaluate.bootstrap` are read.
        workdir: gets `scores/`.
        about: further entries of `summary.json`.

    Returns:
        (scores, faults): as in `evaluate`, and a line for each file that cannot be used.
    """
    results, faults, classes = {}, [], config.data.classes
    for test_set, members in found.items():
        jobs = ((paths, tests[test_set][index]['mask'], classes) for index, _, paths in members)
        images = _bar(in_processes(score_files, jobs, len(members)), len(members), test_set)
        results[test_set] = []
        for member, image in zip(members, images, strict=True):
            if 'fault' in image:
                faults.append(image['fault'])
            else:
                results[test_set].append((*member, image))
    results = {test_set: rows for test_set, rows in results.items() if rows}
    return write_sheets(results, tests, config, Path(workdir), about), faults


def sample_panels(predict, source, config, mesh):
    """Returns {name: `case_panels`} of the first `log.images` examples of `source`; arguments as in `evaluate`.

    Of several processes each returns its share of twice as many at most.
    """
    return {
        example['name']: case_panels(example['original'], _lesion(example['mask'], config.data.classes), maps.max(-1))
        for example, maps in itertools.islice(_maps(predict, source, config, mesh), config.log.images)
    }


def _bar(images, count, test_set):
    """The same, while a bar on a terminal's stderr shows how far it is."""
    return tqdm(images, test_set, count, unit='image', disable=None if hosts.is_first() else True, file=sys.stderr)


def _maps(predict, source, config, mesh):
    """Yields every example with its maps, uint8 [H, W, C], at its own size."""
    for examples, images in eval_batches(source, config, mesh.size, jax.process_index(), jax.process_count()):
        probabilities = devices.own_rows(predict(devices.shard(images, mesh)))
        for example, probability in zip(examples, probabilities, strict=False):
            height, width = example['mask'].shape
            channels = np.moveaxis(probability, -1, 0)
            yield example, np.stack([released_map(channel, height, width) for channel in channels], -1)


def map_paths(folder, name, classes):
    """Returns where the maps of one image are written: `<name>.png`, or `<name>_<class>.png` of several classes."""
    suffixes = [''] if classes == 1 else [f'_{number}' for number in range(1, classes + 1)]
    return [folder / f'{name}{suffix}.png' for suffix in suffixes]


def _lesion(mask, classes):
    """The mask as levels 0…255, all classes together."""
    return mask if classes == 1 else np.where(mask > 0, 255, 0).astype(np.uint8)


def _write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, image)
