"""Milliseconds of scoring one image, by protocol, and of scoring many on every core."""

import functools
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from m2snet_jax import metrics
from m2snet_jax.data.source import Source
from m2snet_jax.evaluation.image_scores import MaskFile, score_files
from m2snet_jax.images.formats import write_png
from m2snet_jax.metrics import hard, pranet, released
from m2snet_jax.metrics.counts import Counts
from m2snet_jax.metrics.workers import in_processes


class _CountsWithoutDistances(Counts):
    """`Counts` without the time of the weighted F-measure, to time the other scores."""

    @functools.cached_property
    def weighted_errors(self) -> tuple[float, float]:
        return 0.0, 0.0


def time_scores(pairs: int = 24, images: int = 798, height: int = 288, width: int = 352, seed: int = 0) -> dict:
    """Times scoring on generated lesions.

    Args:
        pairs: scored one by one in this process.
        images: pairs of PNG files scored on every core; 798 are the five polyp test sets together.

    Returns:
        dict: medians in milliseconds an image `all_but_wFm` (released and pranet without the weighted F-measure),
        `both_protocols` (with it), `hard` (with surface distances) and `everything` (`score_all`); `images` and the
        `seconds` they took with reading.
    """
    generator = np.random.default_rng(seed)
    examples = [_lesion_and_map(generator, height, width) for _ in range(pairs)]

    def both(prediction, mask, kind=Counts):
        counts = kind(*released.prepare(prediction, mask))
        released.score(counts)
        pranet.score(counts)

    def hard_alone(prediction, mask):
        hard.score(Counts(*hard.prepare(prediction, mask)))

    functions = {
        'all_but_wFm': functools.partial(both, kind=_CountsWithoutDistances),
        'both_protocols': both,
        'hard': hard_alone,
        'everything': metrics.score_all,
    }
    result = {name: 1e3 * statistics.median(_times(function, examples)) for name, function in functions.items()}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, (prediction, mask) in enumerate(examples):
            paths.append((Path(folder) / f'{number}_map.png', Path(folder) / f'{number}_mask.png'))
            write_png(paths[-1][0], prediction)
            write_png(paths[-1][1], mask)
        source = Source('', folder, {})
        jobs = (([paths[k % pairs][0]], MaskFile(paths[k % pairs][1], source), 1) for k in range(images))
        begun = time.perf_counter()
        for _ in in_processes(score_files, jobs, images):
            pass
        return result | {'images': images, 'seconds': time.perf_counter() - begun}


def _times(function, examples):
    for example in examples:
        begun = time.perf_counter()
        function(*example)
        yield time.perf_counter() - begun


def _lesion_and_map(generator, height, width):
    """A map with soft borders and noise, and an elliptic mask close to it."""
    rows, columns = np.mgrid[:height, :width]

    def distance(shift):
        row, column = (rows - height / 2 - shift) / radii[0], (columns - width / 2 - shift) / radii[1]
        return np.sqrt(row**2 + column**2)

    radii = generator.uniform(0.1, 0.3, 2) * (height, width)
    soft = 1 / (1 + np.exp(12 * (distance(5) - 1) + generator.normal(0, 0.3, (height, width))))
    return (255 * soft).astype(np.uint8), np.where(distance(0) < 1, 255, 0).astype(np.uint8)
