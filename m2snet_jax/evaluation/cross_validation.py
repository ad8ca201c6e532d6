"""Cross-validated scores: each image of a dataset is scored by the models that were not trained on it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.data.duplicates import near_duplicates, thumbnail
from m2snet_jax.devices.mesh import make_mesh
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.model_entries import about_maps, about_scores, model_warnings, set_model_keys
from m2snet_jax.evaluation.scores import Scores, figures_of
from m2snet_jax.evaluation.test_sets import score_source, summarise_all
from m2snet_jax.evaluation.trained_images import trained_images
from m2snet_jax.prediction.folders import claim_folder
from m2snet_jax.prediction.predictor import Predictor
from m2snet_jax.storage import versions
from m2snet_jax.weights import recorded_config

SEEN = 'seen_by_every_model'  # the set of images that no model can score


@dataclasses.dataclass(frozen=True)
class Chosen(Sequence):
    """Some examples of several sources: (source, index) of each."""

    places: list[tuple[Sequence, int]]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        source, number = self.places[index]
        return source[number]


def cross_validate(predictors: Sequence[Predictor], models: Sequence[Path], config: Any, output: Path) -> Scores:
    """Scores every image of a dataset by the mean of the models that were not trained on it.

    Whether a model was trained on an image, or chosen with it, is decided by the SHA-256 of the image in the manifest
    of its run. Images that every model was trained on are a set of their own, scored by all models.

    Args:
        predictors, models: one Predictor of each model, and the folders of their runs.
        config: of the dataset, by default that of the first run; all of its folds are read.
        output: folder, marked as that of these models.

    Raises:
        InputError: a model has no manifest or another dataset, or the dataset is not divided into folds.
    """
    dataset, places = _every_example(config)
    rows = dataset.manifest
    trained = [_trained(model, {row['image_sha256'] for row in rows}) for model in models]
    unseen = [tuple(k for k, own in enumerate(trained) if row['image_sha256'] not in own) for row in rows]
    everyone = Predictor.joined(predictors)
    set_model_keys(config, everyone, models[0])
    claim_folder(output / 'maps', {**about_maps(everyone), 'cross_validated': True})
    scored, folds = _scored_by_fold(predictors, models, unseen, places, config, output)
    results = {'test': scored}
    some = [place for place, members in zip(places, unseen, strict=True) if members]
    tests: dict[str, Sequence] = {'test': Chosen(some)}
    warnings, apart = model_warnings(models), [number for number, members in enumerate(unseen) if not members]
    names_apart = [rows[number]['name'] for number in apart]
    if apart:
        tests[SEEN] = Chosen([places[number] for number in apart])
        results[SEEN] = _score(predictors, SEEN, apart, places, config, output)
        warnings.append(
            f'{len(apart)} images were trained on by every model and are scored apart, as {SEEN}: '
            f'{", ".join(names_apart)}'
        )
    near = _near_trained(rows, places, unseen, trained)
    if near:
        warnings.append(
            f'test: {near} of {len(scored)} images have a near-duplicate among the images that their models were '
            'trained on: these scores are flattered'
        )
    about = {
        'manifest_hash': dataset.manifest_hash,
        'cross_validation': {'folds': folds, 'near_duplicates': near, SEEN: names_apart},
    }
    scores = summarise_all(results, tests, config, output, about, warnings)
    return scores.with_summary(**about_scores(config, models, everyone), versions=versions())


def _every_example(config):
    """Returns the dataset of a config, of all folds, and the place (source, index) of every row of its manifest."""
    if config.data.fold is None:
        raise InputError('--cross-validate: data.fold is none, so that all images were trained on; give runs of folds')
    with config.unlocked():  # every image of the set, also those that a run held out or left out
        config.data.validation = config.data.exclude = None
    dataset = open_dataset(config)
    sources = {'train': dataset.train, **dataset.tests}
    counters, places = dict.fromkeys(sources, 0), []
    for row in dataset.manifest:
        places.append((sources[row['split']], counters[row['split']]))
        counters[row['split']] += 1
    return dataset, places


def _scored_by_fold(predictors, models, unseen, places, config, output):
    """Returns the scored images that some model has not seen, and the images, models and scores of each fold."""
    kept = [number for number, members in enumerate(unseen) if members]
    if not kept:
        raise InputError('--cross-validate: every model was trained on every image; give models of several folds')
    position = {number: index for index, number in enumerate(kept)}
    scored, by_fold = [], {}
    for members in dict.fromkeys(unseen[number] for number in kept):
        numbers = [number for number in kept if unseen[number] == members]
        part = _score([predictors[k] for k in members], 'test', numbers, places, config, output)
        scored += [(position[numbers[member[0]]], *member[1:]) for member in part]
        fold = ', '.join(dict.fromkeys(str(recorded_config(models[k])['data']['fold']) for k in members))
        images, used = by_fold.setdefault(fold, ([], set()))
        images.extend(member[-1] for member in part)
        used.update(members)
    folds = {
        fold: {'images': len(images), 'models': len(used), 'scores': figures_of(images)}
        for fold, (images, used) in sorted(by_fold.items())
    }
    return sorted(scored, key=lambda member: member[0]), folds


def _trained(model: Path, images: set[str]) -> set[str]:
    """Returns the SHA-256 of the images that a model was trained on, some of them among `images`."""
    own = trained_images(model)
    if not own:
        raise InputError(f'--model={model}: has no manifest of its training images; --cross-validate takes run folders')
    if not own & images:
        raise InputError(f'--model={model}: was trained on none of these images; give runs of this dataset')
    return own


def _score(predictors, test_set, numbers, places, config, output):
    """Returns the scored images `numbers`, by the mean of the predictors."""
    predictor = predictors[0] if len(predictors) == 1 else Predictor.joined(predictors)
    predictor.flips = predictors[0].flips
    source = Chosen([places[number] for number in numbers])
    size = config.data.size
    config.data.size = predictor.size
    try:
        return score_source(predictor, test_set, source, config, make_mesh(), output)[0]
    finally:
        config.data.size = size


def _near_trained(rows, places, unseen, trained):
    """Returns how many scored images have a near-duplicate among those that one of their models was trained on."""
    thumbnails = np.stack([thumbnail(source[index]['image']) for source, index in places])
    near = set()
    for first, second, _ in near_duplicates(thumbnails):
        for one, other in ((first, second), (second, first)):
            if any(rows[other]['image_sha256'] in trained[k] for k in unseen[one]):
                near.add(one)
    return len(near)
