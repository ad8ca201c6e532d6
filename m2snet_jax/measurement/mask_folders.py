"""The lesions in a folder of masks of any origin."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from m2snet_jax.data.affixes import match_names
from m2snet_jax.data.patterns import describe_content, top_folder
from m2snet_jax.errors import InputError
from m2snet_jax.images import nifti
from m2snet_jax.images.colors import parse_colors
from m2snet_jax.images.decisions import map_reading, mask_reading
from m2snet_jax.images.formats import read_map, read_mask
from m2snet_jax.images.spacing import UNKNOWN, Spacing, read_spacing
from m2snet_jax.measurement.findings import Findings, find_lesions
from m2snet_jax.prediction.folders import MARK, index_of
from m2snet_jax.prediction.series import Series, group_series


class MaskImages:
    """Masks of a folder or a pattern: pictures, and NIfTI volumes as a whole.

    Of a folder that `predict` wrote, its maps are read; its own masks and overlays are left out.

    Args:
        folder: folder, pattern or file (see data/patterns.py).
        flag: that gave it, for messages.
        data: `config.data`: classes and colors.
        threshold: of levels 0…255 as probabilities; what is below is no lesion. Class indices are taken as they are.

    Attributes:
        names: of pictures and volumes.
        notes: how the files are read.

    Raises:
        InputError: no such folder, no masks in it, or masks that cannot be read by one rule.
    """

    def __init__(self, folder: str | Path, flag: str, data: Any, threshold: float = 0.5):
        top = top_folder(Path(folder))
        self._is_own, self._classes, self._threshold = (top / MARK).exists(), data.classes, threshold
        index = index_of(folder, flag, lambda path: self._is_own and _is_beside_maps(path, top))
        if not index:
            raise InputError(f'--{flag}={folder}: no masks found; {describe_content(folder)}')
        paths = list(index.values())
        if self._is_own and self._classes == 1:
            self._reading = map_reading(paths, is_own=True)
        else:
            self._reading = mask_reading(paths, data.classes, parse_colors(data.colors, data.classes))
        if self._reading.problem:
            raise InputError(self._reading.problem)
        self._series: dict[str, Series] = {}
        for series in group_series(index.items()):
            if series.reader is nifti:
                self._series[series.name] = series
            else:
                self._series |= {name: Series(name, None, [(name, path)]) for name, path in series.images}
        self.names, self.notes = list(self._series), list(self._reading.notes)

    def address(self, name: str) -> Path:
        """Returns the address of a picture, or of the first slice of a volume."""
        return self._series[name].images[0][1]

    def masks(self, name: str) -> Bool[np.ndarray, '*slices height width classes']:
        """Returns the masks of each class of a picture or a volume; raises InputError where they cannot be read."""
        series = self._series[name]
        masks = [self._mask(path) for _, path in series.images]
        return np.stack(masks) if series.reader is nifti else masks[0]

    def _mask(self, path):
        if self._is_own and self._classes == 1:
            return (read_map(path, self._reading) >= self._threshold * 255)[..., None]
        levels = read_mask(path, self._reading, self._classes)
        if self._classes == 1:
            return (levels >= self._threshold * 255)[..., None]
        if levels.max() > self._classes:
            raise InputError(
                f'{path}: value {levels.max()} found, but data.classes={self._classes}; correct the mask or '
                'data.classes'
            )
        return levels[..., None] == np.arange(1, self._classes + 1)


def _is_beside_maps(path: Path, top: Path) -> bool:
    """Whether a file in a folder of `predict` is no map that it measures."""
    inside = path.relative_to(top).parts if path.is_relative_to(top) else ()
    return inside[:1] in (('masks',), ('overlays',)) or path.name.endswith(('_raw.nii.gz', '_seg.dcm'))


def measure_masks(
    masks: MaskImages, smallest: int = 0, spacing_of: dict[str, Path] | None = None
) -> tuple[list[Findings], list[str], list[str]]:
    """Returns the findings of all masks, notes, and a line for each file that cannot be read.

    Args:
        masks: see MaskImages.
        smallest: lesions of fewer pixels, in a volume voxels, are left out.
        spacing_of: {name: address of the image that has the spacing}; the mask's own file by default.
    """
    found, notes, faults = [], list(masks.notes), []
    for name in masks.names:
        try:
            spacing = _spacing(masks.address(name), (spacing_of or {}).get(name))
            found += find_lesions(name, masks.masks(name), None, spacing, smallest)
            notes.append(spacing.note)
        except InputError as error:
            faults.append(str(error))
    return found, list(dict.fromkeys(note for note in notes if note)), faults


def _spacing(mask: Path, image: Path | None) -> Spacing:
    """Returns the spacing of an image, else of its mask."""
    spacing = UNKNOWN if image is None else read_spacing(image)
    return read_spacing(mask) if spacing == UNKNOWN else spacing


def pair_images(names: Sequence[str], folder: str | Path) -> dict[str, Path]:
    """Returns {name of a mask: address of its image}, of a volume that of its first slice; see data/affixes.py."""
    images = {}
    for series in group_series(index_of(folder, 'images').items()):
        if series.reader is nifti:
            images[series.name] = series.images[0][1]
        else:
            images |= dict(series.images)
    partners, _ = match_names(names, images, ('masks', 'images'))
    if not partners:
        raise InputError(f'--images={folder}: no image has the name of a mask, as {names[0]!r}')
    return {name: images[image] for name, image in partners.items()}


def pair_findings(
    found: Sequence[Findings], reference: Sequence[Findings], faults: Sequence[str] = ()
) -> tuple[list[Findings], list[Findings], list[str]]:
    """Pairs the findings of masks with those of a reference by name; see data/affixes.py.

    Args:
        found, reference: one of each image and class.
        faults: lines that come first.

    Returns:
        The findings of both sides in one order, and a line for each image without a partner of its size.

    Raises:
        InputError: no name in common.
    """
    names, others = (list(dict.fromkeys(one.image for one in side)) for side in (found, reference))
    partners, lines = match_names(names, others, ('masks', 'reference'))
    for line in lines:
        print(line, file=sys.stderr)
    if not partners:
        raise InputError(f'--reference: no mask of it has the name of one of --masks, as {names[:1]}')
    absent = [f'{name}: has no mask in --reference' for name in names if name not in partners]
    absent += [f'{name}: has no mask in --masks' for name in others if name not in partners.values()]
    of_reference = {(one.image, one.class_index): one for one in reference}
    pairs = [(one, of_reference[partners[one.image], one.class_index]) for one in found if one.image in partners]
    for one, other in pairs:
        if one.labels.shape != other.labels.shape:
            sizes = ['x'.join(map(str, side.labels.shape)) for side in (one, other)]
            absent.append(f'{one.image}: the mask has {sizes[0]} pixels, its reference {sizes[1]}; give both one size')
    pairs = [(one, other) for one, other in pairs if one.labels.shape == other.labels.shape]
    return [one for one, _ in pairs], [other for _, other in pairs], [*faults, *absent]
