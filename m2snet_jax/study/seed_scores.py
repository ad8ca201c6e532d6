"""The scores of a variant for each seed, over the images of the folds that are finished."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from m2snet_jax.errors import InputError

Group = Mapping[tuple[int, int | None], Any]  # {(seed, fold): what `read_scores` returned} of one variant


def common_folds(*groups: Group) -> list[int | None]:
    """Returns the folds that all groups have finished, counting in each group the seeds with the most folds."""
    finished = []
    for group in groups:
        by_seed = {}
        for seed, fold in group:
            by_seed.setdefault(seed, set()).add(fold)
        most = max(map(len, by_seed.values()), default=0)
        finished += [folds for folds in by_seed.values() if len(folds) == most] or [set()]
    return sorted(set.intersection(*finished), key=str)


def seed_scores(
    group: Group, test_set: str, score: str, folds: Sequence[int | None]
) -> tuple[list[int], list[str], Float[np.ndarray, 'seeds images']]:
    """Returns (seeds, images, their scores) of the seeds that are finished on all folds, over all images they test.

    The score of an image that several folds test, e.g. the normal images of BUSI, is their mean. All three are empty
    for a score that some sheet lacks: a mean over the other folds would be that of other images.

    Raises:
        InputError: seeds that were scored on different images.
    """
    rows: dict[int, dict[str, float]] = {}
    for seed in dict.fromkeys(seed for seed, _ in group):
        if folds and all((seed, fold) in group for fold in folds):
            found = {}
            for fold in folds:
                for name, image in group[seed, fold].get(test_set, {}).items():
                    if _is_scored(image, score):
                        found.setdefault(name, []).append(_score(image, score))
            if None in (value for values in found.values() for value in values):
                return [], [], np.empty((0, 0))
            rows[seed] = {name: float(np.mean(values)) for name, values in found.items()}
    images = list(next(iter(rows.values()), ()))
    for seed, row in rows.items():
        if set(row) != set(images):
            raise InputError(
                f'seed {seed} was scored on other images of {test_set} than another seed; use the same data'
            )
    return list(rows), images, np.array([[row[image] for image in images] for row in rows.values()])


def _is_scored(image, score):
    """Whether a score is of images such as this, with or without a lesion."""
    has_lesion = image.get('lesion', 1) > 0
    return not has_lesion if score.startswith('lesion_free/') else has_lesion or score.startswith('released/')


def _score(image, score):
    """The score of one image; None where its sheet lacks it."""
    if score.startswith('lesion_free/'):
        return float(image['false'] > 0) if 'false' in image else None
    return image.get(score)
