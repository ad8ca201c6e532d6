"""From the maps and the mask of one image, arrays or files, to their scores; it runs in worker processes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from m2snet_jax import metrics
from m2snet_jax.data.source import Source, mask_levels
from m2snet_jax.errors import InputError
from m2snet_jax.images import nifti
from m2snet_jax.images.depth import DEEPEST
from m2snet_jax.images.formats import locate, read_map, read_mask, reader_of
from m2snet_jax.images.raster import deep_kind
from m2snet_jax.images.reading import UNDECIDED, Reading
from m2snet_jax.metrics import hard
from m2snet_jax.metrics.counts import Map

NOTES = {
    'resized': 'maps of another size than their mask, resized by the rule of each protocol',
    'sixteen_bit': 'maps of 16 bits, divided by 257',
    'logical': 'masks of 0 and 1, handed to pranet as 0 and 255 (to the letter it would find them empty)',
}


class MaskFile(NamedTuple):
    """A mask of a folder: its address, and the Source that says how it is read."""

    path: Path
    source: Source

    def read(self) -> Map:
        """Returns the mask as it is stored, checked as training would; raises InputError where it cannot be used."""
        stored = read_mask(self.path, self.source.reading, self.source.classes)
        mask_levels(stored, self.path, self.source)
        return stored


def score_maps(maps: UInt8[np.ndarray, 'map_height map_width classes'], mask: Map, classes: int) -> dict[str, Any]:
    """Scores the maps of one image against a mask of levels, or of class indices for several classes.

    Returns:
        dict of `scores`, `metrics.score_all` for each class; `calibration`, float64 [classes, 3, bins]; `levels`,
        float64 [classes, 2, 256], the pixels of each level and the lesion pixels among them; `notes`, keys of `NOTES`.
    """
    notes = ['resized'] if maps.shape[:2] != mask.shape else []
    if classes == 1 and mask.max() == 1:
        mask = mask * np.uint8(255)
        notes.append('logical')
    pairs = [(maps[..., 0], mask)] if classes == 1 else metrics.class_pairs(maps, mask)
    prepared = [hard.prepare(*pair) for pair in pairs]
    return {
        'scores': [metrics.score_all(prediction, truth) for prediction, truth in pairs],
        'calibration': np.stack([metrics.calibration_counts(*pair) for pair in prepared]),
        'levels': np.stack([metrics.calibration_counts(*pair, 256)[::2] for pair in prepared]),
        'notes': notes,
    }


def score_files(
    map_paths: Sequence[Path], mask: Map | MaskFile, classes: int, reading: Reading = UNDECIDED
) -> dict[str, Any]:
    """Returns `score_maps` of map files, one a class or one of all, or `{'fault': reason}` where one cannot be used."""
    try:
        if isinstance(mask, MaskFile) and reader_of(mask.path) is reader_of(map_paths[0]) is nifti:
            nifti.check_same_grid(locate(map_paths[0])[0], locate(mask.path)[0])
        truth = mask if isinstance(mask, np.ndarray) else mask.read()
        result = score_maps(read_maps(map_paths, classes, reading), truth, classes)
    except InputError as error:
        return {'fault': str(error)}
    if deep_kind(map_paths[0]) == 'integers' and reading.white(DEEPEST, floats=False) == DEEPEST:
        result['notes'].append('sixteen_bit')
    return result


def read_maps(
    paths: Sequence[Path], classes: int = 1, reading: Reading = UNDECIDED
) -> UInt8[np.ndarray, 'height width classes']:
    """Reads the map files of one image, one a class or one of all classes."""
    if len(paths) == 1 < classes:
        return read_map(paths[0], reading, classes)
    maps = [read_map(path, reading) for path in paths]
    if len({one.shape for one in maps}) > 1:
        raise InputError(f'{paths[0]}: the maps of the other classes have another size; give all the same')
    return np.stack(maps, -1)
