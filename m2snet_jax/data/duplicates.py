"""Near-duplicates: images whose 64×64 area-averaged grey has a Pearson correlation of 0.98 or more."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import scipy
from jaxtyping import Float32, Int, UInt8
from PIL import Image

from m2snet_jax.errors import InputError
from m2snet_jax.images.formats import read_image

CORRELATION = 0.98
SIDE = 64
_ROWS = 512  # compared at once


def thumbnail(image: UInt8[np.ndarray, 'height width 3']) -> Float32[np.ndarray, '4096']:
    """Returns the 64×64 grey levels of an image, of mean 0 and norm 1, or all 0.

    A uniform image has no correlation with any other and gives 0.
    """
    grey = Image.fromarray(image).convert('L').convert('F')
    levels = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64).ravel()
    levels -= levels.mean()
    norm = np.linalg.norm(levels)
    return (levels / norm if norm > 1e-6 else np.zeros_like(levels)).astype(np.float32)


def near_duplicates(thumbnails: Float32[np.ndarray, 'images 4096']) -> list[tuple[int, int, float]]:
    """Returns [(i, j, correlation to four digits)] of near-duplicates with i < j, the most alike first."""
    pairs = []
    for start in range(0, len(thumbnails), _ROWS):
        correlations = thumbnails[start : start + _ROWS] @ thumbnails.T
        for row, column in zip(*np.nonzero(correlations >= CORRELATION), strict=True):
            if start + row < column:
                pairs.append((int(start + row), int(column), round(min(1.0, float(correlations[row, column])), 4)))
    return sorted(pairs, key=lambda pair: (-pair[2], pair))


def groups(count: int, pairs: Sequence[tuple]) -> Int[np.ndarray, 'count']:
    """Returns the number of each image's group: the connected components of the pairs (i, j, …)."""
    rows, columns = ([pair[side] for pair in pairs] for side in (0, 1))
    graph = scipy.sparse.coo_array((np.ones(len(pairs)), (rows, columns)), shape=(count, count))
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[1]


def groups_of_files(paths: Iterable[Path], window: str | None = None) -> Int[np.ndarray, 'images']:
    """Returns the number of the group of each image file; one that cannot be read is alone."""

    def thumbnail_of(path):
        try:
            return thumbnail(read_image(path, window))
        except InputError:  # reported where the file is needed
            return np.zeros(SIDE * SIDE, np.float32)

    with ThreadPoolExecutor() as threads:
        thumbnails = np.stack(list(threads.map(thumbnail_of, paths)))
    return groups(len(thumbnails), near_duplicates(thumbnails))
