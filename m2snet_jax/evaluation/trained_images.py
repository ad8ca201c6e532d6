"""Which images models were trained on, by the SHA-256 in the manifests of their runs."""

import collections
import csv
from collections.abc import Sequence
from pathlib import Path

from m2snet_jax.data.datasets import Dataset
from m2snet_jax.data.splits import TRAINED_ON
from m2snet_jax.weights import run_folder


def trained_on_warnings(models: Sequence[Path], dataset: Dataset) -> list[str]:
    """Returns a line for each test set with images that a model was trained on, by the SHA-256 in their manifests."""
    trained = set().union(*(trained_images(model) for model in models))
    rows = [row for row in dataset.manifest if row['split'] in dataset.tests and row['image_sha256'] in trained]
    counts = collections.Counter(row['split'] for row in rows)
    some = 'the model was' if len(models) == 1 else 'some of the models were'
    return [
        f'{name}: {number} of {len(dataset.tests[name])} images are among those that {some} trained on: these scores '
        'are flattered'
        for name, number in counts.items()
    ]


def trained_images(model: Path) -> set[str]:
    """Returns the SHA-256 of the images that a model was trained on or chosen with; none where it is not recorded."""
    return {row['image_sha256'] for row in recorded_manifest(model) if row['split'] in TRAINED_ON}


def recorded_manifest(model: Path) -> list[dict[str, str]]:
    """Returns the rows of the manifest of a run, none where there is no run."""
    path = run_folder(model) / 'manifest.csv'
    if not model.is_dir() or not path.exists():
        return []
    with path.open(newline='', encoding='utf-8', errors='surrogateescape') as file:
        return list(csv.DictReader(file))
