"""Predicts and scores test sets, at the end of training and in `evaluate --model`.

Beside the sheets (see sheets.py) a folder gets `maps/<set>/<name>.png` and a few `overlays/`.
"""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict
from tqdm import tqdm

from m2snet_jax.config import expand_paths, load_config
from m2snet_jax.data.datasets import Dataset, open_dataset
from m2snet_jax.data.pipeline import eval_batches
from m2snet_jax.devices import processes
from m2snet_jax.devices.mesh import Mesh, make_mesh, own_rows, shard
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.cases import Member, draw_cases
from m2snet_jax.evaluation.image_scores import score_maps
from m2snet_jax.evaluation.model_entries import about_maps, about_scores, model_warnings, set_model_keys
from m2snet_jax.evaluation.scores import Scores, summarise
from m2snet_jax.evaluation.sheets import FOLDER
from m2snet_jax.evaluation.trained_images import trained_on_warnings
from m2snet_jax.images.drawing import case_panels, overlay
from m2snet_jax.images.formats import write_png
from m2snet_jax.metrics.workers import in_processes
from m2snet_jax.prediction.doubt import mean_entropy
from m2snet_jax.prediction.folders import claim_folder, map_paths
from m2snet_jax.prediction.predictor import Predictor, is_lesion, released_map, resized_map
from m2snet_jax.storage import finish, refetch, versions
from m2snet_jax.weights import recorded_config

Panels = dict[str, UInt8[np.ndarray, 'height width 3']]


def own_config(model: Path) -> Any:
    """Returns the config that the run of a model recorded, a ConfigDict with the types of the default.

    Raises:
        InputError: `model` is a file, which records no config.
    """
    if not model.is_dir():
        raise InputError(f'--model={model}: a file of weights has no test sets; name a --config')
    config = load_config('default')
    with config.unlocked():
        config.update(ConfigDict(recorded_config(model)))
        expand_paths(config)
    return config


def evaluate_model(
    predictor: Predictor, models: Sequence[Path], config: Any, sets: Sequence[str] | None, output: Path
) -> Scores:
    """Predicts and scores the test sets of a config with trained models; see `evaluate` for what is written.

    Args:
        predictor: of all models.
        models: their paths, the folders of runs or files of weights.
        sets: names of some test sets, None for all.
        output: folder, marked as this model's.

    Raises:
        InputError: no such test sets, other classes than the model's, or a folder with maps of another model.
    """
    dataset = chosen_sets(open_dataset(config), sets)
    shown = ', '.join(map(str, models))
    if predictor.classes != config.data.classes:
        raise InputError(f'--model={shown}: predicts {predictor.classes} classes, the config has {config.data.classes}')
    set_model_keys(config, predictor, models[0])
    claim_folder(output / 'maps', about_maps(predictor))
    warnings = [*model_warnings(models), *trained_on_warnings(models, dataset)]
    for kind in ('integers', 'floats'):
        white, trained_white = (getattr(one.reading, kind) for one in (dataset, predictor))
        if None not in (white, trained_white) and white != trained_white:
            warnings.append(f'{white:g} is white in these images ({kind}), {trained_white:g} in those of the training')
    scores, _ = evaluate(predictor, dataset, config, make_mesh(), output, warnings)
    return scores.with_summary(**about_scores(config, models, predictor), versions=versions())


def chosen_sets(dataset: Dataset, sets: Sequence[str] | None) -> Dataset:
    """Returns a dataset with only the test sets named in `sets`, or with all where it is None."""
    if not dataset.tests:
        raise InputError('this config has no test set with masks: set --config.data.fold, or name another config')
    for name in sets or ():
        if name not in dataset.tests:
            raise InputError(f'--sets={name}: no such test set; there are {", ".join(dataset.tests)}')
    return dataclasses.replace(dataset, tests={name: dataset.tests[name] for name in sets or dataset.tests})


def evaluate(
    predictor: Predictor, dataset: Dataset, config: Any, mesh: Mesh, workdir: str | Path, warnings: Sequence[str] = ()
) -> tuple[Scores, Panels]:
    """Predicts and scores every test set and writes maps, overlays and pictures of cases.

    Several processes share the images: each writes the maps of its own, and all return the scores of all. They need
    the same `workdir`, on a disk that all of them see or in a bucket.

    Args:
        dataset: whose `tests` are scored, at the original size of each image.
        config: `data`, `evaluate`, `select` and `log.images` are read.
        workdir: gets `maps/`, as the released program writes them (`<name>_<class>.png` for several classes),
            `overlays/` of the first few, and `scores/cases/`.
        warnings: lines for the score sheet.

    Returns:
        The scores, and {'<set>/<name>': the first few images as `case_panels`}.
    """
    results, panels = {}, {}
    for test_set, source in dataset.tests.items():
        results[test_set], drawn = score_source(predictor, test_set, source, config, mesh, workdir)
        panels |= drawn
    return summarise_all(
        results, dataset.tests, config, workdir, {'manifest_hash': dataset.manifest_hash}, warnings
    ), panels


def summarise_all(
    results: dict[str, list[Member]],
    tests: dict[str, Sequence],
    config: Any,
    workdir: str | Path,
    about: dict[str, Any],
    warnings: Sequence[str] = (),
) -> Scores:
    """Returns the Scores of scored images and draws their cases, in the first process for all.

    Args:
        results: {test set: its scored images}.
        tests: {test set: its examples}.
        config, workdir: as in `evaluate`.
        about, warnings: as in `summarise`.
    """
    scores = None
    if processes.is_primary():
        workdir = Path(workdir)
        refetch(workdir / 'maps')
        folder = workdir / FOLDER / 'cases'
        cases = {name: draw_cases(name, results[name], source, folder) for name, source in tests.items()}
        scores = summarise(results, config, cases, about, warnings)
    return processes.gather(scores)[0]


def score_source(
    predictor: Predictor, test_set: str, source: Sequence, config: Any, mesh: Mesh, workdir: str | Path
) -> tuple[list[Member], Panels]:
    """Predicts and scores one test set; see `evaluate`. Returns its scored images, and pictures of the first few."""
    workdir, panels, members, doubts = Path(workdir), {}, [], []
    process, count = jax.process_index(), jax.process_count()
    several = predictor.passes > 1
    maps_of = (
        _doubted_maps(predictor, source, config, mesh) if several else _maps(predictor.over(mesh), source, config, mesh)
    )

    def predicted():
        for number, (example, maps, *doubt) in enumerate(maps_of):
            index, name = process + number * count, example['name']
            paths = map_paths(workdir / 'maps' / test_set, name, config.data.classes)
            members.append((index, name, paths))
            doubts.extend(doubt)
            for path, levels in zip(paths, np.moveaxis(maps, -1, 0), strict=True):
                write_png(path, levels)
            if index < config.log.images:
                case = example['original'], _lesion(example['mask'], config.data.classes), maps.max(-1)
                panels[f'{test_set}/{name}'] = case_panels(*case)
                write_png(workdir / 'overlays' / test_set / f'{name}.png', overlay(*case))
            yield maps, example['mask'], config.data.classes

    share = -(-len(source) // count)
    images = list(with_bar(in_processes(score_maps, predicted(), share), share, test_set))
    if several:
        images = [image | {'doubt': doubt} for image, doubt in zip(images, doubts, strict=True)]
    scored = [(*member, image) for member, image in zip(members, images, strict=True)]
    finish(workdir)
    scored = sorted(itertools.chain(*processes.gather(scored)), key=lambda member: member[0])
    return scored, {name: drawn for part in processes.gather(panels) for name, drawn in part.items()}


def sample_panels(predict: Callable[..., Any], source: Sequence, config: Any, mesh: Mesh) -> Panels:
    """Returns {name: `case_panels`} of the first `log.images` examples of `source`, see `Predictor.over` for `predict`.

    With several processes each returns its share of at most twice as many.
    """
    return {
        example['name']: case_panels(example['original'], _lesion(example['mask'], config.data.classes), maps.max(-1))
        for example, maps in itertools.islice(_maps(predict, source, config, mesh), config.log.images)
    }


def with_bar(images: Iterable[Any], count: int, test_set: str) -> Iterable[Any]:
    """Returns an iterable of the same, which shows its progress as a bar on stderr where that is a terminal."""
    return tqdm(
        images, test_set, count, unit='image', disable=None if processes.is_primary() else True, file=sys.stderr
    )


def _maps(predict, source, config, mesh):
    """Yields every example with its maps, uint8 [height, width, classes], at its own size."""
    for examples, images in eval_batches(source, config, mesh.size, jax.process_index(), jax.process_count()):
        probabilities = own_rows(predict(shard(images, mesh)))
        for example, probability in zip(examples, probabilities, strict=False):
            yield example, released_map(probability, *example['mask'].shape)


def _doubted_maps(predictor, source, config, mesh):
    """Yields what `_maps` yields and {'entropy': …, 'pairwise_dice': …} of each example."""
    predict = predictor.predictions_over(mesh)
    for examples, images in eval_batches(source, config, mesh.size, jax.process_index(), jax.process_count()):
        predictions = predict([example['original'] for example in examples], images)
        for example, prediction in zip(examples, predictions, strict=True):
            size = example['mask'].shape
            maps, probability = released_map(prediction.probability, *size), resized_map(prediction.probability, *size)
            entropy = mean_entropy(probability, is_lesion(maps, 0.5))
            yield example, maps, {'entropy': entropy, 'pairwise_dice': prediction.agreement}


def _lesion(mask, classes):
    """Returns the mask as levels 0…255, all classes together."""
    return mask if classes == 1 else np.where(mask > 0, 255, 0).astype(np.uint8)
